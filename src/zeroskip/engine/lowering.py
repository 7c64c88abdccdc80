"""From a bound graph to a plan: decide layouts, then emit each node's kernel calls in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zeroskip.codegen import Operand, Plain
from zeroskip.conv import ConvProblem
from zeroskip.engine import convolutions
from zeroskip.engine.ahead import ask_ahead
from zeroskip.engine.convolutions import Chooser
from zeroskip.engine.native import NATIVE, PRODUCT_CONV, Row
from zeroskip.engine.network import Network
from zeroskip.engine.plan import Array, Objects, Plan, PythonCall
from zeroskip.graph import OPERATORS
from zeroskip.graph.ir import Node


def problems_of(network: Network, forced: bool) -> list[ConvProblem]:
    """The convolutions of the network that an algorithm will be chosen for."""
    rows = ((node, _row(network, node, forced)) for node in network.graph.nodes)
    return [convolutions.problem_of(network, node) for node, row in rows if row is _CONV]


def lower(network: Network, choose: Chooser, forced: bool = False, release: bool = False) -> Plan:
    """The plan of a network whose graph is bound and simplified; `choose` picks each convolution's algorithm.

    Unless that is `forced`, convolutions that are matrix products run as such. With `release` the network
    forgets its constants as soon as the plan has them in its own form; it can be lowered only once.
    """
    graph = network.graph
    rows = {id(node): _row(network, node, forced) for node in graph.nodes}
    _decide_layouts(network, rows)
    _place_concatenations(network, rows)
    object_inputs = _bind_inputs(network)
    convolved = [node for node in graph.nodes if rows[id(node)] is _CONV]
    pooled = {id(network.pool_after(node)) for node in convolved}  # these are done with their convolution
    for node in graph.nodes:
        row = rows[id(node)]
        if id(node) in pooled:
            continue
        if row is _CONV:
            convolutions.lower(network, node, choose)
        elif row is not None:
            row.emit(network, node)
            network.finish_step(node, algorithm=row.label)
        else:
            _emit_python(network, node)
        if release:
            network.release(node)
    object_outputs = _bind_outputs(network)
    network.weights.trim()
    inputs = {n: b.bytes for n, b in enumerate(network.buffers) if b.source and b.source[0] == "input"}
    return Plan(
        network.target,
        network.threads,
        {name: graph.values[name].sizes for name in graph.inputs},
        ask_ahead(network.steps, inputs),
        tuple(network.buffers),
        {name: graph.values[name].sizes for name in graph.outputs},
        object_inputs,
        object_outputs,
        network.constants,
    )


_CONV = Row(convolutions.accepts, lambda network, node: None, convolutions.shape_geometry, planar=True)


def _row(network: Network, node: Node, forced: bool) -> Row | None:
    """How the node runs natively, or None where NumPy computes it."""
    if node.op == "Conv":
        rows = [_CONV] if forced else [PRODUCT_CONV, _CONV]
    else:
        rows = [NATIVE[node.op]] if node.op in NATIVE else []
    return next((row for row in rows if row.accepts(network, node)), None)


def _decide_layouts(network: Network, rows: dict[int, Row | None]) -> None:
    """Which values are planar, and the geometry that their readers and writers need."""
    for node in network.graph.nodes:
        row = rows[id(node)]
        if row is None:
            continue
        if row.is_planar(network, node):
            network.planar_values.update(name for name in node.outputs if name)
        row.shape_geometry(network, node)
    for name, value in network.graph.values.items():
        if value.static and len(value.sizes) in (3, 4):
            _, _, height, width = network.image_shape(name)
            network.geometry.need(name, max(1, width), max(1, height))


def _place_concatenations(network: Network, rows: dict[int, Row | None]) -> None:
    """Let producers write straight into the concatenation that reads them, each value into one at most.

    That is the last one. An earlier one whose parts lie in a later one in the same order (in a DenseNet all
    but the last of a block) is a part of it.
    """
    for node in reversed(network.graph.nodes):
        if node.op != "Concat" or rows[id(node)] is None or node.outputs[0] not in network.planar_values:
            continue
        channel = 0
        for name in node.inputs:
            producer = network.producers.get(name)
            row = rows[id(producer)] if producer is not None else None
            written = row is not None and producer is not None and not row.is_view(network, producer)
            own = written and name in network.planar_values and name not in network.places
            if own and node.inputs.count(name) == 1:
                network.places[name] = (node.outputs[0], channel)
            channel += network.image_shape(name)[1]
        within = _within(network, node)
        if within is not None:
            network.places[node.outputs[0]] = within


def _within(network: Network, node: Node) -> tuple[str, int] | None:
    """The concatenation, and its channel, where all parts of this one lie in its order."""
    if node.outputs[0] in network.places or node.inputs[0] not in network.places:
        return None
    parent, first = network.places[node.inputs[0]]
    channel = first
    for name in node.inputs:
        if parent == node.outputs[0] or network.places.get(name) != (parent, channel):
            return None
        channel += network.image_shape(name)[1]
    return parent, first


def _bind_inputs(network: Network) -> tuple[str, ...]:
    """Float inputs are read where the caller has them; the names of the others, which Python reads."""
    objects = []
    for name in network.graph.inputs:
        if network.floats(name) and 0 not in network.shape(name):
            layout = Plain(network.shape(name))
            network.homes[name] = Operand(network.buffer(layout.bytes, ("input", name)), layout)
        else:
            objects.append(name)
    return tuple(objects)


def _bind_outputs(network: Network) -> dict[str, str]:
    """Copy what lives in buffers to the caller's arrays; the outputs that are objects, by name."""
    objects = {}
    for name in network.graph.outputs:
        if name not in network.homes:
            objects[name] = name
            constant = network.constant(name)
            if constant is not None:
                network.constants[name] = constant
            continue
        home = network.homes[name]
        if network.buffers[home.buffer].source == ("output", name):
            continue  # written there by its producer
        layout = Plain(network.shape(name))
        shape = layout if isinstance(home.layout, Plain) else Plain(network.image_shape(name))
        target = Operand(network.buffer(layout.bytes, ("output", name)), shape)
        network.touch(home, target)
        network.emit(network.copy_call(home, target))
        network.finish_step(Node("Output", (name,), (name,), name=f"output {name}"))
    return objects


def _emit_python(network: Network, node: Node) -> None:
    """A step in which NumPy computes the node, on views of plain buffers and on objects."""
    evaluate: Callable[[Node, Sequence[Any]], list[Array]] = OPERATORS[node.op].evaluate
    sources: list[tuple[str, Operand | None]] = []
    for name in node.inputs:
        constant = network.constant(name) if name else None
        if constant is not None:
            network.constants[name] = constant
        in_buffer = name in network.homes and constant is None
        sources.append((name, network.plain(name) if in_buffer else None))

    def run(view: Callable[[int, Plain], Array], objects: Objects) -> None:
        arrays: list[Array | None] = []
        for name, operand in sources:
            if not name:
                arrays.append(None)
            elif operand is None:
                arrays.append(objects[name])
            else:
                assert isinstance(operand.layout, Plain)
                arrays.append(view(operand.buffer, operand.layout))
        for name, array in zip(node.outputs, evaluate(node, arrays), strict=False):
            if name:
                # an operator may return a view of its input, whose buffer will be used again
                objects[name] = np.array(array, copy=True)

    network.emit(PythonCall(run))
    network.finish_step(node, algorithm="numpy")
