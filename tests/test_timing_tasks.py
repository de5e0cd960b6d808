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
from ray_nodes import two_nodes
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


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head, and a node with the board b1."""
    with two_nodes(resources={"b1": 1}) as started:
        yield started


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


def test_a_board_is_timed_on_the_node_that_has_it(cluster: Any, tmp_path: Path) -> None:
    with _through_ray(_pool_of_two(tmp_path), cluster.address) as device:
        measured = list(device.measure_each(NETWORKS))
    assert [classes(m) for m in measured] == [c.classes for c in NETWORKS]
    nodes = {m.context.board: said(m) for m in measured}
    assert nodes == {"b1": cluster.second.node_id, "b2": cluster.head_node.node_id}
    assert device.remarks == [
        "No node of the Ray cluster has the resource b2, so this process timed its networks."
    ]


def test_two_searches_never_time_on_one_board_at_once(cluster: Any, tmp_path: Path) -> None:
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
    with joined(cluster.address) as ray:
        searches = [
            threading.Thread(
                target=lambda: found.extend(
                    timed_in_task(ray, stand_in("b1", alone), NETWORKS, 1)
                )
            )
            for _ in range(2)
        ]  # fmt: skip
        for search in searches:
            search.start()
        for search in searches:
            search.join()
    assert [said(m) for m in found] == [True] * 8


def test_a_node_that_dies_takes_its_board_with_it(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1, resources={"b3": 1})

    def hang() -> None:
        (tmp_path / "b3").touch()
        time.sleep(600)

    def kill() -> None:
        until((tmp_path / "b3").exists, 60)
        cluster.remove_node(node, allow_graceful=False)

    pool = PooledDevice("b1,b3", [stand_in("b1", str), stand_in("b3", hang)])
    killer = threading.Thread(target=kill)
    killer.start()
    with _through_ray(pool, cluster.address) as device:
        measured = list(device.measure_each(NETWORKS))
        killer.join()
        measured += device.measure_each(NETWORKS)  # its second chance
    assert {m.context.board for m in measured} == {"b1"}
    assert len(measured) == 2 * len(NETWORKS)
    (remark,) = device.remarks
    assert remark.startswith("b3 dropped out, and the others timed its networks: The Ray node next")


def test_an_error_of_a_board_is_told_in_its_own_words(cluster: Any) -> None:
    def fail() -> None:
        raise DeviceLostError("The device must stay reachable, but is not.")

    with (
        _through_ray(PooledDevice("b1", [stand_in("b1", fail)]), cluster.address) as device,
        pytest.raises(RuntimeError, match=r"^The device must stay reachable, but is not\.$"),
    ):
        device.measure(NETWORKS[0])


def test_a_cluster_of_this_machine_has_all_boards(tmp_path: Path) -> None:
    def where() -> Any:
        import ray

        context: Any = ray.get_runtime_context()
        return context.get_assigned_resources()

    address = "ssh://pi@10.0.0.3:22"
    pool = PooledDevice(f"b1,{address}", [stand_in("b1", where), stand_in(address, where)])
    with _through_ray(pool, None) as device:
        for measured in device.measure_each(NETWORKS):
            assert said(measured) == {measured.context.board: 1.0}
    assert device.remarks == []


def test_of_several_devices_the_pools_are_timed_on_the_cluster() -> None:
    def where() -> Any:
        import ray

        context: Any = ray.get_runtime_context()
        return context.get_assigned_resources()

    pools = {
        ",".join(names): PooledDevice(",".join(names), [stand_in(name, where) for name in names])
        for names in (["b1", "b2"], ["b3", "b4"])
    }
    with through_ray({**pools, "alone": stand_in("alone", lambda: "here")}, None) as devices:
        for measured in measure_each(devices, NETWORKS):
            first, second, alone = measured.by_device.values()
            assert said(first) == {first.context.board: 1.0}
            assert said(second) == {second.context.board: 1.0}
            assert said(alone) == "here"
            assert alone.median_ms == 2.0
    assert [*devices["b1,b2"].remarks, *devices["b3,b4"].remarks] == []
    assert set(measured.by_device) == {"b1,b2", "b3,b4", "alone"}


def test_a_pool_in_several_forms_is_timed_through_ray_in_each() -> None:
    def where() -> dict[str, float]:
        import ray

        context: Any = ray.get_runtime_context()
        return dict(context.get_assigned_resources())

    forms = [PooledDevice("b1", [stand_in("b1", where)]) for _ in range(2)]
    with _through_ray(MultiBackendDevice("b1", forms), None) as device:
        found = device.measure(NETWORKS[0])
    assert [said(m) for m in (found, *found.slower)] == [{"b1": 1.0}, {"b1": 1.0}]


def test_what_is_no_pool_joins_no_cluster() -> None:
    devices = {"arm": open_device("arm")}
    with through_ray(devices, "127.0.0.1:1") as same:
        assert same is devices
