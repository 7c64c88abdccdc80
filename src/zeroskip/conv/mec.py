"""MEC: the input is lowered in width only (Cho & Brand, ICML 2017).

The lowered matrix L holds, for every channel c and kernel column s, all rows of the padded input, of each row
the Ow pixels that column s meets. Tap (c, r, s) of output row p then is row ``p*Sh + r`` of part (c, s): a
window of L that overlaps with those of the other kernel rows, and is not copied again. Words: N Ow Kw Ih Ic,
Ih the padded height.

- Solution B multiplies image by image; a part holds one image after the other.
- Solution A multiplies all images at once; a part holds row by row, and of each row all images. The paper's A
  leaves the result in that order and permutes it with L as scratch, for which L must not be smaller than the
  output O; ours writes each run of pixels where it belongs, so nothing is permuted.

The paper's rule takes A where ``Ow <= T`` and ``|O| <= |L|``, else B; T is about 100. Here A is offered by
that rule, B always, and the selector measures. Rows stand in the order of their residue modulo the stride
(all rows that kernel row 0 reads, then ...), so that consecutive output rows are consecutive for any stride.
"""

from __future__ import annotations

import numpy as np

from zeroskip.codegen import Call, Target
from zeroskip.conv import lowered
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.lowered import Matrix
from zeroskip.conv.lowered_copy import Runs, Units
from zeroskip.conv.problem import Array, ConvProblem

T = 100
"""The paper's platform-dependent bound on Ow for solution A."""


def _padded_height(problem: ConvProblem) -> int:
    return problem.H + problem.pads[0] + problem.pads[2]


def words(problem: ConvProblem) -> int:
    """Floats of L."""
    return problem.N * problem.Q * problem.S * _padded_height(problem) * problem.C


def solutions(problem: ConvProblem) -> str:
    """The solutions to be had, the paper's choice first; for one image they are the same, called B."""
    output = problem.N * problem.K * problem.P * problem.Q
    return "AB" if problem.N > 1 and problem.Q <= T and output <= words(problem) else "B"


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    return lowered.too_large(4 * words(problem))


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    return [
        f"{tile}/{solution}"
        for solution in solutions(problem)
        for tile in lowered.tiles(_pixels(problem, solution), target)
    ]


def _pixels(problem: ConvProblem, solution: str) -> int:
    """Pixels that are cut into panels: panels of small images are not full."""
    return problem.P * problem.Q * (problem.N if solution == "A" else 1)


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    pixels = _pixels(problem, variant.partition("/")[2])
    return lowered.cycles(problem, lowered.tile_of(variant), pixels, target, words(problem))


def _row_order(problem: ConvProblem) -> Array:
    """Where each row of the padded input stands in a part."""
    height, stride = _padded_height(problem), problem.strides[0]
    rows = np.arange(height)
    place = np.empty(height, int)
    place[np.lexsort((rows // stride, rows % stride))] = rows
    return place


def _matrix(problem: ConvProblem, nv: int, together: bool, site: Site) -> Matrix:
    lanes = site.target.lanes
    N, P, Q, height = problem.N, problem.P, problem.Q, _padded_height(problem)
    place = _row_order(problem)
    images = 1 if together else N
    size = N * P * Q // images
    bounds, vectors = lowered.panel_bounds(size, nv, lanes)
    image = np.arange(images).repeat(len(vectors))
    bounds = np.append((np.arange(images)[:, None] * size + bounds[:-1]).reshape(-1), N * P * Q)
    vectors = np.tile(vectors, images)
    rows, first = lowered.rows_of_pixels(problem, bounds, images_inside=together)
    # a panel starts as far into its image's part as into its pixels: consecutive rows are consecutive
    inside = bounds[:-1] - image * P * Q
    line = N * Q if together else Q
    start = 4 * (inside if together else image * height * Q + inside)
    panels, runs = lowered.panel_table(rows, first, start, 0 * start, vectors, site, not together)
    part = np.arange(problem.C * problem.S).reshape(problem.C, 1, problem.S) * N * height * Q
    offsets = 4 * (part + place[np.arange(problem.R) * problem.dilations[0]][:, None] * line)
    return Matrix(
        4 * words(problem),
        False,
        _parts(problem, place, together),
        panels,
        offsets.reshape(-1).astype(np.int32),
        runs,
    )


def _parts(problem: ConvProblem, place: Array, together: bool) -> Units:
    """Every row of every image that some tap reads, in the order of a part."""
    taps, Q = np.arange(problem.R) * problem.dilations[0], problem.Q
    read = np.unique(np.arange(problem.P)[:, None] * problem.strides[0] + taps)
    image, row = (axis.reshape(-1) for axis in np.meshgrid(np.arange(problem.N), read, indexing="ij"))
    to = place[row] * problem.N + image if together else image * len(place) + place[row]
    order = np.argsort(to)
    runs = Runs(image[order], row[order], 0 * order, np.full_like(order, Q), Q * to[order])
    pixels = np.array([problem.N * len(place) * Q])
    columns = np.arange(problem.S) * problem.dilations[1]
    return Units(0 * pixels, 4 * pixels, pixels, np.array([0, len(order)]), runs, np.zeros(1, int), columns)


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    tile, together = lowered.tile_of(variant), variant.endswith("A")
    return lowered.calls(problem, _matrix(problem, tile.panel, together, site), tile, site)


ALGORITHM = Algorithm(
    "mec",
    "the input lowered in width only; kernel rows are overlapping windows of it",
    "Cho & Brand, ICML 2017",
    _refuses,
    _variants,
    _cycles,
    _build,
    shifted=False,
    plain=True,
)
