"""Graphs to ONNX files: fused nodes are taken apart, weights may be stored sparse."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    StringStringEntryProto,
    TensorProto,
    ValueInfoProto,
    helper,
)

from zeroskip.errors import ModelError
from zeroskip.files import replacing
from zeroskip.graph.dtypes import code_of
from zeroskip.graph.ir import Graph, Node, Value
from zeroskip.graph.onnx_tensors import worth_sparse, write_sparse, write_tensor
from zeroskip.graph.operator import describe
from zeroskip.graph.unfuse import unfuse

OPSET = 18
"""The operator set written where nothing needs a newer one, so that older runtimes read the file too."""

NEWEST_OPSET = 28
"""Written for element types narrower than a byte or of 8-bit floats."""

_NEEDS: Mapping[str, Callable[[Node], int]] = {
    "AveragePool": lambda node: 19 if set(node.attr("dilations") or ()) - {1} else OPSET,
    "Cast": lambda node: OPSET if node.attr("saturate", 1) else 19,
    "Gelu": lambda node: 20,
    "Pad": lambda node: 19 if node.attr("mode") == "wrap" else OPSET,
    "ReduceMax": lambda node: 20,
    "Resize": lambda node: (
        19 if node.attr("coordinate_transformation_mode", "").endswith("symmetric") else OPSET
    ),
    "SpaceToDepth": lambda node: 28 if node.attr("mode", "DCR") != "DCR" else OPSET,
}
"""Operator to the operator set in which the node's attributes first meant what they mean here."""

EXTERNAL_LIMIT = 1_800_000_000
"""Bytes of weights above which they go to a file of their own; a protobuf message ends at 2 GiB."""


def save(
    graph: Graph, path: str | os.PathLike[str], *, sparse: bool = False, external: bool | None = None
) -> None:
    """Write the graph as an ONNX model; an interrupted write leaves an old file whole.

    With `sparse`, weights that are smaller so are stored as ONNX ``sparse_initializer`` (their non-zeros
    and linear indices). With `external`, weights go to a file named like the model plus ``.data``; where
    None, only if they would not fit into one file.

    Raises:
        InputError: the path cannot be written.
        ModelError: the graph cannot be expressed in ONNX.

    >>> import tempfile, zeroskip.graph as zg
    >>> from zeroskip.graph.ir import Node, Value
    >>> x = Value("x", ("N",), np.dtype(np.float32))
    >>> graph = Graph("g", (Node("Relu", ("x",), ("y",)),), ("x",), ("y",), {"x": x, "y": x}, {})
    >>> out = Path(tempfile.mkdtemp()) / "relu.onnx"
    >>> save(graph, out)
    >>> zg.load(out).nodes[0].op
    'Relu'
    """
    model = to_proto(graph, sparse=sparse)
    tensors = [t for t in model.graph.initializer if len(t.raw_data) >= 1024]
    if external is None:
        external = sum(len(t.raw_data) for t in tensors) > EXTERNAL_LIMIT
    target = Path(path)
    if external and tensors:
        with replacing(target.with_name(target.name + ".data")) as temporary, temporary.open("wb") as file:
            for tensor in tensors:
                _move_out(tensor, file, target.name + ".data")
    with replacing(target) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _move_out(tensor: TensorProto, file: Any, location: str) -> None:
    """Append a tensor's bytes to `file`, aligned to a page, and leave a reference in their place."""
    file.write(b"\0" * (-file.tell() % 4096))
    entries = {"location": location, "offset": str(file.tell()), "length": str(len(tensor.raw_data))}
    file.write(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.extend(StringStringEntryProto(key=k, value=v) for k, v in entries.items())


def to_proto(graph: Graph, *, sparse: bool = False) -> ModelProto:
    """The graph as an ONNX model in memory."""
    graph = unfuse(graph)
    proto = GraphProto(name=graph.name or "graph")
    proto.input.extend(_info(graph.values[name]) for name in graph.inputs)
    proto.output.extend(_info(graph.values[name]) for name in graph.outputs)
    computed = [out for node in graph.nodes for out in node.outputs if out and out not in graph.outputs]
    proto.value_info.extend(_info(graph.values[name]) for name in computed if name in graph.values)
    proto.node.extend(_node(node) for node in graph.nodes)
    for name in _used_constants(graph):
        array = graph.constants[name]
        if sparse and worth_sparse(array):
            proto.sparse_initializer.append(write_sparse(name, array))
        else:
            proto.initializer.append(write_tensor(name, array))
    opset = [OperatorSetIdProto(domain="", version=required_opset(graph))]
    return ModelProto(
        ir_version=helper.find_min_ir_version_for(opset),
        producer_name="zeroskip",
        graph=proto,
        opset_import=opset,
        metadata_props=[StringStringEntryProto(key=k, value=v) for k, v in graph.metadata.items()],
    )


def required_opset(graph: Graph) -> int:
    """The operator set that a graph of standard operators needs."""
    common = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
    types = {value.dtype for value in graph.values.values()}
    uncommon = [t for t in types if t.str[1:] not in common]
    needed = [_NEEDS[node.op](node) for node in graph.nodes if node.op in _NEEDS]
    if uncommon:
        needed.append(22 if all(t.name == "bfloat16" for t in uncommon) else NEWEST_OPSET)
    return max(needed, default=OPSET)


def _used_constants(graph: Graph) -> Iterable[str]:
    used = {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)
    return [name for name in graph.constants if name in used]


def _info(value: Value) -> ValueInfoProto:
    return helper.make_tensor_value_info(value.name, code_of(value.dtype), value.shape)


def _node(node: Node) -> NodeProto:
    proto = NodeProto(op_type=node.op, name=node.name, input=node.inputs, output=node.outputs)
    proto.attribute.extend(
        _attribute(node, key, value)
        for key, value in node.attributes.items()
        if value is not None and not _is_newer_default(node.op, key, value)
    )
    return proto


def _is_newer_default(op: str, key: str, value: Any) -> bool:
    """Whether an attribute that `OPSET` lacks only says what is so anyway."""
    match op, key:
        case "AveragePool", "dilations":
            return set(value) <= {1}
        case "Cast", "saturate":
            return bool(value == 1)
        case "SpaceToDepth", "mode":
            return bool(value == "DCR")
    return False


def _attribute(node: Node, key: str, value: Any) -> AttributeProto:
    kinds = AttributeProto
    match value:
        case bool() | int() | np.integer():
            return AttributeProto(name=key, type=kinds.INT, i=int(value))
        case float() | np.floating():
            return AttributeProto(name=key, type=kinds.FLOAT, f=float(value))
        case str():
            return AttributeProto(name=key, type=kinds.STRING, s=value.encode())
        case np.ndarray():
            return AttributeProto(name=key, type=kinds.TENSOR, t=write_tensor(key, value))
        case tuple() | list() if all(isinstance(v, int | np.integer) for v in value):
            return AttributeProto(name=key, type=kinds.INTS, ints=[int(v) for v in value])
        case tuple() | list() if all(isinstance(v, int | float | np.number) for v in value):
            return AttributeProto(name=key, type=kinds.FLOATS, floats=[float(v) for v in value])
    raise ModelError(f'{describe(node)}: the attribute "{key}" ({value!r}) has no form in ONNX')
