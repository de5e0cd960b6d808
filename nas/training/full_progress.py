"""What a full training has to tell: where it is, what came of each epoch, the best weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Row:
    """An epoch: mean training loss, validation accuracy in percent, what it took."""

    epoch: int  # from 1
    loss: float
    accuracy: float
    rate: float  # the learning rate of its last step
    resolution: int
    seconds: float  # of its steps, without judging
    images_per_s: float


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is: so many steps of an epoch (from 1); after its last one, its row."""

    epoch: int
    step: int
    steps: int
    row: Row | None = None
    remark: str = ""  # of what happened besides


@dataclass(frozen=True, kw_only=True, eq=False)
class Best:
    """The weights of the most accurate epoch so far."""

    epoch: int
    accuracy: float
    weights: "dict[str, Tensor]"
