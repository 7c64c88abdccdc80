"""Times are taken in turns, answers are compared first, and who cannot run says why."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from zeroskip.bench import RIVALS, Benchmark, Rival, difference, measure, pinned, tolerance
from zeroskip.errors import InputError
from zeroskip.graph import evaluate, load

INPUTS = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)


def test_turns_alternate_and_medians_hold() -> None:
    order: list[str] = []

    def sleeper(name: str, seconds: float) -> object:
        def call() -> None:
            order.append(name)
            time.sleep(seconds)

        return call

    found = measure({"slow": sleeper("slow", 0.004), "fast": sleeper("fast", 0.001)}, seconds=0.06, rounds=3)  # type: ignore[dict-item]
    changes = sum(a != b for a, b in pairwise(order))
    assert changes == 5
    assert found["slow"].median_ms > 2 * found["fast"].median_ms
    assert found["fast"].low_ms <= found["fast"].median_ms <= found["fast"].high_ms


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processor pinning here")
def test_pinning_holds_inside_only() -> None:
    before = os.sched_getaffinity(0)
    with pinned(1) as chosen:
        assert os.sched_getaffinity(0) == set(chosen or ()) == {min(before)}
    assert os.sched_getaffinity(0) == before
    for wrong in (0, len(before) + 1):
        with pytest.raises(InputError, match="processors"), pinned(wrong):
            pass


def test_differences() -> None:
    one = np.array([[1.0, -4.0]])
    assert difference(one, one) == 0
    assert difference(one + 1, one) == 0.25
    assert difference(one[:, :1], one) == math.inf
    assert difference(one * np.nan, one) == math.inf
    assert difference(np.zeros(2), np.zeros(2)) == 0


def test_the_tolerance_grows_with_depth_and_length(colour_model: Path, shared: Path) -> None:
    small, deep = load(colour_model), load(shared / "models" / "mobilenet_v1_1.0_224.onnx")
    assert tolerance(small) == pytest.approx(8 * 2.0**-23 * math.sqrt(27))
    assert tolerance(small) < tolerance(deep) < 1e-2


@pytest.fixture
def only_rival(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Rival]]:
    rivals: list[Rival] = []
    monkeypatch.setattr("zeroskip.bench.compare.RIVALS", rivals)
    yield rivals


def test_a_rival_with_other_answers_gets_no_time(
    colour_model: Path, compared: Callable[..., Benchmark], only_rival: list[Rival]
) -> None:
    graph = load(colour_model)
    honest = replace(RIVALS[0], open=lambda model, x, threads: lambda x: evaluate(graph, {"input": x})[0])
    only_rival += [
        replace(honest, name="wrong", open=lambda model, x, threads: lambda x: np.ones((1, 3), np.float32)),
        replace(honest, name="broken", open=lambda model, x, threads: 1 // 0),  # type: ignore[return-value]
        replace(honest, name="absent", module="no_such_module_anywhere", package="absent-package"),
        replace(honest, name="unconverted", beside=(".bin",)),
        replace(honest, name="good"),
    ]
    found = compared(INPUTS)
    reasons = {c.name: c.reason for c in found.contenders}
    assert "answers differ" in reasons["wrong"]
    assert reasons["broken"].startswith("failed: ")
    assert reasons["absent"] == "not installed (pip install absent-package)"
    assert reasons["unconverted"] == "needs colours.bin beside the model"
    assert [c.name for c in found.contenders if c.latency] == ["zeroskip", "good"]
    assert found.reference == "numpy"
    assert found.speedup("good") is not None
    assert found.speedup("wrong") is None


def test_onnxruntime_is_the_reference(compared: Callable[..., Benchmark]) -> None:
    found = compared(INPUTS, rivals=["onnxruntime"])
    assert found.reference == "onnxruntime"
    assert all(not c.reason for c in found.contenders)
    with pytest.raises(InputError, match="known: onnxruntime"):
        compared(INPUTS, rivals=["fastnet"])
