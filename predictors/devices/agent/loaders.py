"""How each runtime turns files into something to call."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable
from typing import Any

from predictors.devices.agent.gpu import Inference, bound, is_wanted, placed, provider


def _load_onnxruntime(start: dict[str, Any]) -> list[Inference]:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = start["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    generator = np.random.default_rng(0)

    def load(path: str, shape: list[int]) -> Inference:
        session = onnxruntime.InferenceSession(path, options, providers=[provider(start)])
        image = generator.standard_normal(shape, dtype=np.float32)
        if is_wanted(start):
            return bound(session, image)
        feed = {session.get_inputs()[0].name: image}
        return lambda: session.run(None, feed)

    return list(map(load, start["models"], start["shapes"]))


def _load_openvino(start: dict[str, Any]) -> list[Inference]:
    import numpy as np
    import openvino

    core = openvino.Core()
    bf16 = start["precision"] == "bf16"
    settings = {
        "INFERENCE_NUM_THREADS": start["threads"], "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",  # its default is what is fastest
        "ENABLE_CPU_PINNING": False,  # we do that
    }  # fmt: skip
    generator = np.random.default_rng(0)

    def load(path: str, shape: list[int]) -> Inference:
        network = core.read_model(path)
        network.reshape(shape)  # a batch that it does not know costs time
        compiled = core.compile_model(network, "CPU", settings)
        if bf16 and compiled.get_property("INFERENCE_PRECISION_HINT") != openvino.Type.bf16:
            raise RuntimeError("this processor has no bf16")
        request = compiled.create_infer_request()
        image = generator.standard_normal(shape, dtype=np.float32)
        request.set_input_tensor(openvino.Tensor(image))
        return lambda: request.infer()

    return list(map(load, start["models"], start["shapes"]))


def _load_ncnn(start: dict[str, Any]) -> list[Inference]:
    import ncnn
    import numpy as np

    generator = np.random.default_rng(0)

    def load(path: str, shape: list[int]) -> Inference:
        net = ncnn.Net()
        net.opt.num_threads = start["threads"]
        net.opt.use_vulkan_compute = False
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_packed = net.opt.use_bf16_storage = start["precision"] == "bf16"
        with tempfile.TemporaryDirectory() as folder:
            zipfile.ZipFile(path).extractall(folder)
            if net.load_param(f"{folder}/network.param") or net.load_model(f"{folder}/network.bin"):
                raise RuntimeError("ncnn cannot load the network")
        array = generator.standard_normal(shape[1:], dtype=np.float32)
        image = ncnn.Mat(array).clone()  # before, it only borrows the array

        def infer() -> object:
            extractor = net.create_extractor()  # keeps results: one for each inference
            extractor.input("in0", image)
            return extractor.extract("out0")

        return infer

    return list(map(load, start["models"], start["shapes"]))


def _load_torch(start: dict[str, Any]) -> list[Inference]:
    import torch

    torch.set_num_threads(start["threads"])
    torch.set_grad_enabled(False)
    compiled = start["runtime"] == "torch-compiled"

    def load(path: str, shape: list[int]) -> Inference:
        network, image = placed(torch.export.load(path), torch.randn(shape), start)
        network = torch.compile(network) if compiled else network
        network(image)  # where it is compiled, now
        return lambda: network(image)

    return list(map(load, start["models"], start["shapes"]))


LOADERS: dict[str, Callable[[dict[str, Any]], list[Inference]]] = {
    "onnxruntime": _load_onnxruntime,
    "openvino": _load_openvino,
    "ncnn": _load_ncnn,
    "torch": _load_torch,
    "torch-compiled": _load_torch,
}
