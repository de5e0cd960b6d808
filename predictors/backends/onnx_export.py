"""ONNX files: the network with its batch norms folded, in fp32 or eight bits.

PConv stays split + concat, the form that runtimes execute fastest.
"""

import copy
import io
import json
import logging
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from predictors.backends.model import ONE_AT_A_TIME, Model
from predictors.backends.onnx_file import deployed_bytes
from predictors.backends.onnxruntime import as_input
from search_spaces.io import reason
from search_spaces.network import Attention

OPSET = 20  # the first with a Gelu operator, the last of the exporter that takes 0.2 s a network
# The last whose AveragePool ONNX Runtime runs in a kernel of its own on ARM: 8 to 24 instructions
# an element of the windows less.
_POOLING_OPSET = 18


def write_onnx(model: Model, stem: Path, *, int8: bool = False) -> Path:
    """Write ONNX with input "image" [n, ...] and the model's outputs.

    A network that came as a file is copied. The metadata of one with a checkpoint say its config
    and classes, and how images are normalised.
    """
    content = onnx_bytes(model)
    if int8:
        content = quantized(content, model.shape, images=model.calibration_images)
    path = model.path(stem, ".int8.onnx" if int8 else ".onnx")
    path.write_bytes(_with_metadata(model, content))
    return path


def onnx_bytes(model: Model) -> bytes:
    """Return the network as ONNX in fp32, not checked against torch."""
    if model.file is None:
        return _exported(model)
    if model.batch == "fixed" and model.batch_size != 1:
        raise ValueError(
            f"`batch` must be 1 for {model.file}, but got {model.batch_size}. "
            "Export the file with a dynamic batch."
        )
    return deployed_bytes(model)


def folded(network: nn.Module, image: Tensor) -> nn.Module:
    """Return a copy in evaluation mode whose batch norms are folded into their convolutions.

    `image` is an input, of shape [1, ...], with which is found out what follows what. A norm that
    comes with an activation leaves that behind; one that follows no convolution stays.
    """
    network = copy.deepcopy(network).eval()
    for conv, name in list(_pairs(network, image)):
        norm: Any = network.get_submodule(name)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            *(conv.weight, conv.bias, norm.running_mean, norm.running_var),
            *(norm.eps, norm.weight, norm.bias),
        )
        parent, _, child = name.rpartition(".")
        rest = list(norm.children())  # timm's have their activation in them
        left = nn.Sequential(*rest) if rest else nn.Identity()
        setattr(network.get_submodule(parent), child, left)
    for module in network.modules():
        if isinstance(module, Attention):
            module.fold_scale()
    return network


class _OneByOne(nn.Module):
    """cat(Conv(x_1), Conv(x_2), ...) over the groups of the channels."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        convs = [copy.deepcopy(conv) for _ in range(conv.groups)]
        for i, one in enumerate(convs):
            one.groups = 1
            for name, values in conv.named_parameters():
                part = values.detach().chunk(conv.groups)[i].clone()
                setattr(one, name, nn.Parameter(part))
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.convs, x.chunk(len(self.convs), dim=1), strict=True)
        return torch.cat([conv(part) for conv, part in parts], dim=1)


def ungrouped(network: nn.Module) -> nn.Module:
    """Replace each convolution of several groups by one for each group, in place.

    Depthwise ones stay.
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and module.groups not in (1, module.in_channels):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, _OneByOne(module))
    return network


def _exported(model: Model) -> bytes:
    content = _exported_at(model, OPSET)
    if model.layers:  # ours pool over the whole map only
        return content
    graph = onnx.load_model_from_string(content).graph
    pools = any(node.op_type == "AveragePool" for node in graph.node)
    return _exported_at(model, _POOLING_OPSET) if pools else content


def _exported_at(model: Model, opset: int) -> bytes:
    saved: Any = io.BytesIO()  # torch cannot be trusted with a full disk
    image, outputs = model.image(), list(model.outputs)
    axes = {name: {0: "batch"} for name in ("image", *outputs)}
    network = folded(model.network(), image)
    with ONE_AT_A_TIME, warnings.catch_warnings(), torch.no_grad(), _one_line(model.name):
        warnings.simplefilter("ignore")  # the exporter announces its successor
        torch.onnx.export(
            network,
            (image,),
            saved,
            dynamo=False,
            opset_version=opset,
            input_names=["image"],
            output_names=outputs,
            dynamic_axes=axes if model.batch == "dynamic" else None,
        )
    return bytes(saved.getvalue())


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Say in one line what the exporter does not take; torch prints the whole graph besides."""
    names, log = vars(torch._C), "_jit_onnx_log"  # which torch's exporter leaves on
    known = names.get(log)
    names[log] = lambda *_: None
    try:
        yield
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(
            f"{name} must be of operators that torch writes as ONNX, but got {_refused(error)}. "
            "Compute it by other operators, or export it yourself, as by "
            "torch.onnx.export(..., dynamo=True), and give that .onnx file."
        ) from error
    finally:
        names[log] = known


def _refused(error: torch.onnx.OnnxExporterError) -> str:
    """What the exporter cannot write, by its error."""
    text = str(error)
    operator = re.search(r"Exporting the operator '([^']+)'", text)
    if operator:
        return operator[1]
    operator = re.search(r"ONNX export of operator (.+?)\. Please", text, flags=re.DOTALL)
    return operator[1] if operator else reason(error)


def _with_metadata(model: Model, content: bytes) -> bytes:
    from search_spaces.formats import to_mapping

    given = model.checkpoint
    if given is None:
        return content
    known = {
        "config": to_mapping(given.config),
        "classes": given.classes,
        "mean": given.mean,
        "std": given.std,
        "crop": given.crop,
    }
    network = onnx.load_model_from_string(content)
    onnx.helper.set_model_props(network, {k: json.dumps(v) for k, v in known.items() if v})
    return bytes(network.SerializeToString())


def _pairs(network: nn.Module, image: Tensor) -> Iterator[tuple[nn.Conv2d, str]]:
    """Each convolution whose output goes into a batch norm, and the norm's name."""
    made: list[tuple[nn.Conv2d, Tensor]] = []  # tensors are kept, so that none is mistaken
    taken: list[tuple[str, Tensor]] = []
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(lambda m, _, out: made.append((m, out))))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(
                module.register_forward_pre_hook(
                    lambda _, inputs, name=name: taken.append((name, inputs[0]))
                )
            )
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    for conv, output in made:
        yield from ((conv, name) for name, given in taken if given is output)


IMAGES = 4  # random ones that the ranges of activations are taken from


def quantized(
    model: bytes, shape: Sequence[int], *, images: Iterable[Tensor] | None = None
) -> bytes:
    """Return the network of an ONNX file in eight bits; the same bytes for the same network.

    `shape` is that of one input without the batch. The ranges of activations come from batches of
    `images` [n, ...], or from random ones. What is quantised already is returned as it is.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    given = onnx.load_model_from_string(model)
    if any(node.op_type == "QuantizeLinear" for node in given.graph.node):
        return model
    network = _with_own_initializers(given)
    taken = network.graph.input[0]
    batch = taken.type.tensor_type.shape.dim[0].dim_value or 1  # it may be fixed
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(taken.type.tensor_type.elem_type))
    reader = _Reader(taken.name, _random(batch, shape) if images is None else images, dtype)
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder, _silence():
        file = Path(folder) / "network.onnx"
        quantize_static(
            network,
            str(file),
            reader,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
        )
        return file.read_bytes()


class _Reader:
    """Batches of images, as the calibration reads them: one a call, then None."""

    def __init__(self, name: str, images: Iterable[Tensor], dtype: str) -> None:
        self._feeds = ({name: as_input(batch.numpy(), dtype)} for batch in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _random(batch: int, shape: Sequence[int]) -> Iterator[Tensor]:
    for seed in range(1, IMAGES + 1):
        yield torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def _with_own_initializers(network: onnx.ModelProto) -> onnx.ModelProto:
    """Give each user of a constant a copy of its own.

    The exporter writes equal weights once and refers to them by Identity nodes. The quantizer takes
    those for computed, and leaves in fp32 what has such a bias.
    """
    graph = network.graph
    initializers = {initializer.name: initializer for initializer in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "Identity" and n.input[0] in initializers]:
        copy = onnx.TensorProto()
        copy.CopyFrom(initializers[node.input[0]])
        copy.name = node.output[0]
        graph.initializer.append(copy)
        initializers[copy.name] = copy
        graph.node.remove(node)
    return network


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the quantizer's advice out of the logs, and its handler out of the root logger."""
    before, handlers = logging.root.manager.disable, list(logging.root.handlers)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        logging.root.handlers[:] = handlers
