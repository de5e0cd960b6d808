"""Training-free scores: how good an untrained network looks. Higher is better; never an accuracy.

Each is a function of a network that leaves it bit-identical.
"""

import copy
import math

import torch
from torch import nn

from search_spaces.network import FasterNet

_PIXELS = 64  # the flow through a network hardly depends on the image's size, its cost does


def log_synflow(network: FasterNet) -> float:
    """Score by the synaptic flow through all weights (arXiv 2006.05467, equations 1 and 2).

    log sum |theta dR/dtheta|, where R sums the outputs for an image of ones, with the weights'
    magnitudes and without batch norm or activations: it sees only how layers are connected.
    """
    linear = copy.deepcopy(network).double().eval()
    for parent in linear.modules():
        for name, child in parent.named_children():
            if isinstance(child, (nn.BatchNorm2d, nn.GELU, nn.ReLU)):
                setattr(parent, name, nn.Identity())
    for weight in linear.parameters():
        weight.requires_grad_().data.abs_()
    size = min(network.config.resolution, _PIXELS)
    with torch.enable_grad():
        linear(torch.ones(1, 3, size, size, dtype=torch.float64)).sum().backward()
    flow = sum(_flow(weight) for weight in linear.parameters())
    if not math.isfinite(flow):
        raise ValueError(f"`network` must be shallower to have a synaptic flow, but with "
                         f"{sum(network.config.depths)} blocks it overflows.")  # fmt: skip
    return math.log(flow)


def log_parameters(network: FasterNet) -> float:
    """Score by the number of parameters; a plain count that is hard to beat."""
    return math.log(sum(weight.numel() for weight in network.parameters()))


def _flow(weight: nn.Parameter) -> float:
    return 0.0 if weight.grad is None else float((weight * weight.grad).detach().abs().sum())
