"""Resize: nearest, linear and cubic interpolation, one axis after the other.

Each axis is a sparse matrix from input to output pixels, so that every combination of coordinate
transformation, border rule and antialiasing is one choice of that matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zeroskip.graph.ir import Dim, Node
from zeroskip.graph.operator import Array, Call, Operator, Type, axis_of, show
from zeroskip.graph.operators.elementwise import widened

_Transform = Callable[[Array, float, int, float, tuple[float, float]], Array]
"""Output pixel indices, scale, input size, exact output size, region of interest -> input coordinates."""


def _align_corners(x: Array, scale: float, size: int, out: float, roi: tuple[float, float]) -> Array:
    return x * (size - 1) / (out - 1) if out != 1 else np.zeros_like(x)


def _half_pixel_symmetric(x: Array, scale: float, size: int, out: float, roi: tuple[float, float]) -> Array:
    adjustment = len(x) / out
    return size / 2 * (1 - adjustment) + (x + 0.5) / scale - 0.5


def _crop_and_resize(x: Array, scale: float, size: int, out: float, roi: tuple[float, float]) -> Array:
    start, end = roi
    if len(x) > 1:
        return start * (size - 1) + x * (end - start) * (size - 1) / (len(x) - 1)
    return 0.5 * (start + end) * (size - 1) + 0 * x


TRANSFORMS: dict[str, _Transform] = {
    "half_pixel": lambda x, scale, size, out, roi: (x + 0.5) / scale - 0.5,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": lambda x, scale, size, out, roi: (
        (x + 0.5) / scale - 0.5 if len(x) > 1 else np.zeros_like(x)
    ),
    "align_corners": _align_corners,
    "asymmetric": lambda x, scale, size, out, roi: x / scale,
    "tf_half_pixel_for_nn": lambda x, scale, size, out, roi: (x + 0.5) / scale,
    "tf_crop_and_resize": _crop_and_resize,
}

NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}

_MODES = ("nearest", "linear", "cubic")


def _plan(
    node: Node, sizes: Sequence[Dim], scales: Sequence[float] | None, wanted: Sequence[int] | None
) -> list[tuple[Dim, float | None]]:
    """Output size and scale of every axis; None where the input's size is unknown."""
    rank = len(sizes)
    axes = node.attr("axes")
    selected = range(rank) if axes is None else [a % rank for a in axes]
    plan: list[tuple[Dim, float | None]] = [(d, 1.0) for d in sizes]
    if scales is not None:
        for axis, scale in zip(selected, scales):
            size = sizes[axis]
            keeps = size if scale == 1 else None
            plan[axis] = (math.floor(size * scale) if isinstance(size, int) else keeps, scale)
        return plan
    assert wanted is not None
    policy = node.attr("keep_aspect_ratio_policy", "stretch")
    known = [d for a in selected if isinstance(d := sizes[a], int)]
    common: float | None = None
    if policy != "stretch" and len(known) == len(wanted):
        choose = min if policy == "not_larger" else max
        common = choose(w / d for w, d in zip(wanted, known))
    for axis, want in zip(selected, wanted):
        size = sizes[axis]
        if not isinstance(size, int):
            plan[axis] = (want if policy == "stretch" else None, None)
        elif common is not None:
            plan[axis] = (math.floor(common * size + 0.5), common)
        else:
            plan[axis] = (want, want / size)
    return plan


def _infer_resize(call: Call) -> list[Type]:
    node, x = call.node, call.shape(0)
    _check(call)
    if x is None:
        return [(None, call.dtype())]
    scales, wanted = call.constant(2), call.integers(3)
    if not (scales is not None and scales.size) and not wanted:
        return [((None,) * len(x), call.dtype())]
    numbers = [float(s) for s in scales.reshape(-1)] if scales is not None and scales.size else None
    axes = node.attr("axes")
    count = len(x) if axes is None else len(axes)
    given = len(numbers) if numbers is not None else len(wanted or ())
    if given != count:
        raise call.fail(f"{given} scales or sizes for the input {show(x)}; expected {count}")
    for a in axes or ():
        axis_of(call, a, len(x))
    if min(numbers or wanted or (1,)) <= 0:
        raise call.fail("scales and sizes must be positive")
    return [(tuple(size for size, _ in _plan(node, x, numbers, wanted)), call.dtype())]


def _check(call: Call) -> None:
    node = call.node
    choices = {
        "mode": (_MODES, "nearest"),
        "coordinate_transformation_mode": (tuple(TRANSFORMS), "half_pixel"),
        "nearest_mode": (tuple(NEAREST), "round_prefer_floor"),
    }
    for name, (allowed, default) in choices.items():
        if node.attr(name, default) not in allowed:
            raise call.fail(f"{name} is {node.attr(name)!r}; expected one of {', '.join(allowed)}")
    if not call.present(2) and not call.present(3):
        raise call.fail("neither scales nor sizes are given")


def _resize(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, roi, scales, wanted = [*inputs, None, None, None][:4]
    numbers = [float(s) for s in scales.reshape(-1)] if scales is not None and scales.size else None
    goal = None if numbers is not None else [int(s) for s in wanted.reshape(-1)]
    regions = _regions(node, x.ndim, roi)
    crops = node.attr("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    result = widened(x) if node.attr("mode", "nearest") != "nearest" else x
    wide = result if result.dtype.kind == "f" else result.astype(np.float32)
    outside = np.zeros((1,) * x.ndim, np.bool_)
    for axis, (count, scale) in enumerate(_plan(node, x.shape, numbers, goal)):
        assert isinstance(count, int) and scale is not None
        if count == x.shape[axis] and scale == 1 and not crops:
            continue
        wide, beyond = _resize_axis(node, wide, axis, count, scale, regions[axis])
        outside = outside | beyond.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    if crops:
        wide = np.where(outside, np.asarray(node.attr("extrapolation_value", 0.0), wide.dtype), wide)
    if x.dtype.kind in "iu" and node.attr("mode", "nearest") != "nearest":
        limits = np.iinfo(x.dtype)
        wide = np.clip(np.trunc(wide), limits.min, limits.max)
    return [wide.astype(x.dtype, copy=False)]


def _regions(node: Node, rank: int, roi: Array | None) -> list[tuple[float, float]]:
    regions = [(0.0, 1.0)] * rank
    if roi is None or roi.size == 0:
        return regions
    axes = node.attr("axes")
    selected = range(rank) if axes is None else [a % rank for a in axes]
    numbers = [float(r) for r in roi.reshape(-1)]
    for axis, start, end in zip(selected, numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]):
        regions[axis] = (start, end)
    return regions


def _resize_axis(
    node: Node, x: Array, axis: int, count: int, scale: float, roi: tuple[float, float]
) -> tuple[Array, Array]:
    """One axis resized, and which of its output pixels lie outside the input."""
    index, weight, beyond = _axis_taps(node, x.shape[axis], count, scale, roi)
    if node.attr("mode", "nearest") == "nearest":
        return np.take(x, index[:, 0], axis=axis), beyond
    result = 0
    for k in range(index.shape[1]):
        factor = weight[:, k].astype(x.dtype).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        result = result + np.take(x, index[:, k], axis=axis) * factor
    return np.asarray(result), beyond


def axis_taps(
    node: Node, sizes: Sequence[int], scales: Sequence[float] | None, wanted: Sequence[int] | None
) -> list[tuple[Array, Array]]:
    """For each axis, the input pixels and weights of every output pixel, each ``(count, taps)``.

    Not for ``tf_crop_and_resize``, which also needs the region of interest.
    """
    tables = []
    for size, (count, scale) in zip(sizes, _plan(node, sizes, scales, wanted)):
        assert isinstance(count, int) and scale is not None
        if count == size and scale == 1:
            tables.append((np.arange(size)[:, None], np.ones((size, 1))))
        else:
            tables.append(_axis_taps(node, size, count, scale, (0.0, 1.0))[:2])
    return tables


def _axis_taps(
    node: Node, size: int, count: int, scale: float, roi: tuple[float, float]
) -> tuple[Array, Array, Array]:
    """Input pixels and weights of every output pixel, and which of these lie outside the input."""
    transform = TRANSFORMS[node.attr("coordinate_transformation_mode", "half_pixel")]
    # Runtimes compute coordinates in float32; a tie that rounds differently would pick another pixel.
    pixels = np.arange(count, dtype=np.float32)
    place = np.asarray(transform(pixels, scale, size, scale * size, roi), np.float32)
    beyond = (place < 0) | (place > size - 1)
    if node.attr("mode", "nearest") != "nearest":
        return *_taps(node, place.astype(np.float64), size, scale), beyond
    index = NEAREST[node.attr("nearest_mode", "round_prefer_floor")](place)
    return np.clip(index, 0, size - 1).astype(np.int64)[:, None], np.ones((count, 1)), beyond


def _taps(node: Node, place: Array, size: int, scale: float) -> tuple[Array, Array]:
    """Input pixels and weights of every output pixel, each ``(count, taps)``; rows of weights add up to 1."""
    mode = node.attr("mode", "nearest")
    stretch = max(1.0, 1 / scale) if node.attr("antialias", 0) else 1.0
    reach = (1 if mode == "linear" else 2) * stretch
    first = np.ceil(place - reach).astype(np.int64)
    index = first[:, None] + np.arange(math.floor(2 * reach) + 1)
    distance = np.abs(place[:, None] - index) / stretch
    if mode == "linear":
        weight = np.maximum(1 - distance, 0)
    else:
        weight = _cubic(distance, node.attr("cubic_coeff_a", -0.75))
    if node.attr("exclude_outside", 0):
        weight = np.where((index < 0) | (index >= size), 0, weight)
    weight = weight / weight.sum(axis=1, keepdims=True)
    return np.clip(index, 0, size - 1), weight


def _cubic(d: Array, a: float) -> Array:
    """Keys' cubic convolution kernel (1981) with parameter `a`."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


ROWS: tuple[Operator, ...] = (
    Operator(
        "Resize",
        _infer_resize,
        _resize,
        most=4,
        attributes=frozenset(
            {
                "antialias",
                "axes",
                "coordinate_transformation_mode",
                "cubic_coeff_a",
                "exclude_outside",
                "extrapolation_value",
                "keep_aspect_ratio_policy",
                "mode",
                "nearest_mode",
            }
        ),
    ),
)
