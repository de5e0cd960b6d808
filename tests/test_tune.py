"""Our searchers and spaces in Ray Tune, and Tune's searchers in `search()`."""

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from points import PLANE, Point, scores_of
from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.optuna import OptunaSearch

import fasternas as fn
from fasternas.tune import FasternasSearch, Metrics, TuneSearcher, config_of, param_space
from nas.search.trial import Outcome, Scores
from nas.tune_pool import TunePool

EXAMPLES = Path(__file__).parents[1] / "examples"
SPACE = fn.SPACES["fasternet-32"]
BUDGET_MS = 9.0


def _result(point: Point) -> dict[str, float]:
    scores = scores_of(point)
    return {"accuracy": scores.accuracy, "latency_ms": scores.latency_ms}


def test_a_space_is_tunes_and_its_choices_are_configs() -> None:
    domains = param_space(SPACE)
    assert list(domains) == list(SPACE.names)
    config = config_of(SPACE, {name: domain.sample() for name, domain in domains.items()})
    assert config in SPACE
    genes = SPACE.random_genes(Random(0))
    chosen = {n: g.choices[i] for n, g, i in zip(SPACE.names, SPACE.genes, genes, strict=True)}
    assert config_of(SPACE, {**chosen, "lr": 0.1}) == SPACE.decode(genes)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"x": 1}, r"`params` must have a choice for each of x, y, but y is missing\."),
        ({"x": 1, "y": 99}, r"`y` must be one of \(0, 1, .*\), but got 99\."),
    ],
)
def test_what_is_no_config_is_refused(params: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config_of(PLANE, params)


@pytest.mark.parametrize("searcher", ["guided", "tpe", "evolution"])
def test_one_after_another_it_proposes_what_search_does(searcher: str) -> None:
    options: dict[str, Any] = {"searcher": searcher, "budget_ms": BUDGET_MS, "seed": 2}
    expected = [t.config for t in fn.search(PLANE, scores_of, trials=12, **options)]
    search, found = FasternasSearch(PLANE, **options), []
    for number in range(12):
        params = search.suggest(f"trial-{number}")
        assert params is not None
        found.append(config_of(PLANE, params))
        search.on_trial_complete(f"trial-{number}", result=_result(found[-1]))
    assert found == expected


def test_results_come_in_any_order_and_a_saved_search_goes_on(tmp_path: Path) -> None:
    search = FasternasSearch(PLANE, budget_ms=BUDGET_MS, seed=1)
    running = {}
    for number in range(14):
        params = search.suggest(str(number))
        assert params is not None
        running[str(number)] = config_of(PLANE, params)
        if len(running) == 3:  # the latest ends first; one of them fails, one reports nothing
            name = list(running)[2 if number % 2 else 0]
            result = None if number == 5 else {} if number == 6 else _result(running[name])
            search.on_trial_complete(name, result=result, error=number == 5)
            del running[name]
    search.save(str(tmp_path / "state"))
    again = FasternasSearch(PLANE, budget_ms=BUDGET_MS, seed=1)
    again.restore(str(tmp_path / "state"))
    for name, config in running.items():
        for one in (search, again):
            one.on_trial_complete(name, result=_result(config))
    assert search.suggest("next") == again.suggest("next")
    with pytest.raises(ValueError, match=r"must be what a search of this space saved, but is not"):
        FasternasSearch(SPACE).restore(str(tmp_path / "state"))


def test_what_a_scheduler_ends_is_told_as_it_was_then(tmp_path: Path) -> None:
    search = FasternasSearch(PLANE)
    configs = [config_of(PLANE, search.suggest(name) or {}) for name in "abc"]
    for name, config in zip("ab", configs, strict=False):
        search.on_trial_result(name, _result(config))
    search.on_trial_complete("a")  # as Tune ends what HyperBand has paused
    search.on_trial_complete("b", error=True)
    search.on_trial_complete("c", result={"accuracy": None, "latency_ms": "1"})
    search.save(str(tmp_path / "state"))
    events = json.loads((tmp_path / "state").read_text())
    learned, *failed = (event["found"] for event in events if "told" in event)
    assert learned is not None
    assert failed == [None, None]


def test_a_small_space_comes_to_its_end() -> None:
    search = FasternasSearch(PLANE.replace(y=0, x=fn.oneof(1, 2)), searcher="random")
    found: list[Any] = [search.suggest(str(number)) for number in range(3)]
    assert found[2] == Searcher.FINISHED
    assert found[:2] in ([{"x": 1}, {"x": 2}], [{"x": 2}, {"x": 1}])


@pytest.mark.usefixtures("on_cluster")
def test_a_tuner_searches_our_space_and_is_restored(tmp_path: Path) -> None:
    def train(
        params: dict[str, Any],
    ) -> None:  # inner: Ray's workers need no file
        for accuracy in (0.5, 1.0):
            top1 = accuracy * (params["x"] + params["y"] / 2)
            tune.report({"top1": top1, "latency_ms": 1.0 + params["x"]})

    def tuner(trials: int) -> tune.Tuner:
        search = FasternasSearch(PLANE, budget_ms=BUDGET_MS, metrics=Metrics(accuracy="top1"))
        config = tune.TuneConfig(
            search_alg=search, num_samples=trials, reuse_actors=True, max_concurrent_trials=2
        )
        where = tune.RunConfig(name="tuned", storage_path=str(tmp_path), verbose=0)
        return tune.Tuner(train, tune_config=config, run_config=where)

    results = tuner(4).fit()
    assert not results.errors
    found = {config_of(PLANE, results[i].config or {}) for i in range(4)}
    assert len(found) == 4
    again = FasternasSearch(PLANE, budget_ms=BUDGET_MS)
    again.restore_from_dir(str(tmp_path / "tuned"))
    params = again.suggest("next")
    assert params is not None
    assert config_of(PLANE, params) not in found


@pytest.mark.usefixtures("on_cluster")
def test_the_example_with_asha_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "0")
    monkeypatch.setenv("HOME", str(tmp_path))  # where Tune keeps its results unless told
    example = runpy.run_path(str(EXAMPLES / "tune_asha.py"), run_name="tune_asha")
    results = example["main"](trials=4)
    assert not results.errors
    assert len(results) == 4
    assert re.search(r" % in \d+\.\d+", capsys.readouterr().out)


def _evaluation(folder: Path) -> Any:
    """Trains for two epochs; one network fails, and the process of another is lost once."""
    wild, lost = (SPACE.decode((i, *[0] * (len(SPACE.genes) - 1))) for i in (0, 1))

    class Training:  # an inner class, so Ray's workers need not find this file
        name = "two-epochs"

        def __call__(self, config: Any) -> Scores:
            done = self.file(config).read_text().split()
            return Scores(accuracy=float(len(done)), latency_ms=1.0)

        def epochs(self, config: Any) -> Iterator[float]:
            import os

            if config == wild:
                raise ValueError("no such\nlayer")
            file = self.file(config)
            done = file.read_text().split() if file.exists() else []
            while len(done) < 2:
                done.append(f"epoch-{len(done)}")
                file.write_text(" ".join(done))
                yield float(len(done))
                if config == lost and not (folder / "died").exists():
                    (folder / "died").touch()
                    os._exit(1)

        def file(self, config: Any) -> Path:
            place: Path = folder / f"{config.widths[0]}-{config.depths[0]}.pt"
            return place

    return Training()


@pytest.mark.usefixtures("on_cluster")
def test_evaluations_are_trials_of_tune(tmp_path: Path) -> None:
    configs = [SPACE.decode((i, *[0] * (len(SPACE.genes) - 1))) for i in (0, 1, 2)]
    outcomes: dict[int, Outcome[Any]] = {}
    with TunePool(_evaluation(tmp_path), folder=tmp_path / "tune") as pool:
        for number, config in enumerate(configs):
            pool.submit(number, config)
        for _ in configs:
            outcome = pool.next_finished()
            outcomes[outcome.number] = outcome
    assert outcomes[0] == Outcome(0, None, "ValueError: no such layer")
    assert (tmp_path / "died").exists()
    for number in (1, 2):
        assert outcomes[number].scores == Scores(accuracy=2.0, latency_ms=1.0)


def test_tunes_searchers_are_ours() -> None:
    own = TuneSearcher(OptunaSearch(seed=0), PLANE)
    trials = list(fn.search(PLANE, scores_of, trials=30, budget_ms=BUDGET_MS, searcher=own))
    assert len({trial.config for trial in trials}) == 30
    first, last = trials[:10], trials[20:]
    assert _best(last) > _best(first)


def test_tunes_searchers_may_have_two_metrics_and_a_limit() -> None:
    both: Any = OptunaSearch(metric=["accuracy", "ratio"], mode=["max", "min"], seed=0)
    limited = TuneSearcher(ConcurrencyLimiter(both, max_concurrent=2), PLANE)
    trials = list(fn.search(PLANE, scores_of, trials=15, budget_ms=BUDGET_MS, searcher=limited))
    assert len({trial.config for trial in trials}) == 15


def _best(trials: list[fn.Trial[Point]]) -> float:
    return max((t.scores.accuracy for t in trials if t.scores and t.feasible), default=0.0)


@pytest.mark.parametrize(
    ("searcher", "words"),
    [
        (
            OptunaSearch(metric="loss", mode="min"),
            r"`searcher` must have a metric of accuracy, ratio, excess, score, but has loss\.",
        ),
        (
            OptunaSearch(cast("Any", param_space(PLANE)), metric="score", mode="max"),
            r"`searcher` must have no space of its own, but OptunaSearch has\. Leave it out\.",
        ),
    ],
)
def test_a_searcher_that_asks_for_something_else_is_refused(searcher: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TuneSearcher(searcher, PLANE)
