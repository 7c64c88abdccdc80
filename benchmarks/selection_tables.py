"""The tables of docs/results/selection.md, from results/selection.json and results/lowering.json."""

from __future__ import annotations

from collections import Counter

from pages import Result, markdown, provenance
from zeroskip.report.units import milliseconds, percent, size, times

LEAST_ZEROS = 0.1
"""With fewer zeros than this share nothing is skipped: a sparse kernel was just the fastest dense one."""


def selection(found: Result) -> str:
    """Each network: the selector beside every algorithm that was preferred on all layers."""
    names = list(dict.fromkeys(name for net in found["networks"] for name in net["contenders"]))
    singles = [name for name in names if name != "auto"]
    rows = [
        (
            f"`{net['network']}`",
            _median(net, "auto"),
            net["best_single"],
            _median(net, net["best_single"]),
            times(1 / net["ratio"]),
            times(net["contenders"]["im2col"]["median_ms"] / net["contenders"]["auto"]["median_ms"]),
            *(size(net["contenders"][name]["lowered_bytes"]) for name in ("im2col", "auto")),
            times(net["contenders"]["im2col"]["peak_bytes"] / net["contenders"]["auto"]["peak_bytes"]),
        )
        for net in found["networks"]
    ]
    columns = (
        "network", "selector", "best single", "its time", "faster than it", "than im2col",
        "lowered by im2col", "by the selection", "less peak memory",
    )  # fmt: skip
    all_times = [
        (f"`{net['network']}`", *(_median(net, name) for name in ("auto", *singles)))
        for net in found["networks"]
    ]
    parts = [
        provenance(found),
        markdown(columns, rows),
        "Every algorithm, preferred on all layers that it accepts:",
        markdown(("network", "selector", *singles), all_times),
    ]
    return "\n\n".join(parts) + "\n"


def _median(net: Result, name: str) -> str:
    latency = net["contenders"].get(name, {})
    return milliseconds(latency["median_ms"]) if "median_ms" in latency else "-"


def winners(found: Result) -> str:
    """Which algorithm won on how many layers; how often zero activations were worth skipping; each layer."""
    names = list(dict.fromkeys(row["algorithm"] for net in found["networks"] for row in net["layers"]))
    rows = []
    for net in found["networks"]:
        won = Counter(row["algorithm"] for row in net["layers"])
        wide = [row for row in net["layers"] if not row["pointwise"]]
        shares = [
            sum(row["skips"] in (kind, "both") and row[zeros] >= LEAST_ZEROS for row in wide) / len(wide)
            for kind, zeros in (("activations", "input_zeros"), ("weights", "weight_zeros"))
        ]
        cells = (str(won[name]) if won[name] else "" for name in names)
        rows.append((f"`{net['network']}`", str(len(net["layers"])), *cells, *map(percent, shares)))
    heads = ("layers won", "of", *names, "skip activations (not 1x1)", "skip weights (not 1x1)")
    parts = [markdown(heads, rows)]
    for net in found["networks"]:
        parts.append(f"### {net['network']}")
        parts.append(markdown(HEADS, map(_layer, net["layers"])))
    return "\n\n".join(parts) + "\n"


HEADS = ("layer", "zero inputs", "chosen", "time", "runner-up", "im2col")


def _layer(row: Result) -> tuple[str, ...]:
    micro = {name: t for name, t in row["microseconds"].items() if name != "auto"}
    own = row["microseconds"]["auto"]
    others = {name: t for name, t in micro.items() if name != row["algorithm"]}
    second = min(others, key=others.__getitem__, default=None)
    return (
        row["layer"],
        "-" if row["input_zeros"] is None else percent(row["input_zeros"]),
        f"{row['algorithm']} {row['variant']}",
        f"{own:.0f} us",
        f"{second}, {times(others[second] / own)}" if second else "-",
        times(micro["im2col"] / own) if "im2col" in micro else "-",
    )


def lowering(found: Result) -> str:
    """`mec` and `im2col` beside the rivals."""
    names = list(dict.fromkeys(name for row in found["layers"] for name in row["contenders"]))
    ours = list(found["layers"][0]["ratios"])
    rows = [
        (
            f"{row['name']}: {row['layer']}",
            *(_time(row["contenders"].get(name, {})) for name in names),
            *(times(row["ratios"][name]) if name in row["ratios"] else "-" for name in ours),
            "reached" if row["met"] else "**missed**",
        )
        for row in found["layers"]
    ]
    heads = (f"{name} / better rival" for name in ours)
    floor = f"mec, im2col at most {times(found['layers'][0]['floor'])}"
    return f"{provenance(found)}\n\n{markdown(('layer', *names, *heads, floor), rows)}\n"


def _time(contender: Result) -> str:
    if "median_ms" not in contender:
        return contender.get("reason", "-")
    alone = f" ({contender['kernel_us'] / 1e3:.3f})" if "kernel_us" in contender else ""
    return milliseconds(contender["median_ms"]) + alone
