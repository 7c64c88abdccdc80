"""Shape and type inference of one node, through its operator's row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zeroskip.errors import ModelError
from zeroskip.graph.ir import Node, Value
from zeroskip.graph.operator import Array, Call, Operator, describe, show
from zeroskip.graph.operators import OPERATORS


def operator_of(node: Node) -> Operator:
    """The node's row.

    Raises:
        ModelError: the operator is not supported.
    """
    row = OPERATORS.get(node.op)
    if row is None:
        supported = ", ".join(sorted(OPERATORS))
        raise ModelError(
            f"{describe(node)}: zeroskip does not support the operator {node.op}; supported are {supported}"
        )
    return row


def call_of(node: Node, values: Mapping[str, Value], constants: Mapping[str, Array]) -> Call:
    """The node with what is known of its inputs."""
    try:
        types = tuple(values[name] if name else None for name in node.inputs)
    except KeyError as error:
        raise ModelError(
            f'{describe(node)} reads "{error.args[0]}", which no node computes and which is neither an input '
            "nor an initializer"
        ) from None
    return Call(node, types, tuple(constants.get(name) for name in node.inputs))


def infer_node(node: Node, values: Mapping[str, Value], constants: Mapping[str, Array]) -> list[Value]:
    """The node's outputs as values; an absent optional output is left out.

    Raises:
        ModelError: the inputs do not fit the operator.
    """
    row = operator_of(node)
    check_arity(node, row)
    call = call_of(node, values, constants)
    if row.floats and call.dtype().kind not in "fV":  # V: bfloat16 and its like
        raise call.fail(
            f"its input is {call.dtype()}; {row.name} takes floating-point numbers, cast it first"
        )
    try:
        types = row.infer(call)
    except (TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise call.fail(
            f"an attribute is malformed ({error}); attributes are {dict(node.attributes)}"
        ) from error
    return [Value(name, shape, dtype) for name, (shape, dtype) in zip(node.outputs, types) if name]


def check_arity(node: Node, row: Operator) -> None:
    """Raise a `ModelError` where the node has too few or too many inputs or outputs."""
    given = len(node.inputs)
    required = [name for name in node.inputs[: row.least] if name]
    if len(required) < row.least or (row.most is not None and given > row.most):
        most = "" if row.most == row.least else f" to {row.most}" if row.most is not None else " or more"
        raise ModelError(f"{describe(node)} has {given} inputs; {row.name} takes {row.least}{most}")
    if row.outputs is not None and len(node.outputs) > row.outputs:
        raise ModelError(f"{describe(node)} has {len(node.outputs)} outputs; {row.name} has {row.outputs}")


def value_of(name: str, array: Array) -> Value:
    """The type of a constant."""
    return Value(name, array.shape, array.dtype)


def evaluate_node(node: Node, inputs: list[Any]) -> list[Array]:
    """The node's outputs as arrays.

    Raises:
        ModelError: the inputs do not fit the operator; its words come from NumPy.
    """
    row = operator_of(node)
    try:
        return row.evaluate(node, inputs)
    except ModelError:
        raise
    except (ValueError, IndexError, TypeError, ArithmeticError, MemoryError) as error:
        shapes = ", ".join("absent" if x is None else f"{x.dtype} {show(x.shape)}" for x in inputs)
        raise ModelError(f"{describe(node)} cannot be computed for inputs {shapes}: {error}") from error
