"""The building blocks of FasterNet, run on the first channels of wider weights.

Each function is the formula of a module in `search_spaces/network.py`, given that module at its
largest. An input of c channels meets the leading c of the input channels of a weight; a slice is a
view, so gradients reach it and nothing else. Batch norms normalise by the batch in training, that
of all workers, and leave the running statistics alone, which would be a mixture of those of all
widths.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import cast

from torch import Tensor, cat, nn
from torch.nn import functional as F

from search_spaces.fasternet import Activation, FasterNetConfig
from search_spaces.network import Block, Merging, PConv, Stage, Stem
from search_spaces.shared_norm import normalised, several_workers

ACTIVATE: Mapping[Activation, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


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
    numbers = (config.widths, config.depths, config.partial_widths, config.hidden_widths)
    return [
        StageShape(c=c, depth=depth, c_p=c_p, hidden=hidden, activation=config.activation)
        for c, depth, c_p, hidden in zip(*numbers, strict=True)
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
    y = run_pconv(x, block.spatial_mixing, shape.c_p)
    y = run_norm(run_conv(y, cast(nn.Conv2d, expand), shape.hidden), norm)
    return x + run_conv(ACTIVATE[shape.activation](y), cast(nn.Conv2d, project), shape.c)


def run_pconv(x: Tensor, pconv: PConv, c_p: int) -> Tensor:
    """cat(Conv3x3(x[:, :c_p]), x[:, c_p:]), with the corner [:c_p, :c_p] of the kernel."""
    convolved = run_conv(x[:, :c_p], pconv.partial_conv3, c_p)
    return cat((convolved, x[:, c_p:]), dim=1) if c_p < x.shape[1] else convolved


def run_conv(x: Tensor, conv: nn.Conv2d, c_out: int) -> Tensor:
    """Conv(x) with the leading channels of the weight; no convolution of FasterNet has a bias."""
    weight = conv.weight[:c_out, : x.shape[1]]
    return F.conv2d(x, weight, None, conv.stride, conv.padding)


def run_norm(x: Tensor, norm: nn.Module) -> Tensor:
    """BN(x) with the leading affine parameters, and in evaluation the leading statistics."""
    norm, c = cast(nn.BatchNorm2d, norm), x.shape[1]
    weight, bias = norm.weight[:c], norm.bias[:c]
    if norm.training and several_workers():
        return normalised(x, weight=weight, bias=bias, eps=norm.eps)
    if norm.training:
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=norm.eps)
    mean, var = cast(Tensor, norm.running_mean)[:c], cast(Tensor, norm.running_var)[:c]
    return F.batch_norm(x, mean, var, weight, bias, eps=norm.eps)
