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
    name = session.get_inputs()[0].name
    return lambda images: [
        torch.as_tensor(output) for output in session.run(None, {name: images.numpy()})
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
        image = generator.standard_normal(shape, dtype=np.float32)
        if start["processor"] == "cuda":
            return _on_gpu(session, image)
        feed = {session.get_inputs()[0].name: image}
        return lambda: session.run(None, feed)

    return list(map(inference, start["models"], start["shapes"]))


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
