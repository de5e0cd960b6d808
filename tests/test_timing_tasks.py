"""On a real Ray of two nodes boards are timed on the node that has them, one search at a time.

Ray sends inner functions by value, so its workers need not find this file.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loopback_sshd import until
from networks import TINY
from stand_ins import classes, said, stand_in

from nas.devices import measure_each
from nas.ray_pool import joined, through_ray, timed_in_task
from predictors.devices.connection import DeviceLostError
from predictors.devices.device import Device
from predictors.devices.pool import PooledDevice
from predictors.devices.registry import open_device
from predictors.devices.several import MultiBackendDevice
from predictors.measurement import Latency

NETWORKS = [replace(TINY, classes=10 + i) for i in range(4)]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("nas.ray_pool.LOOK_S", 0.2)


@contextmanager
def _through_ray(device: Device, address: str | None) -> Iterator[Device]:
    """One device alone."""
    with through_ray({device.name: device}, address) as devices:
        yield devices[device.name]


def _pool_of_two(folder: Path) -> PooledDevice:
    """Boards b1 and b2 that wait for one another once, and say on which node that was."""

    def of(board: str) -> Callable[[], str]:
        def where() -> str:
            import ray

            (folder / board).touch()
            end = time.monotonic() + 60
            while len(list(folder.glob("b?"))) < 2 and time.monotonic() < end:
                time.sleep(0.02)
            return str(ray.get_runtime_context().get_node_id())

        return where

    return PooledDevice("b1,b2", [stand_in("b1", of("b1")), stand_in("b2", of("b2"))])


def test_a_cluster_of_this_machine_has_the_boards_of_all_pools_in_all_backends() -> None:
    def where() -> dict[str, float]:
        import ray

        context: Any = ray.get_runtime_context()
        return dict(context.get_assigned_resources())

    address = "ssh://pi@10.0.0.3:22"
    pools = {
        ",".join(names): PooledDevice(",".join(names), [stand_in(name, where) for name in names])
        for names in (["b1", address], ["b3", "b4"])
    }
    in_two = [PooledDevice("b2", [stand_in("b2", where)]) for _ in range(2)]
    others: dict[str, Device] = {
        "alone": stand_in("alone", lambda: "here"),
        "b2": MultiBackendDevice("b2", in_two),
    }
    with through_ray({**pools, **others}, None) as devices:
        for measured in measure_each(devices, NETWORKS):
            first, second, alone, fastest = measured.by_device.values()
            for of_pool in (first, second):
                assert said(of_pool) == {of_pool.context.board: 1.0}
            assert [said(one) for one in (fastest, *fastest.slower)] == [{"b2": 1.0}] * 2
            assert said(alone) == "here"
            assert alone.median_ms == 2.0
    assert not any(devices[name].remarks for name in pools)
    assert set(measured.by_device) == {*pools, *others}


def test_what_is_no_pool_joins_no_cluster() -> None:
    devices = {"arm": open_device("arm")}
    with through_ray(devices, "127.0.0.1:1") as same:
        assert same is devices


def test_a_board_is_timed_on_the_node_that_has_it(on_cluster: Any, tmp_path: Path) -> None:
    with _through_ray(_pool_of_two(tmp_path), on_cluster.address) as device:
        measured = list(device.measure_each(NETWORKS))
    assert [classes(m) for m in measured] == [c.classes for c in NETWORKS]
    nodes = {m.context.board: said(m) for m in measured}
    assert nodes == {"b1": on_cluster.second.node_id, "b2": on_cluster.head_node.node_id}
    assert device.remarks == [
        "No node of the Ray cluster has the resource b2, so this process timed its networks."
    ]


def test_two_searches_never_time_on_one_board_at_once(on_cluster: Any, tmp_path: Path) -> None:
    def alone() -> bool:
        mark = tmp_path / "timing"
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            return False
        time.sleep(0.1)
        mark.unlink()
        return True

    found: list[Latency] = []
    with joined(on_cluster.address) as ray:
        searches = [
            threading.Thread(
                target=lambda: found.extend(timed_in_task(ray, stand_in("b1", alone), NETWORKS, 1))
            )
            for _ in range(2)
        ]
        for search in searches:
            search.start()
        for search in searches:
            search.join()
    assert [said(m) for m in found] == [True] * 8


def test_a_node_that_dies_takes_its_board_with_it(on_cluster: Any, tmp_path: Path) -> None:
    node = on_cluster.add_node(num_cpus=1, resources={"b3": 1})

    def hang() -> None:
        (tmp_path / "b3").touch()
        time.sleep(600)

    def kill() -> None:
        until((tmp_path / "b3").exists, 60)
        on_cluster.remove_node(node, allow_graceful=False)

    pool = PooledDevice("b1,b3", [stand_in("b1", str), stand_in("b3", hang)])
    killer = threading.Thread(target=kill)
    killer.start()
    with _through_ray(pool, on_cluster.address) as device:
        measured = list(device.measure_each(NETWORKS))
        killer.join()
        measured += device.measure_each(NETWORKS)  # its second chance
    assert {m.context.board for m in measured} == {"b1"}
    assert len(measured) == 2 * len(NETWORKS)
    (remark,) = device.remarks
    assert remark.startswith("b3 dropped out, and the others timed its networks: The Ray node next")


def test_an_error_of_a_board_is_told_in_its_own_words(on_cluster: Any) -> None:
    def fail() -> None:
        raise DeviceLostError("The device must stay reachable, but is not.")

    with (
        _through_ray(PooledDevice("b1", [stand_in("b1", fail)]), on_cluster.address) as device,
        pytest.raises(RuntimeError, match=r"^The device must stay reachable, but is not\.$"),
    ):
        device.measure(NETWORKS[0])
