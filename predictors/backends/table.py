"""The table of backends: every runtime and every file format, and the module of each.

A backend is one file of this folder and its lines in `TABLE`. Whatever lists runtimes, precisions
or formats (the command line's help, what runs on GPUs, the exports) reads them here, without torch.
Another package registers its lines under the name of the runtime; they are loaded when that name is
given, as a runtime or as a format.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from inspect import getsource
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict, cast, get_args

from predictors.backends import ncnn, onnxruntime, openvino, timm, torch
from search_spaces.extensions import check_free, extension_names, is_loaded, load_extension

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor

    from predictors.backends.model import Model

Precision = Literal["fp32", "bf16", "int8"]
Clock = Literal["wall_ms", "event_ms"]
Run = Callable[["Tensor"], "list[Tensor]"]  # from images [n, ...] to each output [n, ...]


class Start(TypedDict):
    """What the agent's timer is told when it starts: what to load, and how."""

    module: str  # the name of the backend's module, whose `load` is called
    models: list[str]  # files
    shapes: list[list[int]]  # of their inputs
    runtime: str
    precision: str
    processor: str  # cpu or cuda
    clock: str
    threads: int
    cores: list[int] | None  # to pin to; None: as many as there are threads


class BackendModule(Protocol):
    """The file of a backend. If a runtime is timed, it also has `load(start) -> [callable, ...]`.

    Outside of functions it imports the standard library only: `load` runs on boards, which are
    sent the text of this one file. The same holds for a backend of another package.
    """

    @property
    def __name__(self) -> str: ...

    @property
    def PACKAGES(self) -> tuple[str, ...]:
        """What it needs: the first package runs networks, the others are for writing files."""

    @property
    def EXTRA(self) -> str:
        """The extra of fasternas that installs them; empty: they come with fasternas."""

    def write(self, model: "Model", stem: Path, runtime: "Runtime") -> Path:
        """Write a network's files next to one another and return the main one."""

    def run(self, model: "Model", file: Path, runtime: "Runtime") -> Run | None:
        """Return what computes the file's outputs here; None where there is nothing to compute."""

    def code(self, model: "Model", file: Path, runtime: "Runtime") -> str:
        """Return how the file is loaded, in Python."""


@dataclass(frozen=True)
class Runtime:
    """A runtime at one precision and the format that it loads; without a name, the format only."""

    name: str  # as in `--runtime`; empty: it is exported and not timed
    precision: Precision
    format: str  # as in `export --to`
    module: BackendModule
    cuda_clock: Clock | None = None  # None: it does not run on GPUs
    fixed_batch: bool = False  # it is timed with a file for one size of batches

    @property
    def package(self) -> str:
        """The package that runs networks."""
        return self.module.PACKAGES[0]

    @property
    def version(self) -> str:
        """The installed version; empty where it is not installed."""
        return installed_version(self.package)

    @property
    def oldest(self) -> str:
        """The first version that reads what is written here; empty: any that is still in use."""
        return _OLDEST.get(self.package, "")

    def reads_ours(self, version: str) -> bool:
        """Whether a version, of another machine's, reads what is written here."""
        return _numbers(version) >= _numbers(self.oldest)

    def deploy(self, model: "Model", folder: Path) -> Path:
        """Write into a new folder the file that is timed: what `write` gives, in one file.

        It is checked on random images, in the runtime if that is installed here.
        """
        for package in self.module.PACKAGES[1:]:
            self.require(package)
        folder.mkdir()
        model = replace(model.built(), batch="fixed" if self.fixed_batch else model.batch)
        main = self.module.write(model, folder / "network", self)
        copied = model.file is not None and self is TABLE[0]  # then it is its own reference
        checker = next((r for r in (self, formats().get(self.format, self)) if r.version), None)
        if checker is not None and not copied:
            from predictors.backends.agreement import check_on_noise

            check_on_noise(model, main, checker)
        return _in_one_file(folder, main)

    def require(self, package: str, option: str = "") -> None:
        """Refuse what needs a package that is not installed here."""
        if not installed_version(package):
            wanted = f"fasternas[{self.module.EXTRA}]" if self.module.EXTRA else package
            raise RuntimeError(
                f"{option or f'`runtime` {self.name}'} must be installed here, but {package} is "
                f"not. Install it with `pip install '{wanted}'`."
            )


TABLE: tuple[Runtime, ...] = (
    Runtime("onnxruntime", "fp32", "onnx", onnxruntime, cuda_clock="wall_ms"),
    Runtime("onnxruntime", "int8", "onnx-int8", onnxruntime),
    Runtime("openvino", "fp32", "onnx", openvino),
    Runtime("openvino", "bf16", "onnx", openvino),
    Runtime("openvino", "int8", "onnx-int8", openvino),
    Runtime("", "fp32", "openvino", openvino),
    Runtime("", "int8", "openvino-int8", openvino),
    Runtime("ncnn", "fp32", "ncnn", ncnn),
    Runtime("ncnn", "bf16", "ncnn", ncnn),
    Runtime("torch", "fp32", "torch", torch, cuda_clock="event_ms", fixed_batch=True),
    Runtime("torch-compiled", "fp32", "torch", torch, cuda_clock="event_ms", fixed_batch=True),
    Runtime("", "fp32", "torchscript", torch),
    Runtime("", "fp32", "timm", timm),
    Runtime("", "fp32", "yaml", timm),
)


def _lines() -> tuple[Runtime, ...]:
    """Every line, of other packages those that are loaded."""
    loaded = (name for name in foreign_runtimes() if is_loaded("backends", name))
    return (*TABLE, *(line for name in loaded for line in _foreign_lines(name)))


def foreign_runtimes() -> tuple[str, ...]:
    """Return the names of the runtimes that other packages have registered."""
    ours = {line.name for line in TABLE}
    return tuple(name for name in extension_names("backends") if name not in ours)


def _foreign_lines(name: str) -> tuple[Runtime, ...]:
    """The lines that another package has registered; its file must be fit to be sent to boards."""
    wanted = f"a tuple of Runtime, each called {name}"
    lines: tuple[Runtime, ...] = load_extension(
        "backends", name, accepts=partial(_are_lines, name), wanted=wanted
    )
    for line in lines:
        _check_text(line)
    return lines


def _are_lines(name: str, found: object) -> bool:
    lines = found if isinstance(found, tuple) else ()
    return bool(lines) and all(isinstance(one, Runtime) and one.name == name for one in lines)


@cache
def _check_text(line: Runtime) -> None:
    """Refuse a backend's file without a text, or that does not run alone."""
    module = line.module
    try:
        tree = ast.parse(getsource(cast("ModuleType", module)))
    except (OSError, TypeError):
        raise RuntimeError(
            f"`runtime` {line.name} must come as text, which boards are sent, but there is none of "
            f"{module.__name__}. Install its package unpacked."
        ) from None
    foreign = [n for n in _imports(tree.body) if n not in sys.stdlib_module_names]
    if foreign:
        raise RuntimeError(
            f"`runtime` {line.name} must run on boards, which are sent the text of "
            f"{module.__name__} alone, but it imports {foreign[0]}. Import that in its functions."
        )


def _imports(statements: "Sequence[ast.stmt]") -> Iterator[str]:
    """The packages that statements import; what is relative begins with a dot."""
    for node in statements:
        if isinstance(node, ast.ImportFrom):
            yield "." if node.level else (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)


def runtimes(*, precision: str | None = None, format: str | None = None) -> tuple[Runtime, ...]:
    """Return the lines that can be timed, all or those of a precision or format.

    Of other packages those that are loaded.
    """
    if precision not in (None, *get_args(Precision)):
        raise ValueError(
            f"`precision` must be one of {', '.join(get_args(Precision))}, but got {precision!r}."
        )
    return tuple(
        line
        for line in _lines()
        if line.name and precision in (None, line.precision) and format in (None, line.format)
    )


def runtime_names(lines: Iterable[Runtime] | None = None) -> tuple[str, ...]:
    """Return the names of the runtimes, each once: of all, or of these lines."""
    if lines is None:
        return tuple(dict.fromkeys((*(line.name for line in runtimes()), *foreign_runtimes())))
    return tuple(dict.fromkeys(line.name for line in lines))


def find_runtime(name: str, precision: str = "fp32") -> Runtime:
    """Return the runtime of that name, at that precision."""
    lines = _foreign_lines(name) if name in foreign_runtimes() else runtimes()
    offered: dict[str, Runtime] = {r.precision: r for r in lines if r.name == name}
    if not offered:
        names = ", ".join(runtime_names())
        raise ValueError(
            f"`runtime` must be one of {names}, or auto at the command line, but got {name!r}."
        )
    if name not in foreign_runtimes():
        check_free("backends", name)
    if precision not in offered:
        names = ", ".join(offered)
        raise ValueError(f"`precision` must be one of {names} in {name}, but got {precision!r}.")
    return offered[precision]


def formats() -> dict[str, Runtime]:
    """Return the first line of each format, which writes it for `export`.

    Of other packages those that are loaded.
    """
    first = {line.format: line for line in reversed(_lines())}
    return {line.format: first[line.format] for line in _lines()}


def format_names() -> tuple[str, ...]:
    """Return what `export --to` takes; a runtime of another package stands for its format."""
    return tuple(dict.fromkeys((*formats(), *foreign_runtimes())))


def find_formats(names: Iterable[str]) -> tuple[Runtime, ...]:
    """Return the lines of these formats, each once."""
    found = tuple(dict.fromkeys(names))
    for name in {line.format for line in TABLE} & {*found}:
        check_free("backends", name)
    foreign = {name: _foreign_lines(name)[0] for name in found if name in foreign_runtimes()}
    known = {**formats(), **foreign}
    for name in found:
        if name not in known:
            raise ValueError(f"`to` must be one of {', '.join(format_names())}, but got {name!r}.")
        for package in known[name].module.PACKAGES:
            known[name].require(package, f"`to` {name}")
    return tuple(known[name] for name in found)


_OLDEST = {"onnxruntime": "1.17"}  # by package: ONNX of opset 20


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def installed_version(package: str) -> str:
    """Return the version of a package, or of its build for GPUs; empty if neither is installed."""
    for name in (package, f"{package}-gpu"):
        with suppress(PackageNotFoundError):
            return version(name)
    return ""


def _in_one_file(folder: Path, main: Path) -> Path:
    """Return the main file, or all in a zip file without their times: always the same bytes."""
    import zipfile

    files = sorted(folder.iterdir())
    if files == [main]:
        return main
    packed = folder / "network.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in files:
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes())
    return packed
