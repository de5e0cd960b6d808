"""From a network to the file that is deployed and timed, checked against torch.

Batch norm is folded into its convolution and PConv stays split + concat, the form that runtimes
execute fastest; the batch is dynamic.
"""

import copy
import io
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from search_spaces.blocks import Block, Merging, Stem
from search_spaces.fasternet import FasterNetConfig
from search_spaces.network import FasterNet, build

OPSET = 20  # the first with a Gelu operator, the last of the exporter that takes 0.2 s a network
TOLERANCE = 1e-4  # largest difference from torch, relative to the largest output


def network_to_time(config: FasterNetConfig) -> FasterNet:
    """Build a network with fixed random weights; the same config gives the same artifact."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(config).eval()


def folded(network: FasterNet) -> FasterNet:
    """Return a copy in evaluation mode whose batch norms are folded into their convolutions."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, Stem):
            module.proj, module.norm = _fused(module.proj, module.norm)
        elif isinstance(module, Merging):
            module.reduction, module.norm = _fused(module.reduction, module.norm)
        elif isinstance(module, Block):
            module.mlp[0], module.mlp[1] = _fused(module.mlp[0], module.mlp[1])
    return network


def export_onnx(network: FasterNet, path: Path) -> Path:
    """Write the network as ONNX with input "image" [n, 3, h, w] and output "logits".

    The file appears under its name only when it is whole and agrees with torch.

    Raises:
        RuntimeError: if ONNX Runtime's outputs differ from torch's by more than `TOLERANCE`.
        OSError: if the file cannot be written.
    """
    model: Any = io.BytesIO()  # torch cannot be trusted with a full disk
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter announces its successor
        torch.onnx.export(
            folded(network), (_example(network),), model, dynamo=False, opset_version=OPSET,
            input_names=["image"], output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
    _refuse_difference(onnx_difference(network, model.getvalue()), path)
    return _written(model.getvalue(), path)


def export_torch(network: FasterNet, path: Path) -> Path:
    """Write the network as a torch.export program, which runs eagerly in any torch.

    Raises:
        RuntimeError: if its outputs differ from the network's by more than `TOLERANCE`.
        OSError: if the file cannot be written.
    """
    image, saved = _example(network), io.BytesIO()
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    with torch.no_grad():
        torch.export.save(torch.export.export(folded(network), (image,)), saved)
        ours = torch.export.load(io.BytesIO(saved.getvalue())).module()(image)
    _refuse_difference(relative_difference(ours, _logits(network, image)), path)
    return _written(saved.getvalue(), path)


def onnx_difference(network: FasterNet, model: bytes | Path) -> float:
    """Return the largest difference of ONNX Runtime's logits from torch's, relative to their size.

    Two random images are used as one batch, so a batch that is not dynamic shows itself.
    """
    import onnxruntime

    images = torch.cat([_example(network), _example(network).flip(-1)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": images.numpy()})
    return relative_difference(torch.from_numpy(np.asarray(logits)), _logits(network, images))


def relative_difference(ours: Tensor, reference: Tensor) -> float:
    """max|ours - reference| / max|reference|."""
    return float((ours - reference).abs().max() / reference.abs().max())


def _written(content: bytes, path: Path) -> Path:
    """Write beside and rename."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _fused(conv: Any, norm: Any) -> tuple[nn.Conv2d, nn.Identity]:
    return fuse_conv_bn_eval(conv, norm), nn.Identity()


def _logits(network: FasterNet, images: Tensor) -> Tensor:
    """The network's outputs in evaluation mode; the mode that it had stays."""
    training = network.training
    try:
        with torch.no_grad():
            return network.eval()(images)  # type: ignore[no-any-return]
    finally:
        network.train(training)


def _example(network: FasterNet) -> Tensor:
    size = network.config.resolution
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def _refuse_difference(difference: float, path: Path) -> None:
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"The exported {path.name} must agree with torch to {TOLERANCE:.0e}, but differs by "
            f"{difference:.1e}. Please report the config and the versions of torch and runtime."
        )
