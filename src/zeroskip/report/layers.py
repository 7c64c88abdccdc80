"""A network layer by layer: shapes, multiply-accumulates, weights, zeros."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table

from zeroskip.graph import OPERATORS, Graph, Node, evaluate, macs_of
from zeroskip.report.tables import table
from zeroskip.report.units import count, percent

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LayerRow:
    """One node of a graph whose shapes are all known.

    Attributes:
        name: the node's, or its output's where it has none.
        op: the operator.
        detail: kernel, stride, groups and fused activation, as a person would write them.
        output: shape of the first output.
        dense_macs: multiply-accumulates, zeros included.
        effectual_macs: those whose weight is not zero.
        weights, nonzero: learned numbers of the node, biases aside, and how many are not zero.
        input_zeros: share of zeros in the node's first input, 0 to 1, over the pictures; None: not measured.
    """

    name: str
    op: str
    detail: str
    output: tuple[int, ...]
    dense_macs: int
    effectual_macs: int
    weights: int
    nonzero: int
    input_zeros: float | None = None


def layer_rows(graph: Graph) -> tuple[LayerRow, ...]:
    """One row for each node of a bound graph (see `zeroskip.graph.bind`)."""
    return tuple(_row(graph, node) for node in graph.nodes)


def _row(graph: Graph, node: Node) -> LayerRow:
    output = graph.values[node.outputs[0]].sizes
    # The first parameter is the kernel; biases and statistics are small and never pruned.
    parameters = OPERATORS[node.op].parameters[:1]
    kernels = [graph.constants[node.input(i)] for i in parameters if node.input(i) in graph.constants]
    dense, effectual = macs_of(node, graph)
    return LayerRow(
        name=node.name or node.outputs[0],
        op=node.op,
        detail=_detail(node, output[1] if len(output) > 1 else 0),
        output=output,
        dense_macs=dense,
        effectual_macs=effectual,
        weights=sum(k.size for k in kernels),
        nonzero=sum(int(np.count_nonzero(k)) for k in kernels),
    )


def _detail(node: Node, channels: int) -> str:
    parts = []
    if kernel := node.attr("kernel_shape"):
        strides = node.attr("strides") or [1] * len(kernel)
        stride = "" if all(s == 1 for s in strides) else "/" + "x".join(map(str, dict.fromkeys(strides)))
        parts.append("x".join(map(str, kernel)) + stride)
    if (group := node.attr("group", 1)) > 1:
        parts.append("dw" if group == channels else f"g{group}")
    if activation := node.attr("activation"):
        parts.append(str(activation[0]).lower())
    return " ".join(parts)


def with_input_zeros(
    rows: Iterable[LayerRow],
    graph: Graph,
    inputs: Iterable[Array],
    progress: Callable[[], None] = lambda: None,
) -> tuple[LayerRow, ...]:
    """The rows with the share of zeros in each node's first input, over arrays for the graph's only input.

    `progress` is called after each array.
    """
    names = tuple(dict.fromkeys(n.input(0) for n in graph.nodes if n.input(0) not in graph.constants))
    inner = tuple(name for name in names if name not in graph.inputs)
    zeros = dict.fromkeys(names, 0)
    seen = dict.fromkeys(names, 0)
    for array in inputs:
        arrays: Mapping[str, Array] = dict(
            zip(inner, evaluate(graph, {graph.inputs[0]: array}, inner), strict=True)
        ) | {graph.inputs[0]: array}
        for name in names:
            zeros[name] += arrays[name].size - int(np.count_nonzero(arrays[name]))
            seen[name] += arrays[name].size
        progress()
    shares = [zeros[n.input(0)] / seen[n.input(0)] if seen.get(n.input(0)) else None for n in graph.nodes]
    return tuple(replace(row, input_zeros=share) for row, share in zip(rows, shares, strict=True))


def totals(rows: Iterable[LayerRow]) -> dict[str, int]:
    """Sums over the network: dense_macs, effectual_macs, weights, nonzero."""
    listed = list(rows)
    return {
        key: sum(getattr(r, key) for r in listed)
        for key in ("dense_macs", "effectual_macs", "weights", "nonzero")
    }


def layers_payload(rows: Iterable[LayerRow]) -> list[dict[str, Any]]:
    """The rows as JSON has them."""
    return [asdict(row) for row in rows]


def layers_table(rows: tuple[LayerRow, ...], title: str) -> Table:
    """The rows as a table of at most 80 columns."""
    total = totals(rows)
    measured = any(row.input_zeros is not None for row in rows)
    columns = ["layer", "operator", "output", "MACs", "weights", "w zero", *(["x zero"] if measured else [])]
    footer = [
        "total",
        "",
        "",
        count(total["dense_macs"]),
        count(total["weights"]),
        _zeros(total),
        *([""] if measured else []),
    ]
    width = 14 if measured else 24
    body = [
        [
            _tail(row.name, width),
            _tail(f"{row.op} {row.detail}".strip(), 18 if measured else 20, end=False),
            "x".join(map(str, row.output[1:])),
            count(row.dense_macs) if row.dense_macs else "",
            count(row.weights) if row.weights else "",
            percent(1 - row.nonzero / row.weights) if row.weights else "",
            *([percent(row.input_zeros) if row.input_zeros is not None else ""] if measured else []),
        ]
        for row in rows
    ]
    return table(columns, body, title=title, footer=footer, left=2)


def _zeros(total: Mapping[str, int]) -> str:
    return percent(1 - total["nonzero"] / total["weights"]) if total["weights"] else ""


def _tail(text: str, width: int, end: bool = True) -> str:
    """At most `width` characters; of a path-like name the end says more."""
    if len(text) <= width:
        return text
    return "…" + text[1 - width :] if end else text[: width - 1] + "…"
