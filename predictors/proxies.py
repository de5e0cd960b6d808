"""Training-free scores: how good an untrained network looks. Higher is better; never an accuracy.

Each is a function of a network that leaves it bit-identical.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from search_spaces.network import FasterNet


def naswot(network: FasterNet, *, batch: int = 16, seed: int = 0) -> float:
    """Score by how differently random images switch the activations (arXiv 2006.04647).

    log|det K|, where K counts for each two of `batch` random images the activations that are on
    in both or off in both (eq. 2). "On" means a positive input, so ReLU and GELU count alike.
    """
    size = network.config.resolution
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))
    kernel = torch.zeros(batch, batch, dtype=torch.float64)

    def count(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        on = (inputs[0] > 0).flatten(1).float()
        off = 1.0 - on
        kernel.add_((on @ on.T + off @ off.T).double())

    with _hooked(network, (nn.ReLU, nn.GELU), count), _training_statistics(network):
        network(images)
    return float(torch.linalg.slogdet(kernel).logabsdet)


@contextmanager
def _hooked(
    network: nn.Module, kinds: tuple[type, ...], hook: Callable[..., None]
) -> Iterator[None]:
    handles = [m.register_forward_pre_hook(hook) for m in network.modules() if isinstance(m, kinds)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _training_statistics(network: nn.Module) -> Iterator[None]:
    """Normalise by the batch's own statistics, without a trace of them in the network."""
    state = {k: v.clone() for k, v in network.named_buffers()}
    training = network.training
    network.train()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)
        for name, buffer in network.named_buffers():
            buffer.copy_(state[name])
