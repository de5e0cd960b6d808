"""The torch network of a FasterNetConfig, and weights to and from timm's `fasternet_*`."""

from collections.abc import Mapping
from itertools import pairwise

from torch import Tensor, nn

from search_spaces.blocks import Block, Merging, Stage, Stem, activation
from search_spaces.fasternet import FasterNetConfig


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


def check_weights(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Refuse weights for a network whose own weights have other names or shapes.

    Raises:
        ValueError: if a weight is missing, left over or of another shape.
    """
    for name in own.keys() | weights.keys():
        have, want = (tuple(w[name].shape) if name in w else None for w in (weights, own))
        if have != want:
            raise ValueError(f"The weight {name!r} must have shape {want} for this config, but "
                             f"got {have}. Use the config of these weights.")  # fmt: skip


def to_timm_weights(network: FasterNet) -> dict[str, Tensor]:
    """Return the weights under the names of timm's FasterNet; the tensors are shared."""
    return dict(network.state_dict())


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
    shapes = zip(config.widths, config.partial_widths, config.hidden_widths, config.depths,
                 [nn.Identity(), *merging], strict=True)  # fmt: skip
    return [
        Stage(downsample,
              [Block(c, c_p, hidden, config.activation, next(rates)) for _ in range(depth)])
        for c, c_p, hidden, depth, downsample in shapes
    ]  # fmt: skip
