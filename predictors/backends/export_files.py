"""Files that runtimes load, written into an empty folder; each function returns the main one."""

import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from predictors.backends.export_subject import Subject
from predictors.backends.onnx_export import folded, onnx_content, program_content


def write_onnx(subject: Subject, room: Path) -> Path:
    """Write ONNX in fp32; its metadata say config, classes and how images are normalised."""
    path = room / subject.file(".onnx")
    path.write_bytes(_described(subject, _onnx(subject)))
    return path


def write_onnx_int8(subject: Subject, room: Path) -> Path:
    """Write ONNX in eight bits."""
    path = room / subject.file(".int8.onnx")
    path.write_bytes(_described(subject, _onnx_int8(subject)))
    return path


def write_openvino(subject: Subject, room: Path) -> Path:
    """Write OpenVINO's IR in fp32, a file for the network and one for its weights."""
    return _openvino(_onnx(subject), room / subject.file(".xml"))


def write_openvino_int8(subject: Subject, room: Path) -> Path:
    """Write OpenVINO's IR in eight bits."""
    return _openvino(_onnx_int8(subject), room / subject.file(".int8.xml"))


def write_ncnn(subject: Subject, room: Path) -> Path:
    """Write ncnn's two files, for one image at a time: from `in0` to `out0`, `out1`, ...

    Raises:
        ValueError: if the batch is a larger one, or pnnx cannot do this network.
    """
    from predictors.backends.export_ncnn import convert

    if subject.batch not in (None, 1):
        raise ValueError(f"`batch` must be 1 for ncnn, but got {subject.batch}. Leave it out.")
    main = room / subject.file(".ncnn.param")
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
        convert(subject.model(), Path(folder))
        for kind in ("param", "bin"):
            shutil.copyfile(Path(folder) / f"network.{kind}", main.with_suffix(f".{kind}"))
    return main


def write_program(subject: Subject, room: Path) -> Path:
    """Write a torch.export program."""
    path = room / subject.file(".pt2")
    path.write_bytes(program_content(subject.network(), subject.example(), batch=subject.axis))
    return path


def write_torchscript(subject: Subject, room: Path) -> Path:
    """Write a TorchScript trace, which C++ and phones load."""
    path, image = room / subject.file(".torchscript.pt"), subject.example()
    trace: Any = torch.jit.trace
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing announces its successor
        trace(folded(subject.network(), image), image, check_trace=False).save(str(path))
    return path


def _onnx(subject: Subject) -> bytes:
    return onnx_content(subject.network(), subject.example(), batch=subject.axis,
                        outputs=subject.outputs())  # fmt: skip


def _onnx_int8(subject: Subject) -> bytes:
    from predictors.backends.quantization import quantized

    images = subject.calibration
    if images is None and subject.batch:
        images = [subject.example()]
    return quantized(_onnx(subject), subject.shape, images=images)


def _openvino(content: bytes, path: Path) -> Path:
    import openvino

    network = openvino.Core().read_model(content)
    openvino.save_model(network, str(path), compress_to_fp16=False)
    return path


def _described(subject: Subject, content: bytes) -> bytes:
    import onnx

    from search_spaces.formats import to_mapping

    given = subject.checkpoint
    said = {"config": to_mapping(given.config), "classes": given.classes, "mean": given.mean,
            "std": given.std, "crop": given.crop}  # fmt: skip
    model = onnx.load_model_from_string(content)
    onnx.helper.set_model_props(model, {k: json.dumps(v) for k, v in said.items() if v})
    return bytes(model.SerializeToString())
