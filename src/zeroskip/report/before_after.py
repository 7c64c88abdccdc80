"""A network before and after: one table, one JSON object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from zeroskip.report.tables import table
from zeroskip.report.units import count, milliseconds, percent, size, times


@dataclass(frozen=True)
class Side:
    """What is measured of one network; None where it was not.

    Attributes:
        top1, top5: shares of labelled pictures, 0 to 1.
        latency_ms: median of one call of zeroskip.
        onnxruntime_ms: median of one call of onnxruntime on the same file.
        file_bytes: of the ONNX file.
        memory_bytes: weights as the session holds them, and its activations at their peak.
        weights, nonzero: learned numbers, biases aside, and how many are not zero.
        effectual_macs: multiply-accumulates whose weight is not zero.
    """

    latency_ms: float
    file_bytes: int
    memory_bytes: int
    weights: int
    nonzero: int
    effectual_macs: int
    onnxruntime_ms: float | None = None
    top1: float | None = None
    top5: float | None = None

    @property
    def zeros(self) -> float:
        """Share of zero weights."""
        return 1 - self.nonzero / self.weights if self.weights else 0.0


@dataclass(frozen=True)
class _Line:
    """A row: its name, the attribute of `Side`, how it prints, how its change prints."""

    name: str
    key: str
    show: Callable[[float], str]
    change: Callable[[float, float], str]


def _points(before: float, after: float) -> str:
    return f"{100 * (after - before):+.1f} points"


def _ratio(less: str, more: str) -> Callable[[float, float], str]:
    """How a figure that should shrink did: ``2.00x faster``, ``1.10x slower``."""

    def change(before: float, after: float) -> str:
        if not before or not after:
            return ""
        if 0.99 < before / after < 1.01:
            return "same"
        return f"{times(before / after)} {less}" if after < before else f"{times(after / before)} {more}"

    return change


_LINES = (
    _Line("top-1", "top1", percent, _points),
    _Line("top-5", "top5", percent, _points),
    _Line("latency, zeroskip", "latency_ms", milliseconds, _ratio("faster", "slower")),
    _Line("latency, onnxruntime", "onnxruntime_ms", milliseconds, _ratio("faster", "slower")),
    _Line("file", "file_bytes", size, _ratio("smaller", "larger")),
    _Line("memory to run", "memory_bytes", size, _ratio("smaller", "larger")),
    _Line("zero weights", "zeros", percent, _points),
    _Line("non-zero weights", "nonzero", count, _ratio("fewer", "more")),
    _Line("MACs with them", "effectual_macs", count, _ratio("fewer", "more")),
)


def before_after_table(before: Side, after: Side, title: str) -> Table:
    """One row for each figure that both sides have."""
    rows = []
    for line in _LINES:
        old, new = getattr(before, line.key), getattr(after, line.key)
        if old is not None and new is not None:
            rows.append((line.name, line.show(old), line.show(new), line.change(old, new)))
    return table(("", "before", "after", "change"), rows, title=title)


def before_after_payload(before: Side, after: Side) -> dict[str, Any]:
    """Both sides as JSON has them."""
    return {"before": asdict(before), "after": asdict(after), "speedup": before.latency_ms / after.latency_ms}
