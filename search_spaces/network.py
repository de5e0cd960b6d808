"""FasterNet (arXiv 2303.03667, section 3) in torch; weights to and from timm's `fasternet_*`.

The submodules bear timm's names, so that weights go both ways without renaming.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from search_spaces.fasternet import Activation, FasterNetConfig
from search_spaces.io import listed

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


def activation(name: Activation) -> nn.Module:
    """Return the activation layer of that name."""
    return _ACTIVATIONS[name]()


class PConv(nn.Module):
    """cat(Conv3x3(x[:, :c_p]), x[:, c_p:]): convolves c_p of the c channels, passes the rest."""

    def __init__(self, c: int, c_p: int) -> None:
        super().__init__()
        self.sizes = [c_p, c - c_p]
        self.partial_conv3 = nn.Conv2d(c_p, c_p, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.sizes[1] == 0:
            return self.partial_conv3(x)  # type: ignore[no-any-return]
        convolved, untouched = torch.split(x, self.sizes, dim=1)
        return torch.cat((self.partial_conv3(convolved), untouched), dim=1)


class Block(nn.Module):
    """x + Conv1x1(act(BN(Conv1x1(PConv(x))))), the residual branch dropped at `drop_path`."""

    def __init__(self, c: int, c_p: int, hidden: int, act: Activation, drop_path: float) -> None:
        super().__init__()
        self.spatial_mixing = PConv(c, c_p)
        self.mlp = nn.Sequential(
            nn.Conv2d(c, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            activation(act),
            nn.Conv2d(hidden, c, 1, bias=False),
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp(self.spatial_mixing(x)))  # type: ignore[no-any-return]


class DropPath(nn.Module):
    """x * Bernoulli(1 - p) / (1 - p), one draw a sample; the identity in evaluation."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0.0 or not self.training:
            return x
        keep = 1.0 - self.p
        return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep).div_(keep)


class Stem(nn.Module):
    """BN(Conv(x)), kernel = stride."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(c_in, c_out, stride, stride, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))  # type: ignore[no-any-return]


class Merging(nn.Module):
    """BN(Conv2x2(x)), stride 2."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(c_in, c_out, 2, 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """blocks(downsample(x))."""

    def __init__(self, downsample: nn.Module, blocks: list[Block]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))  # type: ignore[no-any-return]


class FasterNet(nn.Module):
    """FasterNet (arXiv 2303.03667): classifier(act(conv_head(pool(stages(stem(x)))))).

    Maps images of shape [n, 3, resolution, resolution] to logits of shape [n, classes].
    """

    def __init__(self, config: FasterNetConfig, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = Stem(3, config.widths[0], config.stem_stride)
        self.stages = nn.Sequential(*_stages(config, drop_path))
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_head = nn.Conv2d(config.widths[-1], config.head_width, 1, bias=False)
        self.act = activation(config.activation)
        self.classifier = nn.Linear(config.head_width, config.classes)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.patch_embed(x))
        x = self.act(self.conv_head(self.global_pool(x)))
        return self.classifier(x.flatten(1))  # type: ignore[no-any-return]


def build(config: FasterNetConfig, *, drop_path: float = 0.0) -> FasterNet:
    """Build the network of a config, freshly initialised from torch's global generator.

    `drop_path` is the rate of the last block; it rises linearly from 0 over all blocks.

    Raises:
        ValueError: if `drop_path` is not in [0, 1).
    """
    if not 0.0 <= drop_path < 1.0:
        raise ValueError(f"`drop_path` must be in [0, 1), but got {drop_path}.")
    return FasterNet(config, drop_path=drop_path)


def from_timm_weights(config: FasterNetConfig, weights: Mapping[str, Tensor]) -> FasterNet:
    """Build the network with the weights of a timm `fasternet_*` of the same shape.

    Raises:
        ValueError: if a weight is missing, left over or of another shape.
    """
    network = build(config)
    check_weights(network.state_dict(), weights)
    network.load_state_dict(dict(weights))
    return network


def check_weights(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], *, left_over: Sequence[str] = ()
) -> None:
    """Refuse weights for a network whose own weights have other names or shapes.

    `left_over` are further names that were given.

    Raises:
        ValueError: if a weight is missing, left over or of another shape.
    """
    other = [
        f"{name} {tuple(weights[name].shape)} for {tuple(weight.shape)}"
        for name, weight in own.items()
        if name in weights and weights[name].shape != weight.shape
    ]
    found = {
        "missing": [name for name in own if name not in weights],
        "left over": [*(name for name in weights if name not in own), *left_over],
        "of another shape": other,
    }
    wrong = [f"{len(names)} {what} ({listed(names)})" for what, names in found.items() if names]
    if wrong:
        raise ValueError(
            f"The weights must be the {len(own)} of this config, but there are "
            f"{', '.join(wrong)}. Use the config of these weights."
        )


def to_timm_weights(network: FasterNet) -> dict[str, Tensor]:
    """Return the weights under the names of timm's FasterNet; the tensors are shared."""
    return dict(network.state_dict())


def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the statistics of all batch norms to their plain mean over the batches, of images.

    Weights that were averaged (arXiv 1803.05407, section 3.2) or sliced from larger ones see other
    activations than those whose statistics they come with. The network is left in training mode.

    Raises:
        ValueError: if there is no batch.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    network.train()
    with torch.no_grad():
        for images in batches:
            network(images)
    if any(norm.num_batches_tracked == 0 for norm in norms):
        raise ValueError(
            "`batches` must hold at least one batch of images, but holds none. Give some training "
            "images."
        )
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def initialise(module: nn.Module) -> None:
    """Truncated normal with deviation 0.02 for convolutions and linear layers, bias 0."""
    if not isinstance(module, (nn.Conv2d, nn.Linear)):
        return
    nn.init.trunc_normal_(module.weight, std=0.02)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _stages(config: FasterNetConfig, drop_path: float) -> list[Stage]:
    merging = [Merging(c_in, c_out) for c_in, c_out in pairwise(config.widths)]
    last = max(sum(config.depths) - 1, 1)
    rates = iter([drop_path * i / last for i in range(sum(config.depths))])
    shapes = zip(
        config.widths,
        config.partial_widths,
        config.hidden_widths,
        config.depths,
        [nn.Identity(), *merging],
        strict=True,
    )
    return [
        Stage(
            downsample,
            [Block(c, c_p, hidden, config.activation, next(rates)) for _ in range(depth)],
        )
        for c, c_p, hidden, depth, downsample in shapes
    ]


class Backbone(nn.Module):
    """The map after each stage, the finest first: [n, channels[i], side / strides[i], ...].

    The weights are shared with the network and keep their names.
    """

    def __init__(self, network: FasterNet) -> None:
        super().__init__()
        config = network.config
        self.channels = config.widths
        self.strides = strides(config)
        self.patch_embed = network.patch_embed
        self.stages = network.stages

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.patch_embed(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


def strides(config: FasterNetConfig) -> tuple[int, ...]:
    """Return how many pixels of the image an element of the map after each stage stands for."""
    return tuple(config.stem_stride * 2**i for i in range(len(config.widths)))
