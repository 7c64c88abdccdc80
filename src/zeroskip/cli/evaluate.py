"""``zeroskip evaluate``: top-1 and top-5 on labelled pictures."""

from __future__ import annotations

import time

from zeroskip.cli.common import Result, progress
from zeroskip.cli.options import (
    Algorithm,
    Batch,
    Limit,
    Model,
    NeededImages,
    Preprocessing,
    Threads,
    preprocess_options,
)
from zeroskip.report.tables import facts
from zeroskip.report.units import percent


def run(
    model: Model,
    images: NeededImages,
    limit: Limit = None,
    preprocess: Preprocessing = None,
    batch: Batch = 1,
    threads: Threads = 1,
    algorithm: Algorithm = "auto",
) -> Result:
    """Top-1 and top-5 on labelled pictures."""
    from zeroskip.cli.sessions import open_session
    from zeroskip.evaluation import evaluate, preprocess_of
    from zeroskip.graph import load

    graph = load(model)
    steps = preprocess_of(graph, **preprocess_options(preprocess))
    session = open_session(graph, threads=threads, algorithm=algorithm)
    start = time.perf_counter()
    with progress("evaluating") as bar:
        found = evaluate(session, images, preprocess=steps, batch=batch, limit=limit, progress=bar)
    seconds = time.perf_counter() - start
    payload = {"model": model.name, "images_from": str(images), **found.to_dict(), "seconds": seconds}
    rows = [
        ("pictures", f"{found.count} of {images}"),
        ("top-1", f"{percent(found.top1)}  ({round(found.top1 * found.count)} right)"),
        ("top-5", f"{percent(found.top5)}  ({round(found.top5 * found.count)} right)"),
        ("speed", f"{found.count / seconds:.0f} pictures per second, reading included"),
    ]
    return Result(payload, (facts(model.name, rows),))
