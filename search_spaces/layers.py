"""The layers of a deployed network as plain numbers, the common language of every cost model.

A config that can be costed has a `layers()` method that returns these records. They describe the
network as it is deployed: batch norm folded into its convolution, PConv as split, conv, concat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

Op = Literal["conv", "split_concat", "gelu", "relu", "add", "pool", "linear"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One kind of operator and how often it stands in the network.

    `height` and `width` are those of the input, in pixels; convolutions pad to keep the size at
    stride 1 and not at all otherwise. For `split_concat`, `c_out` is the number of channels split
    off. A `relu` follows a convolution, into which runtimes fuse it. Every number may be a numpy
    array of shape [n] instead: then the record describes that layer of n networks at once.
    """

    name: str
    op: Op
    c_in: int
    c_out: int
    height: int
    width: int
    kernel: int = 1
    stride: int = 1
    repeat: int = 1
    norm: bool = False  # a batch norm was folded into it; it counts for parameters only

    @property
    def out_positions(self) -> int:
        """Pixels of the output map."""
        if self.op in ("pool", "linear"):
            return 1
        return (self.height // self.stride) * (self.width // self.stride)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all repeats: of convolutions, linear layers and pooling."""
        if self.op == "pool":
            return self.repeat * self.c_in * self.height * self.width
        if self.op not in ("conv", "linear"):
            return 0
        return self.repeat * self.c_in * self.c_out * self.kernel**2 * self.out_positions

    @property
    def weights(self) -> int:
        """Stored numbers of all repeats as deployed: weights, and a bias where there is one."""
        if self.op not in ("conv", "linear"):
            return 0
        bias = self.c_out if self.norm or self.op == "linear" else 0
        return self.repeat * (self.c_in * self.c_out * self.kernel**2 + bias)


@runtime_checkable
class Layered(Protocol):
    """A config that knows the layers of its network."""

    def layers(self) -> Sequence[Layer]:
        """Return the network's layers, in order."""


@runtime_checkable
class BulkLayered(Protocol):
    """A config class whose layer formula also takes arrays, for costing a million configs."""

    @classmethod
    def bulk_layers(cls, fields: Mapping[str, Any]) -> Sequence[Layer]:
        """Return the layers of n networks, given every field as an array of shape [n, ...]."""
