"""From a network to the ONNX file that OpenVINO loads, run there once."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from predictors.backends.model import Model
from predictors.backends.model_files import onnx_bytes
from predictors.backends.onnx_export import (
    TOLERANCES,
    onnx_logits,
    refuse_difference,
    relative_difference,
)
from predictors.backends.quantization import quantized, refuse_unlike
from search_spaces.io import atomic_write


def export_openvino(model: Model, path: Path, *, precision: str, check: bool) -> Path:
    """Write the network as ONNX; `check` runs it in OpenVINO once and compares with torch.

    With bf16 the file is that of fp32: OpenVINO rounds when it loads it. On processors without
    bf16 it computes in fp32, here too; the loader, which times it, refuses that.

    Raises:
        RuntimeError: if the outputs differ by more than the precision explains.
        OSError: if the file cannot be written.
    """
    fp32 = onnx_bytes(model)
    content = quantized(fp32, model.shape) if precision == "int8" else fp32
    if check:
        image = model.image()
        logits, reference = _logits(content, image, precision), onnx_logits(fp32, image)
        if precision == "int8":
            refuse_unlike(logits, reference, path)
        else:
            refuse_difference(relative_difference(logits, reference), path,
                              tolerance=TOLERANCES[precision])  # fmt: skip
    return atomic_write(path, content)


def _logits(model: bytes, image: Tensor, precision: str) -> Tensor:
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    network.reshape(list(image.shape))
    hint = "bf16" if precision == "bf16" else "f32"
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1}
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    request.infer([image.numpy()])
    return torch.from_numpy(np.array(request.get_output_tensor(0).data))
