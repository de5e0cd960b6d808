"""How many times more networks three boards time than one: three sshd on this machine.

    python benchmarks/device_pool.py [--networks 48] [--repetitions 2]

Three boards would not fit into the cores of one machine, so the runtime on each is a stand-in that
sleeps for as long as a small board would compute, by the size of the file; all else is what any
board does: ssh, export, transfer, fresh processes, rounds, pauses. One board and three take turns.
Prints the figures and writes benchmarks/results/device_pool.json. Needs root and OpenSSH's sshd.
"""

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from nas.cli.main import main as fasternas
from predictors.backends.model import config_model
from predictors.backends.table import find_runtime
from predictors.devices.agent.host import abi
from predictors.devices.connection import SITE
from predictors.devices.registry import open_device
from search_spaces.fasternet import SPACES, FasterNetConfig

RESULTS = Path(__file__).parent / "results"
PROCESSES = 2  # as when a search calibrates a device, with about so many networks
BASE_S, S_PER_BYTE = 15e-3, 2e-9  # T0's file of 16 MB then takes 47 ms
STAND_IN = f"""
import os, time
class SessionOptions: pass
class Input: name = "image"
class InferenceSession:
    def __init__(self, path, options, providers):
        self.seconds = {BASE_S} + {S_PER_BYTE} * os.path.getsize(path)
    def get_inputs(self): return [Input()]
    def run(self, names, feed): time.sleep(self.seconds)
"""


def main() -> None:
    """Start the boards, take turns, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=48)
    parser.add_argument("--repetitions", type=int, default=2)
    options = parser.parse_args()
    rng = random.Random(0)
    configs = [SPACES["fasternet-32"].sample(rng) for _ in range(options.networks)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _start_boards(stack, folder)
        first = config_model(configs[0])
        find_runtime("onnxruntime").deploy(first, folder / "first")  # loads torch
        turns = [
            {name: _seconds(name, configs) for name in ("b1", "b1,b2,b3")}
            for _ in range(options.repetitions)
        ]
    one, three = ([turn[name] for turn in turns] for name in ("b1", "b1,b2,b3"))
    speedups = [a / b for a, b in zip(one, three, strict=True)]
    result = {
        "networks": options.networks,
        "processes": PROCESSES,
        "seed": 0,
        "one_board_s": one,
        "three_boards_s": three,
        "speedups": speedups,
        "speedup": median(speedups),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }
    print(f"three boards time {median(speedups):.2f} times as many networks as one")
    (RESULTS / "device_pool.json").write_text(json.dumps(result, indent=2) + "\n")


def _start_boards(stack: ExitStack, folder: Path) -> None:
    """Register b1, b2 and b3, each with the stand-in in place of ONNX Runtime."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from loopback_sshd import client_of, running_sshd

    servers: list[Any] = [stack.enter_context(running_sshd()) for _ in range(3)]
    os.environ["FASTERNAS_SSH"] = client_of(servers, folder / "ssh_config")
    for variable in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        os.environ[variable] = str(folder / variable)
    for i, server in enumerate(servers, start=1):
        site = Path(SITE.replace("~", str(server.folder / "home")), abi())
        for name, text in {
            "onnxruntime/__init__.py": STAND_IN,
            "onnxruntime-9.dist-info/METADATA": "Name: onnxruntime\nVersion: 9",
        }.items():
            (site / name).parent.mkdir(parents=True)
            (site / name).write_text(text)
        # With one thread the clock is CPU time, which stands still during sleep.
        fasternas(["devices", "add", f"b{i}", "--ssh", server.address, "--threads", "2"])


def _seconds(name: str, configs: Sequence[FasterNetConfig]) -> float:
    device = open_device(name)
    start = time.monotonic()
    unstable = sum(m.unstable for m in device.measure_each(configs, repeats=PROCESSES))
    seconds = time.monotonic() - start
    print(f"{name}: {len(configs)} networks in {seconds:.1f} s, {unstable} unstable", flush=True)
    return seconds


if __name__ == "__main__":
    main()
