"""The folder of a full training: its config, recipe, table, curves and weights.

config.yaml, recipe.yaml   what is trained, and how
last.pt, last-1.pt         checkpoints
training.csv, .png         a line for each epoch, and the learning curve
tensorboard/               the same for TensorBoard
weights.safetensors        at the end, the weights of the best epoch, as `fasternas.load` takes them
"""

import csv
import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from nas.report.figures import training_figure
from nas.report.sheet import save as save_figure
from nas.report.tables import as_csv
from predictors.training.checkpoint import in_folder
from predictors.training.recipe import BEFORE, LAST, EpochRow, Recipe, save_recipe
from search_spaces.checkpoint import Checkpoint, save
from search_spaces.fasternet import FasterNetConfig
from search_spaces.formats import save_config
from search_spaces.io import atomic_write, locked

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

CONFIG, RECIPE, TABLE, CURVE = "config.yaml", "recipe.yaml", "training.csv", "training.png"
TRAINED = "trained"  # in a run folder: a folder for each of its networks that is trained
WEIGHTS, EVENTS = "weights.safetensors", "tensorboard"
_REDRAWN_AFTER = 60.0  # seconds


def has_training(folder: Path) -> bool:
    """Whether a training was begun there."""
    return any((folder / name).exists() for name in (LAST, BEFORE, RECIPE))


def name_of_file(path: Path) -> str:
    """Return what a network in a file is called: as the file, or, if it was trained, its folder."""
    folder = path.absolute().parent.name
    return folder if path.name == WEIGHTS and folder else path.stem


def begin_folder(folder: Path, config: FasterNetConfig, recipe: Recipe) -> None:
    """Make the folder and write what is trained and how."""
    folder.mkdir(parents=True, exist_ok=True)
    save_config(config, folder / CONFIG)
    save_recipe(recipe, folder / RECIPE, comment="How config.yaml was trained.")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder; the system lets go of it when the process ends, however."""
    try:
        with locked(folder):
            yield
    except BlockingIOError:
        raise RuntimeError(
            f"The training in {folder} must be free, but another process works on it. Wait for it "
            "or choose another folder."
        ) from None


class Watch:
    """Writes what people watch: the table after each epoch, the curve now and then."""

    def __init__(self, folder: Path, *, name: str, data: str) -> None:
        self._folder, self._name, self._data = folder, name, data
        self._drawn = time.monotonic()
        self._events: SummaryWriter | None = None

    def see(self, rows: Sequence[EpochRow]) -> None:
        """Write the table anew, and of the last row what TensorBoard shows."""
        write_table(self._folder, rows)
        self._log(rows[-1])
        if time.monotonic() - self._drawn > _REDRAWN_AFTER:
            self._draw(rows)

    def end(self, rows: Sequence[EpochRow], best: Checkpoint) -> None:
        """Draw the curve and write the weights."""
        self._draw(rows)
        save(
            best.network(),
            self._folder / WEIGHTS,
            classes=best.classes,
            mean=best.mean,
            std=best.std,
            crop=best.crop,
        )
        if self._events:
            self._events.close()

    def _draw(self, rows: Sequence[EpochRow]) -> None:
        figure = training_figure(rows, name=self._name, data=self._data)
        save_figure(figure, self._folder / CURVE)
        self._drawn = time.monotonic()

    def _log(self, row: EpochRow) -> None:
        """For TensorBoard, whose files Ray's own dependency writes."""
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            return
        if self._events is None:  # what a killed training wrote after its checkpoint goes
            self._events = SummaryWriter(str(self._folder / EVENTS), purge_step=row.epoch)
        for name in ("loss", "accuracy", "lr", "images_per_s"):
            self._events.add_scalar(name, getattr(row, name), row.epoch)
        self._events.flush()


def write_table(folder: Path, rows: Sequence[EpochRow]) -> None:
    """Write the table anew."""
    table = as_csv([field.name for field in fields(EpochRow)], map(asdict, rows))
    atomic_write(folder / TABLE, table)


def read_table(folder: Path) -> list[EpochRow]:
    """Return the rows that were written so far: those before the first line that is none."""
    rows: list[EpochRow] = []
    try:
        text = (folder / TABLE).read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a last line that was cut may end in half a number
        for row in csv.DictReader(io.StringIO(whole)):
            rows.append(_row(row))
    except (FileNotFoundError, ValueError, TypeError, KeyError, csv.Error):
        pass
    return rows


def whole_table(folder: Path, epochs: int) -> list[EpochRow]:
    """Return the rows of a training that is over; what is not there is written from a checkpoint.

    Raises:
        ValueError: if no checkpoint has it either.
    """
    rows = read_table(folder)
    if len(rows) >= epochs:
        return rows
    newest = in_folder(folder).newest()
    kept = [EpochRow(**row) for row in newest.content["rows"]] if newest else []
    if len(kept) < epochs:
        raise ValueError(
            f"{folder / TABLE} must have a line for each of {epochs} epochs, but line "
            f"{len(rows) + 2} is none. Restore the file, or train anew in another folder."
        )
    write_table(folder, kept)
    return kept


def _row(cells: dict[str, str]) -> EpochRow:
    whole = {name: int(cells.pop(name)) for name in ("epoch", "resolution")}
    return EpochRow(**whole, **{name: float(text) for name, text in cells.items()})  # type: ignore[arg-type]
