"""Which cores a timer is pinned to, on machines of all kinds, which are files here."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from networks import TINY
from test_session import Machine, _run

from nas.cli.main import main
from predictors.devices.agent.cores import choose
from predictors.devices.boards import Board, _with_facts
from predictors.devices.device import DeviceSpec, check_cores
from predictors.devices.registry import open_spec
from predictors.devices.timed import TimedDevice
from predictors.measurement import Backend
from search_spaces.formats import save_config

Streams = pytest.CaptureFixture[str]


FILES = {  # of a core, by what they tell
    "khz": "cpufreq/cpuinfo_max_freq",
    "capacity": "cpu_capacity",
    "caches": "cache/index3/shared_cpu_list",
    "packages": "topology/physical_package_id",
}


def _machine(
    folder: Path, *, cores: Sequence[Sequence[int]], atoms: str = "", **told: Sequence[object]
) -> set[int]:
    """Write what the kernel would tell of these cores, each with its hyper-threads."""
    for i, threads in enumerate(cores):
        texts = {FILES[name]: str(values[i]) for name, values in told.items()}
        texts["topology/thread_siblings_list"] = ",".join(map(str, threads))
        for number in threads:
            for name, text in texts.items():
                file = folder / f"system/cpu/cpu{number}" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text + "\n")
    if atoms:
        for name, text in {"cpu_core": "0", "cpu_atom": atoms}.items():
            (folder / name).mkdir()
            (folder / name / "cpus").write_text(text + "\n")
    return {number for threads in cores for number in threads}


def _chosen(folder: Path, allowed: set[int]) -> list[tuple[int, ...]]:
    """For one, two and four threads."""
    return [choose(n, allowed, folder).cores for n in (1, 2, 4)]


def test_of_cores_that_are_alike_the_last_are_taken(tmp_path: Path) -> None:
    allowed = _machine(tmp_path, cores=[[0], [1], [2], [3]])
    assert _chosen(tmp_path, allowed) == [(3,), (2, 3), (0, 1, 2, 3)]
    assert choose(1, allowed, tmp_path).why == "of 4 alike"
    assert choose(1, {2}, tmp_path) == ((2,), "the only one")
    assert _chosen(tmp_path / "nothing is told", {0, 1, 5, 7}) == [(7,), (5, 7), (0, 1, 5, 7)]


@pytest.mark.parametrize(
    "siblings", [[[0, 4], [1, 5], [2, 6], [3, 7]], [[0, 1], [2, 3], [4, 5], [6, 7]]]
)
def test_no_two_hyper_threads_of_one_core_are_taken(
    tmp_path: Path, siblings: list[list[int]]
) -> None:
    allowed = _machine(tmp_path, cores=siblings)
    for threads in (1, 2, 4):
        chosen, why = choose(threads, allowed, tmp_path)
        assert len(chosen) == threads
        assert all(len(set(core) & set(chosen)) <= 1 for core in siblings)
        assert why == "of 4 alike, the other hyper-thread left idle"
    assert choose(1, allowed, tmp_path).cores == (7,)


def test_where_there_is_one_core_its_hyper_threads_are_taken_and_that_is_said(
    tmp_path: Path,
) -> None:
    """As on the smallest machines of clouds."""
    allowed = _machine(tmp_path, cores=[[0, 1]])
    assert choose(1, allowed, tmp_path) == ((1,), "the only one, the other hyper-thread left idle")
    why = "hyper-threads of one core among them: there are 1 cores"
    assert choose(2, allowed, tmp_path) == ((0, 1), why)


def test_fast_cores_of_a_hybrid_processor_are_taken(tmp_path: Path) -> None:
    """4 fast ones with two hyper-threads each, of which two may be clocked higher; 4 slow ones."""
    cores = [[0, 1], [2, 3], [4, 5], [6, 7], [8], [9], [10], [11]]
    khz = [5000, 5300, 5300, 5000, 3900, 3900, 3900, 3900]
    allowed = _machine(tmp_path, cores=cores, khz=[1000 * mhz for mhz in khz])
    assert _chosen(tmp_path, allowed) == [(7,), (5, 7), (1, 3, 5, 7)]
    assert choose(1, allowed, tmp_path).why.startswith("of the 4 fast ones of 8")
    chosen, why = choose(6, allowed, tmp_path)
    assert chosen == (1, 3, 5, 7, 10, 11)  # slow cores before second hyper-threads
    assert why.startswith("slow ones among them: there are 4 fast ones of 8")
    assert choose(1, {8, 9}, tmp_path) == ((9,), "of 2 alike")


def test_atoms_are_known_where_clocks_do_not_tell(tmp_path: Path) -> None:
    allowed = _machine(tmp_path, cores=[[0], [1], [2], [3]], atoms="2-3")
    assert _chosen(tmp_path, allowed) == [(1,), (0, 1), (0, 1, 2, 3)]


def test_big_cores_of_an_arm_board_are_taken(tmp_path: Path) -> None:
    cores = [[i] for i in range(8)]
    rk3588 = [*[530] * 4, *[1024] * 4]
    allowed = _machine(tmp_path / "rk3588", cores=cores, capacity=rk3588)
    assert _chosen(tmp_path / "rk3588", allowed) == [(7,), (6, 7), (4, 5, 6, 7)]
    little_last = [*[1024] * 2, *[446] * 6]
    allowed = _machine(tmp_path / "last", cores=cores, capacity=little_last)
    assert _chosen(tmp_path / "last", allowed) == [(1,), (0, 1), (0, 1, 6, 7)]
    phone = [*[250] * 4, *[800] * 3, 1024]
    allowed = _machine(tmp_path / "phone", cores=cores, capacity=phone)
    assert _chosen(tmp_path / "phone", allowed) == [(7,), (6, 7), (4, 5, 6, 7)]


def test_threads_are_kept_together(tmp_path: Path) -> None:
    """In one package, where the numbers alternate, and behind one cache."""
    cores = [[i] for i in range(8)]
    allowed = _machine(tmp_path / "two", cores=cores, packages=[0, 1] * 4)
    assert _chosen(tmp_path / "two", allowed) == [(7,), (5, 7), (1, 3, 5, 7)]
    caches = ["0,2,4,6", "1,3,5,7"] * 4
    allowed = _machine(tmp_path / "caches", cores=cores, caches=caches)
    assert _chosen(tmp_path / "caches", allowed) == [(7,), (5, 7), (1, 3, 5, 7)]


@pytest.mark.parametrize("text", ["", "x", "3-", "-", "0-x", "1,,2", "9" * 30])
def test_what_makes_no_sense_is_taken_for_nothing(tmp_path: Path, text: str) -> None:
    allowed = _machine(tmp_path, cores=[[0], [1]], capacity=[1, 1], caches=["0-1", "0-1"])
    for name in ("topology/thread_siblings_list", FILES["capacity"], FILES["caches"]):
        (tmp_path / "system/cpu/cpu0" / name).write_text(text)
    assert len(choose(2, allowed, tmp_path).cores) == 2


def test_a_latency_says_on_which_cores_it_was_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    monkeypatch.chdir(tmp_path)
    save_config(TINY, tmp_path / "tiny.yaml")
    core = min(os.sched_getaffinity(0))
    command = ["measure", "tiny.yaml", "--repeats", "1", "--json"]
    assert main([*command, "--cores", str(core)]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["context"]["ran_on"] == f"core {core} (as asked)"
    assert found["context"]["cores"] == str(core)
    assert main(command[:-1]) == 0
    chosen, why = choose(1)
    assert f"timed on core {chosen[0]} ({why})." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cores", "4000"], "`threads` and `cores` must be among the"),
        (
            ["--cores", "0", "--threads", "2"],
            "`cores` must be one for each of 2 threads, but got 0.",
        ),
        (["--cores", "0", "--device", "arm"], "`cores` must be left out for arm, which is no"),
        (["--cores", "3-1"], "must be cores like 0-3 or 0,2, but got '3-1'"),
    ],
)
def test_cores_that_there_are_not_are_one_line(
    options: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    try:
        code = main(["measure", "t0", *options])
    except SystemExit as error:  # argparse's
        code = int(str(error.code))
    assert code == 2
    assert words in capsys.readouterr().err


def test_a_spec_keeps_its_cores(tmp_path: Path) -> None:
    spec = DeviceSpec(name="cpu", cores=(0,))
    values = json.loads(json.dumps({"name": "cpu", "backends": [{}], "budget_ms": None}))
    assert DeviceSpec.from_json(values) == replace(spec, cores=())  # of a run from before
    assert DeviceSpec.from_json({**values, "cores": [0]}) == spec
    assert spec.words == "cpu, onnxruntime fp32, one thread, cores 0"
    device = open_spec(spec)
    assert device.backends == spec.backends
    with pytest.raises(ValueError, match="among the 4 cores of pi, but got 5"):
        check_cores((5,), 1, 4, machine="pi")


def test_a_board_s_isolated_cores_are_taken_if_they_are_named() -> None:
    told = {"machine": "aarch64", "processor": "pi", "runtime_version": "1.20", "python": "3.11"}
    pi = _with_facts(Board(name="pi", ssh="pi"), {**told, "cores": 3, "online": 4})
    replace(pi, cores=(3,)).check_fits(pi)
    four = Backend("onnxruntime", threads=4)
    replace(pi, cores=(0, 1, 2, 3), backend=four).check_fits(pi)
    with pytest.raises(ValueError, match="among the 4 cores of pi, but got 4"):
        replace(pi, cores=(4,)).check_fits(pi)
    with pytest.raises(ValueError, match="among the 3 cores of pi, but got 4"):
        replace(pi, backend=four).check_fits(pi)
    before = _with_facts(Board(name="pi", ssh="pi"), {**told, "cores": 3})
    with pytest.raises(ValueError, match="among the 3 cores of pi, but got 3"):
        replace(pi, cores=(3,)).check_fits(before)


def test_cores_that_are_named_may_be_others_than_the_process_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3})
    two = DeviceSpec(name="cpu", backends=(Backend(threads=2),))
    device = open_spec(replace(two, cores=(0, 1)))
    assert isinstance(device, TimedDevice)
    assert device.host.cores == (0, 1)
    with pytest.raises(ValueError, match="`threads` must be at most the 1 cores of this machine"):
        open_spec(two)
    with pytest.raises(ValueError, match="among the 4 cores of this machine, but got 4"):
        open_spec(replace(two, cores=(3, 4)))


@pytest.mark.parametrize("cores", ["all", [None], None, [1.5]])
def test_what_a_timer_says_of_its_cores_is_checked(cores: object) -> None:
    class Liar(Machine):
        def ask(self, request: dict[str, Any]) -> dict[str, Any]:
            answer = super().ask(request)
            ready = {"ready": {"pinned": True, "cores": cores, "why": "\x1b[2J"}}
            return ready if "start" in request else answer

    assert _run(Liar()).ran_on == ""
