"""`fasternas search`: from its arguments to the front."""

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import chain, count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.arguments import (
    add_json,
    by_device,
    duration_ms,
    either,
    numbers,
    positive,
    ray_address,
    switch,
    word,
    words,
)
from nas.cli.progress import show_search
from nas.cli.runs import print_front
from nas.cli.specs import add_devices, folder_name, specs_of
from nas.quantities import parse_bytes, parse_count
from nas.search.searchers import searcher_names
from nas.study.options import (
    OF_TRAININGS,
    FieldChoices,
    SearchOptions,
    accuracy_names,
    check_accuracy,
    refuse_uninstalled,
)
from predictors.cost import NO_LIMITS, Limits
from predictors.devices.device import DeviceSpec
from search_spaces.extensions import extension_names
from search_spaces.spaces import HOW, spelled_space

if TYPE_CHECKING:
    from nas.estimators import Prepared
    from nas.pipeline import Progress, Run
    from nas.report.model import ReportModel
    from nas.study.store import Mirror

TRIALS, TRAINED_TRIALS = 200, 30  # unless told
MIRROR_S = 30.0  # between two copies of the trials to `--storage`


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add what `fasternas search` takes."""
    add_devices(parser)
    add = parser.add_argument
    text = "the latency to keep, such as 10ms, 0.5s or 800us; pi=10ms,cpu=3ms on several devices"
    add("--budget", type=by_device(duration_ms), metavar="TIME", help=text)
    _add_space(parser)
    add("--trials", type=int, help="networks to score (200; 30 if trained)")
    text = "trials at once (8); of another number come other trials"
    add("--parallel", type=positive, default=8, metavar="N", help=text)
    _add_training(parser)
    add("--searcher", default="guided", help=f"{either(searcher_names())} (guided, ours)")
    add("--seed", type=int, default=0, help="same seed, same trials (0)")
    _add_running(parser)
    defaults = vars(parser.parse_args([]))  # --resume takes what is not given from the run
    parser.set_defaults(**dict.fromkeys(defaults), defaults=defaults)
    add_json(parser)


def _add_space(parser: argparse.ArgumentParser) -> None:
    """Add what networks may be, and what they may cost."""
    add = parser.add_argument
    text = f"see `fasternas spaces`; or {HOW} (fasternet)"
    add("--space", default="fasternet", metavar="SPACE", type=spelled_space, help=text)
    text = "the image sizes to choose from (the space's own)"
    add("--resolution", type=numbers, default=(), metavar="PX[,PX...]", help=text)
    text = "relu, gelu or relu,gelu (the space's own)"
    add("--activation", type=words, default=(), metavar="A[,A]", help=text)
    add("--classes", type=int, help="outputs of the classifier (the space's own)")
    text = (
        "the choices of a field at each stage, or at one: kernels=3,5 widths[0]=32,48; also "
        "'params<=4M', with macs, file and memory too"
    )
    add(
        "--set-space",
        type=_setting,
        nargs="+",
        action="extend",
        default=[],
        metavar="SET",
        help=text,
    )
    limits = {
        "params": "the most parameters, such as 4M",
        "macs": "the most multiply-accumulates, such as 300M",
        "file": "the largest file, such as 8MB",
        "memory": "the most memory for activations (fp32, batch 1), such as 32MB",
    }
    for name, text in limits.items():
        add(f"--max-{name}", type=_limit(name), metavar=name.upper(), help=text)


def _add_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "to train on: a folder, an .npz, digits (none)"
    add("--data", type=word, metavar="DATA", help=text)
    text = f"{either([*accuracy_names(), 'auto'])} (train if there is data, else estimate)"
    add("--accuracy", metavar="HOW", help=text)
    text = "what training may take, such as 2h: with data it takes auto"
    add("--time", type=duration_ms, metavar="TIME", help=text)
    text = "of the longest training (8; on photos with --time, what fits)"
    add("--epochs", type=positive, default=8, help=text)
    text = "what early epochs have less of: resolution, images (none)"
    add("--progressive", type=words, default=(), metavar="G[,G]", help=text)
    text = "whether trainings mirror images: on, or off where left and right differ (on)"
    add("--flip", type=switch, default=True, metavar="on|off", help=text)
    text = "a FasterNet checkpoint with which trainings begin (from scratch)"
    add("--init", type=word, metavar="FILE", help=text)


def _add_running(parser: argparse.ArgumentParser) -> None:
    """Add where the run is kept, and where its trials run."""
    add = parser.add_argument
    add("--out", type=word, metavar="DIR", help="the run folder (runs/DEVICE-BUDGET)")
    text = "go on with the run in the folder, to more --trials if told"
    add("--resume", action="store_true", help=text)
    add("--fresh", action="store_true", help="time anew what earlier runs timed")
    add("--repair", action="store_true", help="drop a last line that was cut off")
    add("--ray", type=ray_address, metavar="HOST:PORT", help="a running Ray cluster, or auto")
    text = "tasks (of Ray), or tune: Ray Tune, for trials that train for long (tasks)"
    add("--engine", default="tasks", help=text)
    text = "end a trial that runs longer, such as 10min (no limit)"
    add("--trial-timeout", type=duration_ms, metavar="TIME", help=text)
    text = (
        "an Optuna storage that gets a copy of the trials every half a minute and at the end: "
        "sqlite:///x.db, or a file x.journal"
    )
    add("--storage", type=word, metavar="URL", help=text)


_LIMITS: Mapping[str, tuple[str, Callable[[str], int]]] = {
    "params": ("params", parse_count),
    "macs": ("macs", parse_count),
    "file": ("file_bytes", parse_bytes),
    "memory": ("memory_bytes", parse_bytes),
}


def _limit(name: str) -> Callable[[str], Limits]:
    """What reads a limit of that name."""
    field, parse = _LIMITS[name]

    def read(text: str) -> Limits:
        try:
            return Limits.by_name({field: parse(text)})
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _setting(text: str) -> FieldChoices | Limits:
    """Read kernels=3,5 or params<=4M."""
    match = re.fullmatch(r"([A-Za-z_]\w*(?:\[[0-9]+\])?)(<?=)(.*)", text)
    if match is None or (match[2] == "<=" and match[1] not in _LIMITS):
        raise argparse.ArgumentTypeError(
            f"must be FIELD=VALUE[,VALUE...] or {either([f'{n}<=N' for n in _LIMITS])}, but got "
            f"{text!r}."
        )
    if match[2] == "<=":
        return _limit(match[1])(match[3])
    return FieldChoices(field=match[1], values=tuple(map(_value, words(match[3]))))


def _value(word: str) -> int | float | str:
    """A whole number, a number or a fraction, or else a word."""
    if re.fullmatch("-?[0-9]+", word, re.ASCII):
        return int(word)
    if re.fullmatch(r"-?[0-9]*\.?[0-9]+(/0*[1-9][0-9]*)?", word, re.ASCII):
        numerator, _, denominator = word.partition("/")
        return float(numerator) / float(denominator or 1)
    return word


def run_search(arguments: argparse.Namespace) -> int:
    """`fasternas search`: calibrate, search, verify; print the front."""
    typed = fill(arguments)
    arguments.folder = folder = _folder(arguments)
    prepare = _resumed if arguments.resume else _prepared
    ready = prepare(arguments, folder, typed)
    from nas.devices import descriptions, remarks
    from nas.pipeline import run_pipeline
    from nas.report.model import ReportModel, write_report
    from nas.run_folder import give_up, keep_remarks

    run = _run(arguments, folder, ready)
    run.limit = ready.time
    timeout_s = arguments.trial_timeout and arguments.trial_timeout / 1e3
    for remark in ready.remarks:
        print(remark, file=sys.stderr)
    try:
        _check_travels(run)
        mirror = _mirror(arguments.storage, run)
        steps = run_pipeline(
            run,
            ray_address=arguments.ray,
            trial_timeout_s=timeout_s,
            engine=arguments.engine,
        )
        steps = _mirrored(steps, mirror, run)
        show_search(steps, f"{'; '.join(descriptions(run.devices))}; {folder}")
        model = ReportModel(run)
        write_report(model)
        keep_remarks(run)
        behind = _behind(mirror, run)
    except BaseException:  # an interruption, too, leaves no run that has nothing
        give_up(run)
        raise
    finally:
        run.close()
    for remark in remarks(run.devices):
        print(remark, file=sys.stderr)
    print_front(model, as_json=arguments.json)
    errors = [error for error in (behind, _nothing_found(model)) if error]
    for error in errors:
        print(f"fasternas: error: {error}", file=sys.stderr)
    return 2 if errors else 0


def _nothing_found(model: "ReportModel") -> str:
    """Say so where no network can be used."""
    if model.front:
        return ""
    what = "`budget` and limits" if model.options.limits.given else "`budget`"
    return (
        f"{what} must be kept by some network, but none of {len(model.networks)} is known to. "
        "Search anew with a larger --budget, or go on to more --trials with --resume."
    )


def fill(arguments: argparse.Namespace) -> set[str]:
    """Give what was not typed its default; return the names of what was."""
    typed = {name for name in arguments.defaults if getattr(arguments, name) is not None}
    for name in arguments.defaults.keys() - typed:
        setattr(arguments, name, arguments.defaults[name])
    if not arguments.resume and arguments.budget is None:
        raise ValueError(
            "the following arguments are required: --budget, the latency to keep, such as 10ms."
        )
    if arguments.engine not in ("tasks", "tune"):
        raise ValueError(f"`engine` must be tasks or tune, but got {arguments.engine!r}.")
    return typed


def _run(arguments: argparse.Namespace, folder: Path, ready: "Prepared") -> "Run":
    from nas.run_folder import resume_run, start_run
    from predictors.devices.registry import forget_references

    if arguments.resume:
        run = resume_run(folder, ready.options, repair=arguments.repair, fresh=arguments.fresh)
        forget_failed_files(run)
        return run
    run = start_run(
        folder,
        ready.options,
        fresh=arguments.fresh,
        validation=ready.validation,
        counts=ready.counts,
    )
    for device in run.devices.values() if arguments.fresh else ():
        forget_references(device)  # which a run that goes on must not: it keeps its scale
    return run


def forget_failed_files(run: "Run") -> None:
    """Have files made and evaluated again that could not be: what they lacked may be there now."""
    for found in run.study.files.values():
        for backend in [backend for backend, file in found.items() if file.error]:
            del found[backend]


def _check_travels(run: "Run") -> None:
    """Refuse what of another package the workers could not be sent, before anything is timed."""
    from nas.ray_pool import check_travels
    from predictors.devices.registry import foreign_devices

    if run.options.accuracy in extension_names("estimators"):
        check_travels("estimators", run.options.accuracy, run.estimator)
    for name, device in run.devices.items():
        if device.source == "predicted" and name in foreign_devices():
            check_travels("devices", name, device)


_HOW = ("runtime", "precision", "threads", "cores")
_OF_DEVICES = ("device", "budget", *_HOW)
_FIELDS = {"resolution": "resolutions", "activation": "activations"}  # of options, by argument


def _resumed(arguments: argparse.Namespace, folder: Path, typed: set[str]) -> "Prepared":
    """The options of the run to go on with, and of what was typed, as that says it.

    Whether this is the same is not for here: a study refuses other options.
    """
    kept = _kept(folder)
    names = {field.name for field in fields(kept)} - {"devices"}
    for name in arguments.defaults.keys() - typed:
        if (own := _FIELDS.get(name, name)) in names:
            setattr(arguments, name, getattr(kept, own))
    devices = kept.devices
    if not typed.isdisjoint(_OF_DEVICES):
        arguments.device = arguments.device or [spec.name for spec in devices]
        arguments.budget = arguments.budget or kept.budgets_ms
        devices = specs_of(arguments, run=folder)
        if typed.isdisjoint(_HOW):
            known = {spec.name: spec for spec in kept.devices}
            devices = tuple(
                replace(known.get(spec.name, spec), budget_ms=spec.budget_ms) for spec in devices
            )
    if arguments.time is not None:
        arguments.trials = kept.trials  # those that were typed were the most to choose
    options = _options(arguments, folder, devices)
    from nas.estimators import Prepared

    if arguments.time is None:
        return Prepared(options=options)
    remark = "--time changes nothing: the run chose its trainings when it began."
    return Prepared(options=options, remarks=(remark,))


def _mirror(url: str | None, run: "Run") -> "Mirror | None":
    """The storage that gets a copy of the trials; it begins with those that there are."""
    if url is None:
        return None
    from nas.study.store import Mirror

    mirror = Mirror(url, run.folder.resolve().name)
    mirror.update(run.study.trials())
    return mirror


def _mirrored(
    steps: "Iterator[Progress]", mirror: "Mirror | None", run: "Run"
) -> "Iterator[Progress]":
    """Copy the trials every so often, and when the steps end, however; a failure waits."""
    copied = time.monotonic()
    try:
        for step in steps:
            yield step
            if time.monotonic() > copied + MIRROR_S:
                _behind(mirror, run)
                copied = time.monotonic()
    finally:
        _behind(mirror, run)


def _behind(mirror: "Mirror | None", run: "Run") -> str:
    """Bring the storage up to date; say why it does not take all."""
    try:
        if mirror is not None:
            mirror.update(run.study.trials())
    except (RuntimeError, ValueError) as error:
        return str(error)
    return ""


def _prepared(arguments: argparse.Namespace, folder: Path, typed: set[str]) -> "Prepared":
    """The options as asked, with what the data and the run to go on with say."""
    if arguments.accuracy is None and arguments.time is not None and arguments.data:
        arguments.accuracy = "auto"
    _refuse_idle_time(arguments)
    options = _options(arguments, folder, specs_of(arguments, run=None))
    _refuse_idle_training(options, typed)
    from nas.estimators import prepared  # it imports torch: what is wrong above is told at once

    automatic = arguments.accuracy == "auto"
    minutes = arguments.time and arguments.time / 60e3
    return prepared(
        options,
        automatic=automatic,
        minutes=minutes,
        trials=arguments.trials,
        epochs=arguments.epochs if "epochs" in typed else None,
        here=arguments.ray is None,
    )


def _options(
    arguments: argparse.Namespace, folder: Path, devices: tuple[DeviceSpec, ...]
) -> SearchOptions:
    """The options as asked."""
    return SearchOptions(
        devices=devices,
        space=arguments.space,
        trials=_trials(arguments, folder),
        parallel=arguments.parallel,
        seed=arguments.seed,
        searcher=arguments.searcher,
        accuracy=_accuracy(arguments, folder),
        data=arguments.data or "",
        epochs=arguments.epochs,
        progressive=arguments.progressive,
        flip=arguments.flip,
        init=str(Path(arguments.init).absolute()) if arguments.init else "",
        resolutions=arguments.resolution,
        activations=arguments.activation,
        classes=arguments.classes,
        choices=_choices(arguments, folder),
        limits=limits_of(arguments, folder, devices),
    )


def _accuracy(arguments: argparse.Namespace, folder: Path) -> str:
    """As asked; else trained if there is data; `auto` is what a run to go on with has."""
    if arguments.accuracy is not None:
        check_accuracy(arguments.accuracy, also=("auto",))
    if arguments.accuracy == "auto" and arguments.resume:
        return _kept(folder).accuracy
    asked: str | None = None if arguments.accuracy == "auto" else arguments.accuracy
    return asked or ("train" if arguments.data else "estimate")


def _trials(arguments: argparse.Namespace, folder: Path) -> int:
    """As asked; those that a run to go on with has."""
    if arguments.trials is not None:
        return int(arguments.trials)
    if arguments.resume:
        return _kept(folder).trials
    return TRAINED_TRIALS if _accuracy(arguments, folder) == "train" else TRIALS


def _choices(arguments: argparse.Namespace, folder: Path) -> tuple[FieldChoices, ...]:
    """As asked; those of a run to go on with."""
    asked = tuple(one for one in arguments.set_space if isinstance(one, FieldChoices))
    return _kept(folder).choices if arguments.resume and not asked else asked


def limits_of(arguments: argparse.Namespace, folder: Path, devices: Sequence[DeviceSpec]) -> Limits:
    """Return the limits as asked, of the file that is deployed; those of a run to go on with."""
    asked = [one for one in arguments.set_space if isinstance(one, Limits)]
    asked += filter(None, (getattr(arguments, f"max_{name}") for name in _LIMITS))
    given: dict[str, int] = {}
    for name, limit in (pair for one in asked for pair in one.given.items()):
        if given.setdefault(name, limit) != limit:
            raise ValueError(
                f"`{name}` must have one limit, but got {given[name]:,} and {limit:,}. Leave one "
                "out."
            )
    if not given:
        return _kept(folder).limits if arguments.resume else NO_LIMITS
    int8 = all(backend.precision == "int8" for d in devices for backend in d.backends)
    return Limits.by_name(given, "int8" if int8 else "fp32")


def _kept(folder: Path) -> SearchOptions:
    """The options of the run to go on with, which needs all that they name."""
    from nas.study.store import read_run

    stored = read_run(folder)["options"]
    refuse_uninstalled(stored)
    return SearchOptions.from_json(stored)


def _refuse_idle_time(arguments: argparse.Namespace) -> None:
    """Refuse a time for training where nothing is chosen by it."""
    if arguments.time is not None and arguments.accuracy != "auto":
        raise ValueError(
            "`time` must be left out unless `accuracy` is auto, but got "
            f"{arguments.time / 1e3:g} s. Add --accuracy auto."
        )


def _refuse_idle_training(options: SearchOptions, typed: set[str]) -> None:
    """Refuse how networks are trained where none is."""
    idle = [name for name in OF_TRAININGS if name in typed and options.accuracy == "estimate"]
    if idle:
        raise ValueError(
            f"`{idle[0]}` must be left out where `accuracy` is estimate, but is given: nothing is "
            "trained. Name what to train on with --data, and add --accuracy train."
        )


def _folder(arguments: argparse.Namespace) -> Path:
    """As given, or named by devices and budgets: not taken for a new run, the latest to resume."""
    if arguments.out is not None:
        return Path(arguments.out)
    if arguments.budget is None:
        raise ValueError(
            "`out` must be given with --resume, or the --budget by which the run is called. Name "
            "its folder: --out RUN."
        )
    first = Path("runs") / folder_name(arguments)
    numbered = (first.with_name(f"{first.name}-{i}") for i in count(2))
    taken = list(takewhile(Path.exists, chain([first], numbered)))
    if arguments.resume:
        return taken[-1] if taken else first
    return first.with_name(f"{first.name}-{len(taken) + 1}") if taken else first
