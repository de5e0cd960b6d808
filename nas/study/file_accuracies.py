"""How accurate networks are in the files that are deployed, where these are not in fp32.

A study judges networks by their weights in fp32. What a file in int8 or bf16 loses is measured on
it, for the networks that the study recommends.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

from nas.study import journal
from predictors.backends.table import find_runtime
from predictors.measurement import Latencies
from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import one_line

if TYPE_CHECKING:
    from search_spaces.checkpoint import Checkpoint

RECORD = "files.jsonl"
JUDGED = 2000  # validation images with which a file is compared with torch

Form = tuple[str, str]  # a runtime and a precision


@dataclass(frozen=True, kw_only=True)
class FileAccuracy:
    """How many per cent points a network's file loses against torch in fp32, on `images` images.

    `of` is the accuracy in percent that the study had of the weights. None: `error` says why the
    file could not be made, or run, here.
    """

    of: float
    images: int = 0
    lost: float | None = None
    error: str | None = None


FileAccuracies = dict[FasterNetConfig, dict[Form, FileAccuracy]]


class Weighted(Protocol):
    """Has the weights of the networks whose accuracy it estimated."""

    def checkpoint(self, config: FasterNetConfig) -> "Checkpoint":
        """Return those of a network."""


def lower_forms(latencies: Latencies) -> list[Form]:
    """Return in which forms a network was timed, on any device, that are not in fp32."""
    forms = {
        (one.backend.runtime, one.backend.precision)
        for one in latencies.by_device.values()
        if one.backend is not None and one.source == "measured"
    }
    return sorted(form for form in forms if form[1] != "fp32")


def deployed_accuracy(
    accuracy: float, latencies: Latencies, known: Mapping[Form, FileAccuracy]
) -> float:
    """Return the accuracy of the least accurate file that was timed, as far as is known."""
    found = [known[form] for form in lower_forms(latencies) if form in known]
    lost = [one.lost for one in found if one.of == accuracy and one.lost is not None]
    return accuracy - max(lost, default=0.0)


def unjudged(
    accuracy: float, latencies: Latencies, known: Mapping[Form, FileAccuracy]
) -> list[Form]:
    """Return the forms of which no file was made of weights so accurate."""
    return [
        form for form in lower_forms(latencies) if form not in known or known[form].of != accuracy
    ]


def judge(
    weighted: Weighted, config: FasterNetConfig, form: Form, *, of: float, data: str
) -> FileAccuracy:
    """Make a network's file, calibrated with training images, and run it on validation images.

    Raises:
        OSError: if it cannot be written.
    """
    try:
        return _judged(weighted.checkpoint(config), form, of=of, data=data)
    except (ValueError, RuntimeError) as error:
        return FileAccuracy(of=of, error=one_line(error))


def append_file(folder: Path, config: FasterNetConfig, form: Form, found: FileAccuracy) -> None:
    """Append it to the folder's record.

    Raises:
        OSError: if it cannot be written.
    """
    runtime, precision = form
    entry = {"config": asdict(config), "runtime": runtime, "precision": precision, **asdict(found)}
    journal.append(folder / RECORD, [entry])


def read_files(folder: Path, *, growing: bool = False) -> FileAccuracies:
    """Return what was recorded, the latest of each.

    Raises:
        ValueError: if a line is none; the message says which.
    """
    found: FileAccuracies = {}
    what = "how accurate a file of it is"
    for config, (form, accuracy) in journal.read_records(
        folder / RECORD, _record, what=what, growing=growing
    ):
        found.setdefault(config, {})[form] = accuracy
    return found


def _record(entry: dict[str, Any]) -> tuple[Form, FileAccuracy]:
    form = (entry.pop("runtime"), entry.pop("precision"))
    return form, FileAccuracy(**entry)


def _judged(checkpoint: "Checkpoint", form: Form, *, of: float, data: str) -> FileAccuracy:
    from nas.finetune.export import RealImages
    from predictors.backends.agreement import check
    from predictors.backends.model import checkpoint_model
    from predictors.training.short_training import loaded

    runtime = find_runtime(*form)
    resized = loaded(data, checkpoint.config.resolution)
    images = RealImages(data=resized, count=JUDGED, labelled=True)
    model = checkpoint_model("network", checkpoint, calibration_images=images.calibration_images(1))
    with TemporaryDirectory(prefix="fasternas-") as folder:
        file = runtime.module.write(model, Path(folder, "network"), runtime)
        found = check(model, file, runtime, images)
    assert found is not None  # what is timed computes something
    return FileAccuracy(of=of, images=found.images, lost=found.lost)
