"""The elastic FasterNet: one set of weights for every config of a space.

A config's network is a corner of the largest one: the first channels, hidden units and blocks, and
the corner [:c_p, :c_p] of each PConv's kernel, as in slimmable networks (arXiv 1812.08928) and
once-for-all (arXiv 1908.09791). Only the stem is not sliced: each stem stride has one of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.batch_norms import recalibrate
from search_spaces.elastic import ACTIVATE, run_conv, run_stage, run_stem, stage_shapes
from search_spaces.fasternet import FasterNetConfig
from search_spaces.network import FasterNet, Stage, Stem, build, check_weights, initialise
from search_spaces.space import Each, OneOf, Space


class Supernet(nn.Module):
    """The largest FasterNet of a space, of which every config's network is a part.

    It is initialised from torch's global generator, as `build` does. Activation and stem stride
    are those of the config; the resolution is that of the images.

    Args:
        space: any space of `FasterNetConfig`.

    Raises:
        TypeError: if the space is one of other configs.
    """

    def __init__(self, space: Space[FasterNetConfig]) -> None:
        super().__init__()
        if space.config_class is not FasterNetConfig:
            raise TypeError(f"`space` must hold configs of class FasterNetConfig, but holds "
                            f"{space.config_class.__name__}. Train its networks one by "
                            "one.")  # fmt: skip
        self.space = space
        largest = _largest(space)
        network = build(largest)
        self.patch_embeds = nn.ModuleDict(
            {str(s): Stem(3, largest.widths[0], s) for s in _choices(space, "stem_stride")}
        )
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
        shared statistics, which fit only the config whose weights were loaded last: score a
        config of a trained supernet with `recalibrated`.

        Raises:
            ValueError: if the config is not in the space.
        """
        self.space.encode(config)
        x = run_stem(images, self._stem(config), config.widths[0])
        for stage, shape in zip(self.stages, stage_shapes(config), strict=False):
            x = run_stage(x, cast(Stage, stage), shape)
        x = run_conv(F.adaptive_avg_pool2d(x, 1), self.conv_head, config.head_width)
        weight = self.classifier.weight[: config.classes, : config.head_width]
        x = ACTIVATE[config.activation](x).flatten(1)
        return F.linear(x, weight, self.classifier.bias[: config.classes])

    def weights_of(self, config: FasterNetConfig) -> dict[str, Tensor]:
        """Return a copy of the config's weights: the state dict of `build(config)`.

        Raises:
            ValueError: if the config is not in the space.
        """
        return {name: weight.clone(memory_format=torch.contiguous_format)
                for name, weight in self._corners(config).items()}  # fmt: skip

    def load_weights(self, config: FasterNetConfig, weights: Mapping[str, Tensor]) -> None:
        """Put the weights of a config's network, or of timm's of that shape, into their places.

        Batch-norm statistics are among them; every weight that the config does not use stays.

        Raises:
            ValueError: if the config is not in the space, or a weight is missing, left over or of
                another shape; then nothing has changed.
        """
        corners = self._corners(config)
        check_weights(corners, weights)
        for name, corner in corners.items():
            corner.copy_(weights[name])

    def recalibrated(self, config: FasterNetConfig, batches: Iterable[Tensor]) -> FasterNet:
        """Return the config's network in evaluation mode, its batch norms calibrated anew.

        Their statistics become the plain mean over the batches, image tensors [n, 3, height,
        width] on the supernet's device. The network shares no memory with the supernet.

        Raises:
            ValueError: if the config is not in the space, or there is no batch.
        """
        network = _undrawn(config)
        network.load_state_dict(self.weights_of(config), assign=True)
        recalibrate(network, batches)
        return network.eval()

    def _stem(self, config: FasterNetConfig) -> Stem:
        return cast(Stem, self.patch_embeds[str(config.stem_stride)])

    def _corners(self, config: FasterNetConfig) -> dict[str, Tensor]:
        """The config's weights, under the names of `build(config)`, as views without gradient."""
        self.space.encode(config)
        own, stem = self.state_dict(), f"patch_embeds.{config.stem_stride}."
        return {
            name: own[name.replace("patch_embed.", stem, 1)][tuple(map(slice, weight.shape))]
            for name, weight in _undrawn(config).state_dict().items()
        }


def _undrawn(config: FasterNetConfig) -> FasterNet:
    """The network without memory for its weights: names and shapes."""
    with torch.device("meta"):
        return build(config)


def _choices(space: Space[Any], name: str) -> tuple[Any, ...]:
    """The values that a field may take, where they are not chosen stage by stage."""
    node = space.fields.get(name, getattr(space.config_class, name, None))  # or its default
    return node.choices if isinstance(node, OneOf) else (node,)


def _tuples(space: Space[Any], name: str) -> Sequence[tuple[Any, ...]]:
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
