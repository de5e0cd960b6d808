"""Whoever imports the measurements of a run gets the same run without its device."""

from pathlib import Path

import pytest

from nas.cli.main import main
from nas.run_folder import resume_run
from nas.study import journal
from nas.study.options import SearchSettings

Streams = pytest.CaptureFixture[str]


def _call(*arguments: str) -> int:
    return main(arguments)


@pytest.mark.usefixtures("without_ray")
def test_a_run_is_repeated_elsewhere_from_its_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    settings = SearchSettings(
        calibration=10,
        front_repeats=1,  # the named sizes are neither timed nor scored
        timed_ratio=0.0,
    )
    monkeypatch.setattr("nas.pipeline.SETTINGS", settings)
    options = ("--budget", "20ms", "--trials", "8", "--seed", "3", "--searcher", "random")
    assert _call("search", "--device", "cpu", *options, "--out", "here") == 0
    assert _call("measurements", "export", "run.jsonl.gz", "--run", "here") == 0

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert _call("measurements", "import", "run.jsonl.gz", "--as", "lab") == 0
    capsys.readouterr()
    assert _call("search", "--device", "lab", *options, "--out", "there") == 0
    out, err = capsys.readouterr()
    assert "measured earlier; there" in err
    here, there = Path("here"), Path("there")
    assert (there / "pareto.csv").read_bytes() == (here / "pareto.csv").read_bytes()
    assert out.count("measured") == len((here / "pareto.csv").read_text().splitlines()) - 1 > 0

    timed, recalled = (journal.read(run / "measurements.jsonl") for run in (here, there))
    assert [line["config"] for line in recalled] == [line["config"] for line in timed]
    assert {name for line in recalled for name in line["latencies"]} == {"lab"}
    for one, other in zip(timed, recalled, strict=True):
        assert {**other["latencies"]["lab"], "device": "cpu"} == one["latencies"]["cpu"]
    assert _call("show", "there") == 0
    assert capsys.readouterr().out == out
    resume_run(there).close()
    assert _call("measure", "t2", "--device", "lab") == 2
    assert "must be among those measured on lab, but {" in capsys.readouterr().err
