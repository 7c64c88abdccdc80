"""Sessions as the command line asks for them; the only place here that needs LLVM, so it is imported late."""

from __future__ import annotations

from typing import Any

import numpy as np

from zeroskip.cli.common import progress
from zeroskip.engine import InferenceSession, SessionOptions
from zeroskip.graph import Graph


def open_session(
    graph: Graph,
    *,
    threads: int = 1,
    algorithm: str = "auto",
    target: str = "host",
    tune: bool = False,
    example: np.ndarray[Any, Any] | None = None,
) -> InferenceSession:
    """A session; with `example`, an input of the only shape that matters, prepared and tuned for just that.

    A bar on the terminal shows the tuning.
    """
    with progress("tuning") as bar:
        options = SessionOptions(
            threads=threads,
            algorithm=algorithm,
            target=target,
            tune=tune,
            calibration=None if example is None else {graph.inputs[0]: example},
            progress=lambda done, total, _: bar(done, total),
        )
        return InferenceSession(graph, options)
