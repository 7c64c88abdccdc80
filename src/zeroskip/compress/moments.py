"""The second moments of a layer's inputs and wanted outputs: all that a least-squares fit needs to know.

Accumulated in float64 over calibration images, so that memory grows with D squared and not with the images:
``xx = sum x x^T``, ``xy = sum x y^T``, and so on, where x is one unrolled input position and y the wanted
outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.graph.operator import Array


@dataclass
class Moments:
    """Sums over `count` positions, per group g: inputs x (D numbers) and wanted outputs y (K/G numbers).

    Shapes: ``xx [G, D, D]``, ``xy [G, D, K/G]``, ``yy [G, K/G]`` (squares), ``x [G, D]``, ``y [G, K/G]``.
    """

    count: int
    xx: Array
    xy: Array
    yy: Array
    x: Array
    y: Array

    @classmethod
    def empty(cls, groups: int, depth: int, outputs: int) -> Moments:
        """No positions yet."""
        return cls(
            0,
            np.zeros((groups, depth, depth)),
            np.zeros((groups, depth, outputs)),
            np.zeros((groups, outputs)),
            np.zeros((groups, depth)),
            np.zeros((groups, outputs)),
        )

    def add(self, inputs: Array, outputs: Array) -> None:
        """Count in ``inputs [G, n, D]`` and ``outputs [G, n, K/G]``."""
        inputs, outputs = inputs.astype(np.float64), outputs.astype(np.float64)
        for group in range(len(inputs)):
            x, y = inputs[group], outputs[group]
            self.xx[group] += x.T @ x
            self.xy[group] += x.T @ y
        self.yy += np.einsum("gnk,gnk->gk", outputs, outputs)
        self.x += inputs.sum(1)
        self.y += outputs.sum(1)
        self.count += inputs.shape[1]

    def squared_error(self, rows: Array, bias: Array) -> float:
        """The sum of ``(y - rows x - bias)^2`` over everything counted.

        ``rows`` are ``[G, K/G, D]``, ``bias`` is ``[G, K/G]``.
        """
        rows, bias = rows.astype(np.float64), bias.astype(np.float64)
        linear = 2 * np.einsum("gkd,gdk->gk", rows, self.xy)
        quadratic = np.einsum("gkd,gkd->gk", rows @ self.xx, rows)
        mean_part = 2 * bias * (np.einsum("gkd,gd->gk", rows, self.x) - self.y) + self.count * bias * bias
        return max(0.0, float((self.yy - linear + quadratic + mean_part).sum()))

    def variance(self) -> float:
        """The sum of ``(y - mean y)^2``, what predicting each channel's mean would leave."""
        return max(0.0, float((self.yy - self.y * self.y / max(1, self.count)).sum()))
