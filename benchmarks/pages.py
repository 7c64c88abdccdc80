"""What every rendered page uses: tables in Markdown, and where a result comes from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

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
