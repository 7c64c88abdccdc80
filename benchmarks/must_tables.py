"""The README's table and that of every floor, from results/must.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pages import Result, markdown, median, named, provenance, speedup
from zeroskip.report.units import count, milliseconds, percent, size, times

OPENING = {
    "cold": "empty cache",
    "warm": "kernels cached",
    "tuned": "tuned before",
    "import": "import alone",
    "tuning": "tuning it",
}


def before_and_after(must: Result) -> str:
    """The README's table: each network's zeros, times, ratio; one picture at a time."""
    rows = [
        (f"`{e['network']}`", _zeros(e), median(e, "onnxruntime"), median(e, "zeroskip"), speedup(e))
        for e in must["speed"]
        if e["shape"][0] == 1 and "target" not in e
    ]
    rival = must["versions"].get("onnxruntime", "")
    columns = ("network", "zero weights", f"onnxruntime {rival}", "zeroskip", "faster")
    notes = (
        "One thread, one picture, medians in one run, answers compared first. `.s90` and `.dense` networks "
        f"have random weights; the others are trained. {_threads_sentence(must)}{_opening_sentence(must)}"
        f"[All of it](docs/results/speed.md), on {must['machine']['cpu']}, {must['date']}."
    )
    return f"{markdown(columns, rows)}\n\n{notes}\n"


def _threads_sentence(must: Result) -> str:
    ratios = [f"{times(e['ratio'])} on `{e['network']}`" for e in must["threads"] if "ratio" in e]
    return f"Two threads: {', '.join(ratios)}. " if ratios else ""


def _opening_sentence(must: Result) -> str:
    said = [
        f"`{e['network']}` opens in {e['cold']:.2f} s with an empty cache, in {e['warm']:.2f} s later. "
        for e in must["opening"]
    ]
    return "".join(said)


def floors(must: Result) -> str:
    """Every floor and what was reached."""
    sections: dict[str, Callable[[Sequence[Result]], str]] = {
        "speed": _speed,
        "sparsity": _sparsity,
        "threads": _threads,
        "callers": _callers,
        "memory": _memory,
        "opening": _opening,
        "overhead": _overhead,
    }
    parts = [show(must[name]) for name, show in sections.items() if must[name]]
    return "\n\n".join([provenance(must), *parts]) + "\n"


def _speed(entries: Sequence[Result]) -> str:
    rows = [
        (
            named(e),
            str(e["shape"][0]),
            count(e["dense_macs"]),
            count(e["effectual_macs"]),
            median(e, "onnxruntime"),
            median(e, "zeroskip"),
            _spread(e["contenders"]["zeroskip"]),
            speedup(e),
            times(e["floor"]),
            _met(e),
        )
        for e in entries
    ]
    columns = (
        "network", "batch", "MACs", "with non-zero weight", "onnxruntime", "zeroskip", "10-90 %", "ratio",
        "floor", "",
    )  # fmt: skip
    return markdown(columns, rows)


def _sparsity(entries: Sequence[Result]) -> str:
    return _ratios(entries, ("other zeros, or in blocks", "than", "ratio", "floor", ""), _compared)


def _compared(e: Result) -> tuple[str, ...]:
    return (f"`{e['other']}`",)


def _threads(entries: Sequence[Result]) -> str:
    return _ratios(entries, ("two threads", "one thread", "two", "ratio", "floor", ""), _times)


def _times(e: Result) -> tuple[str, ...]:
    return tuple(milliseconds(e["times"][n]["median_ms"]) for n in ("1", "2"))


def _callers(entries: Sequence[Result]) -> str:
    columns = ("two callers of one session", "calls a second by one", "by two", "ratio", "floor", "")
    return _ratios(entries, columns, lambda e: tuple(f"{e['calls_per_second'][n]:.1f}" for n in ("1", "2")))


def _ratios(
    entries: Sequence[Result], columns: Sequence[str], cells: Callable[[Result], tuple[str, ...]]
) -> str:
    rows = [
        (f"`{e['network']}`", *cells(e), times(e["ratio"]), times(e["floor"]), _met(e))
        for e in entries
        if "ratio" in e
    ]
    return markdown(columns, rows)


def _memory(entries: Sequence[Result]) -> str:
    rows = [
        (
            f"`{e['network']}`",
            *(size(e["zeroskip"][key]) for key in ("reported", "gained", "peak_gained")),
            size(e["onnxruntime"]["peak_gained"]),
            percent(e["ratio"]),
            percent(e["floor"]),
            _met(e),
        )
        for e in entries
    ]
    columns = (
        "memory of a session", "plan", "gained", "at its peak", "onnxruntime's peak", "share", "at most", "",
    )  # fmt: skip
    return markdown(columns, rows)


def _opening(entries: Sequence[Result]) -> str:
    rows = [(f"`{e['network']}`", *(f"{e[key]:.2f} s" for key in OPENING), _met(e)) for e in entries]
    most = [
        ("at most", *(f"{e['floors'][k]:.1f} s" if k in e["floors"] else "" for k in OPENING), "")
        for e in entries
    ]
    return markdown(("opening a session", *OPENING.values(), ""), rows + most[:1])


def _overhead(entries: Sequence[Result]) -> str:
    rows = [("`run`", f"{e['microseconds']:.1f} µs", f"{e['floor']:.0f} µs", _met(e)) for e in entries]
    return markdown(("an empty network", "takes", "at most", ""), rows)


def _zeros(entry: Result) -> str:
    return percent(1 - entry["nonzero"] / entry["weights"]) if entry["nonzero"] < entry["weights"] else "none"


def _spread(latency: Result) -> str:
    if "low_ms" not in latency:
        return "-"
    return f"{milliseconds(latency['low_ms'])[:-3]}-{milliseconds(latency['high_ms'])[:-3]}"


def _met(entry: Result) -> str:
    return "reached" if entry["met"] else "**missed**"
