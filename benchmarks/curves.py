"""Time and memory of every algorithm over density, as SVG: a panel for each layer of a family."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from series import Points, Swept
from svg import COLOURS, GRID, INK, Scale, document, text

PANEL, TALL, LEFT, BOTTOM, GAP, STEP, COLUMNS = 250, 170, 50, 24, 34, 30, 3
TOP, NAMES_PER_ROW = 76, 7
"""Room for the legend: names in two rows, and what the dashes mean."""
LEAST, MOST = 0.05, 1.0
SHOWN = 2.0
"""Times up to so many times that of the slowest dense algorithm are shown."""
DASHES = {"weights": "", "activations": "6 3", "both": "8 2 2 2", "": "1 3"}
WORDS = {
    "weights": "zero weights",
    "activations": "zero activations",
    "both": "both",
    "": "nothing (level lines)",
}
Line = tuple[str, str, Points]
"""Algorithm, whose zeros it skips, points."""


def times(layers: Sequence[Swept], names: Sequence[str]) -> str:
    """Microseconds over density; circles where a sparse algorithm meets the best dense one."""
    panels = []
    for layer in layers:
        best = layer.best_dense[1]
        highest = SHOWN * max(layer.dense.values())
        lines: list[Line] = [(name, "", [(LEAST, t), (MOST, t)]) for name, t in layer.dense.items()]
        lines += [(name, layer.skips[name], points) for name, points in layer.sparse.items()]
        visible = [(n, k, [(x, y) for x, y in points if y <= highest]) for n, k, points in lines]
        crossings = [(layer.crossover(name) or 0.0, best) for name in layer.sparse]
        panels.append((layer, visible, [c for c in crossings if LEAST < c[0] < MOST]))
    return _grid(panels, names, "microseconds")


def memory(layers: Sequence[Swept], names: Sequence[str]) -> str:
    """KiB of lowered or encoded input over density; algorithms that need none are left out."""
    panels = []
    for layer in layers:
        lines: list[Line] = []
        for name, points in layer.memory.items():
            level = layer.skips.get(name) not in ("activations", "both")
            points = [(LEAST, points[0][1]), (MOST, points[0][1])] if level else points
            kib = [(x, y / 1024) for x, y in points]
            if min(y for _, y in kib) > 0:
                lines.append((name, "" if level else layer.skips[name], kib))
        panels.append((layer, lines, []))
    return _grid(panels, names, "KiB")


def _grid(panels: Sequence[tuple[Swept, list[Line], Points]], names: Sequence[str], unit: str) -> str:
    shown = {name for _, lines, _ in panels for name, _, points in lines if points}
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    rows = -(-len(panels) // COLUMNS)
    width, height = COLUMNS * (PANEL + GAP) + GAP, TOP + rows * (TALL + STEP)
    kinds = {kind for _, lines, _ in panels for _, kind, _ in lines}
    parts = list(_legend([name for name in names if name in shown], colours, kinds, unit))
    for number, (layer, lines, crossings) in enumerate(panels):
        x = GAP + number % COLUMNS * (PANEL + GAP)
        y = TOP + GAP + number // COLUMNS * (TALL + STEP)
        parts += _panel(x, y, layer, lines, crossings, colours)
    return document(width, height, parts, font=11)


def _legend(names: Sequence[str], colours: dict[str, str], kinds: set[str], unit: str) -> Iterable[str]:
    for number, name in enumerate(names):
        x, y = GAP + 120 * (number % NAMES_PER_ROW), 14 + 18 * (number // NAMES_PER_ROW)
        yield f'<path d="M{x} {y - 4}h16" stroke="{colours[name]}" stroke-width="3"/>'
        yield text(x + 20, y, name, "start")
    x, y = GAP, 56
    yield text(x, y, f"{unit} over density (share of non-zeros); skips:", "start")
    x += 330
    for kind, words in WORDS.items():
        if kind in kinds:
            style = f'stroke="{INK}" stroke-width="1.5" stroke-dasharray="{DASHES[kind]}"'
            yield f'<path d="M{x} {y - 4}h24" {style}/>'
            yield text(x + 28, y, words, "start")
            x += 44 + 6.5 * len(words)


def _panel(
    x: float, y: float, layer: Swept, lines: list[Line], crossings: Points, colours: dict[str, str]
) -> list[str]:
    values = [value for _, _, points in lines for _, value in points]
    across = Scale([LEAST, MOST], x + LEFT, x + PANEL)
    across.low, across.high = -4.4, 0  # just below the least density
    up = Scale(values, y + TALL - BOTTOM, y)
    parts = [text(x + LEFT, y - 6, f"{layer.entry['name']}: {layer.entry['layer']}", "start")]
    for tick in (0.05, 0.1, 0.2, 0.5, 1.0):
        at = across(tick)
        parts.append(f'<path d="M{at:.1f} {y}V{y + TALL - BOTTOM}" stroke="{GRID}"/>')
        parts.append(text(at, y + TALL - BOTTOM + 14, f"{tick:g}"))
    for tick in up.ticks(6):
        at = up(tick)
        parts.append(f'<path d="M{x + LEFT} {at:.1f}H{x + PANEL}" stroke="{GRID}"/>')
        parts.append(text(x + LEFT - 5, at + 4, f"{tick:g}", "end"))
    for name, kind, points in lines:
        parts += _line(name, kind, [(across(d), up(v)) for d, v in points], colours[name])
    for density, value in crossings:
        at = f'cx="{across(density):.1f}" cy="{up(value):.1f}"'
        parts.append(f'<circle {at} r="4" fill="none" stroke="{INK}" stroke-width="1.5"/>')
    return parts


def _line(name: str, kind: str, points: Points, colour: str) -> list[str]:
    if not points:
        return []
    if len(points) == 1:
        ((x, y),) = points
        return [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{escape(name)}</title></circle>'
        ]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    style = f'stroke="{colour}" stroke-width="1.8" stroke-dasharray="{DASHES[kind]}"'
    return [f'<path d="M{path}" fill="none" {style}><title>{escape(name)}</title></path>']
