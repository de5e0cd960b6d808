"""OpenVINO: runs ONNX files in fp32, bf16 and int8; exports its own format, the IR.

In bf16 the file is that of fp32, which OpenVINO rounds when it loads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from predictors.backends.model import Model
    from predictors.backends.table import Run, Runtime, Start

PACKAGES = ("openvino",)
EXTRA = "openvino"


def write(model: Model, stem: Path, runtime: Runtime) -> Path:
    """Write the ONNX file that is timed, or the IR made of it: the network and its weights."""
    from predictors.backends.onnx_export import write_onnx

    onnx = write_onnx(model, stem, int8=runtime.precision == "int8")
    if not runtime.format.startswith("openvino"):
        return onnx
    import openvino

    network = openvino.Core().read_model(onnx.read_bytes())
    onnx.unlink()
    openvino.save_model(network, str(onnx.with_suffix(".xml")), compress_to_fp16=False)
    return onnx.with_suffix(".xml")


def run(model: Model, file: Path, runtime: Runtime) -> Run:
    """Run the file on one thread."""
    import openvino
    import torch

    compiled = _compiled(openvino.Core(), str(file), runtime.precision, threads=1)
    return lambda images: [
        torch.tensor(output) for output in compiled([_as_input(images.numpy(), compiled)]).values()
    ]


def code(model: Model, file: Path, runtime: Runtime) -> str:
    """Return how the file is loaded, in Python."""
    return f'openvino.Core().compile_model("{file}", "CPU")'


def load(start: Start) -> list[Callable[[], object]]:
    """Load files to time them, each with a random input."""
    import numpy as np
    import openvino

    core, generator = openvino.Core(), np.random.default_rng(0)

    def inference(path: str, shape: list[int]) -> Callable[[], object]:
        compiled = _compiled(core, path, start["precision"], threads=start["threads"], shape=shape)
        request = compiled.create_infer_request()
        image = _as_input(generator.standard_normal(shape, dtype=np.float32), compiled)
        request.set_input_tensor(openvino.Tensor(image))
        return lambda: request.infer()

    return list(map(inference, start["models"], start["shapes"]))


def _as_input(noise: Any, compiled: Any) -> Any:
    """Return random images in the type that a network takes: bytes are pixels, about grey."""
    dtype = compiled.input(0).element_type.to_dtype()
    if dtype.kind in "iu":
        lowest = 0 if dtype.kind == "u" else -128
        noise = (64 * noise + lowest + 128).clip(lowest, lowest + 255)
    return noise.astype(dtype, copy=False)


def _compiled(
    core: Any, path: str, precision: str, *, threads: int, shape: list[int] | None = None
) -> Any:
    """Compile for low latency; a batch that it does not know would cost time."""
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "ENABLE_CPU_PINNING": False,  # the agent pins its process
    }
    network = core.read_model(path)
    if shape is not None:
        network.reshape(shape)
    compiled = core.compile_model(network, "CPU", settings)
    if precision == "bf16" and compiled.get_property("INFERENCE_PRECISION_HINT") != (
        openvino.Type.bf16
    ):
        raise NotImplementedError("this processor has no bf16; use fp32 or int8")
    return compiled
