"""What exported files compute: each function returns one that takes images [n, 3, side, side]."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from predictors.backends.export_subject import Subject, outputs_of
from predictors.backends.table import Precision

Run = Callable[[Tensor], list[Tensor]]


def run_onnx(subject: Subject, path: Path) -> Run:
    """In ONNX Runtime, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(np.asarray(output))
                           for output in session.run(None, {"image": images.numpy()})]  # fmt: skip


def run_openvino(subject: Subject, path: Path, *, precision: Precision = "fp32") -> Run:
    """In OpenVINO, on one thread; what the file has in fp32 is rounded to bf16 if that is asked.

    Raises:
        RuntimeError: if this processor has no bf16, but that is asked.
    """
    import openvino

    bf16 = precision == "bf16"
    settings = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32", "INFERENCE_NUM_THREADS": 1}
    compiled: Any = openvino.Core().compile_model(path, "CPU", settings)
    if bf16 and compiled.get_property("INFERENCE_PRECISION_HINT") != openvino.Type.bf16:
        raise RuntimeError("`precision` must be one that this processor has, but bf16 is not. Use "
                           "fp32 or int8.")  # fmt: skip
    return lambda images: [torch.from_numpy(np.array(output))
                           for output in compiled([images.numpy()]).values()]  # fmt: skip


def run_ncnn(subject: Subject, path: Path, *, precision: Precision = "fp32") -> Run:
    """In ncnn, in processes of their own, which it ends with what it cannot run."""
    import shutil
    import tempfile

    from predictors.backends.export_ncnn import run

    def compute(images: Tensor) -> list[Tensor]:
        with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
            room = Path(folder)
            for kind in ("param", "bin"):
                shutil.copyfile(path.with_suffix(f".{kind}"), room / f"network.{kind}")
            return run(subject.model(), room, images, precision=precision,
                       outputs=len(subject.outputs()))  # fmt: skip

    return compute


def run_program(subject: Subject, path: Path) -> Run:
    """In torch, from a torch.export program."""
    return _in_torch(torch.export.load(path).module())


def run_torchscript(subject: Subject, path: Path) -> Run:
    """In torch, from a TorchScript trace."""
    load: Any = torch.jit.load
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its successor
        return _in_torch(load(str(path)))


def run_timm(subject: Subject, path: Path) -> Run:
    """In timm, from a folder: the maps by `features_only` where the features are wanted."""
    from search_spaces.timm_models import NAME, register

    said = json.loads((path / "config.json").read_text(encoding="utf-8"))
    if said["architecture"] == NAME:
        register()
    from search_spaces.timm_models import import_timm

    options = {"features_only": True} if subject.features else {}
    with torch.random.fork_rng(devices=[]):
        network = import_timm().create_model(f"local-dir:{path}", pretrained=True, **options)
    return _in_torch(network.eval())


def _in_torch(network: Any) -> Run:
    def compute(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return outputs_of(network(images))

    return compute
