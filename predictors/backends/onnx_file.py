"""ONNX files that users bring: what they take, what they cost, and the content that is timed."""

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from predictors.aarch64.optimized import all_nodes, stored_tensors
from predictors.backends.model import Model, identity
from search_spaces.io import listed, other_file, reason

if TYPE_CHECKING:
    import onnx

Shapes = dict[str, list[int]]
# What multiplies too, but is not counted.
UNCOUNTED = re.compile(
    "(MultiHead)?Attention|Einsum|Fused(Conv|Gemm|MatMul)|(Conv|MatMul)Integer|QLinear(Conv|MatMul)"
)
_SMALL = 1024  # elements; more are weights
_HALF = (10, 16)  # FLOAT16 and BFLOAT16 of ONNX
_SIDES_OF_IMAGE, _LARGEST = 3, 8192
INPUTS = ("float32", "float16", "float64", "uint8", "int8")  # of which random images can be made


def onnx_model(path: Path, *, name: str = "", size: tuple[int, int] | None = None) -> Model:
    """Return the network of an ONNX file, which takes one image at batch 1.

    `size` is height and width where the file leaves them open.
    """
    import onnx

    content = path.read_bytes()
    try:
        network = _with_external_data(content, path)
        batch, *shape = _set_shape(network, name or path.name, size)
        _drop_weights(network.graph)
        graph = onnx.shape_inference.infer_shapes(network).graph
    except (OSError, ValueError):
        raise
    except Exception as error:  # protobuf's and onnx's own classes
        why = other_file(content) or reason(error)
        raise ValueError(
            f"{path} must be an ONNX file, but cannot be read as one: {why}. Export it again."
        ) from None
    sized = {} if size is None else {"size": size}
    return Model(
        name=name or path.name,
        identity=identity("onnx", {"sha256": hashlib.sha256(content).hexdigest(), **sized}),
        shape=tuple(shape),
        file=path,
        file_size=size,
        file_half=_computes_in_half(graph),
        macs=_macs(graph),
        batch="fixed" if batch else "dynamic",
        params=sum(math.prod(tensor.dims) for tensor in graph.initializer if len(tensor.dims)),
    )


def _computes_in_half(graph: "onnx.GraphProto") -> bool:
    """Whether some weight of 16 bits is computed with; others are cast once, or not read at all."""
    half = {tensor.name for tensor in graph.initializer if tensor.data_type in _HALF}
    read = (name for node in all_nodes(graph) if node.op_type != "Cast" for name in node.input)
    return not half.isdisjoint(read)


def _drop_weights(graph: "onnx.GraphProto") -> None:
    """Leave of large tensors their names, types and sides: no shape has that many to depend on."""
    for tensor in stored_tensors(graph):
        if math.prod(tensor.dims) > _SMALL:
            name, kind, dims = tensor.name, tensor.data_type, list(tensor.dims)
            tensor.Clear()
            tensor.name, tensor.data_type = name, kind
            tensor.dims.extend(dims)


def deployed_bytes(model: Model) -> bytes:
    """Return a file's content: weights that lie beside it taken in, and the size that was given."""
    import onnx

    assert model.file is not None
    content = model.file.read_bytes()
    network = onnx.load_model_from_string(content)
    outside = any(tensor.external_data for tensor in stored_tensors(network.graph))
    if not outside and model.file_size is None:
        return content
    network = _with_external_data(content, model.file)
    _set_shape(network, model.name, model.file_size)
    return bytes(network.SerializeToString())


def _with_external_data(content: bytes, path: Path) -> "onnx.ModelProto":
    import onnx

    model = onnx.load_model_from_string(content)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        kept = (one for tensor in stored_tensors(model.graph) for one in tensor.external_data)
        files = listed(sorted({one.value for one in kept if one.key == "location"}))
        raise ValueError(
            f"{path} must have its weights whole in {files} beside it, but has not: "
            f"{reason(error)}. Copy {files} again, or export it in one file."
        ) from None
    return model


def _set_shape(
    network: "onnx.ModelProto", name: str, size: tuple[int, int] | None
) -> tuple[int, ...]:
    """Give the free sides of the input their size; return its shape, a dynamic batch as 0."""
    taken = _input(network.graph, name)
    for dim in taken.type.tensor_type.shape.dim:
        if dim.dim_value < 0:  # as some exporters write a free side
            dim.ClearField("dim_value")
    batch, *dims = taken.type.tensor_type.shape.dim or [None]
    shape = [dim.dim_value or dim.dim_param or "?" for dim in dims]
    if batch is None or batch.dim_value > 1:
        raise ValueError(
            f"{name} must take a batch of one or any, but takes "
            f"{batch.dim_value if batch else 'no shape'}. Export it so."
        )
    free = [dim for dim in dims if not dim.dim_value]
    sides = [*(size or ())] if len(free) > 1 else [*dict.fromkeys(size or ())]
    if not free and size not in (None, tuple(shape[-2:]), tuple(shape[:2])):
        raise ValueError(
            f"{name} must be named without a size, since it takes {shape} and no other. Leave "
            "out what follows the @."
        )
    if free and len(free) != len(sides):
        how = f"Say a size, as in {name}@224 or {name}@640x480 (width x height)"
        raise ValueError(
            f"{name} must take a fixed shape, or one whose height and width are free and given, "
            f"but takes {shape}. {'Export it with its other sides fixed' if size else how}."
        )
    for dim, side in zip(free, sides, strict=False):
        dim.dim_value = side
    _check_sides(dims, name)
    return (batch.dim_value, *(dim.dim_value for dim in dims))


def _check_sides(dims: "Sequence[onnx.TensorShapeProto.Dimension]", name: str) -> None:
    """Refuse images that no network is meant for, and that memory may not hold."""
    largest = max((dim.dim_value for dim in dims), default=0)
    if len(dims) == _SIDES_OF_IMAGE and largest > _LARGEST:
        raise ValueError(
            f"{name} must take images of sides up to {_LARGEST}, but takes one of {largest}. Say a "
            "smaller size, or export it so."
        )


def _input(graph: "onnx.GraphProto", name: str) -> "onnx.ValueInfoProto":
    """The one input, whose type random images can have."""
    from onnx import TensorProto

    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    types = [TensorProto.DataType.Name(i.type.tensor_type.elem_type).lower() for i in inputs]
    types = [
        "float32" if one == "float" else "float64" if one == "double" else one for one in types
    ]
    if len(inputs) != 1 or types[0] not in INPUTS:
        named = [f"{value.name} ({one})" for value, one in zip(inputs, types, strict=True)]
        raise ValueError(
            f"{name} must take one input, of {', '.join(INPUTS)}, but takes "
            f"{listed(named) or 'none'}. Export it so."
        )
    taken: onnx.ValueInfoProto = inputs[0]
    return taken


def _macs(graph: "onnx.GraphProto") -> int | None:
    """Multiply-accumulates of convolutions and matrix products at batch 1; None if unknown."""
    shapes: Shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        batch, *dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim] or [0]
        if all(dims):
            shapes[value.name] = [batch or 1, *dims]
    if any(UNCOUNTED.fullmatch(node.op_type) for node in graph.node):
        return None
    try:
        return sum(_node_macs(node, shapes) for node in graph.node)
    except (KeyError, IndexError):  # a shape that is not known
        return None


def _node_macs(node: "onnx.NodeProto", shapes: Shapes) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    taken, weight, given = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        return math.prod(given) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(taken) * math.prod(weight[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(given) * taken[0 if transposed else -1]
