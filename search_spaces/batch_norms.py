"""Batch norms whose statistics are found anew, for weights that no training step has left so."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


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
        raise ValueError("`batches` must hold at least one batch of images, but holds none. "
                         "Give some training images.")  # fmt: skip
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
