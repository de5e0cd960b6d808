"""What is exported: a network or its backbone, for any batch or one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from predictors.backends.model import Model
from predictors.backends.onnx_export import Batch
from search_spaces.checkpoint import Checkpoint
from search_spaces.fasternet import FasterNetConfig
from search_spaces.network import Backbone, strides

ANY = 32  # images at once where the batch is dynamic


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A network with weights, and how it is wanted.

    `features` asks for its backbone, `batch` for so many images at once (None: any number). Int8 is
    calibrated with batches of `calibration`, or with random images.
    """

    name: str  # of its files
    checkpoint: Checkpoint
    trained: bool
    features: bool = False
    batch: int | None = None
    calibration: Iterable[Tensor] | None = None

    @property
    def config(self) -> FasterNetConfig:
        """The config of the network."""
        return self.checkpoint.config

    @property
    def shape(self) -> tuple[int, int, int]:
        """That of an image."""
        return (3, self.config.resolution, self.config.resolution)

    @property
    def at_once(self) -> int:
        """How many images an export of it is given at once."""
        return self.batch or ANY

    @property
    def axis(self) -> Batch:
        """What the first axis of the image is."""
        return "fixed" if self.batch else "dynamic"

    def network(self) -> nn.Module:
        """Return what is deployed, in evaluation mode."""
        network = self.checkpoint.network()
        return Backbone(network).eval() if self.features else network

    def outputs(self) -> tuple[str, ...]:
        """The names of what it computes."""
        if not self.features:
            return ("logits",)
        return tuple(f"stride{stride}" for stride in strides(self.config))

    def file(self, suffix: str) -> str:
        """The name of a file of it."""
        return f"{self.name}{'.features' if self.features else ''}{suffix}"

    def example(self) -> Tensor:
        """Return random images of the fixed batch, or one."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch or 1, *self.shape, generator=generator)

    def model(self) -> Model:
        """Return it as a model that takes one image at a time."""
        return Model(name=self.name, identity=self.name, shape=self.shape, build=self.network)


def outputs_of(given: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Return one output or several as a list."""
    return [given] if isinstance(given, Tensor) else list(given)
