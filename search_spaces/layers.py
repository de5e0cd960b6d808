"""The layers of a deployed network as plain numbers, the common language of every cost model.

A config that can be costed has a `layers()` method that returns these records. They describe the
network as it is deployed: batch norm folded into its convolution, PConv as split, conv, concat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeGuard, get_args, runtime_checkable

Numbers: TypeAlias = Any  # a number, or a numpy array with one for each network
Fields: TypeAlias = Mapping[str, Any]  # of a config by name, as numbers or as arrays of them

Op = Literal[
    "conv",
    "linear",
    "attention",
    "pool",
    "split_concat",
    "add",
    "multiply",
    "gate",
    "relu",
    "gelu",
    "hardswish",
    "hard_sigmoid",
]

_OPS: tuple[Op, ...] = get_args(Op)
QUERY_WIDTH = 16  # channels of the queries and the keys of the one head of an attention

FUSED: tuple[Op, ...] = ("relu", "hard_sigmoid")  # into the convolution before


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One kind of operator and how often it stands in the network.

    `height` and `width` are those of the input, in pixels; convolutions pad to keep the size at
    stride 1; at others they do so only if `padded`. For `split_concat`, `c_out` is the number of
    channels split off; `gate` multiplies each channel by a number; `attention` has one head, and
    the convolution before it makes its queries, keys and values. A `relu` or `hard_sigmoid`
    follows a convolution, into which runtimes fuse it. Every number may be a numpy array of shape
    [n] instead: then the record describes that layer of n networks at once.
    """

    name: str
    op: Op
    c_in: int
    c_out: int
    height: int
    width: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    padded: bool = False
    repeat: int = 1
    norm: bool = False  # a batch norm was folded into it; it counts for parameters only
    bias: bool = False  # as deployed; of an activation: whether the convolution before has one
    alive: int = 0  # numbers that stay in memory meanwhile, beside its input and output

    def __post_init__(self) -> None:
        if self.op not in _OPS:
            raise ValueError(f"`op` must be one of {', '.join(_OPS)}, but got {self.op!r}.")

    @property
    def out_height(self) -> int:
        """Rows of the output map."""
        return self._out(self.height)

    @property
    def out_width(self) -> int:
        """Columns of the output map."""
        return self._out(self.width)

    def _out(self, side: int) -> int:
        if self.op in ("pool", "linear"):
            return 1
        return -(-side // self.stride) if self.padded else side // self.stride

    @property
    def out_positions(self) -> int:
        """Pixels of the output map."""
        return self.out_height * self.out_width

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all repeats: convolutions, linear layers, pooling, attention."""
        if self.op == "pool":
            return self.repeat * self.c_in * self.height * self.width
        if self.op == "attention":
            return self.repeat * (QUERY_WIDTH + self.c_in) * self.out_positions**2
        if self.op not in ("conv", "linear"):
            return 0
        return self.repeat * self._kernel_weights * self.out_positions

    @property
    def weights(self) -> int:
        """Stored numbers of all repeats as deployed: weights, and a bias where there is one."""
        if self.op not in ("conv", "linear"):
            return 0
        bias = self.c_out if self.norm or self.bias or self.op == "linear" else 0
        return self.repeat * (self._kernel_weights + bias)

    @property
    def _kernel_weights(self) -> int:
        return self.c_in // self.groups * self.c_out * self.kernel**2


@runtime_checkable
class Layered(Protocol):
    """A config that knows the layers of its network."""

    def layers(self) -> Sequence[Layer]:
        """Return the network's layers, in order."""


def is_layered(config: object) -> TypeGuard[Layered]:
    """Whether a config knows its layers; a field that is called `layers` is something else."""
    return callable(getattr(config, "layers", None))


@runtime_checkable
class BulkLayered(Protocol):
    """A config class whose layer formula also takes arrays, for costing a million configs."""

    @classmethod
    def bulk_layers(cls, fields: Fields) -> Sequence[Layer]:
        """Return the layers of n networks, given every field as an array of shape [n, ...]."""
