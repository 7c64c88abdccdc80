"""im2col: every shift of the input is copied, then one matrix product (Chellapilla et al. 2006).

The matrix has C R S rows and N P Q columns. It is laid out panel by panel, within a panel tap by tap, so that
the product reads it front to back. Words: N Oh Ow Kh Kw Ic.
"""

from __future__ import annotations

import numpy as np

from zeroskip.codegen import Call, Target
from zeroskip.conv import lowered
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.lowered import Matrix
from zeroskip.conv.lowered_copy import Runs, Units
from zeroskip.conv.problem import ConvProblem


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    return lowered.too_large(4 * words(problem))


def words(problem: ConvProblem) -> int:
    """Floats of the matrix."""
    return problem.N * problem.P * problem.Q * problem.C * problem.R * problem.S


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    return [str(tile) for tile in lowered.tiles(problem.N * problem.P * problem.Q, target)]


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    pixels = problem.N * problem.P * problem.Q
    return lowered.cycles(problem, lowered.tile_of(variant), pixels, target, words(problem))


def _matrix(problem: ConvProblem, nv: int, site: Site) -> Matrix:
    taps = problem.C * problem.R * problem.S
    bounds, vectors = lowered.panel_bounds(problem.N * problem.P * problem.Q, nv, site.target.lanes)
    rows, first = lowered.rows_of_pixels(problem, bounds)
    r, s = np.arange(problem.R) * problem.dilations[0], np.arange(problem.S) * problem.dilations[1]
    # one list of offsets for each length of panel
    lengths, kind = np.unique(np.diff(bounds), return_inverse=True)
    offsets = 4 * lengths[:, None] * np.arange(taps)
    start = 4 * taps * bounds[:-1]
    panels, runs = lowered.panel_table(rows, first, start, kind * taps, vectors, site, ordered=True)
    sy, sx = problem.strides
    reads = Runs(rows.image, rows.row * sy, rows.column * sx, rows.pixels, rows.place)
    pixels = np.diff(bounds)
    return Matrix(
        4 * words(problem),
        True,
        Units(start, 4 * pixels, pixels, first, reads, r, s),
        panels,
        offsets.reshape(-1).astype(np.int32),
        runs,
    )


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    tile = lowered.tile_of(variant)
    return lowered.calls(problem, _matrix(problem, tile.panel, site), tile, site)


ALGORITHM = Algorithm(
    "im2col",
    "every shift of the input copied into a matrix, then one matrix product",
    "Chellapilla, Puri, Simard 2006",
    _refuses,
    _variants,
    _cycles,
    _build,
    shifted=False,
    plain=True,
)
