"""What ONNX Runtime makes of a model before it runs it, and the shape of each tensor there.

Its optimiser is used up to the level that is the same on all processors. Of large weights it sees
the shapes alone, and zeros from a file that takes no room: no count depends on their values, and
hundreds of megabytes take seconds. Nothing is run.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from predictors.aarch64.node import Shape
from search_spaces.io import reason

if TYPE_CHECKING:
    import onnx

Tensors = tuple[dict[str, Shape], dict[str, str]]  # shapes and types, as numpy calls them, by name
_SMALL = 1024  # elements; more of these types are weights, whose values do not matter
_BYTES = {1: 4, 2: 1, 3: 1, 10: 2, 11: 8, 16: 2}  # FLOAT, (U)INT8, FLOAT16, DOUBLE, BFLOAT16
_ZEROS = "zeros"
_NUMPY = {"float": "float32", "double": "float64"}  # what ONNX Runtime calls otherwise
_FOLDED_FROM = 7  # opset of the oldest BatchNormalization that goes into a convolution
_INPUTS_OF_NORM = 5
_OWN_INITIALIZERS = 4  # version of the format from which on an input is never a constant


def optimized(
    content: bytes, *, folder: Path | None = None, shape: Shape = ()
) -> "onnx.ModelProto":
    """Return the graph that ONNX Runtime would run; large weights have no values.

    `folder` is where weights lie that are not in the content, `shape` that of the one input without
    the batch, where the model leaves sides open.

    Raises:
        ValueError: if ONNX Runtime cannot run the model.
    """
    import onnx
    import onnxruntime

    model = onnx.load_model_from_string(content)
    if shape:
        _close(model.graph, shape)
    options = _options(onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
    options.add_session_config_entry("session.disable_prepacking", "1")
    with tempfile.TemporaryDirectory(prefix="fasternas-") as place:
        given, made = (Path(place) / name for name in ("given.onnx", "optimized.onnx"))
        longest = _lighten(model.graph, folder)
        _fold_norms(model)
        with (Path(place) / _ZEROS).open("wb") as zeros:
            zeros.truncate(longest)
        given.write_bytes(model.SerializeToString())
        options.optimized_model_filepath = str(made)
        _session(str(given), options)
        return onnx.load(made, load_external_data=False)


def _close(graph: "onnx.GraphProto", shape: Shape) -> None:
    """Give the free sides of the one input, but for the batch, those of the shape."""
    weights = {tensor.name for tensor in graph.initializer}
    (taken,) = (value for value in graph.input if value.name not in weights)
    batch, *dims = taken.type.tensor_type.shape.dim
    if batch.dim_value < 0:  # as some exporters write a free side
        batch.ClearField("dim_value")
    for dim, side in zip(dims, shape, strict=True):
        dim.dim_value = side


def _lighten(graph: "onnx.GraphProto", folder: Path | None) -> int:
    """Take the values of large weights away; return the bytes of the largest."""
    import onnx

    _lift_constants(graph)
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse))
    graph.ClearField("sparse_initializer")
    emptied, longest, deciding = set(), 0, _deciding(graph)
    for tensor in graph.initializer:
        if tensor.name not in deciding and _is_heavy(tensor) and _is_whole(tensor, folder):
            emptied.add(tensor.name)
            longest = max(longest, _empty(tensor))
    for tensor in stored_tensors(graph):
        outside = onnx.external_data_helper.uses_external_data(tensor)
        if folder is not None and outside and tensor.name not in emptied:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    return longest


def _is_heavy(tensor: "onnx.TensorProto") -> bool:
    return tensor.data_type in _BYTES and math.prod(tensor.dims) > _SMALL


def _length(tensor: "onnx.TensorProto") -> int:
    """How many bytes a heavy tensor must have."""
    length: int = math.prod(tensor.dims) * _BYTES[tensor.data_type]
    return length


def _is_whole(tensor: "onnx.TensorProto", folder: Path | None) -> bool:
    """Whether it has as many values as its shape says; else ONNX Runtime is to refuse it."""
    import onnx

    if onnx.external_data_helper.uses_external_data(tensor):
        info = onnx.external_data_helper.ExternalDataInfo(tensor)
        if folder is None:
            return False
        size = (folder / info.location).stat().st_size - (info.offset or 0)
        return (info.length or _length(tensor)) == _length(tensor) <= size
    typed = max(len(tensor.float_data), len(tensor.double_data), len(tensor.int32_data))
    stored = len(tensor.raw_data) or typed * _BYTES[tensor.data_type]
    return stored == _length(tensor)


def _empty(tensor: "onnx.TensorProto") -> int:
    """Leave its name, type and shape, and zeros for values; return how many bytes it has."""
    import onnx

    length = _length(tensor)
    found = onnx.TensorProto(
        name=tensor.name,
        data_type=tensor.data_type,
        dims=tensor.dims,
        data_location=onnx.TensorProto.EXTERNAL,
    )
    for key, value in {"location": _ZEROS, "offset": "0", "length": str(length)}.items():
        found.external_data.add(key=key, value=value)
    tensor.CopyFrom(found)
    return length


def _lift_constants(graph: "onnx.GraphProto") -> None:
    """Make weights of the large values of Constant nodes, as ONNX Runtime does."""
    constants = [
        (i, node.output[0], a.t)
        for i, node in enumerate(graph.node)
        for a in node.attribute
        if node.op_type == "Constant" and a.name == "value" and _is_heavy(a.t) and node.output
    ]
    for i, name, tensor in reversed(constants):
        graph.initializer.append(tensor)
        graph.initializer[-1].name = name
        del graph.node[i]


def _dense(sparse: "onnx.SparseTensorProto") -> "onnx.TensorProto":
    """The tensor that ONNX Runtime makes of a sparse one before it runs."""
    import onnx

    values, places = (onnx.numpy_helper.to_array(t) for t in (sparse.values, sparse.indices))
    flat = np.zeros(math.prod(sparse.dims), values.dtype)
    if places.ndim > 1:
        places = np.ravel_multi_index(tuple(places.T), tuple(sparse.dims))
    np.put(flat, places, values, mode="clip")
    return onnx.numpy_helper.from_array(flat.reshape(sparse.dims), sparse.values.name)


def stored_tensors(graph: "onnx.GraphProto") -> "Iterator[onnx.TensorProto]":
    """All tensors that a graph stores, in attributes of its nodes too."""
    yield from graph.initializer
    for attribute in (a for node in graph.node for a in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from stored_tensors(inner)


def all_nodes(graph: "onnx.GraphProto") -> "Iterator[onnx.NodeProto]":
    """All nodes of a graph, and of those in attributes of its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from all_nodes(inner)


def _deciding(graph: "onnx.GraphProto") -> set[str]:
    """The names of all that the branch of an If may depend on."""
    nodes = list(all_nodes(graph))
    makers = {name: node for node in nodes for name in node.output}
    waiting = [node.input[0] for node in nodes if node.op_type == "If"]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [*makers[name].input] if name in makers else []
    return found


def _fold_norms(model: "onnx.ModelProto") -> None:
    """Batch norms go into convolutions where ONNX Runtime does so, which computes the weights."""
    graph, opset = model.graph, opset_of(model)
    nested = any(a.HasField("g") or a.graphs for node in graph.node for a in node.attribute)
    if opset < _FOLDED_FROM or nested:
        return
    constants = constants_of(model)
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    convs = {name: node for node in graph.node if node.op_type == "Conv" for name in node.output}
    for i, norm in reversed(list(enumerate(graph.node))):
        whole = norm.op_type == "BatchNormalization" and len(norm.input) == _INPUTS_OF_NORM
        conv = convs.get(norm.input[0]) if whole else None
        if conv is None or uses[norm.input[0]] > 1 or not _is_fixed(conv, norm, constants):
            continue
        if len(conv.input) == 2:
            conv.input.append(norm.input[2])
        conv.output[0] = norm.output[0]
        del graph.node[i]


def _is_fixed(conv: "onnx.NodeProto", norm: "onnx.NodeProto", constants: Collection[str]) -> bool:
    """Whether all that they are given is known beforehand, and nothing else comes of the norm."""
    given = (*conv.input[1:], *norm.input[1:])
    return all(name in constants for name in given) and not any(norm.output[1:])


def constants_of(model: "onnx.ModelProto") -> set[str]:
    """Return the names of the weights that are known before a run.

    From a version of the format on, one that is an input too may be given anew for each run.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    if model.ir_version < _OWN_INITIALIZERS:
        return weights
    return weights - {value.name for value in model.graph.input}


def opset_of(model: "onnx.ModelProto") -> int:
    """Return the version of ONNX's own operators, 0 if there are none."""
    own = (o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    return max(own, default=0)


def tensors_of(model: "onnx.ModelProto") -> Tensors:
    """Return the shape and the type of each tensor at batch 1, as far as they can be inferred.

    Raises:
        ValueError: if a side of an input is open, or ONNX Runtime cannot take the model.
    """
    import onnxruntime

    whole = _all_shown(model)
    level = onnxruntime.GraphOptimizationLevel
    for steps in (level.ORT_DISABLE_ALL, level.ORT_ENABLE_BASIC):  # which computes sizes
        found = _session(whole.SerializeToString(), _options(steps)).get_outputs()
        closed = [value for value in found if all(isinstance(side, int) for side in value.shape)]
        if len(closed) == len(found):
            break
    shapes = {value.name: tuple(value.shape) for value in closed}
    shapes |= {value.name: _sides(value) for value in whole.graph.input}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    types = {value.name: value.type.removeprefix("tensor(").rstrip(")") for value in found}
    return shapes, {name: _NUMPY.get(kind, kind) for name, kind in types.items()}


def _all_shown(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The model with all tensors as outputs, at batch 1, and its weights as inputs."""
    import onnx

    weights = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in weights]
    heavy = [tensor for tensor in model.graph.initializer if _is_heavy(tensor)]
    made = [name for node in model.graph.node for name in node.output if name]
    graph = onnx.helper.make_graph(
        model.graph.node,
        model.graph.name,
        [
            *(_at_batch_1(value) for value in given),
            *(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in heavy),
        ],
        [onnx.ValueInfoProto(name=name) for name in made],
        [tensor for tensor in model.graph.initializer if not _is_heavy(tensor)],
    )
    whole = onnx.helper.make_model(graph, opset_imports=list(model.opset_import))
    whole.ir_version = model.ir_version
    return whole


def _at_batch_1(value: "onnx.ValueInfoProto") -> "onnx.ValueInfoProto":
    """The input with 1 where its batch is open; older files have their weights among the inputs."""
    import onnx

    batch, *sides = _sides(value) or (1,)
    if min(sides, default=1) < 1:
        raise ValueError(
            f"the shape of {value.name} must be fixed but for the batch, but is {_sides(value)}"
        )
    tensor = value.type.tensor_type
    shape = [max(batch, 1), *sides][: len(tensor.shape.dim)]
    found: onnx.ValueInfoProto = onnx.helper.make_tensor_value_info(
        value.name, tensor.elem_type, shape
    )
    return found


def _sides(value: "onnx.ValueInfoProto") -> Shape:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _options(level: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    return options


def _session(model: bytes | str, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise ValueError(reason(error)) from None
