"""One convolution on NumPy arrays, by any algorithm: for study, tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from zeroskip.engine.plan import Array
from zeroskip.engine.session import InferenceSession, SessionOptions
from zeroskip.errors import InputError
from zeroskip.graph import Graph, Node, Value

Sizes = int | Sequence[int]
LARGEST = 2**31 - 1


def conv2d(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    algorithm: str = "auto",
    threads: int = 1,
    target: str = "host",
) -> Array:
    """The convolution of images with kernels, as deep learning means it (a cross-correlation).

    Args:
        x: float32 (N, C, H, W).
        w: float32 (K, C/groups, R, S).
        bias: float32 (K,), or None.
        stride: steps in rows and columns; an int or a pair, as are the next two.
        padding: zeros around the image; also four numbers: top, left, bottom, right.
        dilation: distance between the kernel's cells.
        groups: how many groups the channels are divided into.
        algorithm: a name of `zs.algorithms()`, or ``"auto"``.
        threads: threads that share the work.
        target: ``"host"`` or an x86-64 level.

    Returns:
        float32 (N, K, P, Q).

    Raises:
        InputError: an argument has the wrong type, shape or value (also a `ValueError`).
        AlgorithmError: the algorithm is unknown, or refuses this convolution.

    >>> x, w = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
    >>> conv2d(x, w, padding=1)[0, 0, 0]
    array([4., 6., 6., 4.], dtype=float32)
    """
    _check_array("x", x, 4, "(N, C, H, W)")
    _check_array("w", w, 4, "(K, C/groups, R, S)")
    strides, dilations = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
    pads = _pads(padding)
    _check_channels(x, w, bias, groups)
    for axis, name in ((0, "rows"), (1, "columns")):
        reach = (w.shape[2 + axis] - 1) * dilations[axis] + 1
        size = x.shape[2 + axis] + pads[axis] + pads[axis + 2]
        if reach > size:
            raise InputError(f"w: the kernel spans {reach} {name}, the padded input has {size}; pad more")
    graph = conv_graph(x.shape, w, bias, strides=strides, pads=pads, dilations=dilations, groups=groups)
    options = SessionOptions(threads=threads, algorithm=algorithm, target=target)
    return InferenceSession(graph, options).run(None, {"x": x})[0]


def conv_graph(
    x_shape: tuple[int, ...],
    w: Array,
    bias: Array | None = None,
    *,
    strides: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilations: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Graph:
    """A network of one convolution: input ``x``, output ``y``, node ``conv``. Sizes are not checked."""
    constants = {"w": np.ascontiguousarray(w)}
    if bias is not None:
        constants["bias"] = np.ascontiguousarray(bias)
    attributes = {
        "kernel_shape": w.shape[2:], "strides": strides, "pads": pads, "dilations": dilations,
        "group": int(groups),
    }  # fmt: skip
    node = Node("Conv", ("x", *constants), ("y",), attributes, "conv")
    float32 = np.dtype(np.float32)
    values = {"x": Value("x", x_shape, float32), "y": Value("y", None, float32)}
    values |= {name: Value(name, array.shape, float32) for name, array in constants.items()}
    return Graph("conv2d", (node,), ("x",), ("y",), values, constants)


def _check_array(name: str, array: Array, rank: int, shape: str) -> None:
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name}: expected a float32 array {shape}, got {type(array).__name__}")
    if array.dtype != np.float32:
        raise InputError(f"{name}: expected float32, got {array.dtype}; use .astype(np.float32)")
    if array.ndim != rank:
        raise InputError(f"{name}: expected {rank} axes {shape}, got shape {array.shape}")
    if 0 in array.shape:
        raise InputError(f"{name}: expected sizes of at least 1, got shape {array.shape}")
    if 4 * prod(array.shape) > LARGEST:
        raise InputError(f"{name}: shape {array.shape} takes more than 2 GB; convolve parts of it")


def _check_channels(x: Array, w: Array, bias: Array | None, groups: int) -> None:
    if isinstance(groups, bool) or not isinstance(groups, int | np.integer) or groups < 1:
        raise InputError(f"groups: expected a positive number, got {groups!r}")
    channels, outputs = x.shape[1], w.shape[0]
    if channels % groups or outputs % groups:
        raise InputError(f"groups: {groups} does not divide {channels} input and {outputs} output channels")
    if w.shape[1] != channels // groups:
        raise InputError(f"w: expected {channels // groups} input channels (C/groups), got {w.shape[1]}")
    if bias is not None:
        _check_array("bias", bias, 1, "(K,)")
        if bias.shape != (outputs,):
            raise InputError(f"bias: expected shape ({outputs},), got {bias.shape}")


def _numbers(name: str, given: Sizes, lengths: tuple[int, ...], least: int) -> tuple[int, ...]:
    numbers = (
        (given,)
        if isinstance(given, (int, np.integer))
        else tuple(given)
        if isinstance(given, Sequence)
        else ()
    )
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in numbers)
    if len(numbers) not in (1, *lengths) or not whole or any(n < least for n in numbers):
        many = " or ".join(map(str, lengths))
        raise InputError(f"{name}: expected a whole number from {least} up, or {many} of them; got {given!r}")
    return tuple(int(n) for n in numbers)


def _pair(name: str, given: Sizes, least: int) -> tuple[int, int]:
    numbers = _numbers(name, given, (2,), least)
    return (numbers[0], numbers[-1])


def _pads(given: Sizes) -> tuple[int, int, int, int]:
    numbers = _numbers("padding", given, (2, 4), 0)
    if len(numbers) == 4:
        return (numbers[0], numbers[1], numbers[2], numbers[3])
    return (numbers[0], numbers[-1], numbers[0], numbers[-1])
