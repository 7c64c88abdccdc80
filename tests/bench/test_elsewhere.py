"""Rivals in a Python of their own: the same answers, their own times, and their troubles in words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zeroskip.bench import RIVALS, Benchmark
from zeroskip.bench.elsewhere import Elsewhere, pythons_of
from zeroskip.errors import InputError, ZeroskipError
from zeroskip.graph import evaluate, load

INPUTS = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)


@pytest.fixture
def other(colour_model: Path):  # type: ignore[no-untyped-def]
    """onnxruntime in another process."""
    opened = Elsewhere(sys.executable, RIVALS[0], colour_model, INPUTS, 1)
    yield opened
    opened.close()


def test_answers_and_turns(other: Elsewhere, colour_model: Path) -> None:
    expected = evaluate(load(colour_model), {"input": INPUTS})[0]
    assert other.version == RIVALS[0].version()
    for _ in range(2):
        np.testing.assert_allclose(other(INPUTS), expected, rtol=1e-4, atol=1e-5)
        times = other.turn(0.01, 1)
        assert len(times) >= 2 and all(0 < time < 1 for time in times)


def test_a_process_that_ends_is_named(other: Elsewhere) -> None:
    other._process.kill()
    with pytest.raises(ZeroskipError, match="ended with status -9"):
        other(INPUTS)


def test_troubles(colour_model: Path) -> None:
    with pytest.raises(InputError, match="cannot be run"):
        Elsewhere("/no/such/python", RIVALS[0], colour_model, INPUTS, 1)
    with pytest.raises(ZeroskipError, match=r"missing\.onnx"):
        Elsewhere(sys.executable, RIVALS[0], colour_model.with_name("missing.onnx"), INPUTS, 1)
    with pytest.raises(ZeroskipError, match=r"beside the model|not installed"):
        Elsewhere(sys.executable, RIVALS[-1], colour_model, INPUTS, 1)


def test_in_a_comparison(compared: Callable[..., Benchmark]) -> None:
    def untimed(**pythons: str) -> dict[str, str]:
        found = compared(INPUTS, rivals=["onnxruntime", "ncnn"], pythons=pythons)
        assert found.reference == ("onnxruntime" if pythons["onnxruntime"] == sys.executable else "numpy")
        return {c.name: c.reason for c in found.contenders if not c.latency}

    reasons = untimed(onnxruntime=sys.executable, ncnn=sys.executable)
    assert list(reasons) == ["ncnn"] and reasons["ncnn"].startswith("failed: ")
    assert "ended with status" in untimed(onnxruntime="/bin/true", ncnn=sys.executable)["onnxruntime"]
    with pytest.raises(InputError, match="known: onnxruntime"):
        compared(INPUTS, pythons={"fastnet": sys.executable})


def test_texts() -> None:
    assert pythons_of(["a=/x/y", "b=c=d"]) == {"a": "/x/y", "b": "c=d"}
    for wrong in ("a", "a=", "=b"):
        with pytest.raises(InputError, match="NAME=PATH"):
            pythons_of([wrong])


def test_rows_need_no_package() -> None:
    """The script imports the rows by their file, in a Python that has NumPy and nothing else of ours."""
    rows = Path(sys.modules["zeroskip.bench.rivals"].__file__ or "")
    assert "zeroskip" not in {
        line.split()[1] for line in rows.read_text().splitlines() if "import" in line[:6]
    }
    assert replace(RIVALS[0], module="no_such_module").version() == ""
