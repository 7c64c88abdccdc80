"""The measured roofline of a network as SVG: one dot per layer, under the limits of arithmetic and memory."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from svg import COLOURS, GRID, INK, Scale, document, text

WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN = 640, 400, 56, 44, 16
LEAST_RADIUS, LARGEST_RADIUS = 2.0, 9.0


def plot(net: dict[str, Any]) -> str:
    """The plot of one profile: useful operations per byte, useful GFLOP/s; areas are shares of the time."""
    layers = [step for step in net["steps"] if step["effectual_macs"]]
    peak, bandwidth = net["peak_gflops"], net["read_gbs"]
    points = [(2 * s["effectual_macs"] / s["bytes"], s["gflops"]) for s in layers]
    across = Scale([x for x, _ in points] + [peak / bandwidth], LEFT, WIDTH - MARGIN)
    up = Scale([y for _, y in points] + [1.2 * peak], HEIGHT - BOTTOM, MARGIN)
    kinds = list(dict.fromkeys(step["kernel"].split()[0] for step in layers))
    colours = {kind: COLOURS[i % len(COLOURS)] for i, kind in enumerate(kinds)}
    total = sum(step["microseconds"] for step in layers)
    parts = [*_grid(across, up), *_roof(across, up, peak, bandwidth)]
    for step, (x, y) in zip(layers, points, strict=True):
        colour = colours[step["kernel"].split()[0]]
        parts.append(_dot(across(x), up(y), step, step["microseconds"] / total, colour))
    for i, (kind, colour) in enumerate(colours.items()):
        y = HEIGHT - BOTTOM - 12 - 16 * (len(colours) - 1 - i)
        parts.append(f'<circle cx="{WIDTH - 130}" cy="{y - 4}" r="5" fill="{colour}"/>')
        parts.append(text(WIDTH - 120, y, kind, "start"))
    parts.append(text(WIDTH / 2, HEIGHT - 8, "useful operations per byte of weights and activations"))
    turned = f'transform="rotate(-90 14 {HEIGHT / 2})"'
    parts.append(text(14, HEIGHT / 2, "useful GFLOP/s", extra=turned))
    return document(WIDTH, HEIGHT, parts)


def _dot(x: float, y: float, step: dict[str, Any], share: float, colour: str) -> str:
    """A layer; its area grows with its share of the time."""
    radius = LEAST_RADIUS + (LARGEST_RADIUS - LEAST_RADIUS) * math.sqrt(min(1.0, 10 * share))
    label = f"{step['layer'] or step['name']}: {step['gflops']:.0f} GFLOP/s, {100 * share:.1f} % of the time"
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}" fill-opacity="0.6">'
        f"<title>{escape(label)}</title></circle>"
    )


def _grid(across: Scale, up: Scale) -> list[str]:
    parts = []
    for x in across.ticks():
        at = across(x)
        parts.append(f'<path d="M{at:.1f} {MARGIN}V{HEIGHT - BOTTOM}" stroke="{GRID}"/>')
        parts.append(text(at, HEIGHT - BOTTOM + 16, f"{x:g}"))
    for y in up.ticks():
        at = up(y)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - MARGIN}" stroke="{GRID}"/>')
        parts.append(text(LEFT - 6, at + 4, f"{y:g}", "end"))
    return parts


def _roof(across: Scale, up: Scale, peak: float, bandwidth: float) -> list[str]:
    """The two limits: bytes at the measured bandwidth, multiply-adds at the measured peak."""
    left, bottom = 2.0**across.low, 2.0**up.low
    start = max(left, bottom / bandwidth)
    corner = peak / bandwidth
    slope = f"M{across(start):.1f} {up(start * bandwidth):.1f}L{across(corner):.1f} {up(peak):.1f}"
    return [
        f'<path d="{slope}H{WIDTH - MARGIN}" fill="none" stroke="{INK}" stroke-width="1.5"/>',
        text(WIDTH - MARGIN - 4, up(peak) - 6, f"{peak:.0f} GFLOP/s", "end"),
        text(across(start) + 8, up(start * bandwidth) - 4, f"{bandwidth:.0f} GB/s", "start"),
    ]
