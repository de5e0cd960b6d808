"""Batch norm folded into the convolution before it, as networks are deployed."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def folded(network: nn.Module, image: Tensor) -> nn.Module:
    """Return a copy in evaluation mode whose batch norms are folded into their convolutions.

    `image` is an input, of shape [1, ...], with which is found out what follows what. A norm that
    comes with an activation leaves that behind; one that follows no convolution stays.
    """
    network = copy.deepcopy(network).eval()
    for conv, name in list(_pairs(network, image)):
        norm: Any = network.get_submodule(name)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight,
            norm.bias,
        )  # fmt: skip
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, _remainder(norm))
    return network


def _pairs(network: nn.Module, image: Tensor) -> Iterator[tuple[Any, str]]:
    """Each convolution whose output goes into a batch norm, and the norm's name."""
    made: list[tuple[nn.Conv2d, Tensor]] = []  # tensors are kept, so that none is mistaken
    taken: list[tuple[str, Tensor]] = []
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(lambda m, _, out: made.append((m, out))))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(
                lambda _, inputs, name=name: taken.append((name, inputs[0]))))  # fmt: skip
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    for conv, output in made:
        yield from ((conv, name) for name, given in taken if given is output)


def _remainder(norm: nn.Module) -> nn.Module:
    """What a norm does besides: nothing, or, for timm's, its activation."""
    children = list(norm.children())
    return nn.Sequential(*children) if children else nn.Identity()
