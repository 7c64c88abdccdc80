"""What tests of comparisons share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from zeroskip.bench import Benchmark, benchmark
from zeroskip.graph import evaluate, load


@pytest.fixture
def compared(colour_model: Path) -> Callable[..., Benchmark]:
    """Times the colour model beside rivals, for a moment: takes inputs, and `benchmark`'s options."""
    graph = load(colour_model)

    def ours(x: object) -> object:
        return evaluate(graph, {"input": x})[0]

    def run(inputs: object, **options: object) -> Benchmark:
        return benchmark(colour_model, graph, inputs, lambda: ours, seconds=0.01, **options)

    return run
