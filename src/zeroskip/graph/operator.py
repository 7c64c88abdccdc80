"""What one operator is: a row that says how to infer its outputs' types and how to compute them.

The rows stand in `zeroskip.graph.operators`, grouped by kind; everything that depends on the operator
(reader, verifier, interpreter, constant folding, cost) looks it up there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from zeroskip.errors import ModelError
from zeroskip.graph.ir import Dim, Node, Shape, Value

Array: TypeAlias = np.ndarray[Any, Any]
DType: TypeAlias = np.dtype[Any]
Type: TypeAlias = tuple[Shape | None, DType]
"""An output's shape (or None where the rank is unknown) and element type."""

INT64: DType = np.dtype(np.int64)
BOOL: DType = np.dtype(np.bool_)


@dataclass(frozen=True)
class Call:
    """A node with what is known of its inputs: their types, and the values of those that are constant."""

    node: Node
    values: tuple[Value | None, ...]
    known: tuple[Array | None, ...]

    def present(self, index: int) -> bool:
        """Whether this input is given."""
        return index < len(self.values) and self.values[index] is not None

    def value(self, index: int) -> Value:
        """The type of an input that must be there."""
        value = self.values[index] if index < len(self.values) else None
        if value is None:
            raise ModelError(f"{describe(self.node)} lacks its input {index}")
        return value

    def shape(self, index: int) -> Shape | None:
        """The shape of an input that must be there."""
        return self.value(index).shape

    def dtype(self, index: int = 0) -> DType:
        """The element type of an input that must be there."""
        return self.value(index).dtype

    def constant(self, index: int) -> Array | None:
        """The input's value where it is constant and given."""
        return self.known[index] if index < len(self.known) else None

    def integers(self, index: int) -> tuple[int, ...] | None:
        """A constant 1-D (or scalar) integer input as a tuple; None where it is absent or not constant."""
        array = self.constant(index)
        return None if array is None else tuple(int(i) for i in array.reshape(-1))

    def fail(self, what: str) -> ModelError:
        """An error that names the node and the types it was given."""
        return ModelError(f"{describe(self.node)}: {what}")


Infer: TypeAlias = Callable[[Call], list[Type]]
Evaluate: TypeAlias = Callable[[Node, Sequence[Any]], list[Array]]
Fold: TypeAlias = Callable[[Call], Array | None]
Macs: TypeAlias = Callable[[Node, Sequence[tuple[int, ...]], tuple[int, ...]], int]


@dataclass(frozen=True)
class Operator:
    """One operator in its canonical (newest) form.

    `evaluate` takes the node and its inputs as arrays (None where an optional one is absent). `fold`
    computes the first output from types alone where it can. `parameters` are the inputs that hold
    learned numbers. `macs` counts multiply-accumulates of one application from its input shapes
    and its first output's shape. `floats` says that input 0 must be of a floating-point type.
    """

    name: str
    infer: Infer
    evaluate: Evaluate
    least: int = 1
    most: int | None = 1
    attributes: frozenset[str] = frozenset()
    outputs: int | None = 1
    parameters: tuple[int, ...] = ()
    macs: Macs | None = None
    fold: Fold | None = None
    floats: bool = False


def describe(node: Node) -> str:
    """The node as error messages name it."""
    if node.name:
        return f'node "{node.name}" ({node.op})'
    output = next((name for name in node.outputs if name), "")
    return f'the {node.op} node that computes "{output}"'


def show(shape: Shape | None) -> str:
    """A shape as messages print it: ``N×3×224×224``."""
    if shape is None:
        return "unknown rank"
    return "×".join("?" if d is None else str(d) for d in shape) or "scalar"


def same_type(call: Call) -> list[Type]:
    """Output typed as input 0."""
    return [(call.shape(0), call.dtype())]


def merge(a: Dim, b: Dim) -> Dim:
    """The more precise of two dimensions that are known to be equal."""
    if isinstance(a, int):
        return a
    if isinstance(b, int):
        return b
    return a if a is not None else b


def broadcast_dim(call: Call, a: Dim, b: Dim) -> Dim:
    """One dimension of a broadcast result."""
    if a == 1:
        return b
    if b == 1 or a == b:
        return a
    if isinstance(a, int) and isinstance(b, int):
        shapes = " and ".join(show(v.shape) for v in call.values if v is not None)
        raise call.fail(f"shapes {shapes} do not broadcast ({a} against {b})")
    if isinstance(a, int):
        return a
    return b if isinstance(b, int) else None


def broadcast(call: Call, shapes: Sequence[Shape | None]) -> Shape | None:
    """NumPy's broadcasting over symbolic shapes."""
    if any(s is None for s in shapes):
        return None
    result: Shape = ()
    for shape in shapes:
        assert shape is not None
        rank = max(len(result), len(shape))
        left = (1,) * (rank - len(result)) + result
        right = (1,) * (rank - len(shape)) + shape
        result = tuple(broadcast_dim(call, a, b) for a, b in zip(left, right))
    return result


def axis_of(call: Call, axis: int, rank: int) -> int:
    """A possibly negative axis as an index into `rank` dimensions."""
    if not -rank <= axis < rank:
        raise call.fail(f"axis {axis} is outside {-rank}..{rank - 1}")
    return axis % rank if rank else 0


def product(dims: Sequence[Dim]) -> Dim:
    """The product of dimensions where it is one number, or one symbol; else None."""
    total = 1
    symbol: str | None = None
    for d in dims:
        if isinstance(d, int):
            total *= d
        elif d is None or symbol is not None:
            return 0 if any(x == 0 for x in dims) else None
        else:
            symbol = d
    if symbol is None or total == 0:
        return total
    return symbol if total == 1 else None
