"""How far a search or a training is, on standard error; tables on standard output."""

import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

    from nas import pipeline
    from nas.finetune.jobs import Job
    from predictors.training.recipe import EpochRow


def print_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Print rows of cells under a header, in columns."""
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    for row in (header, ["-" * width for width in widths], *cells):
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(padded).rstrip())


def show_search(steps: "Iterable[pipeline.Progress]", heading: str) -> None:
    """Draw a bar for each phase on a terminal; elsewhere print a line now and then.

    The heading comes with the first step: an error before it stays the only line. What is printed
    meanwhile goes to standard error: Ray tells of lost workers.
    """
    from rich.progress import MofNCompleteColumn, TextColumn, TimeRemainingColumn

    best = TextColumn("{task.fields[best]}")
    bars: dict[str, TaskID] = {}
    with (
        redirect_stdout(sys.stderr),
        _progress(MofNCompleteColumn(), TimeRemainingColumn(), best) as progress,
    ):
        for step in steps:
            if not bars:
                print(heading, file=sys.stderr)
            if step.phase not in bars:
                bars[step.phase] = progress.add_task(step.phase, total=step.total, best="")
            bar = bars[step.phase]
            progress.update(bar, completed=step.done, total=step.total)
            if step.best:
                progress.update(bar, best=step.best)
            if progress.disable and (step.best or step.done == step.total):
                words = f"{step.phase}: {step.done} of {step.total}"
                print(f"{words}; {step.best}" if step.best else words, file=sys.stderr)


class TrainingBars:
    """A bar for each network on a terminal, with the time left; elsewhere a line an epoch."""

    def __enter__(self) -> "TrainingBars":
        from rich.progress import TextColumn, TimeRemainingColumn

        self._bars = _progress(TextColumn("{task.fields[at]}"), TimeRemainingColumn())
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, int] = {}
        self._redirected = redirect_stdout(sys.stderr)
        self._redirected.__enter__()
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
        self._redirected.__exit__(None, None, None)

    def say(self, *lines: str) -> None:
        for line in lines:
            print(line, file=sys.stderr, flush=True)

    def move(self, job: "Job", done: int, total: int, row: "EpochRow | None") -> None:
        """Move a network's bar; `row` is that of an epoch just done, or None."""
        if job.name not in self._tasks:
            self._tasks[job.name] = self._bars.add_task(job.name, total=total, at="")
        bar = self._tasks[job.name]
        self._bars.update(bar, completed=done, total=total)
        if row is None:
            return
        words = (
            f"epoch {row.epoch} of {job.recipe.epochs}: loss {row.loss:.3f}, "
            f"{row.accuracy:.2f} %, {row.images_per_s:.0f} images/s"
        )
        self._bars.update(bar, at=words)
        if self._bars.disable and self._printed.get(job.name) != row.epoch:
            self._printed[job.name] = row.epoch
            left = (job.recipe.epochs - row.epoch) * row.seconds / 60
            self.say(f"{job.name}: {words}, about {left:.0f} min left")


def _progress(*columns: "ProgressColumn") -> "Progress":
    """Bars on standard error, each after its name; disabled where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    named = (TextColumn("{task.description:>22}"), BarColumn(), *columns)
    return Progress(*named, console=console, disable=not console.is_terminal)
