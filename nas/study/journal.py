"""Records of a study beside its trials: trainings and files; a JSON object a line, only growing."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from nas.search.pareto import promoted
from nas.search.trial import NetworkScores, Objectives, Pool
from predictors.backends.table import find_runtime
from predictors.measurement import Backend, Latencies
from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import reason

if TYPE_CHECKING:
    from search_spaces.checkpoint import Checkpoint

Entry = dict[str, Any]  # a JSON object
R = TypeVar("R")


def append(path: Path, entries: Sequence[Mapping[str, object]]) -> None:
    """Append entries, all of them or none, and wait until they are on the disk."""
    text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries)
    rest = memoryview(text.encode())
    with path.open("ab", buffering=0) as file:  # a buffer would be written again on closing
        end = file.seek(0, os.SEEK_END)
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError as error:
            os.truncate(path, end)
            raise OSError(error.errno, error.strerror, str(path)) from None


def append_record(path: Path, config: FasterNetConfig, record: Mapping[str, object]) -> None:
    """Append what is known of a network; errors are those of `append`."""
    append(path, [{"config": asdict(config), **record}])


def read(path: Path, *, growing: bool = False) -> list[Entry]:
    """Return all entries; none where there is no file.

    While another process appends to it (`growing`), a last line may be half there: it is left out.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    if lines[-1] and not growing:
        raise ValueError(
            f"{path} ends in the middle of line {len(lines)}. Every entry before it is whole: "
            "repeat with --repair, which `fasternas show` has too, to drop the cut line."
        )
    return [_parsed(line, path, number) for number, line in enumerate(lines[:-1], start=1)]


def read_records(
    path: Path, parse: Callable[[Entry], R], *, what: str, growing: bool = False
) -> list[tuple[FasterNetConfig, R]]:
    """Return the configs of all entries, each with what `parse` makes of the rest of its entry."""
    found = []
    for number, entry in enumerate(read(path, growing=growing), start=1):
        try:
            fields: Entry = {name: _tuples(v) for name, v in entry.pop("config").items()}
            found.append((FasterNetConfig(**fields), parse(entry)))
        except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError):
            raise ValueError(
                f"Line {number} of {path} must hold a config and {what}. Restore the file, or "
                "delete that line to lose that entry only."
            ) from None
    return found


def repair(path: Path) -> None:
    """Drop a last line that was cut off."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def _parsed(line: bytes, path: Path, number: int) -> Entry:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise ValueError(
            f"Line {number} of {path} must be a JSON object, but is {line[:40]!r}. Restore the "
            "file, or delete that line to lose that entry only."
        )
    return entry


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


TRAININGS = "trainings.jsonl"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How accurate a network was after so many epochs, or why its training ended."""

    epochs: int
    accuracy: float | None
    error: str | None = None


Trainings = dict[FasterNetConfig, dict[int, Trained]]  # by epochs


class KeepsTrainings(Protocol):
    """Keeps how accurate networks are after longer trainings."""

    trainings: Trainings

    def keep_training(self, config: FasterNetConfig, training: Trained) -> None:
        """Record a longer training."""


def train_on(
    found: Mapping[FasterNetConfig, Objectives],
    epochs: int,
    record: KeepsTrainings,
    pool: Pool[NetworkScores],
) -> Iterator[tuple[int, int]]:
    """Train the best of a rung for so many epochs; yield how many are done, and of how many.

    `pool` evaluates to that many epochs; the slowest networks come first, so that it does not wait
    for one of them at the end. What is recorded is not trained again; what was lost with its worker
    is not recorded.
    """
    best = sorted(promoted(found), key=lambda config: -found[config].ratio)
    waiting = [c for c in best if epochs not in record.trainings.get(c, {})]
    for number, config in enumerate(waiting):
        pool.submit(number, config)
    for done in range(len(waiting)):
        outcome = pool.next_finished()
        if not outcome.lost:
            accuracy = outcome.scores.accuracy if outcome.scores else None
            training = Trained(epochs=epochs, accuracy=accuracy, error=outcome.error)
            record.keep_training(waiting[outcome.number], training)
        yield len(best) - len(waiting) + done + 1, len(best)


def after(
    found: Mapping[FasterNetConfig, Objectives], epochs: int, trainings: Trainings
) -> dict[FasterNetConfig, Objectives]:
    """Return the objectives after so many epochs, of those that were trained for them."""
    trained = {config: trainings.get(config, {}).get(epochs) for config in found}
    return {
        config: replace(found[config], accuracy=training.accuracy)
        for config, training in trained.items()
        if training is not None and training.accuracy is not None
    }


def longest(trainings: Mapping[int, Trained]) -> Trained | None:
    """Return the longest training that ended with an accuracy, if any."""
    whole = [training for training in trainings.values() if training.accuracy is not None]
    return max(whole, key=lambda training: training.epochs, default=None)


def append_training(folder: Path, config: FasterNetConfig, training: Trained) -> None:
    """Append a training to the folder's record."""
    append_record(folder / TRAININGS, config, asdict(training))


def read_trainings(folder: Path, *, growing: bool = False) -> Trainings:
    """Return the trainings that were recorded."""
    found: Trainings = {}
    records = read_records(
        folder / TRAININGS,
        lambda entry: msgspec.convert(entry, Trained),
        what="a training",
        growing=growing,
    )
    for config, training in records:
        found.setdefault(config, {})[training.epochs] = training
    return found


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
    # What it loses is of some of the images.
    return min(max(accuracy - max(lost, default=0.0), 0.0), 100.0) if lost else accuracy


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
    from predictors.backends.agreement import check
    from predictors.backends.model import checkpoint_model
    from predictors.training.estimators import loaded
    from predictors.training.evaluate import RealImages

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
        return FileAccuracy(fp32_accuracy=fp32_accuracy, error=f"{reason(error)}.")
    assert found is not None  # what is timed computes something
    return FileAccuracy(fp32_accuracy=fp32_accuracy, images=found.images, lost=found.lost)


def append_file(
    folder: Path, config: FasterNetConfig, backend: Backend, accuracy: FileAccuracy
) -> None:
    """Append it to the folder's record."""
    kind = {"runtime": backend.runtime, "precision": backend.precision}
    append_record(folder / RECORD, config, {**kind, **asdict(accuracy)})


def read_files(folder: Path, *, growing: bool = False) -> FileAccuracies:
    """Return what was recorded, the latest of each."""
    found: FileAccuracies = {}
    what = "how accurate a file of it is"
    for config, (backend, accuracy) in read_records(
        folder / RECORD, _record, what=what, growing=growing
    ):
        found.setdefault(config, {})[backend] = accuracy
    return found


_Kind = tuple[str, str]  # runtime and precision


def _record(entry: Entry) -> tuple[Backend, FileAccuracy]:
    backend = msgspec.convert([entry.pop("runtime"), entry.pop("precision")], _Kind)
    return Backend(*backend), msgspec.convert(entry, FileAccuracy)


def _rounding(latencies: Latencies) -> list[Backend]:
    """The backends in which a network was timed, on any device, that are not in fp32."""
    timed = (one for one in latencies.by_device.values() if one.source == "measured")
    backends = {one.backend for one in timed if one.backend is not None}
    kinds = sorted({(b.runtime, b.precision) for b in backends if b.precision != "fp32"})
    return [Backend(runtime, precision) for runtime, precision in kinds]
