"""The program that times models next to the hardware; it needs Python, numpy and the runtime.

It imports nothing of fasternas, so that this one file can be copied to a board. It reads one JSON
object a line from standard input and answers each with one line:

    {"load": [path, ...], "runtime": "onnxruntime", "threads": 1, "resolutions": [224, ...]}
        -> {"ready": {"runtime_version": ..., "pinned": ..., "realtime": ...}}
    {"time": index, "discard": 1, "repeats": 5}
        -> {"wall_ms": [...], "cpu_ms": [...], "preempted": involuntary context switches}

It ends when its input ends.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

Inference = Callable[[], object]


def main() -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a runtime prints must not mix with the answers
    models: list[Inference] = []
    for line in sys.stdin:
        request = json.loads(line)
        if "load" in request:
            answer: dict[str, Any] = {"ready": _settle(request["threads"])}
            models, answer["ready"]["runtime_version"] = _LOADERS[request["runtime"]](request)
        else:
            answer = _time(models[request["time"]], request["discard"], request["repeats"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _settle(threads: int) -> dict[str, bool]:
    """Pin to as many cores as there are threads, at real-time priority, where permitted."""
    settled = {"pinned": False, "realtime": False}
    try:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-threads:])
        settled["pinned"] = True
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        settled["realtime"] = True
    except (OSError, AttributeError):
        pass  # not permitted, or not this system: the answer says so
    return settled


def _load_onnxruntime(request: dict[str, Any]) -> tuple[list[Inference], str]:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    generator = np.random.default_rng(0)

    def load(path: str, size: int) -> Inference:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        image = generator.standard_normal((1, 3, size, size), dtype=np.float32)
        feed = {session.get_inputs()[0].name: image}
        return lambda: session.run(None, feed)

    models = [load(*each) for each in zip(request["load"], request["resolutions"], strict=True)]
    return models, str(onnxruntime.__version__)


def _load_torch(request: dict[str, Any]) -> tuple[list[Inference], str]:
    import torch

    torch.set_num_threads(request["threads"])
    torch.set_grad_enabled(False)

    def load(path: str, size: int) -> Inference:
        network = torch.export.load(path).module()
        image = torch.randn(1, 3, size, size)
        return lambda: network(image)

    models = [load(*each) for each in zip(request["load"], request["resolutions"], strict=True)]
    return models, str(torch.__version__)


_LOADERS = {"onnxruntime": _load_onnxruntime, "torch": _load_torch}


def _time(infer: Inference, discard: int, repeats: int) -> dict[str, Any]:
    """Time single inferences by the wall and by this process's CPU time."""
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
    return {"wall_ms": wall, "cpu_ms": cpu, "preempted": preempted}


if __name__ == "__main__":
    main()
