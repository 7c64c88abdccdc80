"""The convolution algorithms by name. A new one is a file of its own and a row here."""

from __future__ import annotations

from difflib import get_close_matches

from zeroskip.conv import (
    activation_sparse,
    block_sparse,
    channel_direct,
    cpo,
    cps,
    cscc,
    depthwise,
    direct,
    dual_sparse,
    fft,
    im2col,
    indirect,
    mec,
    sparse_direct,
    winograd,
)
from zeroskip.conv.algorithm import Algorithm
from zeroskip.errors import AlgorithmError

ALGORITHMS: dict[str, Algorithm] = {
    module.ALGORITHM.name: module.ALGORITHM
    for module in (
        direct,
        channel_direct,
        depthwise,
        im2col,
        indirect,
        mec,
        winograd,
        fft,
        sparse_direct,
        block_sparse,
        cscc,
        cpo,
        cps,
        activation_sparse,
        dual_sparse,
    )
}


def algorithms() -> dict[str, str]:
    """Name to description of every convolution algorithm."""
    return {name: algorithm.description for name, algorithm in ALGORITHMS.items()}


def find(name: str) -> Algorithm:
    """The algorithm called `name`; `AlgorithmError` suggests the nearest where there is none."""
    if isinstance(name, str) and name in ALGORITHMS:
        return ALGORITHMS[name]
    close = get_close_matches(str(name), ALGORITHMS, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise AlgorithmError(
        f"no convolution algorithm is called {name!r}{hint} Known: auto, {', '.join(ALGORITHMS)}."
    )
