"""Which accuracy estimator a search has: as its options say, or as suits its data and time."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import SupportsFloat

import numpy as np
import torch
from numpy.typing import NDArray

from nas.search.guided import AccuracyPrior
from nas.search.pareto import going_on
from nas.study.journal import HasCheckpoints
from nas.study.options import SearchOptions
from nas.study.store import RUN, read_run
from predictors.accuracy import AccuracyEstimator, AccuracyKind
from predictors.cost import cost
from predictors.data.datasets import DataCounts, ImageData, load_data, located
from predictors.devices.device import budgets_of
from predictors.devices.profiled import ProfiledDevice
from predictors.devices.registry import open_spec
from predictors.measurement import Backend
from predictors.top1 import (
    Top1Estimator,
    check_estimable,
    is_shaped,
    load_top1,
    not_estimable,
)
from predictors.training.batches import batches
from predictors.training.estimators import TrainingEstimator
from predictors.training.evaluate import ValidationSplit
from predictors.training.recipe import PICTURES, Fidelity, rungs, short_recipe, stage_costs
from predictors.training.trainer import RECALIBRATED, precision
from predictors.training.workers import usable_device
from search_spaces.checkpoint import LEAST_SHARE, begin_with
from search_spaces.extensions import (
    ExtensionError,
    call_extension,
    extension_source,
    load_extension,
)
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.io import listed, short_repr
from search_spaces.network import build
from search_spaces.spaces import resolutions_of

CHECKPOINTS = "trainings"  # the folder of the trainings in a run folder
LEAST, MOST = 12, 200  # trials of a search that trains its networks
RANKED = 90_000  # photos of a training, with repeats, after which it ranks networks well
LONGEST = 32  # epochs of a training that is chosen for that
SPENT = 0.9  # of the time on trainings; the rest is timing, loading, and what comes out slower
DRAWN, STEPS = 1500, 4  # configs of which a typical one is timed, and training steps of it
TIMED = 9  # configs at least of which it is the median
_BACKWARD = 3  # times what a forward pass costs, with it
T0 = FASTERNET["t0"]

Clock = Callable[[SearchOptions, ImageData], float]
Scores = Callable[[Sequence[FasterNetConfig]], NDArray[np.float64]]


def open_estimator(
    options: SearchOptions, folder: Path, *, epochs: int | None = None
) -> AccuracyEstimator:
    """Return a study's estimator; one that trains does so for `epochs`, or to the first rung.

    Raises:
        RuntimeError: if that of another package cannot be opened.
    """
    if options.accuracy == "estimate":
        return Top1Estimator()
    if options.accuracy == "train":
        return _training(options, folder, epochs)
    return _foreign(options, folder.absolute())


def _foreign(options: SearchOptions, folder: Path) -> AccuracyEstimator:
    """An estimator of another package, which registers what opens one for options and a folder."""
    name, wanted = options.accuracy, "what opens an estimator for options and a folder"
    open_it = load_extension("estimators", name, accepts=callable, wanted=wanted)
    found: AccuracyEstimator = call_extension("estimators", name, lambda: open_it(options, folder))
    kind = getattr(found, "kind", None)
    if not callable(found) or kind not in ("score", "trained"):
        raise RuntimeError(
            f"`accuracy` {name} must be an estimator whose kind is score or trained, but "
            f"{extension_source('estimators', name)} gave {short_repr(found)} of "
            f"kind {short_repr(kind)}."
        )
    if isinstance(found, TrainingEstimator):  # ours, whose trainings can be followed
        return found
    source = f"{name} of {extension_source('estimators', name)}"
    return _Checked(estimator=found, kind=found.kind, source=source)


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """An estimator of another package, which may give anything."""

    estimator: AccuracyEstimator
    kind: AccuracyKind
    source: str

    def __call__(self, config: FasterNetConfig) -> float:
        found: object = self.estimator(config)
        if isinstance(found, SupportsFloat):
            return float(found)
        raise ExtensionError(
            f"{self.source} must give a number, but gave {short_repr(found)}. Mend or uninstall "
            "that package."
        )


def open_weights(options: SearchOptions, folder: Path) -> HasCheckpoints | None:
    """Return what has the weights of the networks of a study; None where each was not trained."""
    return _training(options, folder, None) if options.accuracy == "train" else None


def _training(options: SearchOptions, folder: Path, epochs: int | None) -> TrainingEstimator:
    recipe = replace(
        short_recipe(max(resolutions_of(options.open_space())), options.epochs),
        progressive=options.progressive,
        flip=options.flip,
        seed=options.seed,
    )
    return TrainingEstimator(
        data=located(options.data),
        recipe=recipe,
        epochs=epochs or rungs(options.epochs)[0],
        folder=(folder / CHECKPOINTS).absolute(),
        init=options.init,
        seeds=_seeds_merged(folder),
    )


def _seeds_merged(folder: Path) -> tuple[int, ...]:
    """The seeds of the runs that a merged one came from: it has their trainings."""
    origins = read_run(folder).get("merged_from", []) if (folder / RUN).exists() else []
    options = [origin.get("options") for origin in origins]
    return tuple(o["seed"] for o in options if isinstance(o, dict) and type(o.get("seed")) is int)


def accuracy_prior(options: SearchOptions) -> AccuracyPrior:
    """Return what is known of the accuracies of a study before there is one: the estimate.

    The search looks around the networks that the estimate was fitted to. How far chance moves
    accuracies is known of trained networks only; of what another package estimates, nothing is.
    """
    scores = estimated_scores(options)
    images = _counts(options.data).validation if options.accuracy == "train" else None
    starts = () if scores is None else tuple(known.config for known in load_top1().known)
    by_stage = tuple(replace(one, activations=one.stage_activations) for one in starts)
    return AccuracyPrior(scores=scores, images=images, starts=by_stage)


def estimated_scores(options: SearchOptions) -> Scores | None:
    """Return what the estimate says of configs, if it says anything of a study's accuracies."""
    if options.accuracy == "estimate":
        return estimated_low
    if options.accuracy == "train" and is_shaped(options.open_space()):
        return estimated_median
    return None


def estimated_median(configs: Sequence[FasterNetConfig]) -> NDArray[np.float64]:
    """Return the estimated top-1 of configs, in percent, of shape [n]."""
    return load_top1().predict(configs).median


def estimated_low(configs: Sequence[FasterNetConfig]) -> NDArray[np.float64]:
    """Return the lower ends of that, by which networks are ranked that are not trained."""
    return load_top1().predict(configs).low


@lru_cache(maxsize=1)
def _counts(data: str) -> DataCounts:
    return DataCounts.of(load_data(located(data)))


def check_counts(data: str, before: DataCounts) -> None:
    """Refuse data that are not what they were: accuracies on other images do not compare."""
    _counts.cache_clear()  # they may have changed since they were counted
    now = _counts(data)
    if now != before:
        raise ValueError(
            f"`data` must be what the run began with, but {data} has {now.train:,} training and "
            f"{now.validation:,} validation images of {now.classes:,} classes now, and had "
            f"{before.train:,} and {before.validation:,} of {before.classes:,}. Put them back, or "
            "begin another run."
        )


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The options of a search as its data make them, and what is to be said of that."""

    options: SearchOptions
    remarks: tuple[str, ...] = ()
    validation: ValidationSplit | None = None  # of the data, if there are any
    counts: DataCounts | None = None  # of these
    time: "TimeLimit | None" = None  # of trainings that were chosen by it


def prepared(
    options: SearchOptions,
    *,
    automatic: bool,
    minutes: float | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    here: bool = True,
) -> Prepared:
    """Take the classes from the data and, where that is `automatic`, choose the estimator.

    `trials` and `epochs` are those that were asked for. Where photos are trained `here`, and not on
    a cluster, it is said how long that takes.
    """
    data = None
    if options.data:
        data = load_data(options.data)
        if options.classes not in (None, len(data.classes)):
            raise ValueError(
                f"`classes` must be the {len(data.classes)} of {data.name}, but got "
                f"{options.classes}. Leave it out."
            )
        options = replace(options, classes=len(data.classes))
    remarks = (*(data.remarks if data else ()), *_words_of_start(options))
    limit = None
    if automatic:
        choice = auto_estimator(options, data, minutes=minutes, asked=trials, longer=epochs is None)
        options, remarks = choice.options, (*remarks, f"auto took {choice.reason}.")
        if minutes is not None and options.accuracy == "train":
            limit = TimeLimit(minutes=minutes, progressive=options.progressive)
    elif data and here and options.accuracy == "train" and _takes_pictures(options):
        remarks = (*remarks, _words_of_time(options, data))
    if options.accuracy == "estimate":
        check_estimable(options.open_space(), data=data is not None)
    if data is None:
        return Prepared(options=options, remarks=remarks)
    split, counts = ValidationSplit.of(data.validation), DataCounts.of(data)
    return Prepared(options=options, remarks=remarks, validation=split, counts=counts, time=limit)


def _words_of_time(options: SearchOptions, data: ImageData) -> str:
    minutes = _epoch_minutes(options, data) * options.epochs
    spent = _spelled(_trainings_of(options.trials, options.progressive) * minutes)
    return f"{options.trials} short trainings take about {spent} here. --time takes what fits in."


def _words_of_start(options: SearchOptions) -> list[str]:
    """Say how much of the networks begins with the weights of a file: of the smallest and largest.

    Raises:
        ValueError: if that is little of both.
    """
    if not options.init:
        return []
    space, rng = options.open_space(), Random(0)
    drawn = sorted(
        (space.sample(rng) for _ in range(TIMED)), key=lambda config: cost(config).params
    )
    with torch.device("meta"):  # names and shapes are enough
        smallest, largest = (build(config) for config in (drawn[0], drawn[-1]))
    small = begin_with(smallest, options.init, least_share=0.0)
    large = begin_with(
        largest, options.init, least_share=LEAST_SHARE if small.share < LEAST_SHARE else 0.0
    )
    if rivals := small.rivals or large.rivals:
        raise ValueError(
            "`weights` must be one network's, with which all begin, but "
            f"{options.init} has several, under {listed(rivals)}. Save the one that is meant by "
            "itself."
        )
    shares = f"{100 * large.share:.3g} to {100 * small.share:.3g} %"
    file = large.words_of_file(options.init)
    rest = small.words_of_rest() and large.words_of_rest()  # what neither of them has
    return [f"Of large to small networks {shares} of the parameters begin as in {file}{rest}."]


@dataclass(frozen=True)
class AutoChoice:
    """The options with the estimator and the trials that were chosen, and why."""

    options: SearchOptions
    reason: str


def auto_estimator(
    options: SearchOptions,
    data: ImageData | None,
    *,
    minutes: float | None,
    asked: int | None = None,
    longer: bool = False,
    clock: Clock | None = None,
) -> AutoChoice:
    """Choose the estimator and, where networks are trained in a given time, how many and how long.

    Networks are trained, or their accuracy is estimated. `clock` returns the seconds that an epoch
    of a typical network takes on one core or the GPU; unless given, some steps are timed. Without a
    limit of time, networks are trained. There are no more trials than were `asked` for. Trainings
    on photos may be `longer` than the options say: few that rank networks are worth more than many
    that do not.
    """
    if data is None:
        options = replace(options, accuracy="estimate", data="")
        return AutoChoice(options, "the estimate without training, since there is no data")
    if minutes is None:
        reason = f"{options.trials} short trainings, since no --time limits them"
        return AutoChoice(replace(options, accuracy="train"), reason)
    epoch = _epoch_minutes(options, data, clock)
    most = asked or MOST
    least = min(LEAST, most)
    for chosen in _plans(options, len(data.train), longer=longer):
        training = epoch * chosen.epochs
        trials = _trials_within(SPENT * minutes / training, chosen.progressive, most)
        if trials >= least:
            return _trained(options, chosen, trials, training)
    time_left = _spelled(minutes)
    if why := not_estimable(options.open_space()):
        wanted = _spelled(_trainings_of(least, chosen.progressive) * training / SPENT)
        raise ValueError(
            f"`time` must be enough for {least} short trainings, about {wanted}, but got "
            f"{time_left}: {why}. Give more time, fewer --epochs or smaller images."
        )
    reason = f"the estimate; {time_left} would do for {trials} short trainings only"
    trials = asked or SearchOptions.trials
    return AutoChoice(replace(options, accuracy="estimate", trials=trials), reason)


def _epoch_minutes(options: SearchOptions, data: ImageData, clock: Clock | None = None) -> float:
    """How much longer a search takes for an epoch of a typical network."""
    return (clock or epoch_seconds)(options, data) / _trained_at_once(options) / 60


def _trained(
    asked: SearchOptions, chosen: SearchOptions, trials: int, minutes: float
) -> AutoChoice:
    """So many trials, a whole training of which takes so many minutes."""
    spent = _spelled(_trainings_of(trials, chosen.progressive) * minutes)
    begin = chosen.progressive != asked.progressive
    smaller = ", with smaller images in the first half of them" if begin else ""
    reason = f"{trials} short trainings, which take about {spent}: {chosen.epochs} epochs for the "
    reason += f"best{smaller}"
    return AutoChoice(replace(chosen, accuracy="train", trials=trials), reason)


@dataclass(frozen=True, kw_only=True)
class TimeLimit:
    """Ends the trials of a search early where trainings come out slower than was reckoned."""

    minutes: float
    progressive: tuple[Fidelity, ...] = ()

    def begun(self, finished: Sized) -> Callable[[int], bool]:
        """Return what says from now on whether so many trials fit in; `finished` grows."""
        start = time.monotonic()

        def goes_on(trials: int) -> bool:
            return self.allows(trials, len(finished), minutes=(time.monotonic() - start) / 60)

        return goes_on

    def allows(self, trials: int, finished: int, *, minutes: float) -> bool:
        """Whether so many trials fit in, with what comes after them.

        So many have `finished` after so many `minutes`. At least `LEAST` trials always do.
        """
        if trials <= LEAST or not finished:
            return True
        first, _, _ = stage_costs(self.progressive)
        whole = minutes / (finished + 1) / (first / 4)  # of a training; some are under way
        return _trainings_of(trials, self.progressive) * whole <= self.minutes


def _plans(options: SearchOptions, images: int, *, longer: bool) -> Iterator[SearchOptions]:
    """Yield how networks may be trained on so many images, what tells most of them first.

    A network is trained for a quarter of the epochs before the search compares it.
    """
    smaller = replace(options, progressive=("resolution",))
    pictures = _takes_pictures(options) and not options.progressive
    if pictures and longer:
        wanted = min(4 * math.ceil(RANKED / images), LONGEST)
        for epochs in range(wanted, options.epochs, -4):
            yield replace(smaller, epochs=epochs)
    else:
        yield options
    if pictures:
        yield smaller


def _takes_pictures(options: SearchOptions) -> bool:
    return max(resolutions_of(options.open_space())) >= PICTURES


def _trials_within(trainings: float, progressive: Sequence[Fidelity], most: int) -> int:
    """Return how many trials come to so many whole trainings."""
    return max(n for n in range(most + 1) if _trainings_of(n, progressive) <= trainings)


def _trainings_of(trials: int, progressive: Sequence[Fidelity]) -> float:
    """Return how many whole trainings a search comes to.

    All trials train for a quarter of the epochs, those that go on for the next quarter, and those
    of them that go on again for the other half.
    """
    further = going_on(trials)
    first, second, last = stage_costs(progressive)
    return (trials * first + further * second) / 4 + going_on(further) * last / 2


def _trained_at_once(options: SearchOptions) -> int:
    """How many trainings run side by side at the speed of one alone: on a GPU they share it."""
    if usable_device("auto").type == "cuda":
        return 1
    return min(len(os.sched_getaffinity(0)), options.parallel)


def epoch_seconds(options: SearchOptions, data: ImageData) -> float:
    """Train a typical network for some steps; return the seconds that an epoch takes.

    On one core, or on the GPU if there is one. Images are got anew in each: those that train, those
    for batch norms and those that judge.
    """
    config = typical(options)
    recipe = short_recipe(max(resolutions_of(options.open_space())))
    threads, device = torch.get_num_threads(), usable_device("auto")
    images, labels, an_image = _timed_images(data, recipe.batch_size, device)
    images = torch.nn.functional.interpolate(images, size=(config.resolution,) * 2)
    images, labels = images.to(device), labels.to(device)
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            network = build(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        start = math.nan
        for step in range(STEPS + 1):
            if step == 1:  # the first one warms up
                start = time.monotonic()
            with precision(recipe, device, config.resolution):
                logits = network(images)
            loss = torch.nn.functional.cross_entropy(logits.float(), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            loss.item()  # waits for a GPU
        a_step = (time.monotonic() - start) / STEPS
    finally:
        torch.set_num_threads(threads)
    train = len(data.train)
    looked_at = min(RECALIBRATED, train) + len(data.validation)
    computed = train + looked_at / _BACKWARD
    return a_step * computed / len(images) + an_image * (train + looked_at)


def _timed_images(
    data: ImageData, size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Get a batch of training images and labels; return the seconds of an image, too.

    A batch is decoded by all cores: on a CPU, where each trains a network, images are got singly.
    """
    at_once = 1 if device.type == "cpu" else size
    some = data.train.subset(np.arange(min(size, len(data.train))))
    start = time.monotonic()
    found = list(batches(some, data=data, batch_size=at_once, rng=None))
    seconds = time.monotonic() - start
    images, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    return images, labels, seconds / len(some)


def typical(options: SearchOptions) -> FasterNetConfig:
    """Return the median, by MACs, of drawn networks that may keep the budgets.

    They may where the ARM profile gives them as small a multiple of T0's latency as the budget is
    on a device; if hardly one does, those are taken that come closest.
    """
    rng, space = Random(0), options.open_space()
    drawn: list[FasterNetConfig] = [space.sample(rng) for _ in range(DRAWN)]
    budgets = budgets_of(options.devices)
    share = min(budgets[d.name] / open_spec(d).measure(T0).median_ms for d in options.devices)
    profile = ProfiledDevice("arm", Backend())
    t0, *others = profile.predict([T0, *drawn]).mean_ms.tolist()
    may = sum(one <= share * t0 for one in others)
    order: list[int] = np.argsort(others).tolist()
    nearest = [drawn[i] for i in order[: max(may, TIMED)]]
    return sorted(nearest, key=lambda config: cost(config).macs)[len(nearest) // 2]


def _spelled(minutes: float) -> str:
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
