"""A network as a runtime at a precision loads it: what a device times, and what that computes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from predictors.backends.agreement import Agreement, Batches, agreement
from predictors.backends.export_files import (
    write_ncnn,
    write_onnx,
    write_onnx_int8,
    write_program,
)
from predictors.backends.export_running import Run, run_ncnn, run_onnx, run_openvino, run_program
from predictors.backends.export_subject import Subject
from predictors.backends.model import Model, identity
from predictors.backends.onnx_export import TOLERANCE, refuse_difference
from predictors.backends.quantization import refuse_correlation
from predictors.backends.table import Precision, Runtime, RuntimeName
from search_spaces.formats import to_mapping


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """`model` is for a device to time; `run` says what the file computes, here."""

    model: Model
    run: Run
    file: Path
    precision: Precision


def deploy(subject: Subject, runtime: Runtime, room: Path) -> Deployed:
    """Write what the runtime loads into a folder; int8 is calibrated with the subject's images.

    ONNX Runtime and OpenVINO load one and the same ONNX file. ncnn and torch have the same network
    converted once more by the device, whose files hold one image.

    Raises:
        ValueError, RuntimeError: if the runtime cannot do this network at that precision here.
        OSError: if a file cannot be written.
    """
    write = write_onnx_int8 if runtime.precision == "int8" else _WRITERS[runtime.name]
    file = write(subject, room)
    model = replace(subject.model(), identity=deployed_identity(subject, form="ours"))
    if file.suffix == ".onnx":
        model = replace(model, file=file, build=None)
    return Deployed(model=model, run=_run(subject, runtime, file), file=file,
                    precision=runtime.precision)  # fmt: skip


def judged(form: Deployed, subject: Subject, images: Batches) -> Agreement:
    """Compare what the file computes with torch.

    Raises:
        RuntimeError: if it is something else than the precision explains.
    """
    found = agreement(form.run, subject.network(), images, at_once=subject.at_once,
                      fill=subject.batch is not None)  # fmt: skip
    if form.precision == "fp32":
        refuse_difference(found.difference, form.file, tolerance=TOLERANCE)
    else:
        refuse_correlation(found.correlation, form.file)
    return found


def deployed_identity(subject: Subject, *, form: str) -> str:
    """Return what tells a deployed form from others, and from its config alone."""
    return identity("Deployed", {"name": subject.name, "form": form,
                                 **to_mapping(subject.config)})  # fmt: skip


def _run(subject: Subject, runtime: Runtime, file: Path) -> Run:
    runners: dict[RuntimeName, Callable[[Subject, Path], Run]] = {
        "onnxruntime": run_onnx, "torch": run_program, "torch-compiled": run_program,
        "openvino": partial(run_openvino, precision=runtime.precision),
        "ncnn": partial(run_ncnn, precision=runtime.precision),
    }  # fmt: skip
    return runners[runtime.name](subject, file)


_WRITERS: dict[RuntimeName, Callable[[Subject, Path], Path]] = {
    "onnxruntime": write_onnx, "openvino": write_onnx, "ncnn": write_ncnn, "torch": write_program,
    "torch-compiled": write_program,
}  # fmt: skip
