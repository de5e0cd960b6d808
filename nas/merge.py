"""Several runs that ask the same become one study, with which a search can go on."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.trial import FrozenTrial

from nas.estimators import CHECKPOINTS, SUPERNET_FILE
from nas.run_folder import facts_of, repair_run
from nas.study.journal import Entry
from nas.study.options import SearchOptions
from nas.study.store import Study, from_optuna, hold, read_run, write_run
from search_spaces.io import make_folders, remove_empty
from search_spaces.space import Genes

# In which the runs may differ. To a training the seed is one of the things left to chance.
FREE = ("trials", "seed", "searcher")


@dataclass(frozen=True, kw_only=True)
class MergedRuns:
    """What a merged study holds; `repeated` trials were of a config that another one has."""

    trials: int
    repeated: int
    measurements: int


@dataclass(frozen=True, kw_only=True)
class _Source:
    folder: Path
    stored: Entry  # run.json
    options: SearchOptions
    study: Study


def merge_runs(folders: Sequence[Path], out: Path, *, repair: bool = False) -> MergedRuns:
    """Write the study of all these runs into a new folder; the runs stay as they are.

    Trials are numbered anew in the order of the runs. A config that several tried is kept once, and
    so are its scores and its latency: those of the first run that has them. The options are the
    first run's. `repair` drops last lines of the runs that were cut off.

    Raises:
        ValueError: if the runs differ in more than `FREE` or in the machine, are fewer than two, or
            hold no study or a corrupt file, or the new folder is taken.
        RuntimeError: if another process works on one of them.
    """
    _check_folders(folders, out)
    with ExitStack() as stack:
        sources = [_opened(folder, stack, repair=repair) for folder in folders]
        for source in sources[1:]:
            _check_alike(sources[0], source)
        with _new_folder(out) as unfinished:
            return _write(sources, unfinished)


def _check_folders(folders: Sequence[Path], out: Path) -> None:
    if len({folder.resolve() for folder in folders}) < max(len(folders), 2):
        raise ValueError(
            "`runs` must be two folders or more, each once, but got "
            f"{', '.join(map(str, folders))}."
        )
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise ValueError(f"`out` must be a new folder, but {out} is there. Name another.")


def _opened(folder: Path, stack: ExitStack, *, repair: bool) -> _Source:
    """Read a run, which nobody changes before the stack is left."""
    stored = read_run(folder)
    options = SearchOptions.from_json(stored["options"])
    if repair:
        with hold(folder):
            repair_run(folder)
    stack.enter_context(hold(folder, reading=True))
    study = Study(folder, options.open_space(), options.budgets_ms, reading=True)
    return _Source(folder=folder, stored=stored, options=options, study=study)


def _check_alike(first: _Source, other: _Source) -> None:
    ours, theirs = (_identity(source) for source in (first, other))
    for name, value in ours.items():
        if theirs[name] != value:
            raise ValueError(
                f"`runs` must agree in {name}, but {first.folder} has {value} and {other.folder} "
                f"{theirs[name]}. Only {', '.join(FREE)} may differ."
            )
    if first.options.accuracy == "supernet" and _weights(first) != _weights(other):
        raise ValueError(
            f"`runs` must have one supernet, but {first.folder} and {other.folder} have one each, "
            "whose likelihoods cannot be compared. Merge runs with --accuracy proxy or train."
        )


def _identity(source: _Source) -> dict[str, object]:
    """What must be equal, by name; the device's description tells machine and versions."""
    options = {k: v for k, v in source.options.as_json().items() if k not in FREE}
    facts = facts_of(source.stored)
    return {**options, "the machine": "; ".join(one["description"] for one in facts.values())}


def _weights(source: _Source) -> bytes:
    file = source.folder / SUPERNET_FILE
    return file.read_bytes() if file.exists() else b""


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out`, and make it `out` once everything is in it."""
    made = make_folders(out.absolute().parent)
    unfinished = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}")
    try:
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        remove_empty(made)
        raise


def _write(sources: Sequence[_Source], folder: Path) -> MergedRuns:
    first = sources[0]
    trials, repeated = _trials(sources)
    study = Study(folder, first.options.open_space(), first.options.budgets_ms)
    try:
        study.add(trials)
        for source in sources:
            _add_results(source, study)
            _carry_weights(source.folder, folder)
    finally:
        study.close()
    options = replace(first.options, trials=max(len(trials), 1)).as_json()
    remarks = dict.fromkeys(line for s in sources for line in s.stored.get("remarks", []))
    run = {**first.stored, "options": options, "merged_from": _origins(sources)}
    write_run(folder, {**run, "remarks": list(remarks)} if remarks else run)
    return MergedRuns(trials=len(trials), repeated=repeated, measurements=len(study.measurements))


def _trials(sources: Sequence[_Source]) -> tuple[list[FrozenTrial], int]:
    """The trials of all, each config once and numbered anew, and how many that left out."""
    found: dict[Genes, FrozenTrial] = {}
    total = 0
    for source in sources:
        for trial in source.study.trials():
            genes, outcome = from_optuna(trial)
            known = found.get(genes)
            if known is None or (known.values is None and outcome.scores is not None):
                origin = [str(source.folder), outcome.number]
                trial.user_attrs = {**trial.user_attrs, "merged_from": origin}
                found[genes] = trial
            total += 1
    for number, trial in enumerate(found.values()):
        trial.user_attrs = {**trial.user_attrs, "number": number}
    return list(found.values()), total - len(found)


def _add_results(source: _Source, study: Study) -> None:
    """Add the latencies, longer trainings and files' accuracies that the study does not have."""
    for config, latencies in source.study.measurements.items():
        if config not in study.measurements:
            study.keep_measurement(config, latencies)
    for config, by_epochs in source.study.trainings.items():
        for epochs, training in sorted(by_epochs.items()):
            known = study.trainings.get(config, {}).get(epochs)
            if known is None or (known.accuracy is None and training.accuracy is not None):
                study.keep_training(config, training)
    for config, by_backend in source.study.files.items():
        known_files = study.files.get(config, {})
        for backend in [backend for backend in by_backend if backend not in known_files]:
            study.keep_file(config, backend, by_backend[backend])


def _carry_weights(source: Path, folder: Path) -> None:
    """Give the folder the run's supernet and checkpoints, as links where the disk is the same.

    Both folders replace such a file and never change one, so a link is as good as a copy.
    """
    for file in [source / SUPERNET_FILE, *sorted((source / CHECKPOINTS).glob("*"))]:
        target = folder / file.relative_to(source)
        if not file.exists() or target.exists():
            continue
        target.parent.mkdir(exist_ok=True)
        try:
            os.link(file, target)
        except OSError:
            shutil.copy2(file, target)


def _origins(sources: Sequence[_Source]) -> list[Entry]:
    """Where the trials came from; of what was merged before, from where that did."""
    found: list[Entry] = []
    for source in sources:
        origin = {
            "folder": str(source.folder),
            "options": source.stored["options"],
            "machine": source.stored.get("machine", {}),
            "trials": len(source.study.trials()),
        }
        found += source.stored.get("merged_from") or [origin]
    return found
