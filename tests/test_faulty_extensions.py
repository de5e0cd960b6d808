"""A package whose methods fail, or give what they should not: one line that names it."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from labs import ON_ARM, ON_CPU, Streams, error_of, register

import fasternas as fn
from nas.cli.main import main
from nas.estimators import open_estimator
from nas.ray_pool import evaluated_within
from nas.study.store import write_run

_FAULTY = """
from random import Random
from types import SimpleNamespace

import fasternas as fn


class Searcher:
    told = 0

    def __init__(self, problem):
        self.space = problem.space

    def ask(self, number, admit):
        rng = Random(number)
        if number == 3:
            {ask}
        return admit(self.space.random_genes(rng), rng)

    def tell(self, genes, found):
        self.told += 1
        if self.told == 3:
            {tell}


class Device(SimpleNamespace):
    source = "measured"
    description = "a device: measured"
    remarks = ()

    def measure(self, network):
        return next(self.measure_each([network]))

    def measure_each(self, networks, *, repeats=None):
        for _ in networks:
            {measure}
            ms = dict(median_ms=1.0, low_ms=0.9, high_ms=1.1)
            yield fn.Latency(**ms, source=self.source, device="bad", backend=self.backends[0])


class Estimator:
    kind = "score"

    def __call__(self, config):
        {score}
        return float(config.head_width)


def open_device(name, backend, protocol):
    return Device(name=name, backends=(backend,))


def open_estimator(options, folder):
    return Estimator()
"""
Install = Callable[..., None]


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """What installs a package whose methods do what is given beside what they should."""
    entries = {"devices": "open_device", "estimators": "open_estimator", "searchers": "Searcher"}
    register(tmp_path, "faulty_lab", {g: f"bad = faulty_lab:{v}" for g, v in entries.items()})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def install(**faults: str) -> None:
        nothing = dict.fromkeys(("ask", "tell", "measure", "score"), "pass")
        Path("faulty_lab.py").write_text(_FAULTY.format(**(nothing | faults)), encoding="utf-8")
        shutil.rmtree("__pycache__", ignore_errors=True)
        sys.modules.pop("faulty_lab", None)

    yield install
    sys.modules.pop("faulty_lab", None)


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize(
    ("method", "fault", "words"),
    [
        (
            "ask",
            "{}['x']",
            r" failed in Searcher.ask, line \d+ of faulty_lab.py: KeyError: 'x'. Mend or",
        ),
        ("tell", "raise ValueError('never')", ": ValueError: never."),
    ],
)
def test_a_fault_of_a_searcher_is_one_line_and_what_was_finished_is_kept(
    method: str, fault: str, words: str, faulty: Install, capsys: Streams
) -> None:
    faulty(**{method: fault})
    assert main([*ON_ARM, "--searcher", "bad", "--trials", "5"]) == 2
    with pytest.raises(ValueError, match=f"error: faulty_lab 2.0{words}"):
        raise ValueError(error_of(capsys))
    assert Path("run/study.journal").read_text().count('"number"') == 3


_FAULTY_SPACE = """
import fasternas as fn


class Faulty(fn.Space):
    @property
    def size(self):
        return {}["x"]

    def __repr__(self):
        return {}["x"]


SPACE = Faulty(fn.FasterNetConfig, **fn.SPACES["fasternet-32"].fields)
"""


@pytest.mark.parametrize(
    ("command", "method"),
    [
        ("spaces bad", "size"),
        ("show run", "__repr__"),
        ("report run", "__repr__"),
        ("merge run other --out all", "__repr__"),
    ],
)
def test_a_fault_of_a_space_names_its_package_in_commands_that_read(
    command: str,
    method: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Streams,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "space_lab", raising=False)
    Path("space_lab.py").write_text(_FAULTY_SPACE, encoding="utf-8")
    register(tmp_path, "space_lab", {"spaces": "bad = space_lab:SPACE"})
    options = replace(ON_CPU, space="bad").as_json()
    for folder in (Path("run"), Path("other")):
        folder.mkdir()
        write_run(folder, {"options": options, "choices": "of before"})
        (folder / "study.journal").touch()
    assert main(command.split()) == 2
    assert f"error: space_lab 2.0 failed in Faulty.{method}, line " in error_of(capsys)


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize(
    "command",
    [
        ["search", "--budget", "9ms", "--out", "run"],
        ["measure", "t0"],
        ["measure", "t0", "s"],
        ["bench", "models", "t0", "s", "--out", "bench"],
    ],
    ids=" ".join,
)
def test_a_fault_of_a_device_names_its_package(
    command: list[str], faulty: Install, capsys: Streams
) -> None:
    faulty(measure="{}['x']")
    assert main([*command, "--device", "bad"]) == 2
    said = capsys.readouterr().err
    assert "faulty_lab 2.0 failed in Device.measure_each, line " in said
    assert "KeyError: 'x'" in said
    assert "Traceback" not in said


def test_under_what_its_device_predicts_is_no_advice_on_ours(
    faulty: Install, capsys: Streams
) -> None:
    faulty()
    text = Path("faulty_lab.py").read_text(encoding="utf-8")
    text = text.replace('"measured"', '"predicted"').replace(
        "remarks = ()", "remarks = predict = ()"
    )
    Path("faulty_lab.py").write_text(text, encoding="utf-8")
    assert main(["measure", "t0", "--device", "bad"]) == 0
    said = capsys.readouterr().err
    assert "To measure, attach a board with" in said
    assert "arm" not in said


@pytest.mark.parametrize("names", ["bad,bad", "bad,cpu", "cpu,bad"])
def test_devices_of_packages_are_no_pool(names: str, faulty: Install, capsys: Streams) -> None:
    faulty()
    assert main(["measure", "t0", "--device", names]) == 2
    assert f"names several, but {names.split(',')[0]} is none. Name it alone." in error_of(capsys)


def test_with_debug_its_traceback_is_shown(faulty: Install) -> None:
    faulty(measure="{}['x']")
    with pytest.raises(RuntimeError, match="faulty_lab") as caught:
        main(["measure", "t0", "--device", "bad", "--debug"])
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_device_without_what_one_must_have_is_refused(faulty: Install, capsys: Streams) -> None:
    faulty()
    text = Path("faulty_lab.py").read_text(encoding="utf-8")
    Path("faulty_lab.py").write_text(text.replace("def measure_each", "def measure_all"))
    assert main(["measure", "t0", "--device", "bad"]) == 2
    assert "which faulty_lab 2.0 gave, lacks measure_each." in error_of(capsys)


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ("Device(name=name, backends=(backend,))", ["measure", "t0", "--device", "bad"]),
        ("Estimator()", [*ON_ARM, "--accuracy", "bad"]),
    ],
)
def test_what_is_none_of_these_is_shown_in_short(
    given: str, command: list[str], faulty: Install, capsys: Streams
) -> None:
    faulty()
    text = Path("faulty_lab.py").read_text(encoding="utf-8")
    Path("faulty_lab.py").write_text(text.replace(f"return {given}", "return 'x' * 10**6"))
    assert main(command) == 2
    said = error_of(capsys)
    assert "faulty_lab 2.0 gave 'xxx" in said
    assert len(said) < 500


@pytest.mark.usefixtures("without_ray")
def test_what_cannot_travel_is_refused_before_anything_is_timed(
    faulty: Install, capsys: Streams
) -> None:
    faulty()
    text = Path("faulty_lab.py").read_text(encoding="utf-8")
    held = "from threading import Lock\n"
    text = held + text.replace("Estimator()", "vars(e := Estimator()).update(lock=Lock()) or e")
    Path("faulty_lab.py").write_text(text, encoding="utf-8")
    assert main([*ON_ARM, "--trials", "2", "--accuracy", "bad"]) == 2
    assert (
        "bad of faulty_lab 2.0 must travel to the processes that evaluate, but cannot be pickled: "
        "TypeError: cannot pickle '_thread.lock' object. Let it hold names"
    ) in error_of(capsys)
    assert not Path("run").exists()


def test_what_an_estimator_fails_at_is_tried_again(faulty: Install) -> None:
    faulty(score="raise RuntimeError('no such file')")
    estimate = import_module("faulty_lab").Estimator()
    found = evaluated_within(estimate, 3, fn.FASTERNET["t0"], None, "mark")
    assert found.error == "faulty_lab 2.0: RuntimeError: no such file"
    assert found.lost
    faulty(score="return None")
    given = open_estimator(replace(ON_CPU, accuracy="bad"), Path())
    found = evaluated_within(given, 3, fn.FASTERNET["t0"], None, "mark")
    assert found.error == (
        "bad of faulty_lab 2.0 must give a number, but gave None. Mend or uninstall that package"
    )
    assert found.lost
    found = evaluated_within(lambda config: 1 / 0, 3, fn.FASTERNET["t0"], None, "mark")
    assert (found.error, found.lost) == ("ZeroDivisionError: division by zero", False)
