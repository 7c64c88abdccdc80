"""The tables of docs/algorithms.md and docs/results/algorithms.md, from results/algorithms.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import curves
from pages import Result, markdown, provenance
from series import Swept, at, layers
from shapes import FAMILIES
from zeroskip.conv.roofline import PUBLISHED
from zeroskip.report.units import percent, times

STRIPS = ("cpo", "cps")
PUBLISHED_RATIOS = {
    "3x3, 147": (7.620, 9.686),
    "3x3, 73": (6.932, 8.665),
    "5x5, 35": (16.140, 20.524),
    "3x3, 35": (11.075, 13.500),
    "3x3/2, 35": (2.619, 3.013),
    "1x7, 17": (20.588, 21.503),
    "7x1, 17": (16.297, 17.100),
    "3x3/2, 17": (5.869, 6.212),
    "3x3, 8": (25.242, 26.768),
    "1x3, 8": (5.719, 6.416),
}
"""Amer et al. 2021: im2col's words over CPO's and CPS's, as their log of one image has them (read)."""
CLAIMS = (("im2col", "up to 63 %", "up to 26x"), ("mec", "up to 28 %", "up to 9.2x"))
"""Against whom, time saved, and how many times less memory: the abstract of Amer et al. 2021."""
LOWEST, TYPICAL = 0.05, 0.2
SEVENTY = 0.3
TRANSFORMS = ("winograd", "fft")


def plot_names(family: str) -> dict[str, str]:
    """The files of a family's plots, by what they show."""
    return {kind: f"algorithms-{family}-{kind}.svg" for kind in ("many", "one", "memory")}


def plots(found: Result) -> dict[str, str]:
    """File name to SVG."""
    names = list(found["algorithms"])
    drawn = {}
    for family in FAMILIES:
        many, one = (layers(found, wanted, family) for wanted in (True, False))
        if many and one:
            files = plot_names(family)
            drawn[files["many"]] = curves.times(many, names)
            drawn[files["one"]] = curves.times(one, names)
            drawn[files["memory"]] = curves.memory(many, names)
    return drawn


def crossovers(found: Result) -> str:
    """Each family's plots, and the densities below which sparse algorithms beat the best dense one."""
    parts = []
    for family, title in FAMILIES.items():
        files = plot_names(family)
        parts.append(f"### {title}")
        for kind, many, words in (("many", True, "The layer's filters"), ("one", False, "One filter")):
            rows = layers(found, many, family)
            if not rows:
                continue
            parts.append(f"**{words}.** Time:")
            parts.append(f"![Time over density: {title}, {words.lower()}]({files[kind]})")
            parts.append(_crossover_table(rows, found))
        parts.append("Memory of the lowered or encoded input:")
        parts.append(f"![Memory over density: {title}]({files['memory']})")
    return "\n\n".join([provenance(found), *parts]) + "\n"


def _crossover_table(swept: Sequence[Swept], found: Result) -> str:
    known = {name for layer in swept for name in layer.sparse}
    sparse = [name for name in found["algorithms"] if name in known]
    rows = []
    for layer in swept:
        name, micro = layer.best_dense
        cells = [_density(layer.crossover(s)) for s in sparse]
        rows.append((f"{layer.entry['name']}: {layer.entry['layer']}", f"{name}, {micro:.0f} us", *cells))
    heads = (f"{s} ({_short(swept, s)})" for s in sparse)
    return markdown(("layer", "best dense", *heads), rows)


def _short(swept: Sequence[Swept], name: str) -> str:
    kind = next(layer.skips[name] for layer in swept if name in layer.skips)
    return {"weights": "w", "activations": "a", "both": "w and a"}[kind]


def _density(found: float | None) -> str:
    if found is None:
        return "-"
    return {0.0: "never", 1.0: "always"}.get(found, percent(found))


def inception(found: Result) -> str:
    """CPO and CPS at the densities that Inception-v3's activations have, many filters."""
    rows = []
    for layer in layers(found, True, "inception"):
        density = layer.entry["density"]
        if density is None:
            continue
        best = min(filter(None, (at(layer.sparse.get(name, []), density) for name in STRIPS)), default=None)
        im2col, mec = layer.dense["im2col"], layer.dense["mec"]
        ours = [_ratio(layer, name, density) for name in STRIPS]
        theirs = PUBLISHED_RATIOS[layer.entry["name"]]
        winner = min(_at_density(layer, density).items(), key=lambda item: item[1])
        rows.append(
            (
                layer.entry["name"],
                percent(density),
                f"{im2col:.0f} us",
                f"{mec:.0f} us",
                f"{best:.0f} us" if best else "too slow",
                *((_saved(best, im2col), _saved(best, mec)) if best else ("-", "-")),
                *(f"{mine:.2f} ({published:.2f})" for mine, published in zip(ours, theirs, strict=True)),
                f"{winner[0]}, {winner[1]:.0f} us",
            )
        )
    columns = (
        "layer", "non-zero activations", "im2col", "mec", "CPO or CPS", "saved against im2col", "against mec",
        "CR of CPO (theirs)", "of CPS (theirs)", "fastest with these activations",
    )  # fmt: skip
    return markdown(columns, rows) + "\n"


def seventy(found: Result) -> str:
    """What skipping activations gains with 70 % zeros on ResNet-50's and SqueezeNet's 3x3 layers."""
    rows = []
    won = {"best": 0, "direct": 0}
    for layer in (*layers(found, True, "resnet"), *layers(found, True, "squeezenet")):
        micro = at(layer.sparse.get("activation_sparse", []), SEVENTY)
        if ", 3x3" not in layer.entry["layer"] or micro is None:
            continue
        name, best = layer.best_dense
        plain, summed = min(
            ((n, t) for n, t in layer.dense.items() if n not in TRANSFORMS), key=lambda item: item[1]
        )
        won["best"] += micro < best
        won["direct"] += micro < summed
        rows.append(
            (
                f"{FAMILIES[layer.entry['family']]} {layer.entry['name']}",
                f"{micro:.0f} us",
                f"{name}, {best:.0f} us",
                times(best / micro),
                f"{plain}, {summed:.0f} us",
                times(summed / micro),
                _density(layer.crossover("activation_sparse")),
            )
        )
    columns = (
        "70 % zero activations", "activation_sparse", "best dense", "speed-up",
        "best that transforms nothing", "speed-up", "crossover",
    )  # fmt: skip
    said = (
        f"`activation_sparse` beats the best dense algorithm on {won['best']} of these {len(rows)} layers, "
        f"and the best that sums the same products on {won['direct']}."
    )
    return f"{markdown(columns, rows)}\n\n{said}\n"


def _at_density(layer: Swept, density: float) -> dict[str, float]:
    """Microseconds of what skips activations or nothing, the weights being dense."""
    skipping = {
        name: at(points, density)
        for name, points in layer.sparse.items()
        if layer.skips[name] == "activations"
    }
    return layer.dense | {name: value for name, value in skipping.items() if value}


def _ratio(layer: Swept, name: str, density: float) -> float:
    """CR: bytes of im2col over the algorithm's."""
    return layer.memory["im2col"][0][1] / (at(layer.memory[name], density) or math.inf)


def _saved(ours: float, theirs: float) -> str:
    return percent(1 - ours / theirs)


def claims(found: Result) -> str:
    """The papers' claims of "up to", and the most that is to be had here."""
    kinds = [(True, "the layer's filters"), (False, "one filter")]
    rows = []
    for (rival, time_claim, memory_claim), (many, words) in product(CLAIMS, kinds):
        chosen = [layer for layer in layers(found, many) if rival in layer.dense]
        rows += [
            (
                f"CPO or CPS against {rival}, {words}, {percent(density)} non-zero",
                time_claim,
                _most_saved(chosen, rival, density),
                memory_claim,
                _most_compressed(chosen, rival, density),
            )
            for density in (LOWEST, TYPICAL)
        ]
    return markdown(("", "time saved, paper", "here, most", "less memory, paper", "here, most"), rows) + "\n"


def _most_saved(swept: list[Swept], rival: str, density: float) -> str:
    def saved(layer: Swept) -> float:
        micro = [y for name in STRIPS for x, y in layer.sparse.get(name, []) if x == density]
        return 1 - min(micro, default=float("inf")) / layer.dense[rival]

    best = max(swept, key=saved)
    faster = sum(saved(layer) > 0 for layer in swept)
    if faster == 0:
        return "never faster"
    return f"{percent(saved(best))} ({best.entry['name']}); faster on {faster} of {len(swept)}"


def _most_compressed(swept: list[Swept], rival: str, density: float) -> str:
    def ratio(layer: Swept) -> float:
        held = [y for name in STRIPS for x, y in layer.memory.get(name, []) if x == density]
        return layer.memory[rival][0][1] / min(held, default=float("inf"))

    best = max(swept, key=ratio)
    return f"{times(ratio(best))} ({best.entry['name']})" if ratio(best) else "-"


def park(found: Result) -> str:
    """The roofline's parameters of the paper's machines and this one; its predictions here."""
    fitted = found["roofline"]
    machines = {name: vars(machine) for name, machine in PUBLISHED.items()} | {
        "here, one core": fitted["machine"]
    }
    rows = [
        (name, f"{m['flops'] / 1e9:.0f} GFLOP/s", f"{m['bandwidth'] / 1e9:.0f} GB/s", f"{m['alpha']:.2f}",
         f"{m['beta']:.2f}", percent(1 / m["alpha"]))
        for name, m in machines.items()
    ]  # fmt: skip
    columns = ("machine", "dense, F", "memory, B", "alpha", "beta", "break-even, 1/alpha")
    densities = [point["density"] for point in fitted["layers"][0]["points"]]
    body = [
        (layer["layer"], *map(_measured_and_predicted, layer["points"]), percent(layer["knee"]))
        for layer in fitted["layers"]
    ]
    heads = ("speed-up measured (model)", *(f"{percent(d)} non-zero" for d in densities), "knee")
    return f"{markdown(columns, rows)}\n\n{markdown(heads, body)}\n"


def _measured_and_predicted(point: dict[str, float]) -> str:
    return f"{times(point['measured_speedup'])} ({times(point['predicted_speedup'])})"
