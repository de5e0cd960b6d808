"""How far a training is, what came of each epoch, the best weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


LAST, BEFORE = "last.pt", "last-1.pt"  # the checkpoints of a full training


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """An epoch: mean training loss, validation accuracy in percent, what it took."""

    epoch: int  # from 1
    loss: float
    accuracy: float
    lr: float  # the learning rate of its last step
    resolution: int
    seconds: float  # of its steps, without evaluation
    images_per_s: float


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """How far a training is: so many steps of an epoch (from 1); after its last one, its row."""

    epoch: int
    step: int
    steps: int  # of this epoch
    row: EpochRow | None = None
    remark: str = ""  # of what happened besides


@dataclass(frozen=True, kw_only=True, eq=False)
class Best:
    """The weights of the most accurate epoch so far."""

    epoch: int
    accuracy: float
    weights: "dict[str, Tensor]"


class DivergedError(RuntimeError):
    """The loss is no number any more."""
