"""The runtimes in which a network can be timed: how each gets its file, and its version."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, get_args

from predictors.backends.model import Model

RuntimeName = Literal["onnxruntime", "torch", "torch-compiled", "openvino", "ncnn"]
Precision = Literal["fp32", "bf16", "int8"]
Export = Callable[[Model, Path], Path]


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A runtime at one precision: `export(model, path)` writes the file that it loads there."""

    name: RuntimeName
    precision: Precision = "fp32"
    suffix: str
    export: Export
    package: str  # that executes it, with numpy
    extra: str = ""  # of fasternas, that installs it; empty: it comes with fasternas

    @property
    def version(self) -> str:
        """The installed version; empty where it is not installed."""
        return installed_version(self.package)

    @property
    def board_packages(self) -> tuple[str, ...]:
        """What a board needs to execute it."""
        return ("numpy", self.package)

    def check_installed(self) -> None:
        """Refuse to run networks here with what is not installed here.

        Raises:
            RuntimeError: if it is not.
        """
        _require(self.package, runtime=self.name, remedy=self.extra)


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


def runtimes_with(precision: str) -> tuple[Runtime, ...]:
    """Return the runtimes that have that precision.

    Raises:
        ValueError: if there is no such precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"`precision` must be one of {', '.join(get_args(Precision))}, but got "
                         f"{precision!r}.")  # fmt: skip
    return tuple(runtime for runtime in RUNTIMES if runtime.precision == precision)


def installed_runtimes() -> tuple[RuntimeName, ...]:
    """Return the names of the runtimes that can run networks here."""
    return tuple(dict.fromkeys(runtime.name for runtime in RUNTIMES if runtime.version))


def installed_version(package: str) -> str:
    """Return the version of a package, or of its build for GPUs; empty if neither is installed."""
    for name in (package, f"{package}-gpu"):
        with suppress(PackageNotFoundError):
            return version(name)
    return ""


def _require(package: str, *, runtime: str, remedy: str) -> None:
    if not installed_version(package):
        wanted = f"fasternas[{remedy}]" if remedy else package
        raise RuntimeError(f"`runtime` {runtime} must be installed here, but {package} is not. "
                           f"Install it with `pip install '{wanted}'`.")  # fmt: skip


def _export_onnx(model: Model, path: Path) -> Path:
    from predictors.backends.model_files import write_onnx

    return write_onnx(model, path)


def _export_int8(model: Model, path: Path) -> Path:
    from predictors.backends.quantization import export_int8

    return export_int8(model, path)


def _export_openvino(precision: Precision, model: Model, path: Path) -> Path:
    from predictors.backends.export_openvino import export_openvino

    check = bool(installed_version("openvino"))
    return export_openvino(model, path, precision=precision, check=check)


def _export_ncnn(precision: Precision, model: Model, path: Path) -> Path:
    from predictors.backends.export_ncnn import export_ncnn

    _require("pnnx", runtime="ncnn", remedy="ncnn")
    return export_ncnn(model, path, precision=precision, check=bool(installed_version("ncnn")))


def _export_torch(model: Model, path: Path) -> Path:
    from predictors.backends.onnx_export import export_torch

    return export_torch(model.network(), model.image(), path)


def _openvino(precision: Precision) -> Runtime:
    return Runtime(name="openvino", precision=precision, suffix=".onnx", package="openvino",
                   extra="openvino", export=partial(_export_openvino, precision))  # fmt: skip


def _ncnn(precision: Precision) -> Runtime:
    return Runtime(name="ncnn", precision=precision, suffix=".ncnn.zip", package="ncnn",
                   extra="ncnn", export=partial(_export_ncnn, precision))  # fmt: skip


RUNTIMES: tuple[Runtime, ...] = (
    Runtime(name="onnxruntime", suffix=".onnx", export=_export_onnx, package="onnxruntime"),
    Runtime(name="onnxruntime", precision="int8", suffix=".onnx", export=_export_int8,
            package="onnxruntime"),
    *map(_openvino, get_args(Precision)),
    _ncnn("fp32"),
    _ncnn("bf16"),
    Runtime(name="torch", suffix=".pt2", export=_export_torch, package="torch"),
    Runtime(name="torch-compiled", suffix=".pt2", export=_export_torch, package="torch"),
)  # fmt: skip
