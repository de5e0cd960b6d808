"""The benchmarks that train on photos: they go on where they were cut off, and do nothing twice."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from networks import TINY
from PIL import Image

from predictors.cost import cost
from predictors.measurement import Backend, Context, Latency
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.formats import save_config

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NETWORK = replace(TINY, resolution=224)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Import a benchmark by its name, as those beside it do; decoded photos stay in the test."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(sys.modules)

    def found(name: str) -> ModuleType:
        return __import__(name)

    yield found
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Dark and bright pictures, 48 to train on and 20 to evaluate on."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 10)):
        for name, level in (("bright", 160), ("dark", 40)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(level - 40, level + 40, (40, 40, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


def test_a_training_that_was_cut_off_goes_on_to_the_same_bits(
    benchmark: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = benchmark("photo_training")
    recipe = training.PhotoRecipe(resolution=32, epochs=3, batch_size=8)
    job = training.Job(name="tiny", config=NETWORK, seed=1, recipe=recipe)
    whole, cut, log = tmp_path / "whole.jsonl", tmp_path / "cut" / "rows.jsonl", training._log
    training.work([job], whole, photos)

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_log", cut_off)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            training.work([job], cut, photos)
    monkeypatch.setattr(training, "_log", log)
    training.work([job], cut, photos)
    training.work([job], cut, photos)  # nothing is left
    ((config, expected),), ((_, found),) = (training.read_trained(f) for f in (whole, cut))
    assert config == NETWORK
    assert replace(found, seconds=0) == replace(expected, seconds=0)
    assert [epoch for epoch, _ in found.accuracies] == [1, 2, 3]
    assert found.accuracy == 100 * found.correct / 20 > 90  # brightness is easily told
    assert not list((cut.parent / "unfinished").iterdir())


def test_workers_share_trainings_and_leave_what_another_has_begun(
    benchmark: Any, photos: Path, tmp_path: Path
) -> None:
    training = benchmark("photo_training")
    recipe = training.PhotoRecipe(resolution=32, epochs=1, batch_size=8, images=16)
    jobs = [training.Job(name="tiny", config=NETWORK, seed=s, recipe=recipe) for s in range(2)]
    file = tmp_path / "rows.jsonl"
    (tmp_path / "unfinished").mkdir()
    begun = training._unfinished(jobs[0], file, ".lock")
    begun.touch()
    with training.locked(begun):
        training.train_all(jobs, file, photos, workers=1)
    assert sorted(row.seed for _, row in training.read_trained(file)) == [1]
    assert training.missing(jobs, file) == jobs[:1]


def test_a_loss_that_is_no_number_ends_a_training_and_is_recorded(
    benchmark: Any, photos: Path, tmp_path: Path
) -> None:
    training = benchmark("photo_training")
    recipe = training.PhotoRecipe(resolution=32, epochs=1, batch_size=8, lr=1e30)
    job = training.Job(name="tiny", config=NETWORK, seed=0, recipe=recipe)
    training.work([job], tmp_path / "rows.jsonl", photos)
    ((_, row),) = training.read_trained(tmp_path / "rows.jsonl")
    assert (row.error, row.accuracies, row.correct) == ("the loss is nan", (), 0)


def test_a_training_starts_from_the_weights_of_another(
    benchmark: Any, photos: Path, tmp_path: Path
) -> None:
    training, file = benchmark("photo_training"), tmp_path / "rows.jsonl"
    recipe = training.PhotoRecipe(resolution=32, epochs=2, batch_size=8)
    given = training.Job(name="given", config=NETWORK, seed=1, recipe=recipe, kept=True)
    training.work([given], file, photos)
    assert not training.missing([given], file)
    begun = replace(recipe, init="given", ended=1)
    job = training.Job(name="begun", config=NETWORK, seed=0, recipe=begun)
    training.work([job], file, photos)
    ((_, first), (_, second)) = training.read_trained(file)
    assert (first.error, second.error, second.recipe) == ("", "", begun)
    kept = torch.load(training.weights_file("given", file))
    cpu, weights = torch.device("cpu"), training.weights_file("given", file)
    started = training.PhotoTraining(job, training.open_photos(photos, cpu), cpu, weights).weights()
    assert started.keys() == kept.keys()
    assert all(torch.equal(started[name], weight) for name, weight in kept.items())
    weights.unlink()
    assert training.missing([given], file) == [given]


def test_a_model_of_timm_is_trained_beside_ours(
    benchmark: Any, photos: Path, tmp_path: Path
) -> None:
    training = benchmark("photo_training")
    recipe = training.PhotoRecipe(resolution=32, epochs=1, batch_size=8)
    model = training.TimmModel(timm="mobilenetv3_small_050")
    jobs = [training.Job(name="one", config=one, seed=0, recipe=recipe) for one in (model, NETWORK)]
    file = tmp_path / "rows.jsonl"
    training.work(jobs, file, photos)
    assert not training.missing(jobs, file)
    assert [network for network, _ in training.read_all(file)] == [model, NETWORK]
    ((config, row),) = training.read_trained(file)
    assert (config, row.error) == (NETWORK, "")


def test_crops_show_parts_of_a_photo_as_they_are_or_mirrored(benchmark: Any) -> None:
    training = benchmark("photo_training")
    columns = torch.arange(144, dtype=torch.uint8).expand(64, 144, 144)
    photos = torch.stack([columns, columns.transpose(1, 2), columns], dim=-1)
    crops = training.random_crops(photos, 32, 0.25, torch.Generator().manual_seed(0))
    assert crops.shape == (64, 3, 32, 32)
    across, down = crops[:, 0, 0].diff(), crops[:, 1, :, 0].diff()
    mirrored = (across < 0).all(1)
    assert ((across > 0).all(1) | mirrored).all()
    assert 20 < int(mirrored.sum()) < 44
    assert (down > 0).all()
    area = across.abs().mean(1) * down.mean(1) * (32 / 144) ** 2
    assert 0.24 < float(area.min()) < 0.4 < 0.8 < float(area.max()) < 1.01
    middle = training.centres(photos, 128)
    assert middle[0, 0, 0].tolist() == list(range(8, 136))


class _Clock:
    """A device on which latency is a power of the MACs."""

    description = "a clock"

    def measure_each(
        self, networks: Sequence[FasterNetConfig], *, repeats: int | None = None
    ) -> Iterator[Latency]:
        assert networks[0] == FASTERNET["t0"]
        assert len(networks) <= 8
        for network in networks:
            ms = 1e-6 * cost(network).macs ** 0.9
            samples = tuple((ms,) * 6 for _ in range(repeats or 1))
            yield Latency(
                median_ms=ms,
                low_ms=ms,
                high_ms=ms,
                source="measured",
                device="clock",
                backend=Backend(),
                samples_ms=samples,
                context=Context(session="1"),
            )


def test_variants_are_scaled_to_one_latency_and_compared(benchmark: Any, tmp_path: Path) -> None:
    ingredients, training = benchmark("ingredients"), benchmark("photo_training")
    ingredients.measure(tmp_path, _Clock())
    networks = ingredients.read_networks(tmp_path / "networks.json")
    assert networks.keys() == ingredients.VARIANTS.keys()
    for config, timed in networks.values():
        assert timed.ratio == pytest.approx(0.5, rel=0.02)
        assert timed.processes == ingredients.LAST_PROCESSES
        assert all(width % 8 == 0 for width in config.widths)
        assert all(c_p % 4 == 0 for c_p in config.partial_widths)
    before = (tmp_path / "latencies.jsonl").read_text()
    ingredients.measure(tmp_path, _Clock())
    assert (tmp_path / "latencies.jsonl").read_text() == before

    recipe = training.PhotoRecipe()
    jobs = ingredients.planned(networks, recipe)
    assert len(jobs) == 2 * len(networks) + 2 == len({job.identity for job in jobs})
    assert [job.seed for job in jobs[: len(networks)]] == [0] * len(networks)
    made_up = [
        (job.config, _trained(training, job, 40 + job.seed - 3 * (job.name == "kernels 7")))
        for job in jobs
    ]
    rows = {row["variant"]: row for row in ingredients.table(networks, made_up, recipe)}
    gain = rows["kernels 7"]["gain"]
    assert gain["points"] == pytest.approx(-4)  # the base has two later, better seeds
    assert gain["low"] < -4 < gain["high"] < 0
    assert rows["base"]["gain"] is None
    assert "40.50 % (2)" in ingredients._words(rows["branches in training"])
    nothing = ingredients.table(networks, [], recipe)
    assert "not trained" in ingredients._words(nothing[1])


def _trained(training: Any, job: Any, correct: int) -> Any:
    return training.PhotoTrained(
        name=job.name,
        seed=job.seed,
        recipe=job.recipe,
        accuracies=((1, float(correct)),),
        correct=correct,
        images=100,
        seconds=1.0,
        device="a core",
    )


def test_the_bench_spreads_networks_keeps_them_and_tells_how_seeds_agree(
    benchmark: Any,
    tmp_path: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench, training = benchmark("pconv_bench"), benchmark("photo_training")
    monkeypatch.setattr(bench, "DRAWN", 400)
    spread = bench.kept_spread(4, tmp_path)
    macs = [cost(config).macs for config in spread.values()]
    assert sorted(macs) == [macs[0], macs[2], macs[1], macs[3]]
    assert 15e6 <= min(macs) < 42e6 < 320e6 < max(macs) <= 900e6
    assert sum("pconv" in name for name in spread) == 2
    monkeypatch.setattr(bench, "SPACES", {})
    assert bench.kept_spread(4, tmp_path) == spread
    by_hand = bench.by_hand()
    assert cost(by_hand["t0 x 0.0625"]).macs == pytest.approx(
        cost(by_hand["t0"]).macs / 16, rel=0.1
    )

    recipe = training.PhotoRecipe()
    jobs = bench.planned(by_hand, 2, recipe)
    rows = [
        (job.config, _trained(training, job, 30 + i % len(by_hand))) for i, job in enumerate(jobs)
    ]
    *_, last = bench.summary(rows, recipe)
    assert f"{len(by_hand)} networks of two seeds: tau 1.000" in last
    assert "seeds cannot be compared yet" in bench.summary(rows[:1], recipe)[-1]

    monkeypatch.setattr(bench, "by_hand", lambda: {"tiny": NETWORK})
    monkeypatch.setattr(bench, "train_all", lambda *what, workers: training.work(*what))
    arguments = [
        "--networks",
        "hand",
        "--photos",
        str(photos),
        "--epochs",
        "1",
        "--seeds",
        "1",
        "--workers",
        "1",
        "--trainings",
        str(tmp_path / "rows.jsonl"),
    ]
    monkeypatch.setattr(sys, "argv", ["pconv_bench", *arguments, "--resolution", "32"])
    bench.main()
    assert "1 seeds  tiny" in capsys.readouterr().out


def test_the_bench_reads_the_fronts_of_runs(benchmark: Any, tmp_path: Path) -> None:
    bench = benchmark("pconv_bench")
    run = tmp_path / "run"
    (run / "front").mkdir(parents=True)
    save_config(NETWORK, run / "front" / "a.yaml")
    (run / "pareto.csv").write_text("config,latency\nfront/a.yaml,3.1\n")
    assert bench.proposed([run]) == {"run/front/a.yaml": NETWORK}


def test_what_an_earlier_search_found_stays_where_it_was_trained(benchmark: Any) -> None:
    found = benchmark("found_on_photos")
    case = {"device": "arm", "space": "pconv", "bar": "T0", "found": {"widths": [8]}}
    trained, untrained = {**case, "gain": {"points": 1.0}}, {**case, "gain": None}
    other, anew = {**untrained, "bar": "T1"}, {**case, "found": {"widths": [16]}}
    kept = found.superseded([trained, untrained, other], [anew])
    assert kept == [{**trained, "earlier": True}, other]
    assert found.superseded([trained], [case]) == []  # it is found again
