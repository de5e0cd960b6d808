"""Several boards as one device: three real sshd of which one dies, and stand-ins that disagree."""

import hashlib
import json
import os
import threading
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from loopback_sshd import SSHD, Server, client_of, running_sshd, until
from networks import TINY
from quick import QUICK
from stand_ins import stand_in

from nas.cli.main import main
from nas.cli.search import _folder
from predictors.backends.model import config_model
from predictors.backends.table import find_runtime
from predictors.devices.boards import Board, load_boards, save_boards
from predictors.devices.connection import DeviceLostError
from predictors.devices.pool import PooledDevice, in_groups
from predictors.devices.registry import backend_of, open_device
from predictors.measurement import Backend

NETWORKS = [replace(TINY, classes=10 + i) for i in range(6)]
POOL = "b1,b2,b3"
Streams = pytest.CaptureFixture[str]


@pytest.fixture
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Server]]:
    """Three sshd, registered as b1, b2 and b3."""
    if SSHD is None or os.getuid() != 0:
        pytest.skip("OpenSSH's sshd is not installed here, or this is not root.")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with ExitStack() as stack:
        servers = [stack.enter_context(running_sshd()) for _ in range(3)]
        monkeypatch.setenv("FASTERNAS_SSH", client_of(servers, tmp_path / "ssh_config"))
        for i, server in enumerate(servers, start=1):
            core = str(i % len(os.sched_getaffinity(0)))  # else all are pinned to the last
            add = ["devices", "add", f"b{i}", "--ssh", server.address, "--cores", core]
            assert main(add) == 0
        yield servers


def _digests(folder: Path) -> list[str]:
    files = [
        find_runtime("onnxruntime").deploy(config_model(config), folder / str(i))
        for i, config in enumerate(NETWORKS)
    ]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def test_three_boards_share_the_networks(boards: list[Server], tmp_path: Path) -> None:
    device = open_device("b1, b2," + boards[2].address)
    assert device.name == f"b1,b2,{boards[2].address}"
    assert device.description.startswith("3 boards: ")
    measured = list(device.measure_each(NETWORKS, repeats=1))
    assert [m.context.artifact for m in measured] == _digests(tmp_path)
    timed_on = Counter(m.context.board for m in measured)
    assert timed_on == {"b1": 2, "b2": 2, boards[2].address: 2}
    assert {m.device for m in measured} == {device.name}
    assert all(0 < m.low_ms < m.median_ms < m.high_ms for m in measured)
    json.dumps([m.context.as_json() for m in measured])
    for server in boards:
        until(lambda server=server: server.agents() == [])  # type: ignore[misc]
        assert server.left() == []


def test_a_board_that_dies_is_left_out(boards: list[Server], tmp_path: Path) -> None:
    device = open_device(POOL, protocol=replace(QUICK, group=1))  # two for each

    def kill() -> None:
        until(boards[1].agents)
        boards[1].dies()

    killer = threading.Thread(target=kill)
    killer.start()
    measured = list(device.measure_each(NETWORKS, repeats=1))
    killer.join()
    assert [m.context.artifact for m in measured] == _digests(tmp_path)
    assert {m.context.board for m in measured} == {"b1", "b3"}
    remark = next(line for line in device.remarks if "dropped out" in line)
    assert remark.startswith("b2 dropped out, and the others timed its networks: The device must")
    assert "Connection refused. Is sshd running on that port?" in remark


@pytest.mark.usefixtures("without_ray")
def test_a_search_outlives_one_of_its_boards(
    boards: list[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    single = replace(QUICK, group=1)  # four for each
    monkeypatch.setattr("predictors.devices.registry.PROTOCOL", single)
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "b1-b2-b3-20ms"

    def kill() -> None:
        until((run / "measurements.jsonl").exists, 120)
        boards[1].dies()

    killer = threading.Thread(target=kill)
    killer.start()
    options = ["--budget", "20ms", "--trials", "4"]
    assert main(["search", "--device", POOL, *options]) == 0
    killer.join()
    out, err = capsys.readouterr()
    assert out.count("measured") >= 1
    assert err.count("b2 dropped out, and the others timed its networks: ") == 1
    remarks = json.loads((run / "run.json").read_text())["remarks"]
    assert any(remark.startswith("b2 dropped out") for remark in remarks)
    kept = [json.loads(line) for line in (run / "measurements.jsonl").read_text().splitlines()]
    assert len(kept) >= 5
    assert {"b1", "b3"} <= {
        latency["context"]["board"] for entry in kept for latency in entry["latencies"].values()
    }


def test_boards_that_are_all_dead_are_one_line(boards: list[Server], capsys: Streams) -> None:
    for server in boards:
        server.dies()
    capsys.readouterr()
    assert main(["measure", "t0", "--device", POOL]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fasternas: error: The device must stay reachable, but b")
    assert said.count("\n") == 1


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _pool_of_stand_ins(**of_the_last: float) -> PooledDevice:
    """Boards of which each takes one share before any finishes."""
    before = threading.Barrier(3, timeout=30).wait
    return PooledDevice(
        POOL,
        [stand_in("b1", before), stand_in("b2", before), stand_in("b3", before, **of_the_last)],
    )


@pytest.mark.usefixtures("cache")
def test_boards_that_disagree_are_named() -> None:
    pool = _pool_of_stand_ins(slower=1.08)
    list(pool.measure_each(NETWORKS))
    assert pool.remarks == [
        "b3 runs the small reference 8 % slower than b1; all latencies are on one scale.",
        "b3 runs T0 8 % slower than b1; all latencies are on one scale.",
    ]


@pytest.mark.usefixtures("cache")
def test_boards_that_agree_are_no_remark() -> None:
    pool = _pool_of_stand_ins(slower=1.04)
    assert {m.context.board for m in pool.measure_each(NETWORKS)} == {"b1", "b2", "b3"}
    assert pool.remarks == []


@pytest.mark.usefixtures("cache")
def test_a_board_that_died_with_its_last_networks_is_named() -> None:
    asked = threading.Event()

    def die() -> None:
        asked.set()
        raise DeviceLostError("The device must answer, but b2 did not.")

    pool = PooledDevice(POOL, [stand_in("b1", partial(asked.wait, 30)), stand_in("b2", die)])
    assert {m.context.board for m in pool.measure_each(NETWORKS[:2])} == {"b1"}
    assert pool.remarks == [
        "b2 dropped out, and the others timed its networks: The device must answer, but b2 did not."
    ]


@pytest.mark.usefixtures("cache")
def test_latencies_of_all_boards_are_on_the_scale_of_the_first_to_answer() -> None:
    first, *others = _pool_of_stand_ins(kept_ms=1.5).measure_each(NETWORKS)
    own_ms = {"b1": 1.0, "b2": 1.0, "b3": 1.5}
    scale_ms = own_ms[first.context.board]
    for m in (first, *others):
        assert (m.low_ms, m.median_ms, m.high_ms) == pytest.approx(
            (1.9 * scale_ms, 2.0 * scale_ms, 2.1 * scale_ms)
        )
        assert m.context.references["t0"].kept_ms == 4 * scale_ms
    later = PooledDevice("b3,b2,b1", [stand_in(name, kept_ms=7.0) for name in own_ms])
    assert later.measure(TINY).median_ms == pytest.approx(2.0 * scale_ms)  # it is kept


def test_groups_keep_every_place_busy() -> None:
    def sizes(networks: int, places: int) -> list[int]:
        return [len(group) for group in in_groups([TINY] * networks, places, most=8)]

    assert sizes(0, 3) == []
    assert sizes(2, 3) == [1, 1]
    assert sizes(7, 3) == [2, 2, 3]
    assert sizes(25, 3) == [4, 4, 4, 4, 4, 5]
    assert sizes(16, 1) == [8, 8]


BOARD = Board(
    name="b1", ssh="ssh://10.0.0.1", machine="Raspberry Pi 5", version="1.20", number_of_cores=4
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"machine": "Raspberry Pi 4"}, "machine is Raspberry Pi 5 on b1 and Raspberry Pi 4 on b2"),
        ({"backend": Backend("torch")}, "runtime is onnxruntime on b1 and torch on b2"),
        ({"version": "1.21"}, "version is 1.20 on b1 and 1.21 on b2"),
        ({"backend": Backend(threads=2)}, "threads is 1 on b1 and 2 on b2"),
        ({"emulated": True}, "processor is real on b1 and emulated on b2"),
        ({"ssh": "ssh://10.0.0.1:22"}, "must name each board once, but b1 and b2 are both ssh:"),
    ],
)
@pytest.mark.parametrize("command", [["measure", "t0"], ["search", "--budget", "9ms"]])
def test_boards_that_make_no_pool_are_refused_in_one_line(
    changes: dict[str, Any], words: str, command: list[str], capsys: Streams
) -> None:
    other = replace(BOARD, **{"name": "b2", "ssh": "ssh://10.0.0.2", **changes})
    save_boards({"b1": BOARD, "b2": other})
    assert main([*command, "--device", "b1,b2"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_what_is_told_needs_not_be_registered() -> None:
    save_boards(
        {
            "b1": BOARD,
            "b2": replace(BOARD, name="b2", ssh="ssh://10.0.0.2", backend=Backend(threads=2)),
        }
    )
    assert backend_of("b1,b2", threads=3) == Backend(threads=3)
    assert open_device("b1,b2", threads=3).backends == (Backend(threads=3),)
    with pytest.raises(ValueError, match="threads is 1 on b1 and 2 on b2"):
        backend_of("b1,b2")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("b1,cpu", "must name boards where it names several, but cpu is none. Name it alone."),
        ("b1,b9", "must be one of cpu, arm, b1, but got 'b9'."),
        ("b1,", "but got ''."),
    ],
)
def test_what_is_no_board_is_refused(name: str, words: str) -> None:
    save_boards({"b1": BOARD})
    assert list(load_boards()) == ["b1"]
    with pytest.raises(ValueError, match=words):
        open_device(name)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("cpu", "cpu-2ms"),
        ("pi1,pi2", "pi1-pi2-2ms"),
        ("ssh://pi@10.0.0.3:22", "pi@10.0.0.3-22-2ms"),
        ("pi1, ssh://[fe80::1]:22", "pi1-fe80-1-22-2ms"),
        ("../..", "-2ms"),
        (",".join(["board"] * 99), f"{'board-' * 16}boar-2ms"),
    ],
)
def test_a_run_folder_has_the_device_in_its_name(device: str, name: str) -> None:
    asked = Namespace(device=[device], budget=2.0, out=None, resume=True)
    assert _folder(asked) == Path("runs") / name
