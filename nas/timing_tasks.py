"""Timing as Ray tasks: on the node that a board is next to, one search at a time on a board."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from nas.cluster import joined
from predictors.devices.connection import DeviceLostError
from predictors.devices.device import Device
from predictors.devices.joint import JointDevice, places_of
from predictors.devices.pool import PooledDevice, timed_here
from predictors.devices.several import MultiBackendDevice
from predictors.measurement import Latency
from search_spaces.fasternet import FasterNetConfig

LOOK_S = 10.0  # between two looks at whether a node next to the board is still there
TAKEN = ("CPU", "GPU", "memory", "object_store_memory")  # what Ray calls something else


@contextmanager
def through_ray(device: Device, address: str | None) -> Iterator[Device]:
    """Give the device; if it is a pool, let Ray run the timing where it has the boards.

    A board is the Ray resource of its name, as in `ray start --resources='{"pi1": 1}'`. A cluster
    of this machine's own has all of them. A board that a given cluster lacks is timed from this
    process, and a remark says so. Any other device is given as it is, and no cluster is joined.

    Of several devices those that are pools are timed so.

    Raises:
        RuntimeError: if the cluster cannot be reached.
    """
    pools = [form for place in places_of(device) for form in forms_of(place)
             if isinstance(form, PooledDevice)]  # fmt: skip
    if not pools:
        yield device
        return
    boards = [b.name for pool in pools for b in pool.places if b.name not in TAKEN]
    with joined(address, resources=boards) as ray:
        if isinstance(device, JointDevice):
            places = tuple(_in_tasks(ray, place) for place in device.places)
            yield replace(device, places=places)
        else:
            yield _in_tasks(ray, device)


def _in_tasks(ray: Any, device: Device) -> Device:
    """Let Ray time a pool's boards where it has them, in each form if there are several."""
    if isinstance(device, MultiBackendDevice):
        return MultiBackendDevice(device.name, [_in_tasks(ray, form) for form in device.forms])
    if not isinstance(device, PooledDevice):
        return device
    there = ray.cluster_resources()
    offered = [b.name for b in device.places if b.name in there and b.name not in TAKEN]
    remarks = [f"No node of the Ray cluster has the resource {board.name}, so this process timed "
               "its networks." for board in device.places if board.name not in offered]  # fmt: skip
    return device.timed_by(dict.fromkeys(offered, partial(timed_in_task, ray)), remarks=remarks)


def forms_of(device: Device) -> tuple[Device, ...]:
    """Return the runtimes and precisions that a device is timed in, each as a device."""
    return device.forms if isinstance(device, MultiBackendDevice) else (device,)


def timed_in_task(
    ray: Any, place: Device, configs: Sequence[FasterNetConfig], processes: int
) -> list[Latency]:
    """Time the networks in a Ray task that holds the board's resource.

    Raises:
        RuntimeError: if the board is lost, or the node next to it.
    """
    # Not retried by Ray, which would wait for a node that is gone: the pool gives them to others.
    remote = ray.remote(num_cpus=0, resources={place.name: 1}, max_retries=0)(timed_here)
    task = remote.options(name=f"timing-{place.name}").remote(place, list(configs), processes)
    try:
        while not ray.wait([task], timeout=LOOK_S)[0]:
            if place.name not in ray.cluster_resources():
                ray.cancel(task)
                raise _node_lost(place.name)
        measured: list[Latency] = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError:
        raise _node_lost(place.name) from None
    return measured


def _node_lost(board: str) -> DeviceLostError:
    return DeviceLostError(f"The Ray node next to {board} must stay alive, but was lost. "
                        "Start it again with the board as its resource.")  # fmt: skip
