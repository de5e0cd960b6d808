"""An ONNX network in eight bits: what ONNX Runtime and OpenVINO both execute.

Activations are unsigned and weights signed, by output channel, with QuantizeLinear and
DequantizeLinear around each operator, the form that both runtimes fuse. Weights have seven bits:
with eight, sums saturate on x86 processors without VNNI, which then compute something else than
others (96 % the same class, not 99 %, of a small network on Fashion-MNIST). The ranges of
activations come from images: real ones where the network is to be deployed, random ones where it is
only timed, since latency does not depend on them, but accuracy does.
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

IMAGES = 4  # random ones that the ranges of activations are taken from


def quantized(
    model: bytes, shape: Sequence[int], *, images: Iterable[Tensor] | None = None
) -> bytes:
    """Return the network of an ONNX file in eight bits; the same bytes for the same network.

    `shape` is that of one input without the batch. The ranges of activations come from batches of
    `images` [n, ...], or from random ones. What is quantised already is returned as it is.

    Raises:
        ValueError: if there are no images.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    given = onnx.load_model_from_string(model)
    if any(node.op_type == "QuantizeLinear" for node in given.graph.node):
        return model
    network = _with_own_initializers(given)
    taken = network.graph.input[0]
    reader = _Reader(taken.name, _random(_batch(taken), shape) if images is None else images)
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

    def __init__(self, name: str, images: Iterable[Tensor]) -> None:
        self._feeds = ({name: batch.numpy()} for batch in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _batch(taken: onnx.ValueInfoProto) -> int:
    """One image, or as many as an input takes whose batch is fixed."""
    return taken.type.tensor_type.shape.dim[0].dim_value or 1


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
