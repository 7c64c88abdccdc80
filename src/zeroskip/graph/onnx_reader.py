"""Parsed ONNX models to graphs: opset 7 to the newest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto, inliner

from zeroskip.errors import ModelError
from zeroskip.graph.canonical import REPLACED, Rewriter, canonical
from zeroskip.graph.dtypes import dtype_of
from zeroskip.graph.infer import infer_node, operator_of, value_of
from zeroskip.graph.ir import Dim, Graph, Node, Shape, Value
from zeroskip.graph.onnx_tensors import read_sparse, read_tensor
from zeroskip.graph.operator import Array, describe, merge
from zeroskip.graph.operators import OPERATORS

OLDEST_OPSET = 7
_DOMAINS = ("", "ai.onnx")


def from_proto(
    model: ModelProto, folder: Path | None, name: str = "model", payloads: Sequence[Array | None] = ()
) -> Graph:
    """A parsed model as a graph.

    `folder` is where external data lies; `payloads` are the raw data of initializers that were kept out
    of the message (see `zeroskip.graph.onnx_stream`).
    """
    opset = _opset(model)
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:  # the inliner raises plain RuntimeError and its own kinds
            raise ModelError(f"the model's functions cannot be inlined: {error}") from error
    _check_names(model.graph)
    reader = _Reader(model.graph, opset, folder, payloads)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return reader.read(model.graph.name or name, metadata)


def _opset(model: ModelProto) -> int:
    versions = {o.domain: o.version for o in model.opset_import}
    version = next((versions[d] for d in _DOMAINS if d in versions), None)
    newest = onnx.defs.onnx_opset_version()
    if version is None:
        raise ModelError(f"the model uses no standard operators, only the domains {', '.join(versions)}")
    if not OLDEST_OPSET <= version <= newest:
        raise ModelError(
            f"the model uses opset {version}; supported are {OLDEST_OPSET} to {newest}; "
            "convert it with onnx.version_converter or export it again"
        )
    return int(version)


class _Reader:
    """One model being read: the tables that grow node by node."""

    def __init__(
        self, graph: GraphProto, opset: int, folder: Path | None, payloads: Sequence[Array | None]
    ) -> None:
        self.graph = graph
        self.payloads = payloads
        self.folder = folder
        self.values: dict[str, Value] = {}
        self.constants: dict[str, Array] = {}
        self.declared = {info.name: info for info in (*graph.value_info, *graph.output)}
        used = Counter(name for node in graph.node for name in node.input)
        used.update(info.name for info in graph.output)
        taken = {*used, *(out for node in graph.node for out in node.output), *(i.name for i in graph.input)}
        self.rewriter = Rewriter(opset, self.values, self.constants, taken, used)

    def read(self, name: str, metadata: Mapping[str, str]) -> Graph:
        """Initializers, inputs, nodes, outputs: in this order."""
        self._read_initializers()
        inputs = self._read_inputs()
        nodes: list[Node] = []
        for proto in self._sorted():
            nodes.extend(self._read_node(proto))
        outputs = tuple(info.name for info in self.graph.output)
        if not outputs:
            raise ModelError("the model has no output")
        for output in outputs:
            if output not in self.values:
                raise ModelError(f'no node computes the output "{output}"')
        return Graph(name, tuple(nodes), inputs, outputs, self.values, self.constants, dict(metadata))

    def _define(self, name: str, what: str) -> None:
        if name in self.values:
            raise ModelError(f'the name "{name}" is defined twice, the second time by {what}')

    def _read_initializers(self) -> None:
        arrays = [
            (tensor.name, read_tensor(tensor, self.folder, "initializer", payload))
            for tensor, payload in zip_longest(self.graph.initializer, self.payloads)
        ]
        arrays += [read_sparse(t, self.folder) for t in self.graph.sparse_initializer]
        for name, array in arrays:
            if not name:
                raise ModelError("an initializer has no name")
            self._define(name, "an initializer")
            self.constants[name] = array
            self.values[name] = value_of(name, array)

    def _read_inputs(self) -> tuple[str, ...]:
        names = []
        for info in self.graph.input:
            if info.name in self.constants:
                continue
            self._define(info.name, "an input")
            value = _declared_value(info)
            if value is None:
                raise ModelError(f'input "{info.name}" is not a tensor with an element type')
            self.values[info.name] = value
            names.append(info.name)
        return tuple(names)

    def _sorted(self) -> Iterable[NodeProto]:
        """Nodes in an order in which every input is computed before it is read."""
        ready = set(self.values) | {""}
        producer: dict[str, str] = {}
        for node in self.graph.node:
            for out in node.output:
                if out and (out in producer or out in self.values):
                    raise ModelError(f'the name "{out}" is defined twice, the second time by {_label(node)}')
                producer[out] = _label(node)
        waiting = list(self.graph.node)
        while waiting:
            late = []
            for node in waiting:
                if all(name in ready for name in node.input):
                    ready.update(node.output)
                    yield node
                else:
                    late.append(node)
            if len(late) == len(waiting):
                raise self._stuck(late, producer, ready)
            waiting = late

    @staticmethod
    def _stuck(late: list[NodeProto], producer: Mapping[str, str], ready: set[str]) -> ModelError:
        for node in late:
            for name in node.input:
                if name not in ready and name not in producer:
                    return ModelError(
                        f'{_label(node)} reads "{name}", which no node computes '
                        "and which is neither an input nor an initializer"
                    )
        return ModelError(f"{_label(late[0])} is part of a cycle: it needs, indirectly, its own output")

    def _read_node(self, proto: NodeProto) -> list[Node]:
        node = self._raw(proto)
        if proto.domain not in _DOMAINS:
            node = node.with_(op=f"{proto.domain}.{proto.op_type}")
        if node.op == "Constant":
            self._read_constant(node)
            return []
        if node.op not in REPLACED:
            operator_of(node)
        result = canonical(node, self.rewriter)
        for part in result:
            self._check_attributes(part)
            for value in infer_node(part, self.values, self.constants):
                self.values[value.name] = self._refined(value)
            self._check_parameters(part)
        return result

    def _raw(self, proto: NodeProto) -> Node:
        outputs = tuple(proto.output)
        while len(outputs) > 1 and not outputs[-1]:
            outputs = outputs[:-1]
        inputs = tuple(proto.input)
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        node = Node(proto.op_type, inputs, outputs, {}, proto.name)
        if not outputs or not any(outputs):
            raise ModelError(f"{describe(node)} has no output")
        attributes = {a.name: self._attribute(a, node) for a in proto.attribute}
        return node.with_(attributes=attributes)

    def _attribute(self, attribute: AttributeProto, node: Node) -> Any:
        where = f'{describe(node)}, attribute "{attribute.name}"'
        kinds = AttributeProto
        if attribute.ref_attr_name:
            raise ModelError(f"{where} refers to a function's attribute outside a function")
        match attribute.type:
            case kinds.INT:
                return attribute.i
            case kinds.FLOAT:
                return attribute.f
            case kinds.STRING:
                return attribute.s.decode(errors="replace")
            case kinds.INTS:
                return tuple(attribute.ints)
            case kinds.FLOATS:
                return tuple(attribute.floats)
            case kinds.TENSOR:
                return read_tensor(attribute.t, self.folder, where)
            case kinds.SPARSE_TENSOR:
                return read_sparse(attribute.sparse_tensor, self.folder)[1]
        raise ModelError(f"{where} has the unsupported kind {kinds.AttributeType.Name(attribute.type)}")

    def _read_constant(self, node: Node) -> None:
        name, attributes = node.outputs[0], node.attributes
        kinds = {
            "value_float": np.float32,
            "value_floats": np.float32,
            "value_int": np.int64,
            "value_ints": np.int64,
        }
        key = next(iter(attributes), None)
        if key in ("value", "sparse_value"):
            array = attributes[key]
        elif key in kinds:
            array = np.array(attributes[key], kinds[key])
        else:
            raise ModelError(
                f"{describe(node)} has no numeric value (attributes: {', '.join(attributes) or 'none'})"
            )
        self.constants[name] = array
        self.values[name] = value_of(name, array)

    def _check_attributes(self, node: Node) -> None:
        known = OPERATORS[node.op].attributes
        unknown = [key for key in node.attributes if key not in known]
        if unknown:
            names = ", ".join(sorted(known)) or "no attributes"
            raise ModelError(
                f'{describe(node)} has the unknown attribute "{unknown[0]}"; {node.op} takes {names}'
            )

    def _check_parameters(self, node: Node) -> None:
        for index in OPERATORS[node.op].parameters:
            array = self.constants.get(node.input(index))
            if array is not None and not all_finite(array):
                raise ModelError(
                    f'{describe(node)}: its weights "{node.input(index)}" contain NaN or infinity; '
                    "no answer would be right: train or export the network again"
                )

    def _refined(self, value: Value) -> Value:
        """An inferred value, with what the file declares where inference does not know."""
        info = self.declared.get(value.name)
        declared = _declared_value(info) if info is not None and not value.static else None
        if declared is None or declared.shape is None:
            return value
        if value.shape is None or len(value.shape) != len(declared.shape):
            return Value(value.name, declared.shape if value.shape is None else value.shape, value.dtype)
        return Value(value.name, tuple(merge(a, b) for a, b in zip(value.shape, declared.shape)), value.dtype)


def _check_names(graph: GraphProto) -> None:
    """Names that are not text (protobuf hands them over as bytes) mean a damaged file."""
    names: list[Any] = [graph.name]
    for node in graph.node:
        names += (node.name, node.op_type, node.domain, *node.input, *node.output)
        names += (attribute.name for attribute in node.attribute)
    for info in (*graph.input, *graph.output, *graph.value_info):
        names += (info.name, *(d.dim_param for d in info.type.tensor_type.shape.dim))
    names += (tensor.name for tensor in graph.initializer)
    for name in names:
        if not isinstance(name, str):
            raise ModelError(f"the name {name!r} is not valid UTF-8; the file is damaged")


def all_finite(array: Array) -> bool:
    """Whether no element is NaN or infinite; a sum that is finite proves it in one fast pass."""
    if array.dtype.kind not in "fV" or array.size == 0:
        return True
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.sum(array))) or bool(np.isfinite(array).all())


def _declared_value(info: ValueInfoProto) -> Value | None:
    if not info.type.HasField("tensor_type"):
        return None
    tensor = info.type.tensor_type
    if not tensor.elem_type:
        return None
    dtype = dtype_of(tensor.elem_type, f'"{info.name}"')
    if not tensor.HasField("shape"):
        return Value(info.name, None, dtype)
    shape: Shape = tuple(_dim(d) for d in tensor.shape.dim)
    return Value(info.name, shape, dtype)


def _dim(dim: Any) -> Dim:
    kind = dim.WhichOneof("value")
    if kind == "dim_value":
        # Negative sizes are how some exporters write "unknown".
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return dim.dim_param or None if kind == "dim_param" else None


def _label(node: NodeProto) -> str:
    return describe(Node(node.op_type, tuple(node.input), tuple(node.output), {}, node.name))
