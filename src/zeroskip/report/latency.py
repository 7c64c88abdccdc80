"""Latency of several runtimes, as a table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from zeroskip.bench import Benchmark, Contender
from zeroskip.report.tables import table
from zeroskip.report.units import milliseconds, times


def latency_table(found: Benchmark) -> RenderableType:
    """One row for each runtime that has a time; below, why the others have none."""
    shape = "x".join(map(str, found.shape))
    cores = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
    title = f"{found.model}, input {shape}, {cores}"
    columns = ("runtime", "version", "median", "10-90 %", "runs", "zeroskip is", "difference")
    rows = [_row(found, c) for c in found.contenders if c.latency]
    notes = [f"{c.name}: {c.reason}" for c in found.contenders if c.reason and c.version]
    if absent := [c.name for c in found.contenders if not c.version]:
        notes.append(f"Not installed: {', '.join(absent)}.")
    end = (
        f"{found.cpu}. Differences: largest, as a share of the largest output, from {found.reference}; "
        f"up to {found.tolerance:.0e} is rounding."
    )
    lines = "\n".join([*notes, end])
    return Group(table(columns, rows, title=title, left=2), "", Text(lines, style="dim"))


def _row(found: Benchmark, contender: Contender) -> tuple[str, ...]:
    assert contender.latency is not None, "rows are for contenders with a time"
    latency = contender.latency
    ratio = found.speedup(contender.name)
    verdict = "" if ratio is None or contender is found.contenders[0] else _verdict(ratio)
    gap = f"{contender.difference:.0e}" if contender.difference else "none"
    if contender.name == found.reference:
        gap = "reference"
    spread = f"{milliseconds(latency.low_ms)[:-3]}-{milliseconds(latency.high_ms)[:-3]}"
    return (
        contender.name,
        contender.version,
        milliseconds(latency.median_ms),
        spread,
        str(latency.runs),
        verdict,
        gap,
    )


def _verdict(ratio: float) -> str:
    """A median is good to about one per cent; closer than that is a draw."""
    if 0.99 < ratio < 1.01:
        return "as fast"
    return f"{times(ratio)} faster" if ratio > 1 else f"{times(1 / ratio)} slower"
