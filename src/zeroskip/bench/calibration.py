"""Fits the roofline of direct sparse convolution (`zeroskip.conv.roofline`) to this machine, on one core."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zeroskip.bench.convolution import ConvTime, time_convolution
from zeroskip.bench.limits import read_gbs
from zeroskip.bench.timing import pinned
from zeroskip.codegen import resolve
from zeroskip.conv.roofline import Calibration, SparseMachine, SparseRoofline, sparse_roofline
from zeroskip.engine.functional import conv_graph


@dataclass(frozen=True)
class Layer:
    """A layer to calibrate on: square maps and kernels, stride 1, padded to keep the size."""

    channels: int
    size: int
    filters: int
    kernel: int

    @property
    def name(self) -> str:
        """As the tables print it, e.g. ``3x3, 64x56x56 -> 64``."""
        kernel, map_ = f"{self.kernel}x{self.kernel}", f"{self.channels}x{self.size}x{self.size}"
        return f"{kernel}, {map_} -> {self.filters}"


LAYERS = (Layer(64, 56, 64, 3), Layer(256, 14, 256, 3), Layer(512, 28, 128, 1), Layer(256, 14, 1024, 1))
"""The kinds that pruned networks have most of (ResNet-50's): early and late, 3x3 and 1x1."""
DENSITIES = (0.05, 0.1, 0.2, 0.4)
BANDWIDTH_BYTES = 256 << 20
"""Far more than any cache holds: B is the memory's bandwidth, as in the paper."""


def calibrate(
    seconds: float = 0.1,
    progress: Callable[[int, int], None] | None = None,
    layers: tuple[Layer, ...] = LAYERS,
) -> Calibration:
    """Measure F, B, alpha and beta.

    F is the speed of `direct`, B that of reading memory. Beta is read off the packed weights. Alpha is fitted
    to the times of `sparse_direct` at several densities: over each layer's points, and over the layers, the
    mean of ratios (a geometric one), so that each counts alike.

    Args:
        seconds: spent on each of the layers' measurements.
        progress: called with finished and all measurements.
        layers: what is measured.
    """
    report = progress or (lambda done, total: None)
    total, done = len(layers) * (1 + len(DENSITIES)) + 1, 0
    with pinned(1):
        bandwidth = 1e9 * read_gbs(BANDWIDTH_BYTES, seconds=seconds)
        report(done := done + 1, total)
        measured: list[tuple[Layer, float, Points]] = []
        for layer in layers:
            dense = _measure(layer, 1.0, "direct", seconds).seconds
            report(done := done + 1, total)
            points: Points = []
            for density in DENSITIES:
                points.append((density, _measure(layer, density, "sparse_direct", seconds)))
                report(done := done + 1, total)
            measured.append((layer, dense, points))
    return _fitted(measured, bandwidth)


Points = list[tuple[float, ConvTime]]
"""Densities with what `sparse_direct` did there."""


def _shapes(layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    x = (1, layer.channels, layer.size, layer.size)
    return x, (layer.filters, layer.channels, layer.kernel, layer.kernel)


def _measure(layer: Layer, density: float, algorithm: str, seconds: float) -> ConvTime:
    rng = np.random.default_rng(0)
    x_shape, w_shape = _shapes(layer)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in (x_shape, w_shape))
    w[rng.random(w_shape) >= density] = 0
    pad = layer.kernel // 2
    return time_convolution(conv_graph(x_shape, w, pads=(pad, pad, pad, pad)), x, algorithm, seconds=seconds)


def _fitted(measured: list[tuple[Layer, float, Points]], bandwidth: float) -> Calibration:
    flops, alphas, betas, models = [], [], [], []
    for layer, dense, points in measured:
        x_shape, w_shape = _shapes(layer)
        any_machine = SparseMachine(1.0, 1.0, 1.0, 1.0)
        model = sparse_roofline(x_shape, w_shape, padding=layer.kernel // 2, machine=any_machine)
        models.append(model)
        flops.append(model.flops / dense)
        alphas.append(_mean([found.seconds / (x * dense) for x, found in points]))
        # beta is a slope: what does not grow with the non-zeros (tables of panels) is not theirs
        stored = [found.stored_bytes / model.weight_bytes for _, found in points]
        betas.append(float(np.polyfit([x for x, _ in points], stored, 1)[0]))
    machine = SparseMachine(_mean(flops), bandwidth, _mean(alphas), _mean(betas))
    rows = []
    for (layer, dense, points), model, alpha, speed in zip(measured, models, alphas, flops, strict=True):
        fitted = SparseRoofline(model.flops, model.activation_bytes, model.weight_bytes, machine)
        rows.append(
            {
                "layer": layer.name,
                "dense_gflops": round(speed / 1e9, 2),
                "alpha": round(alpha, 4),
                "knee": round(fitted.knee, 5),
                "points": [
                    {
                        "density": x,
                        "measured_speedup": round(dense / found.seconds, 3),
                        "predicted_speedup": round(fitted.speedup(x), 3),
                    }
                    for x, found in points
                ],
            }
        )
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Calibration(resolve().key, date, machine, tuple(rows))


def _mean(values: list[float]) -> float:
    """The geometric mean."""
    return float(np.exp(np.mean(np.log(values))))
