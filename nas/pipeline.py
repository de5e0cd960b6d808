"""One study from its options to its front: calibrate, search, promote, remeasure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Literal, Protocol

from nas.candidates import (
    Candidate,
    Scored,
    best_of,
    candidate_of,
    candidates_of,
    named_sizes,
    near_misses,
    well_timed,
    with_costs,
    with_estimates,
    with_front,
)
from nas.devices import (
    Calibration,
    Devices,
    LatencyModels,
    calibrations,
    fit_models,
    have_clock,
    measure_each,
)
from nas.estimators import TimeLimit, accuracy_prior, open_estimator, open_weights
from nas.ray_pool import RayPool, joined, through_ray
from nas.reachable import check_reachable, check_reached, fastest_of
from nas.relatives import (
    CalibrationRecord,
    calibration_words,
    find_relatives,
    opened,
    read_record,
    write_record,
)
from nas.search.feasibility import Bounds
from nas.search.guided import posterior_mean
from nas.search.loop import Exploration
from nas.search.pareto import promoted
from nas.search.trial import NetworkScores, Objectives, Outcome, Pool
from nas.study.journal import after, evaluate_file, longest, not_evaluated, train_on
from nas.study.options import SETTINGS, SearchOptions, SearchSettings
from nas.study.store import Study, read_run, write_run
from predictors.accuracy import AccuracyEstimator
from predictors.calibration import STAGES, next_batch, upper_margin
from predictors.latency import FEWEST_RELATED, Relative
from predictors.measurement import Latencies, worst_ratio
from predictors.training.estimators import TrainingEstimator
from predictors.training.recipe import rungs
from search_spaces.fasternet import FASTERNET, PUBLISHED_TOP1, FasterNetConfig
from search_spaces.space import Space

Phase = Literal[
    "calibrating the device",
    "searching",
    "training the best",
    "verifying the front",
    "verifying what took a place on it",
]
Engine = Literal["tasks", "tune"]
TUNE = "tune"  # the folder of Ray Tune's records in a run folder
Scores = Mapping[FasterNetConfig, Objectives]


class OpenTimedPool(Protocol):
    """Opens a pool whose evaluations end when they take too long."""

    def __call__(
        self, evaluate: "Evaluation", *, timeout_s: float | None
    ) -> AbstractContextManager[Pool[NetworkScores]]:
        """Open it."""


@dataclass(frozen=True)
class Progress:
    """How far a phase is; `best` says in words what has been found."""

    phase: Phase
    done: int
    total: int
    best: str = ""


@dataclass(frozen=True)
class Evaluation:
    """Scores a config: its latencies are predicted, its accuracy estimated."""

    models: LatencyModels
    estimator: AccuracyEstimator

    @property
    def name(self) -> str:
        """What is done: for how many epochs networks are trained, if they are."""
        training = self._training
        return "scores" if training is None else f"{training.epochs}-epochs"

    def epochs(self, config: FasterNetConfig) -> Iterator[float]:
        """Train a network, if it is; yield the accuracy after each epoch."""
        if (training := self._training) is not None:
            yield from training.train(config)

    def file(self, config: FasterNetConfig) -> Path | None:
        """Return the checkpoint of a network's training, if there is one."""
        return None if self._training is None else self._training.file(config)

    @property
    def _training(self) -> TrainingEstimator | None:
        return self.estimator if isinstance(self.estimator, TrainingEstimator) else None

    def __call__(self, config: FasterNetConfig) -> NetworkScores:
        (latencies,) = self.models.latencies([config])
        accuracy = self.estimator(config)
        if self.estimator.kind == "trained" and not 0 <= accuracy <= 100:
            raise ValueError(
                f"`accuracy` must be 0 to 100 % of a trained network, but got {accuracy}."
            )
        return NetworkScores(accuracy=accuracy, latencies=latencies)


class Run:
    """A run folder with its devices: what is known of its networks. Close it when done."""

    def __init__(
        self,
        folder: Path,
        options: SearchOptions,
        devices: Devices,
        *,
        settings: SearchSettings | None = None,
        reading: bool = False,
        lock: IO[bytes] | None = None,
    ) -> None:
        self.folder = folder
        self.options = options
        self.devices = devices
        self.settings = settings or SETTINGS
        self.budgets_ms: Mapping[str, float] = options.budgets_ms
        self.space: Space[FasterNetConfig] = options.open_space()
        self.estimator: AccuracyEstimator = open_estimator(options, folder)
        self.study = Study(folder, self.space, self.budgets_ms, reading=reading, lock=lock)
        self.calibration = read_record(folder)  # None: nothing is known of other devices
        self.relatives: tuple[Relative, ...] = opened(self.calibration, self.space)
        self._models: dict[int, LatencyModels] = {}  # by the number of measurements
        self.begun = False  # by this command
        self.limit: TimeLimit | None = None  # of time, for which there may be fewer trials
        self.made: list[Path] = []  # the folders that did not exist before, the deepest first
        self.lost = self.lost_trainings = 0  # trials, and longer trainings, without a result
        self.lost_because = ""  # of the first of them, if that is known

    def candidates(self, *, searching: bool = False) -> list[Candidate]:
        """Every network with scores, its latencies measured or predicted; the front is marked.

        Once networks of the front have been timed, only such are on it, unless `searching`.
        """
        scored = [
            Scored(name=f"trial-{o.number:04d}", config=config, accuracy=self._accuracy(config, o))
            for config, o in self.study.outcomes()
            if o.scores is not None
        ]
        configs = [one.config for one in scored]
        measured = self.study.measurements
        # a study merged of two that were only calibrated has many latencies, and none of a front
        verified = len(measured) > self.calibrated and not searching
        known = {**self.predicted(configs), **measured}
        found = candidates_of(
            scored,
            known,
            self.study.files,
            kind=self.estimator.kind,
            budgets_ms=self.budgets_ms,
            limits=self.options.limits,
        )
        if self.estimator.kind == "estimated":
            found = with_estimates(found)
        verified = verified and any(config in measured for config in configs)
        return with_front(found, measured_only=verified)

    def named(self) -> list[Candidate]:
        """FasterNet T0 to L on these devices: timed, or predicted where far beyond a budget.

        Where accuracies are estimated they have those that were published, for 224 pixels; where
        there are scores, those.
        """
        sizes = named_sizes(self.space)
        known = {**self.predicted(list(sizes.values())), **self.study.measurements}
        found = []
        for name, config in sizes.items():
            if config not in known:
                continue
            bare = Scored(name=name, config=config, accuracy=math.nan)
            one = candidate_of(bare, known[config], self.estimator.kind, self.budgets_ms)
            if self.estimator.kind == "estimated":  # others would take a training
                known_top1 = replace(one, accuracy=PUBLISHED_TOP1[name])
                one = known_top1 if config == FASTERNET[name] else with_estimates([one])[0]
            if self.estimator.kind == "score":
                with suppress(Exception):  # it may know its own space only
                    one = replace(one, accuracy=float(self.estimator(config)))
            found.append(one)
        return with_costs(found, self.options.limits)

    def calibrations(self) -> list[Calibration]:
        """Return what was predicted for the networks timed after calibrating, and what was timed.

        For each device with a clock, if any network was timed that its predictor had not seen.
        """
        timed = list(self.study.measurements.items())[self.calibrated :]
        later = [(config, m) for config, m in timed if config in self.space]
        models = self.models(self.calibrated)
        return calibrations(models, self.devices, later) if models else []

    def predicted(self, configs: Sequence[FasterNetConfig]) -> dict[FasterNetConfig, Latencies]:
        """Return latencies by all that is known so far; none before there are predictors."""
        models = self.models(len(self.study.measurements))
        return dict(zip(configs, models.latencies(configs), strict=True)) if models else {}

    def failed(self) -> list[str]:
        return [o.error or "" for _, o in self.study.outcomes() if o.scores is None]

    def close(self) -> None:
        self.study.close()

    def models(self, count: int | None = None) -> LatencyModels | None:
        """Return what is fitted to the first `count` measurements; None where they are too few.

        Without a count they are those of the calibration.
        """
        count = self.calibrated if count is None else count
        timed = list(self.study.measurements.items())[:count]
        if len(timed) not in self._models:
            found = fit_models(
                self.space, self.devices, self.budgets_ms, timed, relatives=self.relatives
            )
            if found is None:
                return None
            self._models[len(timed)] = found
        return self._models[len(timed)]

    @property
    def calibrated(self) -> int:
        """How many networks were timed to know the devices; the most until that is known."""
        if self.calibration is None or self.calibration.networks is None:
            return self.settings.calibration
        return self.calibration.networks

    def shorten(self, trials: int) -> None:
        """Have no more trials than these."""
        self.options = replace(self.options, trials=trials)
        write_run(self.folder, {**read_run(self.folder), "options": self.options.as_json()})

    def keep_calibration(self, record: CalibrationRecord) -> None:
        """Write down what the devices are calibrated with."""
        write_record(self.folder, record)
        self.calibration, self.relatives = record, opened(record, self.space)

    def known_models(self) -> LatencyModels:
        """Return what knows latencies once the devices are calibrated."""
        models = self.models()
        assert models is not None
        return models

    def bounds(self) -> Bounds:
        """Return what a network must keep, once the devices are calibrated."""
        predict = self.known_models().ratios
        return Bounds(
            predict=predict, budget=True, limits=self.options.limits, risked=self.settings.risked
        )

    def measure(self, configs: Sequence[FasterNetConfig], repeats: int) -> None:
        """Time those of the networks that are not timed."""
        new = [config for config in configs if config not in self.study.measurements]
        found = measure_each(self.devices, new, repeats=repeats)
        for config, latencies in zip(new, found, strict=True):
            self.study.keep_measurement(config, latencies)

    def _accuracy(self, config: FasterNetConfig, outcome: Outcome[NetworkScores]) -> float:
        """The accuracy after the longest training."""
        assert outcome.scores is not None
        further = longest(self.study.trainings.get(config, {}))
        if further is None or further.accuracy is None:
            return outcome.scores.accuracy
        return further.accuracy


def run_pipeline(
    run: Run,
    *,
    ray_address: str | None = None,
    trial_timeout_s: float | None = None,
    engine: Engine = "tasks",
) -> Iterator[Progress]:
    """Do everything that is not done yet.

    Trials are tasks of Ray, or, with the engine `tune`, trials of Ray Tune.
    """
    pool = _pool(run, ray_address, engine)
    with through_ray(run.devices, ray_address) as run.devices:
        yield from calibrate(run)
        with joined(ray_address):
            yield from search(run, pool, trial_timeout_s)
            yield from promote(run, pool, trial_timeout_s)
        yield from remeasure(run)


def _pool(run: Run, address: str | None, engine: Engine) -> "OpenTimedPool":
    gpu = run.settings.gpu_share if run.estimator.kind == "trained" else 0.0
    if engine == "tasks":
        return partial(RayPool, address=address, gpu=gpu)
    from nas.tune_pool import TunePool

    return partial(TunePool, folder=run.folder / TUNE, address=address, gpu=gpu)


def calibrate(run: Run) -> Iterator[Progress]:
    """Time the networks from which latency is learned, and refuse budgets that none meets."""
    if have_clock(run.devices):
        if run.space.size < FEWEST_RELATED:
            raise ValueError(
                f"`space` must hold at least {FEWEST_RELATED} networks, but has {run.space.size}. "
                "Time them with `fasternas measure`."
            )
        if not run.study.measurements and run.calibration is None:
            run.keep_calibration(find_relatives(run.devices))
        fastest = fastest_of(run.space, run.options.seed)
        first = [one for name, one in named_sizes(run.space).items() if name == "t0"]
        run.measure([*first, fastest], run.settings.calibration_repeats)
        check_reached(run.budgets_ms, run.study.measurements[fastest])
        yield from _time_batches(run)
    limits = run.options.limits
    check_reachable(run.space, run.known_models(), run.options.seed, limits=limits)


def _time_batches(run: Run) -> Iterator[Progress]:
    """Time batch after batch, until intervals are narrow enough or there are the most."""
    measured = run.study.measurements
    yield Progress("calibrating the device", len(measured), run.calibrated)
    while len(measured) < run.calibrated and not _known_well(run):
        timed = [
            (config, {n: one.median_ms for n, one in found.by_device.items()})
            for config, found in measured.items()
        ]
        batch = next_batch(
            run.space,
            timed,
            budgets_ms=run.budgets_ms,
            limits=run.options.limits,
            total=run.calibrated,
            seed=run.options.seed,
            relatives=run.relatives,
        )
        found = measure_each(run.devices, batch, repeats=run.settings.calibration_repeats)
        for config, latencies in zip(batch, found, strict=True):
            run.study.keep_measurement(config, latencies)
            yield Progress("calibrating the device", len(measured), run.calibrated)
        if not batch:
            break
    if run.calibration is not None and run.calibration.networks is None:
        run.keep_calibration(run.calibration.ended(len(measured)))
        models, count = run.known_models(), run.calibrated
        margin = upper_margin(run.space, models.ratios, run.options.seed)
        words = calibration_words(run.calibration, models.weights, margin)
        yield Progress("calibrating the device", count, count, words)


def _known_well(run: Run) -> bool:
    """Whether the upper ends are near enough to what is predicted, after a whole batch."""
    count = len(run.study.measurements)
    models = run.models(count) if run.relatives and count in STAGES[1:] else None
    if models is None:
        return False
    margin = upper_margin(run.space, models.ratios, run.options.seed)
    return margin <= run.settings.calibration_margin


def search(
    run: Run, open_pool: OpenTimedPool, timeout_s: float | None = None
) -> Iterator[Progress]:
    """Evaluate as many configs as the options say, each predicted to meet every budget."""
    models = run.known_models()
    errors: list[str | None] = []
    exploration = Exploration(
        space=run.space,
        rate=lambda scores: scores.objectives(run.budgets_ms),
        bounds=run.bounds(),
        trials=run.options.trials,
        seed=run.options.seed,
        searcher=run.options.searcher,
        prior=accuracy_prior(run.options),
        record=run.study,
        in_flight=run.options.parallel,
        goes_on=run.limit.begun(errors) if run.limit else None,
    )
    with open_pool(Evaluation(models, run.estimator), timeout_s=timeout_s) as pool:
        for _, outcome in exploration.run(pool):
            errors.append(outcome.error)
            run.lost += run.study.recall(outcome.number) is None
            run.lost_because = run.lost_because or (outcome.error or "") * outcome.lost
            best = best_of(run.candidates(searching=True)) if outcome.number % 10 == 9 else ""
            yield Progress("searching", outcome.number + 1, run.options.trials, best)
    if run.limit and len(errors) < run.options.trials:
        run.shorten(len(errors))
        yield Progress("searching", len(errors), len(errors), "no more fit in")
    if errors and all(errors):
        raise RuntimeError(f"Trials must succeed, but all {len(errors)} failed: {errors[0]}.")


def promote(run: Run, open_pool: OpenTimedPool, timeout_s: float | None) -> Iterator[Progress]:
    """Train the best networks further, rung by rung; they may take longer as there is more."""
    if run.options.accuracy != "train":
        return
    first, *further = rungs(run.options.epochs)
    found: Scores = {
        config: objectives
        for config, outcome in run.study.outcomes()
        if outcome.scores and (objectives := outcome.scores.objectives(run.budgets_ms)).feasible
    }
    for epochs in further:
        estimator = open_estimator(run.options, run.folder, epochs=epochs)
        evaluate = Evaluation(run.known_models(), estimator)
        limit_s = timeout_s and timeout_s * epochs / first
        found = posterior_mean(run.space, found, accuracy_prior(run.options))
        with open_pool(evaluate, timeout_s=limit_s) as workers:
            for done, total in train_on(found, epochs, run.study, workers):
                best = best_of(run.candidates(searching=True))
                yield Progress("training the best", done, total, best)
        trained = run.study.trainings
        run.lost_trainings += sum(epochs not in trained.get(c, {}) for c in promoted(found))
        found = after(found, epochs, trained)


def remeasure(run: Run) -> Iterator[Progress]:
    """Time the front and, last, the named sizes that are near the budgets."""
    if not have_clock(run.devices):
        return
    yield from time_front(run)
    sizes = run.predicted(list(named_sizes(run.space).values()))
    ratios = {c: worst_ratio(latencies, run.budgets_ms) for c, latencies in sizes.items()}
    near = [config for config, r in ratios.items() if r.median <= run.settings.timed_ratio]
    run.measure(near, repeats=1)


def time_front(run: Run) -> Iterator[Progress]:
    """Time the front, and what takes the place of those that miss a budget or lose accuracy.

    What the calibration timed in fewer processes is timed again.
    """
    begun: set[FasterNetConfig] = set()
    for _ in range(run.settings.front_rounds):
        near = near_misses(
            run.candidates(searching=True), run.options.limits, run.settings.near_misses
        )
        front = [*_front(run), *near]
        waiting = [
            c.config
            for c in front
            if c.config not in begun and not well_timed(c, run.settings.front_repeats)
        ]
        first = not begun
        phase: Phase = "verifying the front" if first else "verifying what took a place on it"
        done, total = (len(front) - len(waiting), len(front)) if first else (0, len(waiting))
        begun.update(waiting)
        found = measure_each(run.devices, waiting, repeats=run.settings.front_repeats)
        for config, latencies in zip(waiting, found, strict=True):
            done += 1
            run.study.keep_measurement(config, latencies)
            yield Progress(phase, done, total)
        if not _evaluate_files(run) and not waiting:
            return


def _front(run: Run) -> list[Candidate]:
    return [c for c in run.candidates(searching=True) if c.on_front]


def _evaluate_files(run: Run) -> int:
    """Measure what the files of the front lose that are not in fp32; return how many."""
    weights = open_weights(run.options, run.folder)
    if weights is None:
        return 0
    waiting = [
        (c.config, backend, c.fp32_accuracy)
        for c in _front(run)
        if c.fp32_accuracy is not None
        for backend in not_evaluated(
            c.fp32_accuracy, c.latencies, run.study.files.get(c.config, {})
        )
    ]
    data = run.options.data
    for config, backend, accuracy in waiting:
        found = evaluate_file(weights, config, backend, fp32_accuracy=accuracy, data=data)
        run.study.keep_file(config, backend, found)
    return len(waiting)
