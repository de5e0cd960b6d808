"""torch: programs of torch.export, eager or compiled, on processors and GPUs; TorchScript files."""

from __future__ import annotations

import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

    from predictors.backends.model import Model
    from predictors.backends.table import Run, Runtime, Start

PACKAGES = ("torch",)
EXTRA = ""


def write(model: Model, stem: Path, runtime: Runtime) -> Path:
    """Write a torch.export program or a TorchScript trace, which C++ and phones load."""
    if runtime.format == "torchscript":
        from predictors.backends.onnx_export import folded

        path, image = model.path(stem, ".torchscript.pt"), model.image()
        save_trace(folded(model.network(), image), image, path)
        return path
    path = model.path(stem, ".pt2")
    path.write_bytes(_program(model))
    return path


def run(model: Model, file: Path, runtime: Runtime) -> Run:
    """Run the file eagerly."""
    import torch

    if runtime.format != "torchscript":
        return in_torch(torch.export.load(file).module())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its successor
        return in_torch(torch.jit.load(str(file)))  # type: ignore[no-untyped-call]


def in_torch(network: Callable[[Tensor], Any]) -> Run:
    """Return what computes a network's outputs, one or several, as a list."""
    import torch

    def outputs(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            found = network(images)
            return [found] if isinstance(found, torch.Tensor) else list(found)

    return outputs


def code(model: Model, file: Path, runtime: Runtime) -> str:
    """Return how the file is loaded, in Python."""
    if runtime.format == "torchscript":
        return f'torch.jit.load("{file}")'
    return f'torch.export.load("{file}").module()'


def load(start: Start) -> list[Callable[[], object]]:
    """Load programs to time them, each with a random input."""
    import torch

    torch.set_num_threads(start["threads"])
    torch.set_grad_enabled(False)

    def inference(path: str, shape: list[int]) -> Callable[[], object]:
        network, image = _placed(torch.export.load(path), torch.randn(shape), start["processor"])
        network = torch.compile(network) if start["runtime"] == "torch-compiled" else network
        network(image)  # if it is compiled, now
        return lambda: network(image)

    return list(map(inference, start["models"], start["shapes"]))


def event_ms(infer: Callable[[], object]) -> float:
    """Time one inference by events that the GPU records, from an idle GPU to its end."""
    import torch

    cuda: Any = torch.cuda
    begun, ended = (cuda.Event(enable_timing=True) for _ in range(2))
    begun.record()
    infer()
    ended.record()
    ended.synchronize()
    return float(begun.elapsed_time(ended))


def refuse_tf32() -> None:
    """Have torch compute in fp32 on GPUs: convolutions round to TF32 by default."""
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def save_trace(network: nn.Module, image: Tensor, path: Path) -> None:
    """Write a TorchScript trace of a network in evaluation mode."""
    import torch

    trace: Any = torch.jit.trace
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing announces its successor
        trace(network, image, check_trace=False).save(str(path))


def _program(model: Model) -> bytes:
    """Return the network as a torch.export program, for a fixed batch or any."""
    import torch

    from predictors.backends.model import ONE_AT_A_TIME
    from predictors.backends.onnx_export import folded

    image, saved = model.image(), io.BytesIO()
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    fixed = folded(model.network(), image)
    with ONE_AT_A_TIME, torch.no_grad():
        if model.batch == "fixed":
            program = torch.export.export(fixed, (image,))
        else:  # of two images, since of one it would be fixed
            two, any_batch = torch.cat([image, image]), {0: torch.export.Dim("batch")}
            program = torch.export.export(fixed, (two,), dynamic_shapes=(any_batch,))
        torch.export.save(program, saved)
    return saved.getvalue()


def _placed(program: Any, image: Tensor, processor: str) -> tuple[Any, Tensor]:
    """Return a program as a module, and its input, both on the GPU if that computes."""
    import torch
    from torch.export.passes import move_to_device_pass

    if processor != "cuda":
        return program.module(), image
    if not torch.cuda.is_available():
        raise RuntimeError(f"torch {torch.__version__} finds no GPU; install its CUDA build")
    refuse_tf32()
    return move_to_device_pass(program, "cuda").module(), image.to("cuda")
