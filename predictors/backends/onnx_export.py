"""From a network to the file that is deployed and timed, checked against torch.

Batch norm is folded into its convolution and PConv stays split + concat, the form that runtimes
execute fastest.
"""

import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from predictors.backends.model import ONE_AT_A_TIME
from search_spaces.io import atomic_write

Batch = Literal["dynamic", "fixed"]

OPSET = 20  # the first with a Gelu operator, the last of the exporter that takes 0.2 s a network
TOLERANCE = 1e-4  # largest difference from torch, relative to the largest output
TOLERANCES = {"fp32": TOLERANCE, "bf16": 5e-2}  # bf16 has 8 bits, a network some tens of layers


def export_onnx(network: nn.Module, image: Tensor, path: Path, *, batch: Batch = "dynamic") -> Path:
    """Write the network as ONNX with input "image" of shape [n, ...] and output "logits".

    `image` is an example of shape [n, ...]; a fixed batch is its. The file appears under its name
    only when it is whole and agrees with torch.

    Raises:
        RuntimeError: if ONNX Runtime's outputs differ from torch's by more than `TOLERANCE`.
        OSError: if the file cannot be written.
    """
    content = onnx_content(network, image, batch=batch)
    images = torch.cat([image, image.flip(-1)]) if batch == "dynamic" else image
    refuse_difference(onnx_difference(network, images, content), path)
    return atomic_write(path, content)


def onnx_content(
    network: nn.Module,
    image: Tensor,
    *,
    batch: Batch = "dynamic",
    outputs: Sequence[str] = ("logits",),
) -> bytes:
    """Return the network as ONNX with outputs of these names, not checked against torch."""
    model: Any = io.BytesIO()  # torch cannot be trusted with a full disk
    axes = {name: {0: "batch"} for name in ("image", *outputs)}
    with ONE_AT_A_TIME, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter announces its successor
        torch.onnx.export(
            folded(network, image), (image,), model, dynamo=False, opset_version=OPSET,
            input_names=["image"], output_names=list(outputs),
            dynamic_axes=axes if batch == "dynamic" else None,
        )  # fmt: skip
    return bytes(model.getvalue())


def export_torch(network: nn.Module, image: Tensor, path: Path) -> Path:
    """Write the network as a torch.export program, which runs eagerly in any torch.

    Raises:
        RuntimeError: if its outputs differ from the network's by more than `TOLERANCE`.
        OSError: if the file cannot be written.
    """
    content = program_content(network, image, batch="fixed")
    with torch.no_grad():
        ours = torch.export.load(io.BytesIO(content)).module()(image)
    refuse_difference(relative_difference(ours, logits_of(network, image)), path)
    return atomic_write(path, content)


def program_content(network: nn.Module, image: Tensor, *, batch: Batch) -> bytes:
    """Return the network as a torch.export program, not checked against torch."""
    saved = io.BytesIO()
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    fixed = folded(network, image)
    with ONE_AT_A_TIME, torch.no_grad():
        if batch == "fixed":
            program = torch.export.export(fixed, (image,))
        else:  # of two images, since of one it would be fixed
            two, any_batch = torch.cat([image, image]), {0: torch.export.Dim("batch")}
            program = torch.export.export(fixed, (two,), dynamic_shapes=(any_batch,))
        torch.export.save(program, saved)
    return saved.getvalue()


def onnx_difference(network: nn.Module, images: Tensor, model: bytes | Path) -> float:
    """Return the largest difference of ONNX Runtime's logits from torch's, relative to their size.

    Two images show whether the batch is dynamic.
    """
    return relative_difference(onnx_logits(model, images), logits_of(network, images))


def onnx_logits(model: bytes | Path, images: Tensor) -> Tensor:
    """Return ONNX Runtime's outputs for images of shape [n, ...]; the first, if there are more."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    logits = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    return torch.from_numpy(np.asarray(logits))


def relative_difference(ours: Tensor, reference: Tensor) -> float:
    """max|ours - reference| / max|reference|."""
    return float((ours - reference).abs().max() / reference.abs().max())


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """The network's outputs in evaluation mode; the mode that it had stays."""
    training = network.training
    try:
        with torch.no_grad():
            logits: Tensor = network.eval()(images)
            return logits
    finally:
        network.train(training)


def refuse_difference(difference: float, path: Path, *, tolerance: float = TOLERANCE) -> None:
    """Refuse outputs that differ from torch's by more than the tolerance, or are no numbers.

    Raises:
        RuntimeError: if they do.
    """
    if not difference <= tolerance:
        raise RuntimeError(
            f"The exported {path.name} must agree with torch to {tolerance:.0e}, but differs by "
            f"{difference:.1e}. Please report the config and the versions of torch and runtime."
        )


def folded(network: nn.Module, image: Tensor) -> nn.Module:
    """Return a copy in evaluation mode whose batch norms are folded into their convolutions.

    `image` is an input, of shape [1, ...], with which is found out what follows what. A norm that
    comes with an activation leaves that behind; one that follows no convolution stays.
    """
    network = copy.deepcopy(network).eval()
    for conv, name in list(_pairs(network, image)):
        norm: Any = network.get_submodule(name)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight,
            norm.bias,
        )  # fmt: skip
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, _remainder(norm))
    return network


def _pairs(network: nn.Module, image: Tensor) -> Iterator[tuple[Any, str]]:
    """Each convolution whose output goes into a batch norm, and the norm's name."""
    made: list[tuple[nn.Conv2d, Tensor]] = []  # tensors are kept, so that none is mistaken
    taken: list[tuple[str, Tensor]] = []
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(lambda m, _, out: made.append((m, out))))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(
                lambda _, inputs, name=name: taken.append((name, inputs[0]))))  # fmt: skip
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    for conv, output in made:
        yield from ((conv, name) for name, given in taken if given is output)


def _remainder(norm: nn.Module) -> nn.Module:
    """What a norm does besides: nothing, or, for timm's, its activation."""
    children = list(norm.children())
    return nn.Sequential(*children) if children else nn.Identity()
