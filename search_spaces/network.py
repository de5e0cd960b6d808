"""FasterNet (arXiv 2303.03667, section 3) in torch; weights to and from timm's `fasternet_*`.

The submodules bear timm's names, so that weights go both ways without renaming.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.fasternet import (
    Activation,
    FasterNetConfig,
    stem_strides,
)
from search_spaces.fasternet_layers import squeezed_width, stem_width
from search_spaces.io import listed
from search_spaces.layers import QUERY_WIDTH

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
}


def activation(name: Activation) -> nn.Module:
    """Return the activation layer of that name."""
    return _ACTIVATIONS[name]()


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """What the blocks of one stage are made of; see FasterNetConfig for the words."""

    c: int  # channels
    c_p: int  # channels that are mixed over space
    hidden: int  # channels between expansion and projection
    kernel: int
    groups: int
    gated: bool
    attention: bool
    fused: bool
    star: bool
    activation: Activation


def block_shapes(config: FasterNetConfig) -> list[BlockShape]:
    """Return the shape of the blocks of each stage, in order."""
    return [
        BlockShape(
            c=c,
            c_p=config.partial_widths[i],
            hidden=config.hidden_widths[i],
            kernel=config.kernels[i],
            groups=config.partial_groups[i],
            gated=config.untouched[i] == "gate",
            attention=config.mixers[i] == "attention",
            fused=config.expands[i] == "fused",
            star=config.mlps[i] == "star",
            activation=config.stage_activations[i],
        )
        for i, c in enumerate(config.widths[: config.stages])
    ]


class SameConv(nn.Conv2d):
    """A convolution that keeps the map's size; of an even kernel's zeros one more lies behind."""

    def __init__(self, c_in: int, c_out: int, kernel: int, groups: int = 1) -> None:
        super().__init__(c_in, c_out, kernel, padding=(kernel - 1) // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size[0] % 2 == 1:
            return super().forward(x)
        if torch.onnx.is_in_onnx_export():  # one node with auto_pad, where F.pad would be another
            return F.conv2d(x, self.weight, self.bias, 1, "same", 1, self.groups)
        k = self.kernel_size[0] // 2
        x = F.pad(x, (k - 1, k, k - 1, k))
        return F.conv2d(x, self.weight, self.bias, 1, 0, 1, self.groups)


class Branches(nn.Module):
    """BN(Conv(x)) + BN(Conv1x1(x)) + BN(x): one convolution, as RepVGG trains it (2101.03697)."""

    def __init__(self, conv: SameConv) -> None:
        super().__init__()
        c = conv.in_channels
        self.conv = conv
        self.point = nn.Conv2d(c, c, 1, groups=conv.groups, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        of_conv, of_point, of_identity = self.norms
        y: Tensor = of_conv(self.conv(x)) + of_point(self.point(x)) + of_identity(x)
        return y

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return the kernel and the bias of the one convolution that does the same."""
        kernel = self.conv.weight
        middle = (kernel.shape[-1] - 1) // 2  # where a 1x1 lies in it
        point, identity = torch.zeros_like(kernel), torch.zeros_like(kernel)
        point[:, :, middle, middle] = self.point.weight[:, :, 0, 0]
        outputs = torch.arange(len(kernel), device=kernel.device)
        identity[outputs, outputs % kernel.shape[1], middle, middle] = 1.0
        weight, bias = torch.zeros_like(kernel), torch.zeros_like(kernel[:, 0, 0, 0])
        for branch, norm in zip((kernel, point, identity), self.norms, strict=True):
            scale, mean = _scale_and_mean(cast(nn.BatchNorm2d, norm))
            weight += branch * scale[:, None, None, None]
            bias += cast(Tensor, norm.bias) - mean * scale
        return weight, bias


def _scale_and_mean(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return a and m of the normalisation in evaluation, a (x - m) + bias."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    return norm.weight * (variance + norm.eps).rsqrt(), mean


class Gate(nn.Module):
    """x * hard_sigmoid(Conv1x1(relu(Conv1x1(pool(x))))): squeeze and excite (arXiv 1709.01507)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(c, squeezed_width(c), 1)
        self.excite = nn.Conv2d(squeezed_width(c), c, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))
        return x * F.hardsigmoid(self.excite(squeezed))


class Attention(nn.Module):
    """v softmax(q k / sqrt(d)), one head (SHViT, arXiv 2401.16456); q, k, v = BN(Conv1x1(x))."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.sizes = [QUERY_WIDTH, QUERY_WIDTH, c]
        self.scale = QUERY_WIDTH**-0.5  # 1: the convolution has it in its weights
        self.qkv = nn.Conv2d(c, sum(self.sizes), 1, bias=False)
        self.norm = nn.BatchNorm2d(sum(self.sizes))

    def forward(self, x: Tensor) -> Tensor:
        height, width = int(x.shape[2]), int(x.shape[3])  # constants when exported
        qkv = self.norm(self.qkv(x)).reshape(-1, sum(self.sizes), height * width)
        q, k, v = torch.split(qkv, self.sizes, dim=1)
        scores = q.transpose(1, 2) @ k
        weights = (scores if self.scale == 1.0 else scores * self.scale).softmax(dim=-1)
        return torch.matmul(v, weights.transpose(1, 2)).reshape(-1, self.sizes[2], height, width)

    @torch.no_grad()
    def fold_scale(self) -> None:
        """Have the convolution scale the queries; its norm must have been folded into it.

        The scale is a power of two, so nothing is rounded. Multiplying the scores is an operator
        more, which OpenVINO refuses in eight bits.
        """
        assert self.qkv.bias is not None
        for values in (self.qkv.weight, self.qkv.bias):
            values[:QUERY_WIDTH] *= self.scale
        self.scale = 1.0


class PConv(nn.Module):
    """cat(Conv(x[:, :c_p]), gate(x[:, c_p:])): mixes c_p of the c channels, passes on the rest."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.sizes = [shape.c_p, shape.c - shape.c_p]
        self.partial_conv3: nn.Module = (
            Attention(shape.c_p)
            if shape.attention
            else SameConv(shape.c_p, shape.c_p, shape.kernel, shape.groups)
        )
        gated = shape.gated and self.sizes[1] > 0
        self.gate: nn.Module = Gate(self.sizes[1]) if gated else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.sizes[1] == 0:
            return self.partial_conv3(x)  # type: ignore[no-any-return]
        mixed, untouched = torch.split(x, self.sizes, dim=1)
        return torch.cat((self.partial_conv3(mixed), self.gate(untouched)), dim=1)


class Star(nn.Module):
    """f(x) * g(x) (StarNet, arXiv 2403.19967), with f the layers before and g = BN(Conv1x1(x))."""

    def __init__(self, c: int, hidden: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """x + Conv1x1(act(BN(Conv1x1(PConv(x))))), the residual branch dropped at `drop_path`.

    Fused, PConv and the first 1x1 are one convolution. With a star, what comes before the
    projection is multiplied by BN(Conv1x1(PConv(x))).
    """

    def __init__(self, shape: BlockShape, drop_path: float) -> None:
        super().__init__()
        c, hidden = shape.c, shape.hidden
        self.spatial_mixing: nn.Module = nn.Identity() if shape.fused else PConv(shape)
        self.mlp = nn.Sequential(
            SameConv(c, hidden, shape.kernel if shape.fused else 1),
            nn.BatchNorm2d(hidden),
            activation(shape.activation),
            nn.Conv2d(hidden, c, 1, bias=False),
        )
        self.star: nn.Module | None = Star(c, hidden) if shape.star else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.spatial_mixing(x)
        y = self.mlp(mixed) if self.star is None else self._product(mixed, self.star)
        return x + self.drop_path(y)  # type: ignore[no-any-return]

    @torch.no_grad()
    def fold_branches(self) -> None:
        """Make the branches one convolution without a bias, which the next batch norms take up."""
        mixing = self.spatial_mixing
        if not isinstance(mixing, PConv) or not isinstance(mixing.partial_conv3, Branches):
            return
        branches = mixing.partial_conv3
        weight, bias = branches.folded()
        pairs = [(self.mlp[0], self.mlp[1])]
        if isinstance(self.star, Star):
            pairs.append((self.star.conv, self.star.norm))
        for conv, norm in pairs:
            shift = cast(nn.Conv2d, conv).weight[:, : len(bias), 0, 0] @ bias
            _scale_and_mean(cast(nn.BatchNorm2d, norm))[1].sub_(shift)
        branches.conv.weight.copy_(weight)
        mixing.partial_conv3 = branches.conv

    def _product(self, x: Tensor, star: nn.Module) -> Tensor:
        return self.mlp[3](self.mlp[:3](x) * star(x))  # type: ignore[no-any-return]


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


class ConvStem(nn.Module):
    """BN(Conv3x3(act(BN(Conv3x3(x))))), with the stride spread over both."""

    def __init__(self, c_in: int, c_out: int, stride: int, act: Activation) -> None:
        super().__init__()
        first, second = stem_strides(stride)
        middle = stem_width(c_out)
        self.convs = nn.Sequential(
            nn.Conv2d(c_in, middle, 3, first, 1, bias=False),
            nn.BatchNorm2d(middle),
            activation(act),
            nn.Conv2d(middle, c_out, 3, second, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)  # type: ignore[no-any-return]


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
        self.patch_embed = _stem(config)
        self.stages = nn.Sequential(*_stages(config, drop_path))
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        c, head = config.out_width, config.head_width
        self.conv_head: nn.Module = nn.Conv2d(c, head, 1, bias=False) if head else nn.Identity()
        self.act = activation(config.activation) if head else nn.Identity()
        self.classifier = nn.Linear(head or c, config.classes)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.patch_embed(x))
        x = self.act(self.conv_head(self.global_pool(x)))
        return self.classifier(x.flatten(1))  # type: ignore[no-any-return]


def build(config: FasterNetConfig, *, drop_path: float = 0.0, branches: bool = False) -> FasterNet:
    """Build the network of a config, freshly initialised from torch's global generator.

    `drop_path` is the rate of the last block; it rises linearly from 0 over all blocks. With
    `branches`, for training, each partial convolution is a sum of three; see `fold_branches`.

    Raises:
        ValueError: if `drop_path` is not in [0, 1).
    """
    if not 0.0 <= drop_path < 1.0:
        raise ValueError(f"`drop_path` must be in [0, 1), but got {drop_path}.")
    network = FasterNet(config, drop_path=drop_path)
    if branches:
        for module in network.modules():
            if isinstance(module, PConv) and isinstance(module.partial_conv3, SameConv):
                module.partial_conv3 = Branches(module.partial_conv3)
                module.partial_conv3.point.apply(initialise)
    return network


def fold_branches(network: FasterNet) -> None:
    """Fold the branches that `build` made, in place: the outputs in evaluation stay the same.

    The weights are then those of the network as it is deployed, `build(config)`.
    """
    for module in network.modules():
        if isinstance(module, Block):
            module.fold_branches()


def from_timm_weights(config: FasterNetConfig, weights: Mapping[str, Tensor]) -> FasterNet:
    """Build the network with the weights of a timm `fasternet_*` of the same shape.

    Raises:
        ValueError: if a weight is missing, left over or of another shape.
    """
    least, given = sum(n.weights for n in config.layers()), sum(w.numel() for w in weights.values())
    if least > 2 * given:  # before there is memory for a network that is nothing like them
        raise ValueError(
            f"The weights must be {least:,} numbers or more for this config, but are {given:,}. "
            "Use the config of these weights."
        )
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

    Weights that were averaged (arXiv 1803.05407, section 3.2) see other activations than those
    whose statistics they come with. The network is left in training mode.

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


def _stem(config: FasterNetConfig) -> nn.Module:
    c, stride = config.widths[0], config.stem_stride
    if config.stem == "convs":
        return ConvStem(3, c, stride, config.stage_activations[0])
    return Stem(3, c, stride)


def _stages(config: FasterNetConfig, drop_path: float) -> list[Stage]:
    shapes = block_shapes(config)
    merging = [Merging(before.c, shape.c) for before, shape in pairwise(shapes)]
    last = max(sum(config.depths) - 1, 1)
    rates = iter([drop_path * i / last for i in range(sum(config.depths))])
    stages = zip(shapes, config.depths, [nn.Identity(), *merging], strict=False)
    return [
        Stage(downsample, [Block(shape, next(rates)) for _ in range(depth)])
        for shape, depth, downsample in stages
    ]


class Backbone(nn.Module):
    """The map after each stage, the finest first: [n, channels[i], side / strides[i], ...].

    The weights are shared with the network and keep their names.
    """

    def __init__(self, network: FasterNet) -> None:
        super().__init__()
        config = network.config
        self.channels = config.widths[: config.stages]
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
    return tuple(config.stem_stride * 2**i for i in range(config.stages))
