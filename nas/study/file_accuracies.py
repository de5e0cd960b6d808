"""How accurate networks are in the files that are deployed, if these are not in fp32.

A study estimates accuracies with weights in fp32. What a file in int8 or bf16 loses is measured on
the file, for the networks that the study recommends.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from nas.study import journal
from predictors.backends.table import find_runtime
from predictors.measurement import Backend, Latencies
from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import one_line

if TYPE_CHECKING:
    from search_spaces.checkpoint import Checkpoint

RECORD = "files.jsonl"
COMPARED_IMAGES = 2000  # of the validation split: a file and torch


@dataclass(frozen=True, kw_only=True)
class FileAccuracy:
    """How many per cent points a network's file loses against torch in fp32, on `images` images.

    `fp32_accuracy` is that, in percent, which the study had of the weights. If `lost` is None,
    `error` says why the file could not be made, or run, here.
    """

    fp32_accuracy: float
    images: int = 0
    lost: float | None = None
    error: str | None = None


FileAccuracies = dict[FasterNetConfig, dict[Backend, FileAccuracy]]  # backends on one thread


class HasCheckpoints(Protocol):
    """Has the weights of the networks whose accuracy it estimated."""

    def checkpoint(self, config: FasterNetConfig) -> "Checkpoint":
        """Return those of a network."""


def deployed_accuracy(
    accuracy: float, latencies: Latencies, known: Mapping[Backend, FileAccuracy]
) -> float:
    """Return the accuracy of the least accurate file that was timed, as far as is known."""
    found = [known[backend] for backend in _rounding(latencies) if backend in known]
    lost = [one.lost for one in found if one.fp32_accuracy == accuracy and one.lost is not None]
    return accuracy - max(lost, default=0.0)


def not_evaluated(
    accuracy: float, latencies: Latencies, known: Mapping[Backend, FileAccuracy]
) -> list[Backend]:
    """Return the backends for which no file was made of weights so accurate."""
    done = [backend for backend, found in known.items() if found.fp32_accuracy == accuracy]
    return [backend for backend in _rounding(latencies) if backend not in done]


def evaluate_file(
    weights: HasCheckpoints,
    config: FasterNetConfig,
    backend: Backend,
    *,
    fp32_accuracy: float,
    data: str,
) -> FileAccuracy:
    """Make a network's file, calibrated with training images, and run it on validation images."""
    from nas.finetune.export import RealImages
    from predictors.backends.agreement import check
    from predictors.backends.model import checkpoint_model
    from predictors.training.short_training import loaded

    try:
        checkpoint = weights.checkpoint(config)
        runtime = find_runtime(backend.runtime, backend.precision)
        resized = loaded(data, config.resolution)
        images = RealImages(data=resized, count=COMPARED_IMAGES, labelled=True)
        calibration_images = images.calibration_images(1)
        model = checkpoint_model("network", checkpoint, calibration_images=calibration_images)
        with TemporaryDirectory(prefix="fasternas-") as folder:
            file = runtime.module.write(model, Path(folder, "network"), runtime)
            found = check(model, file, runtime, images)
    except (ValueError, RuntimeError) as error:
        return FileAccuracy(fp32_accuracy=fp32_accuracy, error=one_line(error))
    assert found is not None  # what is timed computes something
    return FileAccuracy(fp32_accuracy=fp32_accuracy, images=found.images, lost=found.lost)


def append_file(
    folder: Path, config: FasterNetConfig, backend: Backend, accuracy: FileAccuracy
) -> None:
    """Append it to the folder's record."""
    kind = {"runtime": backend.runtime, "precision": backend.precision}
    journal.append_record(folder / RECORD, config, {**kind, **asdict(accuracy)})


def read_files(folder: Path, *, growing: bool = False) -> FileAccuracies:
    """Return what was recorded, the latest of each.

    Raises:
        ValueError: if a line is none; the message says which.
    """
    found: FileAccuracies = {}
    what = "how accurate a file of it is"
    for config, (backend, accuracy) in journal.read_records(
        folder / RECORD, _record, what=what, growing=growing
    ):
        found.setdefault(config, {})[backend] = accuracy
    return found


def _record(entry: journal.Entry) -> tuple[Backend, FileAccuracy]:
    return Backend(entry.pop("runtime"), entry.pop("precision")), FileAccuracy(**entry)


def _rounding(latencies: Latencies) -> list[Backend]:
    """The backends in which a network was timed, on any device, that are not in fp32."""
    timed = (one for one in latencies.by_device.values() if one.source == "measured")
    backends = {one.backend for one in timed if one.backend is not None}
    kinds = sorted({(b.runtime, b.precision) for b in backends if b.precision != "fp32"})
    return [Backend(runtime, precision) for runtime, precision in kinds]
