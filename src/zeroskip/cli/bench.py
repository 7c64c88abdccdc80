"""``zeroskip bench``: latency against the runtimes installed here, with answers compared."""

from __future__ import annotations

from typing import Annotated

import typer

from zeroskip.cli.common import Result, progress
from zeroskip.cli.inputs import input_arrays
from zeroskip.cli.options import (
    Algorithm,
    Batch,
    Images,
    InputShape,
    Model,
    Preprocessing,
    Target,
    Threads,
    Tune,
    preprocess_options,
)
from zeroskip.report.latency import latency_table
from zeroskip.report.profile import profile_table


def run(
    model: Model,
    batch: Batch = 1,
    threads: Threads = 1,
    shape: InputShape = None,
    seconds: Annotated[
        float, typer.Option(min=0.01, metavar="S", help="Time to spend on each runtime.")
    ] = 2.0,
    rival: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Compare with this runtime only; repeatable.", show_default=False),
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Another Python, which has this runtime; repeatable.",
            show_default=False,
        ),
    ] = None,
    algorithm: Algorithm = "auto",
    target: Target = "host",
    tune: Tune = True,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Time each layer of zeroskip alone, against the machine's limit."),
    ] = False,
    images: Images = None,
    preprocess: Preprocessing = None,
) -> Result:
    """Latency against other runtimes, answers compared.

    All runtimes installed here get the same inputs (random, unless --images is given) and threads; one whose
    answers differ gets no time. The process is pinned to as many processors as there are threads, the
    runtimes take turns, medians count.
    """
    from zeroskip.bench import benchmark, pinned
    from zeroskip.bench.elsewhere import pythons_of
    from zeroskip.bench.profile import profile as measure_profile
    from zeroskip.bench.rivals import Call
    from zeroskip.cli.sessions import open_session
    from zeroskip.engine import InferenceSession
    from zeroskip.graph import load

    graph = load(model)
    inputs = input_arrays(graph, shape, batch, images, preprocess_options(preprocess))

    def session() -> InferenceSession:
        return open_session(
            graph, threads=threads, algorithm=algorithm, target=target, tune=tune, example=inputs
        )

    def ours() -> Call:
        opened = session()
        return lambda x: opened.run(None, {graph.inputs[0]: x})[0]

    if profile:
        with pinned(threads), progress("measuring") as bar:
            times = measure_profile(session(), inputs, model=model.name, seconds=seconds, progress=bar)
        return Result(times.to_dict(), (profile_table(times),))
    with progress("measuring") as bar:
        found = benchmark(
            model,
            graph,
            inputs,
            ours,
            threads=threads,
            seconds=seconds,
            rivals=rival,
            pythons=pythons_of(python or ()),
            progress=bar,
        )
    return Result(found.to_dict(), (latency_table(found),))
