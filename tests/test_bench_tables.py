"""The benchmarks that judge scores and searchers, on a part of their material."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from networks import LARGER, TINY

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
BENCH = BENCHMARKS / "results" / "pconv_bench-cifar10_10k_2k"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import a benchmark by its name, as those beside it do."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)

    def found(name: str) -> ModuleType:
        return __import__(name)

    yield found
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def _part(folder: Path, *, networks: int, several: int) -> Path:
    """A bench of some networks, the first of them those that were trained from several seeds."""
    lines = [json.loads(line) for line in (BENCH / "trainings.jsonl").read_text().splitlines()]
    again = list(dict.fromkeys(tuple(r["genes"]) for r in lines if r["seed"] > 0))[:several]
    others = [g for r in lines if (g := tuple(r["genes"])) not in again]
    kept = {*again, *list(dict.fromkeys(others))[: networks - several]}
    for name in ("trainings.jsonl", "latencies.jsonl", "early.jsonl", "supernet.jsonl"):
        rows = (BENCH / name).read_text().splitlines()
        chosen = [row for row in rows if tuple(json.loads(row)["genes"]) in kept]
        (folder / name).write_text("".join(f"{row}\n" for row in chosen))
    return folder


@pytest.mark.parametrize(("networks", "several"), [(8, 3), (8, 0)])
def test_a_small_bench_is_ranked_by_what_can_be_told_of_it(
    benchmark: Any, networks: int, several: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranking, tables = benchmark("ranking"), benchmark("docs_tables")
    bench = _part(tmp_path, networks=networks, several=several)
    monkeypatch.setattr(ranking, "RESULTS", tmp_path)
    monkeypatch.setattr(ranking, "FASTERNET", {"t0": TINY, "t2": LARGER})
    for name in ("bootstrapped", "difference"):
        monkeypatch.setattr(ranking, name, partial(getattr(ranking, name), resamples=20))
    monkeypatch.setattr(sys, "argv", ["ranking", "--bench", str(bench)])
    ranking.main()
    result = json.loads((tmp_path / "ranking.json").read_text())
    assert result["networks"] == networks
    rows = result["rows"]
    assert (f"seeds against seeds ({several} networks)" in rows) == (several > 0)
    assert {"default", "supernet", ranking.AVERAGED} < rows.keys()
    assert not any("predictor" in name for name in rows)  # too few to fit it to and to judge it by
    assert all(-1 <= row["kendall"]["value"] <= 1 for row in rows.values())
    assert "| default | " in tables._ranking(result)


def test_the_predictor_is_judged_on_networks_that_it_was_not_fitted_to(benchmark: Any) -> None:
    ranking = benchmark("ranking")
    bench = ranking.read_bench(BENCH)
    truth = np.asarray(bench.truth)
    told = ranking._predictor(bench, truth[:, None], 0.1)["kendall"]
    random = np.random.default_rng(0).permutation(truth)
    blind = ranking._predictor(bench, random[:, None], 0.1)["kendall"]
    assert told.value > 0.9 > 0.7 > blind.value
    assert told.low <= told.value <= told.high


def test_searchers_are_held_against_the_best_that_is_known(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searchers, tables = benchmark("searchers"), benchmark("docs_tables")
    table = tmp_path / "table.csv"
    rows = [
        f"{a}{b}{c},{60 + 10 * a + 3 * b - c},{(1 + a + 2 * b + c) * 1e6}"
        for a in range(3)
        for b in range(3)
        for c in range(3)
    ]
    table.write_text("\n".join(["arch,mean_acc,flops", *rows]) + "\n")
    monkeypatch.setattr(searchers, "COUNTS", (3, 27))
    jobs = [
        (str(table), name, limited, seed)
        for name in ("random", "guided")
        for limited in (False, True)
        for seed in range(2)
    ]
    runs = [searchers._run(job) for job in jobs]
    task = searchers.search_task(str(table))
    found = searchers._document(task, runs)
    assert found["hypervolume"]["random"][-1] == [1, 1, 1]  # all 27 were looked at
    assert found["regret"]["guided"][-1] == [0, 0, 0]
    assert all(0 < q < 1 for q in found["hypervolume"]["random"][0])
    document = {"seeds": 2, "evaluations": (3, 27), "quartiles": found}
    assert "| random | 0." in tables._searchers("a table", document)


def test_the_bench_foretells_networks_of_its_space(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = benchmark("search_tasks")
    monkeypatch.setattr(tasks, "DRAWN", 2000)
    task = tasks.search_task(str(BENCH))
    scores = task.evaluate(task.space.decode(tuple(0 for _ in task.space.cardinalities)))
    assert 40 < scores.accuracy < 70
    assert scores.latency_ms == pytest.approx(
        task.predict([task.space.decode(tuple(0 for _ in task.space.cardinalities))]).mean_ms[0]
    )
    floor, limit = task.reference
    assert task.hypervolume([(floor + 1, limit - 0.1)]) == pytest.approx(0.1)


def test_what_beats_the_hand_is_told_in_a_table(benchmark: Any) -> None:
    row = {
        "bar_ms": 0.3634,
        "gain": 2.34,
        "times_the_bar": {"ratio": 0.98, "low": 0.95, "high": 1.01},
        "hand": {"mean": 59.0, "deviation": 0.5},
        "found": {"mean": 61.34, "deviation": 0.4},
    }
    result = {"epochs": 16, "trials": 36, "gain": 2.34, "rows": [row]}
    table = benchmark("docs_tables")._beats_the_hand(result)
    assert "| 0.363 ms | 59.0 % (0.5) | 61.3 % (0.4) | +2.3 points | 0.98 (0.95 to 1.01) |" in table
    assert table.endswith("On average +2.3 points.")
