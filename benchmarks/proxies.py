"""Training-free scores: how good an untrained network looks. Higher is better; never an accuracy.

Each is a function of a network that leaves it bit-identical and draws no random numbers of others.
Where images are needed they are noise, the same every time: no data is asked for.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from predictors.cost import cost
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.network import DropPath, FasterNet

IMAGES = 32  # of noise
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
        raise ValueError(
            f"`network` must be shallower to have a synaptic flow, but with "
            f"{sum(network.config.depths)} blocks it overflows."
        )
    return math.log(flow)


def log_parameters(network: FasterNet) -> float:
    """Score by the number of parameters; a plain count that is hard to beat."""
    return math.log(sum(weight.numel() for weight in network.parameters()))


def log_macs(network: FasterNet) -> float:
    """Score by the multiply-accumulates of one image, batch norm folded; another plain count."""
    return math.log(cost(network.config).macs)


def naswot(network: FasterNet) -> float:
    """Score by how differently the units answer to different images (arXiv 2106.04647).

    log|K|, K_ij the number of units that are on for both of the images i and j or for neither.
    """
    images = _noise(network, seed=0)
    kernel = torch.zeros(IMAGES, IMAGES, dtype=torch.float64)

    def count(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        on = (inputs[0].flatten(1) > 0).double()
        kernel.add_(on @ on.T + (1 - on) @ (1 - on).T)

    copied = _whole(network)
    for module in copied.modules():
        if isinstance(module, (nn.GELU, nn.ReLU)):
            module.register_forward_hook(count)
    with torch.no_grad():
        copied(images)
    return float(torch.linalg.slogdet(kernel)[1])


def zico(network: FasterNet) -> float:
    """Score by gradients that are large and agree from batch to batch (arXiv 2301.11300, eq. 20).

    The sum over layers of log sum_w E|dL/dw| / sd(|dL/dw|), over two batches with random labels.
    """
    batches = [_gradients(network, seed) for seed in (0, 1)]
    score = 0.0
    for name in batches[0]:
        g = torch.stack([batch[name].double().abs().flatten() for batch in batches])
        spread = g.std(0, correction=0)
        known = spread > 0
        ratio = (g.mean(0)[known] / spread[known]).sum()
        score += math.log(ratio) if ratio > 0 else 0.0
    return score


def expressivity(network: FasterNet) -> float:
    """Score by how evenly features use their dimensions (arXiv 2403.19232, equations 2 and 3).

    The sum over stages of the entropy of their features' normalised principal components.
    """
    entropies: list[float] = []

    def analyse(_: nn.Module, __: tuple[Tensor, ...], features: Tensor) -> None:
        positions = features.transpose(0, 1).flatten(1).double()  # [channels, images * places]
        components = torch.linalg.eigvalsh(torch.cov(positions)).clamp_min(0)
        share = components / components.sum()
        entropies.append(float(-(share * share.clamp_min(1e-12).log()).sum()))

    copied = _whole(network)
    for stage in copied.stages:
        stage.register_forward_hook(analyse)
    with torch.no_grad():
        copied(_noise(network, seed=0))
    return sum(entropies)


PROXIES: Mapping[str, Callable[[FasterNet], float]] = {
    "parameters": log_parameters,
    "macs": log_macs,
    "synflow": log_synflow,
    "naswot": naswot,
    "zico": zico,
    "expressivity": expressivity,
}


def _noise(network: FasterNet, *, seed: int) -> Tensor:
    """Images of noise, of shape [IMAGES, 3, size, size]."""
    size = min(network.config.resolution, _PIXELS)
    return torch.randn(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(seed))


def _whole(network: FasterNet) -> FasterNet:
    """A copy in training mode, so that batch norms take the images' statistics; no path drops."""
    copied = copy.deepcopy(network).train()
    for module in copied.modules():
        if isinstance(module, DropPath):
            module.eval()
    return copied


def _gradients(network: FasterNet, seed: int) -> dict[str, Tensor]:
    """The gradients of a batch's loss with respect to kernels and matrices."""
    copied = _whole(network)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(network.config.classes, (IMAGES,), generator=generator)
    with torch.enable_grad():
        weights = {name: w.requires_grad_() for name, w in _kernels(copied)}
        loss = F.cross_entropy(copied(_noise(network, seed=seed)), labels)
        found = torch.autograd.grad(loss, list(weights.values()))
    return dict(zip(weights, found, strict=True))


def _kernels(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, w) for name, w in network.named_parameters() if w.ndim > 1)


def _flow(weight: nn.Parameter) -> float:
    return 0.0 if weight.grad is None else float((weight * weight.grad).detach().abs().sum())


def fine_units(config: FasterNetConfig) -> float:
    """The logarithm of the hidden units at each place of the finest map, in the first stage."""
    return math.log(config.depths[0] * config.hidden_widths[0])


def late_mixing(config: FasterNetConfig) -> float:
    """The logarithm of PConv's weights in a stage, its mean over the last two stages."""
    stages = list(zip(config.depths, config.partial_widths, strict=True))[: config.stages]
    return fmean(math.log(depth * 9 * width**2) for depth, width in stages[-2:])


def last_width(config: FasterNetConfig) -> float:
    """The logarithm of the channels of the last stage."""
    return math.log(config.out_width)


STRUCTURE: Mapping[str, Callable[[FasterNetConfig], float]] = {
    "fine_units": fine_units,
    "late_mixing": late_mixing,
    "last_width": last_width,
}
"""What of a structure alone went with accuracy on images of 32 px."""


def structure_score(config: FasterNetConfig) -> float:
    """The mean of `STRUCTURE`, each in units of its difference between T0 (100) and T2 (200)."""
    t0, t2 = FASTERNET["t0"], FASTERNET["t2"]
    return 100 * (1 + fmean((of(config) - of(t0)) / (of(t2) - of(t0)) for of in STRUCTURE.values()))
