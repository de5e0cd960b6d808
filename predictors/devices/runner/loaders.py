"""How each runtime turns files into something to call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Inference = Callable[[], object]


def _load_onnxruntime(start: dict[str, Any]) -> list[Inference]:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = start["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    generator = np.random.default_rng(0)

    def load(path: str, shape: list[int]) -> Inference:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        image = generator.standard_normal((1, *shape), dtype=np.float32)
        feed = {session.get_inputs()[0].name: image}
        return lambda: session.run(None, feed)

    return list(map(load, start["models"], start["shapes"]))


def _load_torch(start: dict[str, Any]) -> list[Inference]:
    import torch

    torch.set_num_threads(start["threads"])
    torch.set_grad_enabled(False)
    compiled = start["runtime"] == "torch-compiled"

    def load(path: str, shape: list[int]) -> Inference:
        network: Any = torch.export.load(path).module()
        network = torch.compile(network) if compiled else network
        image = torch.randn(1, *shape)
        network(image)  # where it is compiled, now
        return lambda: network(image)

    return list(map(load, start["models"], start["shapes"]))


LOADERS: dict[str, Callable[[dict[str, Any]], list[Inference]]] = {
    "onnxruntime": _load_onnxruntime,
    "torch": _load_torch,
    "torch-compiled": _load_torch,
}
