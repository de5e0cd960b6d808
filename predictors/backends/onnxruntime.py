"""ONNX Runtime: ONNX files in fp32 and int8, on processors and, in fp32, on NVIDIA GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from predictors.backends.model import Model
    from predictors.backends.table import Run, Runtime, Start

PACKAGES = ("onnxruntime",)
EXTRA = ""
CUDA = "CUDAExecutionProvider"


def write(model: Model, stem: Path, runtime: Runtime) -> Path:
    """Write ONNX, in eight bits if the precision is int8."""
    from predictors.backends.onnx_export import write_onnx

    return write_onnx(model, stem, int8=runtime.precision == "int8")


def run(model: Model, file: Path, runtime: Runtime) -> Run:
    """Run the file on one thread."""
    return outputs_of(str(file))


def outputs_of(file: str | bytes) -> Run:
    """Return what computes the outputs of an ONNX file, on one thread."""
    import torch

    session = _session(file, provider("cpu"), threads=1)
    name, dtype = session.get_inputs()[0].name, _dtype(session)
    return lambda images: [
        torch.as_tensor(output)
        for output in session.run(None, {name: as_input(images.numpy(), dtype)})
    ]


def code(model: Model, file: Path, runtime: Runtime) -> str:
    """Return how the file is loaded, in Python."""
    return f'onnxruntime.InferenceSession("{file}")'


def load(start: Start) -> list[Callable[[], object]]:
    """Load files to time them, each with a random input."""
    import numpy as np

    generator = np.random.default_rng(0)

    def inference(path: str, shape: list[int]) -> Callable[[], object]:
        session = _session(path, provider(start["processor"]), threads=start["threads"])
        image = as_input(generator.standard_normal(shape, dtype=np.float32), _dtype(session))
        if start["processor"] == "cuda":
            return _on_gpu(session, image)
        feed = {session.get_inputs()[0].name: image}
        return lambda: session.run(None, feed)

    return list(map(inference, start["models"], start["shapes"]))


def as_input(noise: Any, dtype: str) -> Any:
    """Return random images in the type that a network takes: bytes are pixels, about grey."""
    if dtype in ("uint8", "int8"):
        lowest = 0 if dtype == "uint8" else -128
        noise = (64 * noise + lowest + 128).clip(lowest, lowest + 255)
    return noise.astype(dtype, copy=False)


def _dtype(session: Any) -> str:
    """The type that a network takes, as numpy calls it: of tensor(float) float32."""
    kind: str = session.get_inputs()[0].type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(kind, kind)


def provider(processor: str) -> tuple[str, dict[str, str]]:
    """Return the provider for a processor, and its options: on a GPU fp32, not its default TF32."""
    return (CUDA, {"use_tf32": "0"}) if processor == "cuda" else ("CPUExecutionProvider", {})


def _session(file: str | bytes, chosen: tuple[str, dict[str, str]], *, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(file, options, providers=[chosen])


def _on_gpu(session: Any, image: object) -> Callable[[], object]:
    """Return an inference whose input and output stay in the GPU's memory.

    It returns when the GPU has finished. If the provider cannot be loaded, the session has
    silently taken the processor; that is refused.
    """
    import onnxruntime

    if session.get_providers()[0] != CUDA:
        raise RuntimeError("onnxruntime has no CUDA provider here; install onnxruntime-gpu")
    binding = session.io_binding()
    value = onnxruntime.OrtValue.ortvalue_from_numpy(image, "cuda", 0)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda")
    return lambda: session.run_with_iobinding(binding)
