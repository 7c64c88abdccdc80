"""Pruning a graph's layers one after the other: masks alone, or masks with reconstruction on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from zeroskip.compress.alps import improve_mask
from zeroskip.compress.criteria import Criterion
from zeroskip.compress.layers import Layer, as_stored, bias_rows, from_rows, to_rows
from zeroskip.compress.masks import keep_mask
from zeroskip.compress.reconstruct import Fit, gather, normal_equations, solve
from zeroskip.compress.report import PrunedLayer
from zeroskip.compress.walk import Runner, Store, Walk
from zeroskip.graph.ir import Graph, Value
from zeroskip.graph.operator import Array

MEMORY_BYTES = 2 << 30
"""Calibration activations kept in memory; what is beyond goes to temporary files."""

Progress = Callable[[int, int, str], None]
"""Called with layers done, layers in all, and the name of the layer that comes next (empty at the end)."""


@dataclass(frozen=True)
class Job:
    """What to do: `zeros` and the role that spares (or empty) by layer name, and how to choose and to fit."""

    criterion: Criterion
    zeros: Mapping[str, int]
    spared: Mapping[str, str]
    block: int
    refine: bool
    fit: Fit
    progress: Progress


def mask(graph: Graph, layers: Sequence[Layer], job: Job) -> tuple[Graph, list[PrunedLayer]]:
    """The graph with the least important weights of each layer set to zero, and a report row for each."""
    constants, report = dict(graph.constants), []
    for index, layer in enumerate(layers):
        job.progress(index, len(layers), layer.name)
        if job.zeros[layer.name]:
            rows = to_rows(layer, constants[layer.weight])
            keep = keep_mask(job.criterion.score(rows, None), job.zeros[layer.name], job.block)
            constants[layer.weight] = _kept(layer, keep, graph)
        report.append(_row(layer, constants, job))
    return graph.with_(constants=constants), report


def mask_and_reconstruct(
    graph: Graph, layers: Sequence[Layer], job: Job, inputs: Sequence[Mapping[str, Array]], run: Runner
) -> tuple[Graph, list[PrunedLayer]]:
    """`mask`, but each layer's weights are fitted on the calibration `inputs` before the next layer's turn.

    Two walks go through the batches: the original network and the pruned one. Layers before the first one
    that loses weights see the same inputs as ever and stay as they are; behind it, spared layers are fitted
    too.
    """
    wide, with_bias = _with_biases(graph, layers)
    images = [len(next(iter(batch.values()))) for batch in inputs]
    changed, report = False, []
    with Store(MEMORY_BYTES) as store:
        original, pruned = Walk(wide, inputs, run, store), Walk(wide, inputs, run, store)
        for index, layer in enumerate(with_bias):
            job.progress(index, len(layers), layer.name)
            start = time.perf_counter()
            changed = changed or job.zeros[layer.name] > 0
            before, after = None, None
            if changed:
                for name in filter(None, (layer.node.input(0), layer.residual)):
                    original.advance(name)
                    pruned.advance(name)
                before, after = _fit_in_place(layer, wide, original, pruned, images, job)
            row = replace(_row(layer, pruned.constants, job), error_before=before, error_after=after)
            report.append(replace(row, seconds=time.perf_counter() - start))
    return _without_idle_biases(wide.with_(constants=pruned.constants), graph), report


def _fit_in_place(
    layer: Layer, graph: Graph, original: Walk, pruned: Walk, images: list[int], job: Job
) -> tuple[float, float]:
    """Prune and fit one layer in `pruned`'s constants; the errors before and after fitting."""
    rows = to_rows(layer, graph.constants[layer.weight])
    found = None if layer.shared else bias_rows(layer, graph)
    bias = np.zeros(rows.shape[:2]) if found is None else found
    moments = gather(layer, rows, bias, original, pruned, images, job.fit)
    total = moments.variance() or 1.0
    zeros, fit_bias = job.zeros[layer.name], found is not None
    keep = keep_mask(job.criterion.score(rows, moments), zeros, job.block)
    before = moments.squared_error(np.where(keep, rows, 0), bias) / total
    if layer.shared:  # its other readers have other inputs, which a fit would not know of
        _store(layer, pruned.constants, _kept(layer, keep, graph), None)
        return before, before
    normal = normal_equations(rows, moments, job.fit.damping, fit_bias)
    masks = [keep]
    if job.refine and zeros:
        masks.append(improve_mask(rows, keep, normal, zeros, job.block))
    answers = [solve(candidate, moments, normal, fit_bias) for candidate in masks]
    errors = [moments.squared_error(*answer) for answer in answers]
    fitted, fitted_bias = answers[errors.index(min(errors))]
    _store(layer, pruned.constants, from_rows(layer, fitted), fitted_bias if fit_bias else None)
    return before, min(errors) / total


def _kept(layer: Layer, keep: Array, graph: Graph) -> Array:
    """The stored weights with zeros outside the mask; what stays keeps its every bit."""
    weight = graph.constants[layer.weight]
    return np.where(as_stored(layer, keep), weight, weight.dtype.type(0))


def _store(layer: Layer, constants: dict[str, Array], weight: Array, bias: Array | None) -> None:
    constants[layer.weight] = weight.astype(constants[layer.weight].dtype)
    if bias is not None:
        old = constants[layer.node.input(2)]
        beta = layer.node.attr("beta", 1.0) if layer.node.op == "Gemm" else 1.0
        constants[layer.node.input(2)] = (bias / beta).reshape(old.shape).astype(old.dtype)


def _row(layer: Layer, constants: Mapping[str, Array], job: Job) -> PrunedLayer:
    nonzero = int(np.count_nonzero(constants[layer.weight]))
    return PrunedLayer(layer.name, layer.node.op, layer.shape, layer.size, nonzero, job.spared[layer.name])


def _with_biases(graph: Graph, layers: Sequence[Layer]) -> tuple[Graph, list[Layer]]:
    """The graph with a bias of zeros wherever a layer could have one, so that fitting changes constants."""
    nodes, values, constants = (
        {id(node): node for node in graph.nodes},
        dict(graph.values),
        dict(graph.constants),
    )
    changed = []
    for layer in layers:
        zeros = None if layer.node.input(2) or layer.shared else bias_rows(layer, graph)
        if zeros is None:
            changed.append(layer)
            continue
        name = f"{layer.weight}_bias"
        while name in values:
            name += "_"
        constants[name] = zeros.reshape(-1).astype(constants[layer.weight].dtype)
        values[name] = Value(name, constants[name].shape, constants[name].dtype)
        node = layer.node.with_(inputs=(*layer.node.inputs[:2], name, *layer.node.inputs[3:]))
        nodes[id(layer.node)] = node
        changed.append(replace(layer, node=node))
    wide = graph.with_(
        nodes=tuple(nodes[id(node)] for node in graph.nodes), values=values, constants=constants
    )
    return wide, changed


def _without_idle_biases(graph: Graph, before: Graph) -> Graph:
    """`graph` without the biases that `before` did not have and that stayed zero."""
    added = [name for name in graph.constants if name not in before.constants]
    idle = {name for name in added if not graph.constants[name].any()}
    nodes = [old if new.input(2) in idle else new for old, new in zip(before.nodes, graph.nodes, strict=True)]
    return graph.with_(
        nodes=tuple(nodes),
        values={name: value for name, value in graph.values.items() if name not in idle},
        constants={name: value for name, value in graph.constants.items() if name not in idle},
    )
