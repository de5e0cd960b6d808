"""The runtimes in which a network can be timed: how each gets its file, and its version."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, get_args

from predictors.models import Model

RuntimeName = Literal["onnxruntime", "torch", "torch-compiled"]
Precision = Literal["fp32", "bf16", "int8"]
Export = Callable[[Model, Path], Path]


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A runtime at one precision: `export(model, path)` writes the file that it loads there."""

    name: RuntimeName
    precision: Precision = "fp32"
    suffix: str
    export: Export
    package: str  # that executes it

    @property
    def version(self) -> str:
        """The installed version; empty where it is not installed."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return ""


def find_runtime(name: str, precision: str = "fp32") -> Runtime:
    """Return the runtime of that name, at that precision.

    Raises:
        ValueError: if there is none, or it has not that precision.
    """
    if name not in get_args(RuntimeName):
        raise ValueError(
            f"`runtime` must be one of {', '.join(get_args(RuntimeName))}, but got {name!r}."
        )
    offered = {runtime.precision: runtime for runtime in RUNTIMES if runtime.name == name}
    if precision not in offered:
        raise ValueError(f"`precision` must be one of {', '.join(offered)} in {name}, but got "
                         f"{precision!r}.")  # fmt: skip
    return offered[precision]


def _export_onnx(model: Model, path: Path) -> Path:
    from predictors.artifact import export_onnx, written
    from predictors.onnx_files import deployed_bytes

    if model.file is not None:
        return written(deployed_bytes(model.file), path)
    return export_onnx(model.network(), model.image(), path, batch=model.batch)


def _export_torch(model: Model, path: Path) -> Path:
    from predictors.artifact import export_torch

    return export_torch(model.network(), model.image(), path)


RUNTIMES: tuple[Runtime, ...] = (
    Runtime(name="onnxruntime", suffix=".onnx", export=_export_onnx, package="onnxruntime"),
    Runtime(name="torch", suffix=".pt2", export=_export_torch, package="torch"),
    Runtime(name="torch-compiled", suffix=".pt2", export=_export_torch, package="torch"),
)
