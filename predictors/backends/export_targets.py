"""What a network can be exported to: how the file is written, run here, and loaded there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from predictors.backends.export_files import (
    write_ncnn,
    write_onnx,
    write_onnx_int8,
    write_openvino,
    write_openvino_int8,
    write_program,
    write_torchscript,
)
from predictors.backends.export_running import (
    Run,
    run_ncnn,
    run_onnx,
    run_openvino,
    run_program,
    run_timm,
    run_torchscript,
)
from predictors.backends.export_subject import Subject
from predictors.backends.export_timm import before_timm, write_authors_yaml, write_timm
from predictors.backends.table import installed_version


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of file. `load` is how one loads it, in Python, with its path as {path}, or as {stem}
    without the last suffix; `before` what has to be said first.

    `write` puts the files into an empty folder and returns the main one, or raises ValueError or
    RuntimeError with the reason; `run` gives what computes its outputs.
    """

    name: str
    write: Callable[[Subject, Path], Path]
    run: Callable[[Subject, Path], Run] | None  # None: the writer has checked the file
    load: str
    before: Callable[[Subject], str] = lambda _: ""
    int8: bool = False
    packages: tuple[str, ...] = ()
    extra: str = ""  # of fasternas, that installs them

    def check_installed(self) -> None:
        """Refuse to export to what is not installed here, and so cannot be checked.

        Raises:
            RuntimeError: if it is not.
        """
        for package in self.packages:
            if not installed_version(package):
                raise RuntimeError(
                    f"`to` must be something that is installed here, but {self.name} needs "
                    f"{package}. Install it with `pip install 'fasternas[{self.extra}]'`."
                )


def find_targets(names: Sequence[str]) -> tuple[Target, ...]:
    """Return the targets of these names, each once.

    Raises:
        ValueError: if there is none of a name.
        RuntimeError: if one needs what is not installed here.
    """
    known = {target.name: target for target in TARGETS}
    for name in names:
        if name not in known:
            raise ValueError(f"`to` must be one of {', '.join(known)}, but got {name!r}.")
    found = tuple(known[name] for name in dict.fromkeys(names))
    for target in found:
        target.check_installed()
    return found


_ONNX = 'onnxruntime.InferenceSession("{path}")'
_NCNN = 'net = ncnn.Net(); net.load_param("{path}"); net.load_model("{stem}.bin")'
_OPENVINO = 'openvino.Core().compile_model("{path}", "CPU")'

TARGETS: tuple[Target, ...] = (
    Target(name="onnx", write=write_onnx, run=run_onnx, load=_ONNX),
    Target(name="onnx-int8", write=write_onnx_int8, run=run_onnx, load=_ONNX, int8=True),
    Target(name="openvino", write=write_openvino, run=run_openvino, load=_OPENVINO,
           packages=("openvino",), extra="openvino"),
    Target(name="openvino-int8", write=write_openvino_int8, run=run_openvino, load=_OPENVINO,
           int8=True, packages=("openvino",), extra="openvino"),
    Target(name="ncnn", write=write_ncnn, run=run_ncnn, load=_NCNN,
           packages=("ncnn", "pnnx"), extra="ncnn"),
    Target(name="torch", write=write_program, run=run_program,
           load='torch.export.load("{path}").module()'),
    Target(name="torchscript", write=write_torchscript, run=run_torchscript,
           load='torch.jit.load("{path}")'),
    Target(name="timm", write=write_timm, run=run_timm,
           load='timm.create_model("local-dir:{path}", pretrained=True)', before=before_timm),
    Target(name="yaml", write=write_authors_yaml, run=None, load='fasternas.load_config("{path}")'),
)  # fmt: skip
