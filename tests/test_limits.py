"""Limits beside latency: what they are compared with, and that no search breaks one."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from networks import TINY
from points import PLANE, scores_of
from quick import evaluate_here
from specs import on

import fasternas as fn
from nas.cli.main import main
from nas.devices import LatencyModels
from nas.quantities import cost_words, limit_words
from nas.reachable import check_reachable
from nas.run_folder import merge_runs, read_only_run, resume_run, start_run
from nas.search.feasibility import Admission, Bounds, check_limits
from nas.search.loop import search
from nas.search.searchers import SearcherName
from nas.search.trial import Scores
from nas.study.options import SearchOptions
from predictors.backends.model import checkpoint_model, config_model
from predictors.backends.table import formats
from predictors.calibration import HEADROOM, next_batch
from predictors.cost import NO_LIMITS, Cost, Limits, cost, costs
from predictors.latency import Prediction
from search_spaces.checkpoint import Checkpoint
from search_spaces.fasternet import FASTERNET, SPACES, FasterNetConfig
from search_spaces.layers import Layer
from search_spaces.space import Space, oneof

Streams = pytest.CaptureFixture[str]
SPACE = SPACES["fasternet-32"]
LIMITS = Limits(params=200_000, macs=8_000_000, file_bytes=700_000, memory_bytes=130_000)
SEARCH = ("search", "--device", "arm", "--budget", "20ms")
ASKED = ("--max-params", "1.5M", "--max-macs", "60M", "--max-file", "5MB", "--max-memory", "1.5MB")
KEPT = Limits(params=1_500_000, macs=60_000_000, file_bytes=5_000_000, memory_bytes=1_500_000)


@dataclass(frozen=True)
class Tower:
    """Equal convolutions, one on the other."""

    channels: int
    depth: int

    def layers(self) -> tuple[Layer, ...]:
        c = self.channels
        sizes: Any = {"c_in": c, "c_out": c, "height": 8, "width": 8}
        return (Layer(name="conv", op="conv", repeat=self.depth, **sizes),)


TOWERS = Space(Tower, channels=oneof(*range(1, 41)), depth=oneof(*range(1, 31)))


def _tower_scores(tower: Tower) -> Scores:
    return Scores(accuracy=tower.channels + tower.depth, latency_ms=1.0 + tower.depth / 10)


def _tower_latency(towers: Sequence[Tower]) -> Prediction:
    latency_ms = np.array([1.0 + tower.depth / 10 for tower in towers])
    return Prediction(latency_ms, latency_ms, 1.05 * latency_ms)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "4M"])
def test_a_limit_is_a_positive_whole_number(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"`macs` must be a positive whole number, but got .* Lea"):
        Limits(macs=limit)


def test_a_config_keeps_a_limit_that_it_reaches_and_none_below() -> None:
    config = FASTERNET["t0"]
    found = cost(config)
    exact = Limits(
        params=found.params,
        macs=found.macs,
        file_bytes=found.file_bytes,
        memory_bytes=found.peak_memory_bytes,
    )
    assert exact.keeps(config)
    assert NO_LIMITS.keeps(object())
    for name, limit in exact.given.items():
        below = Limits.by_name({**exact.given, name: limit - 1})
        assert not below.keeps(config)
        assert below.exceeded(below.limited(found)) == {name: limit}
        assert below.alone(name) == Limits.by_name({name: limit - 1})
    int8 = Limits(file_bytes=found.int8_file_bytes, precision="int8")
    assert int8.keeps(config)
    assert not Limits(file_bytes=found.int8_file_bytes).keeps(config)


def test_limits_are_told_with_their_units() -> None:
    limits = Limits(params=4_000_000, macs=300_000_000, file_bytes=8_000_000, memory_bytes=999)
    assert limit_words(limits) == "4 M parameters, 300 M MACs, a file of 8 MB, 999 B of memory"
    near = Limits(params=4_004_000, file_bytes=8_000_001, memory_bytes=1_500)
    assert limit_words(near) == "4.004 M parameters, a file of 8.000001 MB, 1.5 KB of memory"
    assert limit_words(NO_LIMITS) == "none"
    with pytest.raises(ValueError, match="`name` must be that of a limit, but got 'latency'"):
        cost_words("latency", 1)


def _written(config: FasterNetConfig, folder: Path, format: str = "onnx") -> Path:
    runtime = formats()[format]
    return runtime.module.write(config_model(config).built(), folder / "net", runtime)


def _graph_peak(file: Path) -> int:
    """The most bytes of a graph's tensors that are there at once: each until its last use."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(file)).graph
    typed = [*graph.input, *graph.value_info, *graph.output]
    sizes = {
        v.name: int(np.prod([d.dim_value or 1 for d in v.type.tensor_type.shape.dim]))
        for v in typed
    }
    stored = {tensor.name for tensor in graph.initializer}
    constants = {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    made_by = {name: node.op_type for node in nodes for name in node.output}
    same: dict[str, str] = {}  # as an earlier tensor: only another view, or fused into what made it
    for node in nodes:
        view = node.op_type in ("Reshape", "Flatten", "Identity")
        fused = node.op_type in ("Relu", "HardSigmoid") and made_by.get(node.input[0]) == "Conv"
        if view or fused:
            same[node.output[0]] = same.get(node.input[0], node.input[0])
    steps = [[same.get(t, t) for t in (*node.input, *node.output)] for node in nodes]
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for i, tensors in enumerate(steps):
        for tensor in set(tensors) - stored - constants - {""}:
            first.setdefault(tensor, i)
            last[tensor] = i
    first[graph.input[0].name] = 0
    live = [sum(sizes[t] for t in first if first[t] <= i <= last[t]) for i in range(len(steps))]
    return 4 * max(live)


@pytest.mark.parametrize("seed", range(6))
def test_memory_is_what_the_deployed_graph_needs_and_the_file_is_no_larger(
    seed: int, tmp_path: Path
) -> None:
    config = SPACES[("pconv-32", "fasternet-32")[seed % 2]].sample(Random(seed))
    found = cost(config)
    file = _written(config, tmp_path)
    assert found.peak_memory_bytes == _graph_peak(file)
    assert 0 <= found.file_bytes - file.stat().st_size < 40_000
    assert _column([config, FASTERNET["t0"]], "peak_memory_bytes")[0] == found.peak_memory_bytes


@pytest.mark.parametrize("format", ["onnx", "onnx-int8"])
def test_a_file_with_the_names_of_its_classes_is_no_larger_than_estimated(
    format: str, tmp_path: Path
) -> None:
    config = replace(TINY, classes=1000)
    checkpoint = Checkpoint(
        config=config,
        weights=fn.build(config).state_dict(),
        classes=tuple(f"{i:04}, a name as ImageNet's" for i in range(1000)),
    )
    runtime = formats()[format]
    model = checkpoint_model("net", checkpoint).built()
    size = runtime.module.write(model, tmp_path / "net", runtime).stat().st_size
    found = cost(config)
    estimate = found.int8_file_bytes if runtime.precision == "int8" else found.file_bytes
    assert 0 <= estimate - size < 40_000


def test_a_file_in_int8_is_no_larger_than_estimated(tmp_path: Path) -> None:
    config = SPACE.sample(Random(3))
    size = _written(config, tmp_path, "onnx-int8").stat().st_size
    assert size <= cost(config).int8_file_bytes < 1.2 * size


def _column(configs: Sequence[object], name: str) -> list[int]:
    return [int(value) for value in getattr(costs(configs), name)]


@pytest.mark.parametrize("searcher", ["guided", "nsga2", "tpe", "evolution", "local", "random"])
@pytest.mark.parametrize("budget_ms", [None, 3.0])
@pytest.mark.parametrize("known", [True, False])
def test_no_searcher_evaluates_what_breaks_a_limit(
    searcher: SearcherName, budget_ms: float | None, *, known: bool
) -> None:
    limits = fn.Limits(params=2000, memory_bytes=12_000)
    predict = _tower_latency if known else None
    trials = list(
        search(
            TOWERS,
            _tower_scores,
            trials=25,
            budget_ms=budget_ms,
            limits=limits,
            predict_latency=predict,
            searcher=searcher,
        )
    )
    assert len(trials) == 25
    assert all(limits.keeps(trial.config) for trial in trials)
    assert max(cost(trial.config).params for trial in trials) > 1000  # they are made use of
    within = [t.feasible for t in trials if t.scores and t.scores.latency_ms <= (budget_ms or 99)]
    assert within
    assert all(within)


def test_the_guided_searcher_looks_for_the_best_within_the_limits() -> None:
    limits = Limits(params=2000)
    trials = list(search(TOWERS, _tower_scores, trials=40, limits=limits))
    best = max(trial.scores.accuracy for trial in trials if trial.scores)
    possible = (c + d for c in range(1, 41) for d in range(1, 31) if c * c * d <= 2000)
    assert best >= 0.9 * max(possible)


def test_what_is_on_record_is_feasible_only_within_the_limits() -> None:
    once = {t.number: t for t in search(TOWERS, _tower_scores, trials=12)}

    class Before:
        """The trials of a search without limits."""

        def recall(self, number: int) -> Any:
            from nas.search.trial import Outcome

            trial = once[number]
            return TOWERS.encode(trial.config), Outcome(number, trial.scores)

        def keep(self, genes: object, outcome: object) -> None:
            pytest.fail("nothing is new")

    limits = Limits(params=3000)
    again = list(search(TOWERS, _tower_scores, trials=12, limits=limits, record=Before()))
    assert [t.feasible for t in again] == [limits.keeps(t.config) for t in again]
    assert {t.feasible for t in again} == {True, False}


def test_a_limit_out_of_reach_is_refused_with_the_least_that_there_is() -> None:
    least = min(cost(tower).params for tower in map(TOWERS.sample, [Random(0)] * 5000))
    with pytest.raises(
        ValueError, match=r"`memory_bytes` must be within reach .* but got 100: the least .* is 512"
    ):
        search(TOWERS, _tower_scores, limits=Limits(params=least, memory_bytes=100))


def test_limits_that_only_together_are_out_of_reach_are_refused() -> None:
    class Opposed(Tower):
        """Fewer channels take more convolutions."""

        def layers(self) -> tuple[Layer, ...]:
            return Tower(self.channels, 1 + 4000 // self.channels**3).layers()

    space = Space(Opposed, channels=oneof(*range(1, 41)), depth=1)
    smallest = [
        min(_column([space.decode((i,)) for i in range(40)], name))
        for name in ("params", "peak_memory_bytes")
    ]
    limits = Limits(params=smallest[0], memory_bytes=smallest[1])
    message = "`params` and `memory_bytes` must be within reach of the space all at once, but"
    with pytest.raises(ValueError, match=message):
        check_limits(space, limits, 0)


def test_configs_that_do_not_say_what_they_cost_have_no_limits() -> None:
    message = r"`macs` and `memory_bytes` must be left out of a space of Point, which has no layers"
    with pytest.raises(TypeError, match=message):
        search(PLANE, scores_of, limits=Limits(memory_bytes=1, macs=1))
    wrong: Any = {"params": 3}
    with pytest.raises(
        TypeError, match=r"`limits` must be Limits, but got \{'params': 3\}\. Write"
    ):
        search(PLANE, scores_of, limits=wrong)


def test_the_gate_mends_what_breaks_a_limit() -> None:
    admission, rng = Admission(SPACE, Bounds(limits=LIMITS)), Random(0)
    largest = tuple(n - 1 for n in SPACE.cardinalities)
    admitted = [admission.admit(largest, rng) for _ in range(20)]
    assert all(genes and LIMITS.keeps(SPACE.decode(genes)) for genes in admitted)


def test_networks_timed_to_calibrate_are_near_the_limits_or_within() -> None:
    start = [(SPACE.sample(Random(0)), {"cpu": 1.0})]
    asked: Any = {"budgets_ms": {"cpu": 5.0}, "total": 25, "seed": 0}
    found = next_batch(SPACE, start, limits=LIMITS, **asked)
    assert max(LIMITS.ratios(found)) <= HEADROOM
    assert max(LIMITS.ratios(next_batch(SPACE, start, **asked))) > 2


def test_a_budget_that_is_out_of_reach_within_the_limits_is_refused() -> None:
    class Opposed:
        """Fewer parameters take longer."""

        def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
            ms = 2e5 / np.asarray(costs(configs).params, dtype=float)
            return Prediction(ms, ms, ms)

    models = LatencyModels(
        by_device={"cpu": Opposed()}, backends={"cpu": None}, budgets_ms={"cpu": 0.5}
    )
    check_reachable(SPACE, models, 0)
    message = r"within reach of the space and within the limits, but .* or a limit\."
    with pytest.raises(ValueError, match=message):
        check_reachable(SPACE, models, 0, limits=Limits(params=200_000))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run within all limits on a device that is always at hand."""
    folder = tmp_path_factory.mktemp("limits") / "run"
    with pytest.MonkeyPatch.context() as patch:
        evaluate_here(patch)
        assert main([*SEARCH, *ASKED, "--trials", "10", "--out", str(folder)]) == 0
    return folder


def test_no_network_of_a_run_breaks_a_limit(run: Path, capsys: Streams) -> None:
    opened = read_only_run(run)
    assert opened.options.limits == KEPT
    found = opened.candidates()
    assert len(found) == 10
    assert all(KEPT.keeps(one.config) and one.feasible for one in found)
    assert main(["show", str(run)]) == 0
    out = capsys.readouterr().out
    assert "file (estimated)  memory" in out.splitlines()[0]
    with (run / "pareto.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(int(row["file_bytes"]) <= 5_000_000 for row in rows)
    assert all(int(row["memory_bytes"]) <= 1_500_000 for row in rows)
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    for words in (
        "1.5 M parameters, 60 M MACs, a file of 5 MB, 1.5 MB of memory",
        "--max-file 5000000B",
        "file sizes are estimates, of ONNX in fp32",
    ):
        assert words in page


@pytest.mark.usefixtures("without_ray")
def test_a_resumed_run_keeps_its_limits(run: Path, capsys: Streams) -> None:
    command = [*SEARCH, "--resume", "--out", str(run)]
    assert main([*command, "--trials", "12"]) == 0
    opened = read_only_run(run)
    assert opened.options.limits == KEPT
    assert len(opened.candidates()) == 12
    assert all(KEPT.keeps(one.config) for one in opened.candidates())
    capsys.readouterr()
    assert main([*command, "--max-params", "3M"]) == 2
    assert "has limits 1.5 M parameters, 60 M MACs, a file of 5 MB, 1.5 MB of memory, not 3 M" in (
        capsys.readouterr().err
    )


def test_a_limit_that_is_only_a_little_different_is_another_one(tmp_path: Path) -> None:
    for name, params in {"a": 4_000_000, "b": 4_004_000}.items():
        options = SearchOptions(
            devices=on("arm", 1.0), space="fasternet-32", limits=Limits(params=params)
        )
        start_run(tmp_path / name, options).close()
    with pytest.raises(ValueError, match=r"has limits 4 M parameters, not 4\.004 M parameters"):
        resume_run(tmp_path / "a", options)
    with pytest.raises(ValueError, match=r"limits, but .* has 4 M par.* and .* 4\.004 M"):
        merge_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "c")


def test_runs_of_other_limits_are_not_merged(tmp_path: Path) -> None:
    for name, limits in {"a": LIMITS, "b": NO_LIMITS}.items():
        options = SearchOptions(devices=on("arm", 1.0), space="fasternet-32", limits=limits)
        start_run(tmp_path / name, options).close()
    with pytest.raises(ValueError, match=r"`runs` must agree in limits, but .* and .*/b none"):
        merge_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "c")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max-params 10", "`params` must be within reach of the space, but got 10: the least"),
        ("--max-memory 1KB", "`memory_bytes` must be within reach of the space, but got 1,000"),
        ("--max-params 4X", "argument --max-params: must be a number such as 4M, 600K or 15"),
        ("--max-file 8", "argument --max-file: must be a size such as 8MB, 500KB or 8MiB, but got"),
        ("--max-macs 0", "argument --max-macs: must be positive and no larger than any network's"),
        ("--max-params 4M --set-space params<=3M", "`params` must have one limit, but got 3,000,0"),
    ],
)
def test_limits_that_are_none_are_one_line(
    words: str, message: str, tmp_path: Path, capsys: Streams
) -> None:
    command = [*SEARCH, *words.split(), "--out", str(tmp_path / "run")]
    try:
        code = main(command)
    except SystemExit as end:  # argparse's
        code = int(end.code or 0)
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not (tmp_path / "run").exists()


def test_old_options_without_limits_are_read() -> None:
    options = SearchOptions(devices=on("arm", 1.0), limits=LIMITS)
    written = json.loads(json.dumps(options.as_json()))
    assert SearchOptions.from_json(written) == options
    del written["limits"], written["choices"]
    assert SearchOptions.from_json(written) == replace(options, limits=NO_LIMITS)


def test_a_cost_is_in_plain_numbers() -> None:
    assert json.loads(json.dumps(vars(cost(FASTERNET["t0"]))))["params"] == 3_905_500
    assert isinstance(cost(FASTERNET["t0"]), Cost)
