"""Turn the results into pages: the README's table, docs/results, the numbers in docs/performance.md.

    python benchmarks/render.py            # writes them, and the plots
    python benchmarks/render.py --check    # status 1 where one is not what the results say

A page holds blocks between ``<!-- NAME -->`` and ``<!-- /NAME -->``; `BLOCKS` says what goes into each.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import algorithm_tables
import must_tables
import results
import roofline
import selection_tables
from pages import Result, markdown, median, named, provenance, speedup
from zeroskip.report.units import milliseconds, percent, size

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "docs/algorithms.md",
    "docs/performance.md",
    "docs/results/algorithms.md",
    "docs/results/selection.md",
    "docs/results/speed.md",
)
MISSING = "Not measured yet.\n"


def rivals_block(found: Result) -> str:
    """Every comparison; the rivals that are not here, by name."""
    rows = found["comparisons"]
    names = list(dict.fromkeys(name for row in rows for name in row["contenders"]))
    timed = [n for n in names if any("median_ms" in row["contenders"].get(n, {}) for row in rows)]
    body = [
        (
            named(row),
            str(row["shape"][0]),
            str(row["threads"]),
            *(median(row, name) for name in timed),
            *(speedup(row, name) for name in timed if name != "zeroskip"),
        )
        for row in rows
    ]
    columns = ("network", "batch", "threads", *timed, *(f"than {n}" for n in timed if n != "zeroskip"))
    reasons = {
        f"{name}: {row['contenders'][name]['reason']}"
        for row in rows
        for name in names
        if "reason" in row["contenders"].get(name, {})
    }
    notes = "".join(f"- {reason}\n" for reason in sorted(reasons))
    return f"{provenance(found)}\n\n{markdown(columns, body)}\n" + (
        f"\nWithout a time:\n\n{notes}" if notes else ""
    )


def layers_block(found: Result) -> str:
    """Each network's layers, grouped by kernel, and its slowest layers."""
    parts = [provenance(found)]
    for net in found["networks"]:
        total = net["total"]
        parts.append(
            f"### {net['model']}, batch {net['shape'][0]}\n\n"
            f"{total['microseconds'] / 1e3:.2f} ms in steps, {total['gflops']:.0f} GFLOP/s of useful work, "
            f"{percent(total['share_of_limit'])} of the limit ({net['peak_gflops']:.0f} GFLOP/s; "
            f"{net['read_gbs']:.0f} GB/s, reading {size(net['plan_bytes'])}).\n\n"
            f"![Roofline of {net['model']}]({_plot_name(net)})\n\n"
            + markdown(("kernel", "steps", "time", "share", "GFLOP/s", "of limit"), _by_kernel(net))
            + "\n\n"
            + markdown(("slowest layers", "kernel", "time", "GFLOP/s", "of limit"), _slowest(net))
        )
    return "\n\n".join(parts) + "\n"


def _plot_name(net: Result) -> str:
    return f"roofline-{net['model']}.svg"


def plots() -> dict[str, str]:
    """The plots by their paths from the root: rooflines of networks, curves of algorithms."""
    networks = (results.read("layers") or {}).get("networks", [])
    drawn = {_plot_name(net): roofline.plot(net) for net in networks}
    sweep = results.read("algorithms")
    drawn |= algorithm_tables.plots(sweep) if sweep else {}
    return {f"docs/results/{name}": text for name, text in drawn.items()}


def _by_kernel(net: Result) -> list[tuple[str, ...]]:
    kernels: dict[str, list[Result]] = {}
    for step in net["steps"]:
        kernels.setdefault((step["kernel"].split() or ["copy"])[0], []).append(step)
    sums = {name: _sum(steps) for name, steps in kernels.items()}
    rows = []
    for name, (micro, macs, limit) in sorted(sums.items(), key=lambda item: -item[1][0]):
        share = percent(micro / net["total"]["microseconds"])
        speed = f"{2e-3 * macs / micro:.0f}" if macs else ""
        ms = milliseconds(micro / 1e3)
        rows.append((name, str(len(kernels[name])), ms, share, speed, percent(limit / micro)))
    return rows


def _sum(steps: list[Result]) -> tuple[float, int, float]:
    """Microseconds, multiply-adds with non-zero weights, microseconds at the limit."""
    micro = sum(s["microseconds"] for s in steps)
    limit = sum(s["microseconds"] * s["share_of_limit"] for s in steps)
    return micro, sum(s["effectual_macs"] for s in steps), limit


def _slowest(net: Result, shown: int = 8) -> list[tuple[str, ...]]:
    steps = sorted(net["steps"], key=lambda s: -s["microseconds"])[:shown]
    return [
        (
            s["layer"] or f"{s['op']} {s['name']}",
            s["kernel"],
            milliseconds(s["microseconds"] / 1e3),
            f"{s['gflops']:.0f}" if s["effectual_macs"] else "",
            percent(s["share_of_limit"]),
        )
        for s in steps
    ]


_PLACES = {"aligned": "on cache lines", "shifted": "across two"}


def limits_block(found: Result) -> str:
    """What one core can do at most."""
    limits = found["limits"]
    clock, peak = limits["clock_ghz"], limits["fma_gflops"]
    lanes = found["machine"]["vector_bits"] // 32
    rows = [
        ("clock", f"{clock:.2f} GHz", ""),
        ("multiply-adds", f"{peak:.0f} GFLOP/s", f"{peak / clock / 2 / lanes:.2f} vectors per cycle"),
    ]
    for entry in limits["read"]:
        for kind in _PLACES:
            gbs = entry[f"{kind}_gbs"]
            what = f"reading {entry['bytes'] >> 10} KiB, vectors {_PLACES[kind]}"
            rows.append((what, f"{gbs:.0f} GB/s", f"{gbs / clock:.0f} bytes per cycle"))
    return markdown(("one core, measured", "", ""), rows) + "\n\n" + provenance(found) + "\n"


BLOCKS: dict[str, tuple[str, Callable[[Result], str]]] = {
    "results": ("must", must_tables.before_and_after),
    "must": ("must", must_tables.floors),
    "rivals": ("rivals", rivals_block),
    "layers": ("layers", layers_block),
    "limits": ("layers", limits_block),
    "claims": ("algorithms", algorithm_tables.claims),
    "inception": ("algorithms", algorithm_tables.inception),
    "seventy": ("algorithms", algorithm_tables.seventy),
    "park": ("algorithms", algorithm_tables.park),
    "crossovers": ("algorithms", algorithm_tables.crossovers),
    "selection": ("selection", selection_tables.selection),
    "winners": ("selection", selection_tables.winners),
    "lowering": ("lowering", selection_tables.lowering),
}
"""A block's name: the result file it shows, and how."""


def rendered(text: str) -> str:
    """A page with each of its blocks filled from the results."""
    for name, (source, show) in BLOCKS.items():
        found = results.read(source)
        body = show(found) if found else MISSING
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda m, body=body: m[1] + body + m[2],
            text,
            flags=re.DOTALL,
        )
    return text


def _present(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main() -> int:
    """Write the pages, or say which are stale."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where a page is stale")
    check = parser.parse_args().check
    wanted = {page: rendered((ROOT / page).read_text(encoding="utf-8")) for page in PAGES} | plots()
    stale = [name for name, text in wanted.items() if _present(ROOT / name) != text]
    for name in () if check else stale:
        (ROOT / name).write_text(wanted[name], encoding="utf-8")
    if stale:
        print(f"{'stale' if check else 'written'}: {', '.join(stale)}")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
