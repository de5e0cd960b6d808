"""One study from its options to its front: calibrate the device, search, verify the front."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from nas.candidate import Candidate
from nas.estimators import accuracy_prior, open_estimator, supernet_training, within_budget
from nas.evaluation import Evaluation
from nas.fronts import best_of, candidates_of
from nas.latencies import Calibration, calibrations, fitted, predicted
from nas.named_sizes import named_sizes
from nas.ray_pool import RayPool, joined, through_ray
from nas.ray_workers import WorkerRequest, train_supernet
from nas.reach import check_reachable, check_reached, smallest_of
from nas.search.guided import smoothed
from nas.search.loop import search
from nas.search.pareto import promoted
from nas.search.trial import Evaluate, Outcome, Pool
from nas.study.options import SearchOptions
from nas.study.store import Study
from nas.study.trainings import after, longest, train_on
from nas.verifying import verify
from predictors.accuracy import AccuracyEstimator
from predictors.cost import cost
from predictors.devices.device import Device
from predictors.latency import next_batch
from predictors.measurement import Latency
from predictors.shares import Predictor
from predictors.training.recipe import rungs
from search_spaces.fasternet import FasterNetConfig
from search_spaces.space import Space

Phase = Literal[
    "calibrating the device",
    "training the supernet",
    "searching",
    "training the best",
    "verifying the front",
]

OpenPool = Callable[[Evaluate], AbstractContextManager[Pool]]

CALIBRATION = 49  # networks timed before the search
CALIBRATION_PROCESSES = 1  # the predictor averages over networks what one measurement misses
TRAINED_ON = 0.25  # of a GPU, where there are some: small networks do not fill one
NEAR, TIMED = 3.0, 10.0  # budgets: how far out the named sizes get a score, and are timed


@dataclass(frozen=True)
class Progress:
    """How far a phase is; `best` says in words what has been found."""

    phase: Phase
    done: int
    total: int
    best: str = ""


class Run:
    """A run folder at work; close it when done."""

    def __init__(
        self, folder: Path, options: SearchOptions, device: Device, *, reading: bool = False,
        lock: IO[bytes] | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.options = options
        self.device = device
        self.space: Space[FasterNetConfig] = options.open_space()
        self.estimator: AccuracyEstimator = open_estimator(options, folder)
        self.study = Study(folder, self.space, options.limit, reading=reading, lock=lock)

        self._fitted: dict[int, Predictor] = {}  # by the number of measurements
        self.begun = False  # by this command
        self.made: list[Path] = []  # the folders that did not exist before, the deepest first
        self.lost = self.lost_trainings = 0  # trials, and longer trainings, whose workers were lost

    def steps(
        self, *, ray_address: str | None = None, trial_timeout_s: float | None = None,
        workers: WorkerRequest | None = None,
    ) -> Iterator[Progress]:  # fmt: skip
        """Do everything that is not done yet; `workers` train the supernet, if there is one.

        Raises:
            ValueError: if no config of the space meets the budget.
        """
        gpu = TRAINED_ON if self.estimator.kind == "trained" else 0.0
        pool = partial(RayPool, address=ray_address, gpu=gpu)
        with through_ray(self.device, ray_address) as self.device:
            yield from self._calibrate()
            self._check_reachable()
            yield from self._train_supernet(workers or WorkerRequest(), ray_address)
            with joined(ray_address):  # not before: one worker trains here, without Ray
                yield from self._search(partial(pool, timeout_s=trial_timeout_s))
                yield from self._train_best(pool, trial_timeout_s)
            yield from self._verify()

    def candidates(self, *, searching: bool = False) -> list[Candidate]:
        """Every network with scores, its latency measured or predicted; the front is marked.

        Once networks of the front have been timed, only such are on it, unless `searching`.
        """
        outcomes = [(config, self._at_its_best(config, outcome))
                    for config, outcome in self.study.outcomes()]  # fmt: skip
        configs = [config for config, _ in outcomes]
        latencies = self.study.measurements
        # a study merged of two that were only calibrated has many latencies, and none of a front
        verified = len(latencies) > CALIBRATION and not searching and any(
            config in latencies for config in configs)  # fmt: skip
        latencies = {**self._predicted(configs), **latencies}
        return candidates_of(outcomes, latencies, self.study.files, budget_ms=self.options.limit,
                             accuracy_kind=self.estimator.kind, measured_only=verified)  # fmt: skip

    def named(self) -> list[Candidate]:
        """FasterNet T0 to L on this device: timed, or predicted where far beyond the budget.

        What no plot shows gets no score: it would take a minute.
        """
        sizes = named_sizes(self.space)
        known = {**self._predicted(list(sizes.values())), **self.study.measurements}
        return [
            Candidate(name=name, config=config, accuracy=self._accuracy(config, known[config]),
                      accuracy_kind=self.estimator.kind, latency=known[config],
                      macs=cost(config).macs, params=cost(config).params,
                      feasible=known[config].meets(self.options.limit))
            for name, config in sizes.items() if config in known
        ]  # fmt: skip

    def _at_its_best(self, config: FasterNetConfig, outcome: Outcome) -> Outcome:
        """The outcome with the accuracy after the longest training."""
        further = longest(self.study.trainings.get(config, {}))
        if outcome.scores is None or further is None or further.accuracy is None:
            return outcome
        return replace(outcome, scores=replace(outcome.scores, accuracy=further.accuracy))

    def _accuracy(self, config: FasterNetConfig, latency: Latency) -> float:
        if self.estimator.kind != "proxy":
            return math.nan  # it would take a training, or is in no supernet
        near = latency.median_ms <= NEAR * self.options.limit
        return self.estimator(config) if near else math.nan

    def calibrations(self) -> list[Calibration]:
        """Return what was predicted for the networks timed after calibrating, and what was timed.

        For each device with a clock, if any network was timed that its predictor had not seen.
        """
        timed = list(self.study.measurements.items())[CALIBRATION:]
        later = [(config, m) for config, m in timed if config in self.space]
        predictor = self._predictor(CALIBRATION)
        return calibrations(predictor, self.device, later) if predictor else []

    def predict_ms(self, configs: Sequence[FasterNetConfig]) -> list[float] | None:
        """Return latencies by all that is known so far; None before there is a predictor.

        Of several devices, per cent of a budget.
        """
        found = self._predicted(list(configs))
        return [found[config].median_ms for config in configs] if found else None

    def failed(self) -> list[str]:
        """Why trials failed, one line each."""
        return [outcome.error or "" for _, outcome in self.study.outcomes()
                if outcome.scores is None]  # fmt: skip

    def close(self) -> None:
        """Let go of the folder."""
        self.study.close()

    def _calibrate(self) -> Iterator[Progress]:
        """Time the networks from which latency is learned."""
        if self.device.source == "predicted":
            return
        measured = self.study.measurements
        self._check_reached()
        yield Progress("calibrating the device", len(measured), CALIBRATION)
        while len(measured) < CALIBRATION:
            timed = [(config, m.median_ms) for config, m in measured.items()]
            batch = next_batch(self.space, timed, limit_ms=self.options.limit,
                               total=CALIBRATION, seed=self.options.seed)  # fmt: skip
            for config, measurement in zip(
                batch, self.device.measure_each(batch, repeats=CALIBRATION_PROCESSES), strict=True
            ):
                self.study.keep_measurement(config, measurement)
                yield Progress("calibrating the device", len(measured), CALIBRATION)
            if not batch:
                return

    def _check_reached(self) -> None:
        """Time T0 and the smallest config, which must meet the budget."""
        smallest = smallest_of(self.space, self.options.seed)
        self._measure([named_sizes(self.space)["t0"], smallest], CALIBRATION_PROCESSES)
        check_reached(self.options.targets, self.study.measurements[smallest])

    def _check_reachable(self) -> None:
        """By what the networks that were timed tell of all the others."""
        check_reachable(self.space, self._known_latency(), self.options.targets, self.options.seed)

    def _train_supernet(self, request: WorkerRequest, address: str | None) -> Iterator[Progress]:
        """Train the weights that all networks share, where accuracies come from them."""
        if self.estimator.kind != "supernet":
            return
        configs = within_budget(self.space, self._known_latency().predict, self.options.limit,
                                self.options.seed)  # fmt: skip
        training = supernet_training(self.options, self.folder, configs)
        for progress in train_supernet(training, request, address=address):
            reached = f"accuracy {progress.accuracy:.3g} %"
            yield Progress("training the supernet", progress.done, progress.total, reached)

    def _search(self, open_pool: OpenPool) -> Iterator[Progress]:
        known = self._known_latency()
        evaluate = Evaluation(known.predict, self.estimator)
        with open_pool(evaluate) as pool:
            trials = search(
                self.space, evaluate, trials=self.options.trials, seed=self.options.seed,
                budget_ms=self.options.limit, searcher=self.options.searcher, pool=pool,
                predict_latency=known.predict, record=self.study, parallel=self.options.parallel,
                prior=accuracy_prior(self.options),
            )  # fmt: skip
            errors = []
            for trial in trials:
                errors.append(trial.error)
                self.lost += self.study.recall(trial.number) is None
                best = best_of(self.candidates(searching=True)) if trial.number % 10 == 9 else ""
                yield Progress("searching", trial.number + 1, self.options.trials, best)
        if errors and all(errors):
            raise RuntimeError(f"Trials must succeed, but all {len(errors)} failed: {errors[0]}.")

    def _known_latency(self) -> Predictor:
        """What knows latencies before the front is timed."""
        predictor = self._predictor(CALIBRATION)
        if predictor is None and self.device.source == "predicted":
            return self.device
        if predictor is None:
            raise RuntimeError(f"`device` must be calibrated to predict, but {self.device.name} "
                               "is not.")  # fmt: skip
        return predictor

    def _train_best(self, pool: Callable[..., Any], timeout_s: float | None) -> Iterator[Progress]:
        """Train the best networks further, rung by rung; they may take longer as there is more."""
        if self.estimator.kind != "trained":
            return
        first, *further = rungs(self.options.epochs)
        budget_ms = self.options.limit
        scores = {config: o.scores for config, o in self.study.outcomes()
                  if o.scores and o.scores.upper_ms <= budget_ms}  # fmt: skip
        for epochs in further:
            estimator = open_estimator(self.options, self.folder, epochs=epochs)
            evaluate = Evaluation(self._known_latency().predict, estimator)
            limit_s = timeout_s and timeout_s * epochs / first
            scores = smoothed(self.space, scores, accuracy_prior(self.options))
            with pool(evaluate, timeout_s=limit_s) as workers:
                for done, total in train_on(scores, epochs, self.study, workers):
                    best = best_of(self.candidates(searching=True))
                    yield Progress("training the best", done, total, best)
            self.lost_trainings += sum(epochs not in self.study.trainings.get(config, {})
                                       for config in promoted(scores))  # fmt: skip
            scores = after(scores, epochs, self.study.trainings)

    def _verify(self) -> Iterator[Progress]:
        """Make sure of the front; time the named sizes that are near the budget."""
        if self.device.source == "predicted":
            return
        for done, total in verify(self):
            yield Progress("verifying the front", done, total)
        sizes = list(named_sizes(self.space).values())
        limit_ms = TIMED * self.options.limit
        near = [c for c, m in self._predicted(sizes).items() if m.median_ms <= limit_ms]
        self._measure(near, processes=1)

    def _measure(self, configs: list[FasterNetConfig], processes: int) -> None:
        new = [config for config in configs if config not in self.study.measurements]
        for config, measurement in zip(
            new, self.device.measure_each(new, repeats=processes), strict=True
        ):
            self.study.keep_measurement(config, measurement)

    def _predicted(self, configs: list[FasterNetConfig]) -> dict[FasterNetConfig, Latency]:
        """Latencies by all that is known so far; none before there is a predictor."""
        predictor = self._predictor(len(self.study.measurements))
        return predicted(predictor, configs, self.device) if predictor else {}

    def _predictor(self, count: int) -> Predictor | None:
        """Fit to the first `count` measurements; None where there are too few."""
        timed = list(self.study.measurements.items())[:count]
        if len(timed) not in self._fitted:
            found = fitted(self.space, self.device, timed)
            if found is None:
                return None
            self._fitted[len(timed)] = found
        return self._fitted[len(timed)]
