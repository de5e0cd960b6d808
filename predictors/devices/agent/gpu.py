"""An NVIDIA GPU: how networks get into its memory, and its own clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Inference = Callable[[], object]

PROVIDER = "CUDAExecutionProvider"  # of ONNX Runtime


def is_wanted(start: dict[str, Any]) -> bool:
    """Whether networks are to run on the GPU."""
    return bool(start.get("processor") == "cuda")


def provider(start: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """What runs networks in ONNX Runtime, and its options: on a GPU fp32, not its default TF32."""
    return (PROVIDER, {"use_tf32": "0"}) if is_wanted(start) else ("CPUExecutionProvider", {})


def refuse_tf32() -> None:
    """Have torch compute in fp32 on GPUs: convolutions round to TF32 by default."""
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def bound(session: Any, image: Any) -> Inference:
    """An inference of ONNX Runtime whose input and output stay in the GPU's memory.

    It returns when the GPU has finished. Where the provider cannot be loaded, the session has
    silently taken the CPU; that is refused.
    """
    import onnxruntime

    if session.get_providers()[0] != PROVIDER:
        raise RuntimeError("onnxruntime has no CUDA provider here; install onnxruntime-gpu")
    binding = session.io_binding()
    value = onnxruntime.OrtValue.ortvalue_from_numpy(image, "cuda", 0)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda")
    return lambda: session.run_with_iobinding(binding)


def placed(program: Any, image: Any, start: dict[str, Any]) -> tuple[Any, Any]:
    """A program of torch.export as a module, and its input, both on the GPU if it is wanted."""
    import torch
    from torch.export.passes import move_to_device_pass

    if not is_wanted(start):
        return program.module(), image
    if not torch.cuda.is_available():
        raise RuntimeError(f"torch {torch.__version__} finds no GPU; install its CUDA build")
    refuse_tf32()
    return move_to_device_pass(program, "cuda").module(), image.to("cuda")


def event_ms(infer: Inference) -> float:
    """Time one inference by events that the GPU records, from an idle GPU to its end."""
    import torch

    cuda: Any = torch.cuda
    begun, ended = (cuda.Event(enable_timing=True) for _ in range(2))
    begun.record()
    infer()
    ended.record()
    ended.synchronize()
    return float(begun.elapsed_time(ended))
