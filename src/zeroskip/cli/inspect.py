"""``zeroskip inspect``: layers, shapes, multiply-accumulates, weights, zeros."""

from __future__ import annotations

from typing import Any

import numpy as np

from zeroskip.cli.common import Result, progress
from zeroskip.cli.inputs import input_shapes
from zeroskip.cli.options import Images, InputShape, Limit, Model, Preprocessing, preprocess_options
from zeroskip.report.layers import layer_rows, layers_payload, layers_table, totals, with_input_zeros
from zeroskip.report.tables import facts
from zeroskip.report.units import count, percent, size


def run(
    model: Model,
    shape: InputShape = None,
    images: Images = None,
    limit: Limit = 4,
    preprocess: Preprocessing = None,
) -> Result:
    """Layers, shapes, MACs, weights and their zeros.

    With --images the zeros of each layer's input are counted too: what activation skipping could save.
    """
    from zeroskip.evaluation import input_size, preprocess_of
    from zeroskip.graph import bind, load, simplify
    from zeroskip.images import open_images

    graph = load(model)
    steps = preprocess_of(graph, **preprocess_options(preprocess)) if images else None
    fixed = input_shapes(graph, shape, steps.size if steps else None)
    bound = simplify(bind(graph, fixed))
    rows = layer_rows(bound)
    if images and steps:
        pictures = open_images(images).take(limit)
        arrays = pictures.batches(steps, input_size(fixed[graph.inputs[0]], steps))
        with progress("running pictures") as bar:
            done = iter(range(1, len(pictures) + 1))
            rows = with_input_zeros(rows, bound, arrays, lambda: bar(next(done), len(pictures)))
    total = totals(rows)
    stored = sum(np.asarray(c).nbytes for c in graph.constants.values())
    payload: dict[str, Any] = {
        "model": model.name,
        "file_bytes": model.stat().st_size,
        "inputs": [{"name": n, "shape": graph.values[n].shape} for n in graph.inputs],
        "outputs": [{"name": n, "shape": graph.values[n].shape} for n in graph.outputs],
        "layers": layers_payload(rows),
        "total": total,
    }
    share = total["effectual_macs"] / total["dense_macs"] if total["dense_macs"] else 1.0
    work = (
        f"{count(total['dense_macs'])} MACs for shape {_shape(fixed[graph.inputs[0]])}, "
        f"{count(total['effectual_macs'])} ({percent(share)}) with non-zero weights"
    )
    about = [
        ("file", f"{size(payload['file_bytes'])}, weights {size(stored)} when dense"),
        ("inputs", ", ".join(_typed(graph, n) for n in graph.inputs)),
        ("outputs", ", ".join(_typed(graph, n) for n in graph.outputs)),
        ("nodes", f"{len(graph.nodes)} in the file, {len(rows)} after folding and fusing"),
        ("work", work),
    ]
    views: tuple[Any, ...] = (facts(model.name, about), "", layers_table(rows, ""))
    if images:
        views += (f"w zero: zeros among weights; x zero: among inputs, over {len(pictures)} pictures.",)
    return Result(payload, views)


def _typed(graph: Any, name: str) -> str:
    value = graph.values[name]
    return f"{name} {value.dtype} {_shape(value.shape or ())}"


def _shape(sizes: Any) -> str:
    return "x".join("?" if d is None else str(d) for d in sizes)
