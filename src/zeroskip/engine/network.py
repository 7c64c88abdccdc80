"""The state of lowering: where each value lives, which buffers there are, and the steps made so far."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, cast

import numpy as np

from zeroskip.codegen import Call, Operand, Plain, Planar, Target
from zeroskip.codegen.activations import rectifies
from zeroskip.codegen.compile import begin
from zeroskip.conv import ConvProblem
from zeroskip.engine.geometry import Geometry
from zeroskip.engine.plan import Array, Buffer, Objects, PythonCall, Step
from zeroskip.engine.weights import Weights
from zeroskip.errors import ModelError
from zeroskip.graph.ir import Graph, Node
from zeroskip.ops.copy import copy

FLOAT32 = np.dtype(np.float32)
LARGEST_BUFFER = 2**31 - 2**20  # offsets between planes are 32-bit
GROWING = frozenset(["Relu", "Clip"])
"""Activations that may as well follow a maximum."""


@dataclass(eq=False)
class Network:
    """A bound graph on its way to a plan.

    A value lives in one *home*: an operand (planar or plain) or, where Python computes it, an object. Other
    forms of it are made when a reader asks for them, once. With `in_place`, convolutions are given the
    caller's arrays where that is possible; else those are copied into planes before, out of planes after.
    With `ahead`, for a plan that will run, kernels are compiled in the background while later ones are found.
    """

    graph: Graph
    target: Target
    threads: int
    in_place: bool = False
    ahead: bool = False
    problems: dict[str, ConvProblem] = field(default_factory=dict)
    geometry: Geometry = field(init=False)
    buffers: list[Buffer] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    homes: dict[str, Operand] = field(default_factory=dict)
    constants: Objects = field(default_factory=dict)
    planar_values: set[str] = field(default_factory=set)
    places: dict[str, tuple[str, int]] = field(default_factory=dict)
    weights: Weights = field(default_factory=Weights)
    _rectified: dict[str, bool] = field(default_factory=dict)
    _copies: dict[tuple[str, object], Operand] = field(default_factory=dict)
    _calls: list[Call | PythonCall] = field(default_factory=list)
    _touched: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.geometry = Geometry(self.target.lanes)
        self.graph = self.graph.with_(constants=dict(self.graph.constants))

    def anew(self) -> Network:
        """The same network before it is lowered; what is known of its convolutions stays."""
        return Network(self.graph, self.target, self.threads, self.in_place, self.ahead, self.problems)

    # -- what the graph says ---------------------------------------------------------------------------------

    def shape(self, value: str) -> tuple[int, ...]:
        """The value's shape."""
        return self.graph.values[value].sizes

    def image_shape(self, value: str) -> tuple[int, int, int, int]:
        """(N, C, H, W) of a value of rank 3 (then H = 1) or 4."""
        images, channels, *size = self.shape(value)
        height, width = size if len(size) == 2 else (1, *size)
        return images, channels, height, width

    def floats(self, *values: str) -> bool:
        """Whether all of these values are float32."""
        return all(self.graph.values[value].dtype == FLOAT32 for value in values)

    def images(self, *values: str) -> bool:
        """Whether all of these values are non-empty float32 tensors of rank 3 or 4 (N, C, pixels)."""
        shapes = [self.shape(value) for value in values]
        return self.floats(*values) and all(len(s) in (3, 4) and 0 not in s for s in shapes)

    def rectified(self, value: str) -> bool:
        """Whether the value's negative numbers are zeros: where its writer, or all it gathers, has a ReLU."""
        if value not in self._rectified:
            node = self.producers.get(value)
            self._rectified[value] = node is not None and (
                all(self.rectified(name) for name in node.inputs)
                if node.op in ("MaxPool", "Concat")
                else node.op == "Relu" or (node.op == "Conv" and rectifies(node.attr("activation")))
            )
        return self._rectified[value]

    def pool_after(self, node: Node) -> Node | None:
        """The pool of 2x2 pixels that alone reads a convolution's output, where the two are one step."""
        y, activation = node.outputs[0], node.attr("activation")
        readers = self.consumers[y]
        if node.input(3) or y in self.graph.outputs or (activation and activation[0] not in GROWING):
            return None
        if len(readers) != 1 or readers[0].op != "MaxPool" or len(readers[0].outputs) != 1:
            return None
        (pool,) = readers
        whole = [tuple(pool.attr(key)) for key in ("kernel_shape", "strides", "dilations", "pads")]
        if whole != [(2, 2), (2, 2), (1, 1), (0, 0, 0, 0)]:
            return None
        rows, columns = self.shape(pool.outputs[0])[2:]
        return pool if (rows, columns) == tuple(size // 2 for size in self.shape(y)[2:]) and rows else None

    @cached_property
    def producers(self) -> dict[str, Node]:
        """The node that writes each value."""
        return self.graph.producers()

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        """Value name to the nodes that read it."""
        return self.graph.consumers()

    def constant(self, value: str) -> Array | None:
        """The value's numbers where they are known."""
        return self.graph.constants.get(value)

    def release(self, node: Node) -> None:
        """Forget the constants that no node after this one reads; the node itself is done."""
        self.problems.pop(node.outputs[0], None)
        constants = cast(dict[str, Array], self.graph.constants)
        for name in dict.fromkeys(node.inputs):
            if name in constants and self.consumers[name][-1] is node and name not in self.graph.outputs:
                del constants[name]

    # -- memory ----------------------------------------------------------------------------------------------

    def buffer(self, size: int, source: tuple[str, str] | None = None) -> int:
        """A new buffer of `size` bytes."""
        if size > LARGEST_BUFFER and source is None:
            raise MemoryError(f"an activation of {size / 1e9:.1f} GB exceeds the 2 GB one tensor may take")
        self.buffers.append(Buffer(size, source))
        return len(self.buffers) - 1

    def workspace(self, size: int) -> int:
        """A new buffer of `size` bytes for the algorithm of the present step."""
        return self.temporary(size)

    def temporary(self, size: int) -> int:
        """A new buffer of `size` bytes that only the present step uses."""
        number = self.buffer(size)
        self._touched.append(number)
        return number

    def planar_layout(self, value: str, key: Hashable | None = None) -> Planar:
        """The planar layout of a value, from the geometry of its component, or of that of `key`."""
        return self.geometry.layout(key or value, self.image_shape(value))

    def output(self, value: str) -> Operand:
        """The operand that the present node is to write: a place in a concatenation, or its own buffer."""
        if value not in self.planar_values:
            flat = Plain(self.shape(value))
            return self._settle(value, Operand(self.buffer(flat.bytes), flat))
        layout = self.planar_layout(value)
        if value in self.places:
            parent, channel = self.places[value]
            whole = self.homes.get(parent) or self.output(parent)
            return self._settle(value, Operand(whole.buffer, layout, whole.offset + channel * layout.plane))
        return self._settle(value, Operand(self.buffer(layout.bytes), layout))

    def read_in_place(self, value: str, node: Node) -> bool:
        """Whether `node`, a convolution, is given the caller's array for `value`, which it alone reads."""
        given = value in self.graph.inputs and self.consumers[value] == [node]
        return given and self._passed(value)

    def written_in_place(self, value: str) -> bool:
        """Whether the node that makes `value` is to write it into the caller's array, where it can."""
        wanted = self.graph.outputs.count(value) == 1 and not self.consumers[value]
        return wanted and self._passed(value)

    def _passed(self, value: str) -> bool:
        """Whether the caller's array for the value may be passed on: one that 32-bit offsets reach."""
        return self.in_place and 4 * prod(self.shape(value)) <= LARGEST_BUFFER

    def result(self, value: str) -> Operand:
        """The caller's array for `value`, which the present node is to write."""
        layout = Plain(self.image_shape(value))
        return self._settle(value, Operand(self.buffer(layout.bytes, ("output", value)), layout))

    def replaceable(self, value: str, node: Node) -> bool:
        """Whether `node`, its last reader, may write its output where the value, and nothing else, is."""
        home, output = self.homes[value], node.outputs[0]
        alone = [name for name, other in self.homes.items() if other.buffer == home.buffer] == [value]
        kept = value in self.graph.outputs or self.buffers[home.buffer].source is not None
        last = self.consumers[value][-1] is node
        fits = output in self.planar_values and home.layout == self.planar_layout(output)
        return alone and last and fits and not kept and output not in self.places

    def replace(self, value: str, by: str) -> Operand:
        """The operand of `value`, which `by` now takes over."""
        return self._settle(by, self.homes.pop(value))

    def _settle(self, value: str, operand: Operand) -> Operand:
        self.homes[value] = operand
        self.touch(operand)
        return operand

    def touch(self, *operands: Operand) -> None:
        """The present step reads or writes these operands."""
        self._touched.extend(operand.buffer for operand in operands)

    def alias(self, value: str, operand: Operand) -> None:
        """`value` is the memory of `operand` seen with another shape."""
        self._settle(value, operand)

    # -- reading values in the form a kernel wants -----------------------------------------------------------

    def planar(self, value: str) -> Operand:
        """The value as planes in its component's geometry."""
        return self.converted(value, self.planar_layout(value))

    def plain(self, value: str) -> Operand:
        """The value as a row-major array."""
        return self.converted(value, Plain(self.shape(value)))

    def image(self, value: str) -> Operand:
        """The value where it lives, as planes or as a plain (N, C, H, W)."""
        home = self.home(value)
        if isinstance(home.layout, Planar):
            return home
        return Operand(home.buffer, Plain(self.image_shape(value)), home.offset)

    def home(self, value: str) -> Operand:
        """The value where it lives."""
        home = self._home(value)
        self.touch(home)
        return home

    def converted(self, value: str, layout: Planar | Plain, pads: tuple[int, int] = (0, 0)) -> Operand:
        """The value in `layout`, copied there if it does not live so; `pads` as in `ops.copy`."""
        home = self._home(value)
        if home.layout == layout and pads == (0, 0):
            self.touch(home)
            return home
        found = self._copies.get((value, layout))
        if found is None:
            found = Operand(self.buffer(layout.bytes), layout)
            self._copies[value, layout] = found
            self.copy_value(value, found, pads)
        self.touch(found)
        return found

    def copy_value(self, value: str, to: Operand, pads: tuple[int, int] = (0, 0)) -> None:
        """Copy the value from its home to the operand `to`."""
        home = self._home(value)
        self.touch(home)
        source = home
        if isinstance(to.layout, Planar) and isinstance(home.layout, Plain):
            source = Operand(home.buffer, Plain(self.image_shape(value)), home.offset)
        self.emit(self.copy_call(source, to, pads))

    def copy_call(self, x: Operand, y: Operand, pads: tuple[int, int] = (0, 0)) -> Call:
        """The call that copies one operand to another."""
        return copy(x, y, pads=pads, target=self.target, threads=self.threads)

    def _home(self, value: str) -> Operand:
        if value not in self.homes:
            self.homes[value] = self._from_object(value)
        return self.homes[value]

    def _from_object(self, value: str) -> Operand:
        """A plain buffer into which Python copies the object when the step runs."""
        layout = Plain(self.shape(value))
        operand = Operand(self.buffer(layout.bytes), layout)
        constant = self.constant(value)
        if constant is not None:
            self.constants[value] = constant

        def run(view: Callable[[int, Plain], Array], objects: Objects) -> None:
            view(operand.buffer, layout)[...] = objects[value]

        self.emit(PythonCall(run))
        return operand

    # -- steps -----------------------------------------------------------------------------------------------

    def emit(self, *calls: Call | PythonCall) -> None:
        """Add calls to the present step."""
        self._calls.extend(calls)

    @property
    def emitted(self) -> int:
        """How many calls the present step has so far."""
        return len(self._calls)

    def finish_step(self, node: Node, **facts: Any) -> None:
        """Close the present step, which did the work of `node`."""
        if self._calls:
            native = [call for call in self._calls if isinstance(call, Call)]
            if self.ahead:
                begin((call.kernel for call in native), self.target)
            moved = iter(self.weights.gather(native))
            self.steps.append(
                Step(
                    node.name or node.outputs[0],
                    node.op,
                    tuple(next(moved) if isinstance(call, Call) else call for call in self._calls),
                    tuple(dict.fromkeys(self._touched)),
                    **facts,
                )
            )
        elif self._touched and self.steps:
            # A step without work (a reshape) still keeps its buffers alive.
            last = self.steps[-1]
            merged = tuple(dict.fromkeys((*last.buffers, *self._touched)))
            self.steps[-1] = Step(**{**vars(last), "buffers": merged})
        self._calls, self._touched = [], []


def check_size(network: Network, limit: int | None) -> None:
    """Raise a `ModelError` where the activations cannot fit `limit` bytes at any step."""
    if limit is None:
        return
    largest = max(network.graph.nodes, key=lambda n: _bytes(network, n), default=None)
    if largest is not None and (size := _bytes(network, largest)) > limit:
        raise ModelError(
            f"the activations of {largest.op} {largest.name!r} take {size / 1e9:.1f} GB, but this machine "
            f"has {limit / 1e9:.1f} GB; use a smaller batch or input"
        )


def _bytes(network: Network, node: Node) -> int:
    names = [name for name in (*node.inputs, *node.outputs) if name and name not in network.graph.constants]
    return sum(
        prod(network.graph.values[name].sizes) * network.graph.values[name].dtype.itemsize for name in names
    )
