"""The runtimes in which a network can be timed: how each gets its file, and its version."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

from search_spaces.fasternet import FasterNetConfig

RuntimeName = Literal["onnxruntime", "torch"]


@dataclass(frozen=True)
class Runtime:
    """A runtime: `export(config, path)` writes the file that it loads."""

    name: RuntimeName
    suffix: str
    export: Callable[[FasterNetConfig, Path], Path]

    @property
    def version(self) -> str:
        """The installed version."""
        return version(self.name)


def find_runtime(name: str) -> Runtime:
    """Return the runtime of that name.

    Raises:
        ValueError: if there is none.
    """
    for runtime in (_ONNXRUNTIME, _TORCH):
        if runtime.name == name:
            return runtime
    raise ValueError(
        f"`runtime` must be one of {', '.join(get_args(RuntimeName))}, but got {name!r}."
    )


def _export_onnx(config: FasterNetConfig, path: Path) -> Path:
    from predictors.artifact import export_onnx, network_to_time

    return export_onnx(network_to_time(config), path)


def _export_torch(config: FasterNetConfig, path: Path) -> Path:
    from predictors.artifact import export_torch, network_to_time

    return export_torch(network_to_time(config), path)


_ONNXRUNTIME = Runtime("onnxruntime", ".onnx", _export_onnx)
_TORCH = Runtime("torch", ".pt2", _export_torch)
