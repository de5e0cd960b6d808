"""A backend: ONNX Runtime without the optimisation of graphs.

Boards are sent the text of this one file, hence the standard library alone outside of functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import fasternas as fn

PACKAGES = ("onnxruntime",)  # the first one runs networks, and is installed on boards
EXTRA = ""


def write(model: fn.Model, stem: Path, runtime: fn.Runtime) -> Path:
    """Write a network's file and return it."""
    import fasternas as fn

    return fn.write_onnx(model, stem.with_name(f"{stem.name}.plain"))


def run(model: fn.Model, file: Path, runtime: fn.Runtime) -> fn.Run:
    """Return what computes the file's outputs here: they are compared with PyTorch's."""
    import torch

    session = _session(str(file), threads=1)
    name = session.get_inputs()[0].name
    return lambda images: [
        torch.as_tensor(output) for output in session.run(None, {name: images.numpy()})
    ]


def code(model: fn.Model, file: Path, runtime: fn.Runtime) -> str:
    """Return how the file is loaded, in Python."""
    return f'onnxruntime.InferenceSession("{file}")'


def load(start: fn.Start) -> list[Callable[[], object]]:
    """Load files to time them: one callable each, which runs one inference."""
    import numpy

    def inference(path: str, shape: list[int]) -> Callable[[], object]:
        session = _session(path, threads=start["threads"])
        feed = {session.get_inputs()[0].name: numpy.zeros(shape, numpy.float32)}
        return lambda: session.run(None, feed)

    return list(map(inference, start["models"], start["shapes"]))


def _session(path: str, *, threads: int):  # type: ignore[no-untyped-def]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options)
