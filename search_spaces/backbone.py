"""A FasterNet without its head, as detectors and segmenters take it."""

from torch import Tensor, nn

from search_spaces.fasternet import FasterNetConfig
from search_spaces.network import FasterNet


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
