"""The elastic FasterNet: one set of weights for every config of a space.

A config's network is a corner of the largest one: the first channels, hidden units and blocks, and
the corner [:c_p, :c_p] of each PConv's kernel, as in slimmable networks (arXiv 1812.08928) and
once-for-all (arXiv 1908.09791). Only the stem is not sliced: each stem stride has one of its own.

The functions at the end are the formulas of the modules in `search_spaces/network.py`, given that
module at its largest. An input of c channels meets the leading c of the input channels of a weight;
a slice is a view, so gradients reach it and nothing else. Batch norms normalise by the batch in
training and leave the running statistics alone, which would be a mixture of those of all widths.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.fasternet import INGREDIENTS, Activation, FasterNetConfig
from search_spaces.network import (
    Block,
    FasterNet,
    Merging,
    PConv,
    Stage,
    Stem,
    build,
    initialise,
    recalibrate,
)
from search_spaces.space import AnySpace, Each, OneOf, Space

ACTIVATE: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "hardswish": F.hardswish,
}


class Supernet(nn.Module):
    """The largest FasterNet of a space, of which every config's network is a part.

    It is initialised from torch's global generator, as `build` does. Activation and stem stride
    are those of the config; the resolution is that of the images.
    """

    def __init__(self, space: Space[FasterNetConfig]) -> None:
        super().__init__()
        if space.config_class is not FasterNetConfig:
            raise TypeError(
                "`space` must hold configs of class FasterNetConfig, but holds "
                f"{space.config_class.__name__}. Train its networks one by one."
            )
        refuse_unpublished(space)
        self.space = space
        largest = _largest(space)
        network = build(largest)
        strides = _choices(space, "stem_stride")
        self.patch_embeds = nn.ModuleDict({str(s): Stem(3, largest.widths[0], s) for s in strides})
        self.stages = network.stages
        # Where spaces hold several numbers of stages, any of several stages may be the last.
        last_width = max(widths[-1] for widths in _tuples(space, "widths"))
        self.conv_head = nn.Conv2d(last_width, largest.head_width, 1, bias=False)
        self.classifier = network.classifier
        self.patch_embeds.apply(initialise)
        self.conv_head.apply(initialise)

    def forward(self, images: Tensor, config: FasterNetConfig) -> Tensor:
        """Run the config's network: images [n, 3, height, width] to logits [n, classes].

        In training, batch norms use the batch and keep no statistics. In evaluation they use the
        shared statistics, which fit only the config whose weights were copied in last: score a
        config of a trained supernet with `recalibrated`.
        """
        self.space.encode(config)
        stem = cast(Stem, self.patch_embeds[str(config.stem_stride)])
        x = run_stem(images, stem, config.widths[0])
        for stage, shape in zip(self.stages, stage_shapes(config), strict=False):
            x = run_stage(x, cast(Stage, stage), shape)
        x = run_conv(F.adaptive_avg_pool2d(x, 1), self.conv_head, config.head_width)
        weight = self.classifier.weight[: config.classes, : config.head_width]
        x = ACTIVATE[config.activation](x).flatten(1)
        return F.linear(x, weight, self.classifier.bias[: config.classes])

    def weights_of(self, config: FasterNetConfig) -> dict[str, Tensor]:
        """Return a copy of the config's weights: the state dict of `build(config)`."""
        self.space.encode(config)
        own, stem = self.state_dict(), f"patch_embeds.{config.stem_stride}."
        return {
            name: own[name.replace("patch_embed.", stem, 1)][tuple(map(slice, weight.shape))].clone(
                memory_format=torch.contiguous_format
            )
            for name, weight in _undrawn(config).state_dict().items()
        }

    def recalibrated(self, config: FasterNetConfig, batches: Iterable[Tensor]) -> FasterNet:
        """Return the config's network in evaluation mode, its batch norms calibrated anew.

        Their statistics become the plain mean over the batches, image tensors [n, 3, height,
        width] on the supernet's device. The network shares no memory with the supernet.
        """
        network = _undrawn(config)
        network.load_state_dict(self.weights_of(config), assign=True)
        recalibrate(network, batches)
        return network.eval()


def refuse_unpublished(space: Space[FasterNetConfig]) -> None:
    """Refuse spaces with blocks that share no weights: one set is sliced for those as published."""
    for name, published in {**INGREDIENTS, "stem": "patch"}.items():
        _refuse(name, _values(space, name) - {published})
    for name in ("depths", "head_width"):
        _refuse(name, _values(space, name) & {0})


def _refuse(name: str, values: Set[object]) -> None:
    if values:
        raise ValueError(
            f"`{name}` must be as in the published FasterNet to share the weights of a supernet, "
            f"but the space has {', '.join(map(str, values))}. Train its networks one by one."
        )


def _values(space: AnySpace, name: str) -> set[object]:
    """All the values that a field may take in some stage."""
    node = space.fields.get(name, ())
    choices = [item.choices for item in node.items] if isinstance(node, Each) else [(node,)]
    found = node.choices if isinstance(node, OneOf) else tuple(chain(*choices))
    return set(chain(*(v if isinstance(v, tuple) else (v,) for v in found)))


def _undrawn(config: FasterNetConfig) -> FasterNet:
    """The network without memory for its weights: names and shapes."""
    with torch.device("meta"):
        return build(config)


def _choices(space: AnySpace, name: str) -> tuple[Any, ...]:
    """The values that a field may take, where they are not chosen stage by stage."""
    node = space.fields.get(name, getattr(space.config_class, name, None))  # or its default
    return node.choices if isinstance(node, OneOf) else (node,)


def _tuples(space: AnySpace, name: str) -> Sequence[tuple[Any, ...]]:
    """The values of a field with an entry for each stage; of `each(...)` only the largest."""
    node = space.fields.get(name)
    if isinstance(node, Each):
        return [tuple(max(item.choices) for item in node.items)]
    return _choices(space, name)


def _largest(space: Space[FasterNetConfig]) -> FasterNetConfig:
    """The maximum of everything, in each stage. It need not be in the space."""
    per_stage = {
        name: [max(values) for values in zip_longest(*_tuples(space, name), fillvalue=0)]
        for name in ("widths", "depths", "partial_ratios", "expansions")
    }
    stages = min(map(len, per_stage.values()))
    fields: dict[str, Any] = {name: tuple(column[:stages]) for name, column in per_stage.items()}
    fields |= {name: max(_choices(space, name)) for name in ("head_width", "classes")}
    # Neither is a matter of the weights below; with these there may be any number of stages.
    return FasterNetConfig(**fields, stem_stride=1, resolution=2 ** (stages - 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class StageShape:
    """How much of a stage to run."""

    c: int  # channels
    depth: int  # blocks
    c_p: int  # channels that PConv convolves
    hidden: int  # channels between the two 1x1 convolutions
    activation: Activation


def stage_shapes(config: FasterNetConfig) -> list[StageShape]:
    """Return the shapes of a config's stages, in order."""
    return [
        StageShape(
            c=c,
            depth=config.depths[i],
            c_p=config.partial_widths[i],
            hidden=config.hidden_widths[i],
            activation=config.stage_activations[i],
        )
        for i, c in enumerate(config.widths)
    ]


def run_stem(x: Tensor, stem: Stem, c: int) -> Tensor:
    """BN(Conv(x)), kernel = stride, with c output channels."""
    return run_norm(run_conv(x, stem.proj, c), stem.norm)


def run_stage(x: Tensor, stage: Stage, shape: StageShape) -> Tensor:
    """The first blocks of the stage after its merging, which the first stage has not."""
    if isinstance(stage.downsample, Merging):
        x = run_norm(run_conv(x, stage.downsample.reduction, shape.c), stage.downsample.norm)
    for block in islice(stage.blocks, shape.depth):
        x = run_block(x, cast(Block, block), shape)
    return x


def run_block(x: Tensor, block: Block, shape: StageShape) -> Tensor:
    """x + Conv1x1(act(BN(Conv1x1(PConv(x))))); no path is dropped."""
    expand, norm, _, project = block.mlp
    y = run_pconv(x, cast(PConv, block.spatial_mixing), shape.c_p)
    y = run_norm(run_conv(y, cast(nn.Conv2d, expand), shape.hidden), norm)
    return x + run_conv(ACTIVATE[shape.activation](y), cast(nn.Conv2d, project), shape.c)


def run_pconv(x: Tensor, pconv: PConv, c_p: int) -> Tensor:
    """cat(Conv3x3(x[:, :c_p]), x[:, c_p:]), with the corner [:c_p, :c_p] of the kernel."""
    convolved = run_conv(x[:, :c_p], cast(nn.Conv2d, pconv.partial_conv3), c_p)
    return torch.cat((convolved, x[:, c_p:]), dim=1) if c_p < x.shape[1] else convolved


def run_conv(x: Tensor, conv: nn.Conv2d, c_out: int) -> Tensor:
    """Conv(x) with the leading channels of the weight; no convolution of FasterNet has a bias."""
    weight = conv.weight[:c_out, : x.shape[1]]
    return F.conv2d(x, weight, None, conv.stride, conv.padding)


def run_norm(x: Tensor, norm: nn.Module) -> Tensor:
    """BN(x) with the leading affine parameters, and in evaluation the leading statistics."""
    if norm.training and not isinstance(norm, nn.BatchNorm2d):
        return norm(x)  # type: ignore[no-any-return]  # one over several workers
    norm, c = cast(nn.BatchNorm2d, norm), x.shape[1]
    weight, bias = norm.weight[:c], norm.bias[:c]
    if norm.training:
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=norm.eps)
    mean, var = cast(Tensor, norm.running_mean)[:c], cast(Tensor, norm.running_var)[:c]
    return F.batch_norm(x, mean, var, weight, bias, eps=norm.eps)
