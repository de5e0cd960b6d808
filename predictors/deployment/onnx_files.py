"""ONNX files that somebody else exported: what they take, and what they cost."""

import hashlib
import math
from pathlib import Path
from typing import Any

from predictors.deployment.models import Model, identity

Shapes = dict[str, list[Any]]
UNCOUNTED = {"Attention", "ConvInteger", "Einsum", "FusedConv", "MatMulInteger",
             "MultiHeadAttention", "QLinearConv", "QLinearMatMul"}  # fmt: skip


def onnx_model(path: Path) -> Model:
    """Return the network of an ONNX file, which takes one float32 input at batch 1.

    Raises:
        ValueError: if it is no ONNX file, or takes something else.
        OSError: if it cannot be read.
    """
    import onnx

    content = path.read_bytes()
    try:
        graph = onnx.shape_inference.infer_shapes(_whole(onnx, content, path)).graph
        batch, *shape = _input_shape(graph, path)
    except (OSError, ValueError):
        raise
    except Exception as error:  # protobuf's and onnx's own classes
        raise ValueError(f"{path} must be an ONNX file, but cannot be read as one: "
                         f"{str(error).splitlines()[0]}.") from None  # fmt: skip
    return Model(
        name=path.name, identity=identity("onnx", {"sha256": hashlib.sha256(content).hexdigest()}),
        shape=tuple(shape), file=path, macs=_macs(graph), batch="fixed" if batch else "dynamic",
        params=sum(math.prod(tensor.dims) for tensor in graph.initializer if len(tensor.dims)),
    )  # fmt: skip


def deployed_bytes(path: Path) -> bytes:
    """Return the file's content, weights that lie beside it taken in."""
    import onnx

    content = path.read_bytes()
    model = onnx.load_model_from_string(content)
    outside = any(tensor.external_data for tensor in model.graph.initializer)
    return bytes(_whole(onnx, content, path).SerializeToString()) if outside else content


def _whole(onnx: Any, content: bytes, path: Path) -> Any:
    model = onnx.load_model_from_string(content)
    onnx.load_external_data_for_model(model, str(path.parent))
    return model


def _input_shape(graph: Any, path: Path) -> tuple[int, ...]:
    """The shape of the input; a dynamic batch is 0."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise ValueError(f"{path} must take one float32 input, but takes {names}. Export it so.")
    dims = inputs[0].type.tensor_type.shape.dim
    if not dims or dims[0].dim_value > 1 or not all(dim.dim_value for dim in dims[1:]):
        shape = [dim.dim_value or dim.dim_param for dim in dims]
        raise ValueError(f"{path} must take a batch of one or any, and otherwise a fixed shape, "
                         f"but takes {shape}. Export it so.")  # fmt: skip
    return tuple(dim.dim_value for dim in dims)


def _macs(graph: Any) -> int | None:
    """Multiply-accumulates of convolutions and matrix products at batch 1; None if unknown."""
    shapes = {value.name: _dims(value) for value in
              (*graph.input, *graph.value_info, *graph.output)}  # fmt: skip
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    if any(node.op_type in UNCOUNTED for node in graph.node):
        return None
    try:
        return sum(_NODE_MACS[node.op_type](node, shapes) for node in graph.node
                   if node.op_type in _NODE_MACS)  # fmt: skip
    except (KeyError, IndexError, TypeError):
        return None


def _dims(value: Any) -> list[Any]:
    """The shape at batch 1; None for what is not known."""
    dims = [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
    return [1 if i == 0 and size is None else size for i, size in enumerate(dims)]


def _conv_macs(node: Any, shapes: Shapes) -> int:
    return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])


def _deconv_macs(node: Any, shapes: Shapes) -> int:
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _gemm_macs(node: Any, shapes: Shapes) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return int(math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1])


def _matmul_macs(node: Any, shapes: Shapes) -> int:
    return int(math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1])


_NODE_MACS = {"Conv": _conv_macs, "ConvTranspose": _deconv_macs, "Gemm": _gemm_macs,
              "MatMul": _matmul_macs}  # fmt: skip
