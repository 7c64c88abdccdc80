"""What every rendered page uses: tables in Markdown, and where a result comes from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from zeroskip.report.units import milliseconds, times

Result = dict[str, Any]


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers.

    >>> print(markdown(("a", "b"), [("x", "1")]))
    | a | b |
    |---|--:|
    | x | 1 |
    """
    lines = [columns, *rows]
    head, *body = ("| " + " | ".join(cells) + " |" for cells in lines)
    return "\n".join([head, "|---|" + "--:|" * (len(columns) - 1), *body])


def named(entry: Result) -> str:
    """A comparison's network, and what zeroskip was compiled for where that is not this machine."""
    return f"`{entry['network']}`" + (f" ({entry['target']})" if "target" in entry else "")


def median(entry: Result, name: str) -> str:
    """A runtime's time in a comparison."""
    found = entry["contenders"].get(name, {})
    return milliseconds(found["median_ms"]) if "median_ms" in found else "-"


def speedup(entry: Result, name: str = "onnxruntime") -> str:
    """How many times as fast as that runtime zeroskip is."""
    ratio = entry["contenders"].get(name, {}).get("speedup")
    return times(ratio) if ratio else "-"


def provenance(found: Result) -> str:
    """Where, when, with what and how a result was measured, in one paragraph."""
    machine, versions = found["machine"], dict(found["versions"])
    caches = ", ".join(f"{level} {size}" for level, size in machine["caches"].items())
    ours = versions.pop("zeroskip")
    others = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{machine['cpu']} ({machine['llvm_cpu']}, {machine['vector_bits']}-bit vectors, "
        f"{machine['processors']} processors; {caches}), {found['date']}. zeroskip {ours}; {others}. "
        f"`{found['command']}`"
    )
