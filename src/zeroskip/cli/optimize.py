"""``zeroskip optimize``: prune, store sparse, tune; then the network before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from zeroskip.bench import RIVALS, measure, pinned
from zeroskip.cli.common import Result, progress
from zeroskip.cli.inputs import input_arrays, input_shapes
from zeroskip.cli.options import (
    Images,
    InputShape,
    Limit,
    Model,
    Preprocessing,
    Threads,
    Tune,
    preprocess_options,
)
from zeroskip.errors import InputError
from zeroskip.files import checked_target
from zeroskip.graph import Graph, bind, load, save, simplify
from zeroskip.images import ImageSet, open_images
from zeroskip.preprocess import METADATA_KEY, Preprocess
from zeroskip.report.before_after import Side, before_after_payload, before_after_table
from zeroskip.report.layers import layer_rows, totals

_PRUNING = "Pruning"

Output = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="ONNX file to write.")]
Sparsity = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Prune: this share of weights becomes zero, e.g. 0.9. Without it all weights stay as they are.",
        rich_help_panel=_PRUNING,
        show_default=False,
    ),
]
Criterion = Annotated[
    str, typer.Option(metavar="NAME", help="What makes a weight important.", rich_help_panel=_PRUNING)
]
Scope = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="uniform: the same share in each layer; global: one bound.",
        rich_help_panel=_PRUNING,
    ),
]
Block = Annotated[
    int, typer.Option(metavar="N", help="1, 2, 4 or 8 output channels go together.", rich_help_panel=_PRUNING)
]
Calibrate = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Pictures to fit the remaining weights on; they take no part in the accuracy shown.",
        rich_help_panel=_PRUNING,
    ),
]
Refine = Annotated[
    bool,
    typer.Option(
        "--refine/--no-refine",
        help="With calibration, look for better masks than the criterion's: slower, more accurate.",
        rich_help_panel=_PRUNING,
    ),
]
SparseFile = Annotated[bool, typer.Option("--sparse/--dense", help="Store only the non-zero weights in OUT.")]


def run(
    model: Model,
    output: Output,
    sparsity: Sparsity = None,
    criterion: Criterion = "magnitude",
    scope: Scope = "uniform",
    block: Block = 1,
    calibrate: Calibrate = 64,
    refine: Refine = True,
    sparse: SparseFile = True,
    tune: Tune = True,
    threads: Threads = 1,
    shape: InputShape = None,
    seconds: Annotated[
        float, typer.Option(min=0.01, metavar="S", help="Time to spend on each latency.")
    ] = 2.0,
    images: Images = None,
    limit: Limit = None,
    preprocess: Preprocessing = None,
) -> Result:
    """Prune, store sparse, tune; show before and after.

    Weights are pruned only where --sparsity is given; without it OUT gives the same answers. With --images,
    the weights that stay are fitted on some of the pictures, and accuracy is shown on the others.
    """
    from zeroskip.evaluation import preprocess_of

    graph = load(model)
    if checked_target(output) == model.resolve():
        raise InputError(f"{output} is the model itself; give another file, so that both can be compared")
    steps: Preprocess | None = None
    fit: ImageSet | None = None
    test: ImageSet | None = None
    if images is not None:
        steps = preprocess_of(graph, **preprocess_options(preprocess))
        fit, test = _divided(open_images(images).take(limit), calibrate if sparsity else 0)
        graph = graph.with_(metadata={**graph.metadata, METADATA_KEY: steps.to_json()})
    example = input_arrays(graph, shape, 1, images, preprocess_options(preprocess))
    optimized, report = simplify(graph), None
    if sparsity is not None:
        from zeroskip.compress import prune

        arrays = _calibration(graph, shape, steps, fit)
        with progress("pruning") as bar:
            optimized, report = prune(
                optimized,
                criterion,
                sparsity,
                scope=scope,
                block=block,
                calibration=arrays,
                refine=refine and arrays is not None,
                progress=lambda done, total, _: bar(done, total),
            )
    save(optimized, output, sparse=sparse)
    with pinned(threads):
        sides = _measured((model, output), example, threads, seconds, tune)
    if test is not None and test.labels is not None:
        sides = [
            _with_accuracy(s, p, test, steps, threads) for s, p in zip(sides, (model, output), strict=True)
        ]
    before, after = sides
    payload: dict[str, Any] = {"model": model.name, "output": str(output), "threads": threads}
    payload |= before_after_payload(before, after)
    payload |= {
        "pruning": report.to_dict() if report else None,
        "pictures": {"calibration": len(fit or ()), "accuracy": len(test or ())},
    }
    title = f"{model.name} → {output.name}"
    return Result(payload, (before_after_table(before, after, title), _note(fit, test, sparsity)))


def _divided(pictures: ImageSet, count: int) -> tuple[ImageSet | None, ImageSet]:
    if not count:
        return None, pictures
    if count >= len(pictures):
        raise InputError(
            f"--calibrate {count}: {pictures.path} has {len(pictures)} pictures in use; some must "
            "stay for the accuracy, so ask for fewer"
        )
    return pictures.split(count)


def _calibration(
    graph: Graph, shape: list[str] | None, steps: Preprocess | None, fit: ImageSet | None
) -> np.ndarray[Any, Any] | None:
    from zeroskip.evaluation import input_size

    if fit is None or steps is None:
        return None
    sizes = input_shapes(graph, shape, steps.size)[graph.inputs[0]]
    return np.concatenate(list(fit.batches(steps, input_size(sizes, steps))))


def _measured(
    files: tuple[Path, Path], example: np.ndarray[Any, Any], threads: int, seconds: float, tune: bool
) -> list[Side]:
    """Both files in zeroskip, and in onnxruntime where it is installed, taking turns."""
    from zeroskip.cli.sessions import open_session

    contenders: dict[str, Callable[[], object]] = {}
    sides = []
    for path in files:
        graph = load(path)
        name = graph.inputs[0]
        session = open_session(graph, threads=threads, tune=tune, example=example)
        contenders[f"zeroskip {path}"] = partial(session.run, None, {name: example})
        if not RIVALS[0].refuses(path):
            contenders[f"onnxruntime {path}"] = partial(RIVALS[0].open(path, example, threads), example)
        total = totals(layer_rows(simplify(bind(graph, {name: example.shape}))))
        memory = session.plan.memory_bytes
        size = path.stat().st_size
        sides.append(Side(0.0, size, memory, total["weights"], total["nonzero"], total["effectual_macs"]))
    with progress("measuring") as bar:
        times = measure(contenders, seconds=seconds, progress=bar)
    return [
        replace(
            side,
            latency_ms=times[f"zeroskip {path}"].median_ms,
            onnxruntime_ms=times[key].median_ms if (key := f"onnxruntime {path}") in times else None,
        )
        for side, path in zip(sides, files, strict=True)
    ]


def _with_accuracy(side: Side, path: Path, test: ImageSet, steps: Preprocess | None, threads: int) -> Side:
    from zeroskip.cli.sessions import open_session
    from zeroskip.evaluation import evaluate

    session = open_session(load(path), threads=threads)
    with progress(f"evaluating {path.name}") as bar:
        found = evaluate(session, test, preprocess=steps, progress=bar)
    return replace(side, top1=found.top1, top5=found.top5)


def _note(fit: ImageSet | None, test: ImageSet | None, sparsity: float | None) -> str:
    if test is None:
        hint = "; with --images what stays is fitted" if sparsity else ""
        return f"No pictures given, so no accuracy{hint}."
    fitted = f"{len(fit)} pictures fitted the remaining weights; " if fit else ""
    return f"{fitted}accuracy is on {len(test)} others." if fit else f"Accuracy is on {len(test)} pictures."
