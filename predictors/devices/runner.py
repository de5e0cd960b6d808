"""The program that times models next to the hardware; it needs Python, numpy and the runtime.

It imports nothing of fasternas: this one file is all that reaches a board. It runs as two
processes. The keeper receives models, keeps them in a folder that goes when it does, and starts
timers: fresh processes that each time the models. Requests are JSON objects, one a line, on
standard input; each is answered by one line:

    {"facts": runtime}                          -> {"facts": {...}}
    {"keep": name, "bytes": n} and n raw bytes  -> {"kept": name}
    {"install": [package, ...], "into": folder} -> {"installed": folder}
    {"unpack": name, "into": folder}            -> {"installed": folder}
    {"start": {"models": [...], "resolutions": [...], "runtime": ..., "threads": ..., "cores": ...}}
                                                -> {"ready": {"pinned": ..., "realtime": ...}}
    {"time": index, "discard": n, "repeats": n} -> {"wall_ms": [...], "cpu_ms": [...], ...}

What goes wrong is answered by {"error": one line}, or, where a timer died, by {"died": how}. Both
processes end when their input ends, so nothing outlives a lost connection. Python 3.9 is enough.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

Inference = Callable[[], object]
PREFIX = "fasternas-keeper-"  # of a keeper's folder, before its process number


class Keeper:
    """Keeps the models in a folder of its own and one timer at a time."""

    def __init__(self, folder: Path, source: str) -> None:
        self._folder = folder
        self._source = source
        self._timer: subprocess.Popen[bytes] | None = None

    def answer(self, request: dict[str, Any], more: BinaryIO) -> dict[str, Any]:
        """Answer one request; `more` holds the bytes that follow it."""
        if "facts" in request:
            return {"facts": facts(request["facts"])}
        if "keep" in request:
            return self._keep(request["keep"], request["bytes"], more)
        if "install" in request:
            return _install(request["install"], Path(request["into"]).expanduser())
        if "unpack" in request:
            return self._unpack(request["unpack"], Path(request["into"]).expanduser())
        if "start" in request:
            self.stop()
            self._start()
            models = [str(self._folder / name) for name in request["start"]["models"]]
            request = {"start": {**request["start"], "models": models}}
        return self._ask(request)

    def stop(self) -> None:
        """End the timer, if one runs."""
        if self._timer is not None:
            self._timer.kill()
            self._timer.communicate()
            self._timer = None

    def _keep(self, name: str, size: int, more: BinaryIO) -> dict[str, Any]:
        data = more.read(size)  # even where it cannot be kept: the next request follows it
        file = self._folder / Path(name).name
        try:
            file.write_bytes(data)
        except OSError as error:
            file.unlink(missing_ok=True)
            return {"error": f"{file.parent}: {error.strerror}"}
        return {"kept": name}

    def _unpack(self, name: str, into: Path) -> dict[str, Any]:
        """Unpack a kept wheel: a machine without network has no use for pip."""
        with zipfile.ZipFile(self._folder / name) as wheel:
            wheel.extractall(into)
        (self._folder / name).unlink()
        return {"installed": str(into)}

    def _start(self) -> None:
        self._timer = subprocess.Popen(
            [sys.executable, "-u", "-c", self._source, "--times"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(self._folder)},  # runtimes leave things there
        )  # fmt: skip

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._timer is None or self._timer.stdin is None or self._timer.stdout is None:
            return {"error": "no timer was started"}
        try:
            self._timer.stdin.write(json.dumps(request).encode() + b"\n")
            self._timer.stdin.flush()
            answer: dict[str, Any] = json.loads(self._timer.stdout.readline())
        except (OSError, ValueError):
            return {"died": self._end()}
        return answer

    def _end(self) -> str:
        assert self._timer is not None
        code = self._timer.wait()
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _install(packages: list[str], into: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "pip", "install", "-q", "--only-binary=:all:"]
    done = subprocess.run([*command, "--target", str(into), *packages], capture_output=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["pip said nothing"]
        return {"error": said[-1]}
    return {"installed": str(into)}


class Timer:
    """Holds loaded models and times single inferences of them."""

    def __init__(self) -> None:
        self._models: list[Inference] = []

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request."""
        if "start" in request:
            start = request["start"]
            settled = _settle(start["threads"], start.get("cores"))
            self._models = LOADERS[start["runtime"]](start)
            return {"ready": settled}
        return self._time(self._models[request["time"]], request["discard"], request["repeats"])

    @staticmethod
    def _time(infer: Inference, discard: int, repeats: int) -> dict[str, Any]:
        for _ in range(discard):
            infer()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        wall, cpu = [], []
        for _ in range(repeats):
            wall_start, cpu_start = time.perf_counter_ns(), time.process_time_ns()
            infer()
            cpu.append((time.process_time_ns() - cpu_start) / 1e6)
            wall.append((time.perf_counter_ns() - wall_start) / 1e6)
        preempted = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before
        return {"wall_ms": wall, "cpu_ms": cpu, "preempted": preempted, **_heat()}


def facts(runtime: str) -> dict[str, Any]:
    """What the machine is and has; None where it does not tell."""
    return {
        "machine": platform.machine(),
        "kernel": _line("/proc/sys/kernel/arch"),  # not the machine's: that one is emulated
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "runtime_version": _version(runtime),
        "numpy": _version("numpy"),
        "governor": _line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        **_heat(),
    }


def _heat() -> dict[str, Any]:
    kilohertz = _line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    millidegrees = _line("/sys/class/thermal/thermal_zone0/temp")
    return {"mhz": float(kilohertz) / 1e3 if kilohertz else None,
            "celsius": float(millidegrees) / 1e3 if millidegrees else None}  # fmt: skip


def processor() -> str:
    """Return the board's or the processor's name."""
    board = (_text("/proc/device-tree/model") or "").strip(" \0\n")
    names = [line.split(":", 1)[1].strip() for line in (_text("/proc/cpuinfo") or "").splitlines()
             if line.startswith("model name")]  # fmt: skip
    return board or next(iter(names), "") or platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _line(file: str) -> str | None:
    return (_text(file) or "").strip() or None


def _text(file: str) -> str | None:
    try:
        return Path(file).read_text()
    except (OSError, ValueError):
        return None


def _settle(threads: int, cores: list[int] | None) -> dict[str, bool]:
    """Pin to the cores, or to as many as there are threads, at real-time priority if permitted."""
    settled = {"pinned": False, "realtime": False}
    try:
        os.sched_setaffinity(0, cores or sorted(os.sched_getaffinity(0))[-threads:])
        settled["pinned"] = True
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        settled["realtime"] = True
    except (OSError, AttributeError):
        pass  # not permitted, or not this system: the answer says so
    return settled


def _load_onnxruntime(start: dict[str, Any]) -> list[Inference]:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = start["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    generator = np.random.default_rng(0)

    def load(path: str, size: int) -> Inference:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        image = generator.standard_normal((1, 3, size, size), dtype=np.float32)
        feed = {session.get_inputs()[0].name: image}
        return lambda: session.run(None, feed)

    return list(map(load, start["models"], start["resolutions"]))


def _load_torch(start: dict[str, Any]) -> list[Inference]:
    import torch

    torch.set_num_threads(start["threads"])
    torch.set_grad_enabled(False)

    def load(path: str, size: int) -> Inference:
        network = torch.export.load(path).module()
        image = torch.randn(1, 3, size, size)
        return lambda: network(image)

    return list(map(load, start["models"], start["resolutions"]))


LOADERS = {"onnxruntime": _load_onnxruntime, "torch": _load_torch}


def _serve(answer: Callable[[dict[str, Any], BinaryIO], dict[str, Any]]) -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a runtime prints must not mix with the answers
    for line in iter(sys.stdin.buffer.readline, b""):
        try:
            reply = answer(json.loads(line), sys.stdin.buffer)
        except Exception as error:  # whatever it is, it is told to the other side
            reply = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:1000]}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def _sweep() -> None:
    """Remove the folders of keepers that were killed before they could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        try:
            os.kill(int(folder.name[len(PREFIX) :].split("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, OSError):
            pass  # not ours


def _leave(*_: object) -> None:
    sys.exit(1)  # not at once: what was kept goes first


def main(source: str) -> None:
    """Time, as a keeper told it to, or be the keeper; `source` is the text of this file."""
    if sys.argv[1:] == ["--times"]:
        timer = Timer()
        _serve(lambda request, _: timer.answer(request))
        return
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _leave)
    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        keeper = Keeper(Path(folder), source)
        try:
            _serve(keeper.answer)
        finally:
            keeper.stop()


if __name__ == "__main__":
    main(globals().get("SOURCE", ""))
