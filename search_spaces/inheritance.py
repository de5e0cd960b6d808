"""Start a network from the weights of another: the corner of each that both have room for.

Layers are matched by name, so by stage and block. As in slimmable networks (arXiv 1812.08928) the
leading channels are those that stay, which also keeps what PConv convolves apart from the rest.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_CLASSIFIER = "classifier."


def inherit(network: nn.Module, weights: Mapping[str, Tensor]) -> float:
    """Copy what fits into a FasterNet or a supernet; return the share of its parameters that did.

    `weights` are a state dict of `build(config)` or of timm's `fasternet_*`, of any shape. Kernels
    of another size stay as they are, and so does a classifier of other classes.

    Raises:
        ValueError: if nothing fits; then nothing has changed.
    """
    parameters = dict(network.named_parameters())
    inherited = 0
    with torch.no_grad():
        for name, own in network.state_dict().items():
            given = weights.get(_known_as(name))
            if given is None or not _fits(name, own, given):
                continue
            corner = tuple(slice(min(sides)) for sides in zip(own.shape, given.shape, strict=True))
            own[corner].copy_(given[corner])
            inherited += own[corner].numel() if name in parameters else 0
    if not inherited:
        raise ValueError(f"`weights` must be those of a FasterNet, but got {_brief(weights)}. "
                         "Give a checkpoint of timm's fasternet_* or of fasternas.")  # fmt: skip
    return inherited / sum(parameter.numel() for parameter in parameters.values())


def _known_as(name: str) -> str:
    """The name in a plain FasterNet; a supernet has a stem for each stride."""
    stem, _, rest = name.partition(".")
    return f"patch_embed.{rest.partition('.')[2]}" if stem == "patch_embeds" else name


def _fits(name: str, own: Tensor, given: Tensor) -> bool:
    if own.ndim != given.ndim or own.shape[2:] != given.shape[2:]:
        return False
    return own.shape[0] == given.shape[0] if name.startswith(_CLASSIFIER) else True


def _brief(weights: Mapping[str, Tensor]) -> str:
    names = ", ".join(list(weights)[:3])
    return f"{len(weights)} tensors ({names}, ...)" if names else "none"
