"""Vertical strips of a padded activation map: the geometry that CSCC, CPO and CPS share, and their loop.

Symbols as in Amer et al. 2021, for the map *after* padding: Ic, Ih, Iw its channels, rows, columns; Kh, Kw
kernel; Sh, Sw strides; Oh, Ow output. **Strip** f (0 ... Ow-1) is all Ih rows x columns f Sw ... f Sw + Kw
- 1: what row f of the MEC-lowered matrix holds. An element of a strip has the index ``(c Ih + i) Kw +
col``, col counted inside the strip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.encodings.base import Array
from zeroskip.errors import InputError

Pair = int | tuple[int, int]


@dataclass(frozen=True)
class Strips:
    """One map and one convolution over it."""

    Ic: int
    Ih: int
    Iw: int
    Kh: int
    Kw: int
    Sh: int
    Sw: int

    @property
    def Oh(self) -> int:  # noqa: N802
        """Output rows."""
        return (self.Ih - self.Kh) // self.Sh + 1

    @property
    def Ow(self) -> int:  # noqa: N802
        """Output columns, which is the number of strips."""
        return (self.Iw - self.Kw) // self.Sw + 1

    @property
    def n(self) -> int:
        """Number of patterns: the most strips that one column can be part of."""
        return -(-self.Kw // self.Sw)

    @property
    def first(self) -> Array:
        """f(j): the first strip that contains column j, for every column."""
        j = np.arange(self.Iw)
        return np.maximum(0, -((self.Kw - 1 - j) // self.Sw))

    @property
    def pattern(self) -> Array:
        """t(j): how many strips beside the first contain column j; negative where no strip does."""
        j = np.arange(self.Iw)
        return np.minimum(self.Ow - 1, j // self.Sw) - self.first


@dataclass(frozen=True, eq=False)
class Elements:
    """Stored non-zeros, one entry each: first strip, pattern, channel, row, column in that strip, value."""

    strip: Array
    pattern: Array
    channel: Array
    row: Array
    col: Array
    value: Array


def pair(name: str, value: Pair, least: int = 1) -> tuple[int, int]:
    """A number or a pair of them as a pair (height, width), each at least `least`."""
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2 or not all(isinstance(v, int | np.integer) and v >= least for v in both):
        raise InputError(
            f"{name} must be a number or a pair (height, width) of numbers >= {least}, got {value!r}"
        )
    return int(both[0]), int(both[1])


def strips_of(shape: tuple[int, ...], kernel: Pair, stride: Pair = 1) -> Strips:
    """The strips of a padded map (C, H, W) or (H, W); `InputError` where the kernel does not fit in it."""
    if len(shape) not in (2, 3):
        raise InputError(
            f"wanted one padded activation map C x H x W (or H x W), got shape {shape}; encode one image"
        )
    (Kh, Kw), (Sh, Sw) = pair("kernel", kernel), pair("stride", stride)
    Ic, Ih, Iw = (1, *shape) if len(shape) == 2 else shape
    if Kh > Ih or Kw > Iw:
        raise InputError(
            f"a kernel of {Kh} x {Kw} does not fit in the padded map of {Ih} x {Iw}; pad the map more"
        )
    return Strips(Ic, Ih, Iw, Kh, Kw, Sh, Sw)


def as_map(array: Array) -> Array:
    """The array as channels x rows x columns."""
    return array.reshape(-1, *array.shape[-2:]) if array.ndim == 3 else array[None]


def join_index(strips: Strips, elements: Elements) -> Array:
    """Each element's index inside its strip, over all channels."""
    return (elements.channel * strips.Ih + elements.row) * strips.Kw + elements.col


def split_index(strips: Strips, index: Array) -> tuple[Array, Array, Array]:
    """Channel, row and column inside the strip, of an element's index."""
    channel, inside = np.divmod(index, strips.Ih * strips.Kw)
    return channel, *np.divmod(inside, strips.Kw)


def restore(strips: Strips, elements: Elements, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """The map whose non-zeros are `elements`."""
    out = np.zeros(shape, dtype)
    as_map(out)[elements.channel, elements.row, elements.strip * strips.Sw + elements.col] = elements.value
    return out


def convolve(strips: Strips, elements: Elements, weights: Array) -> Array:
    """The published loop of CPO (Amer et al. 2021): each element meets each strip and kernel row it is in.

    For every element x, for s = 0 ... t (the strips f + s that contain it) and l = 0 ... Kh - 1: the output
    row is y = row - l; if Sh divides y and 0 <= y / Sh < Oh, then ``O[k][y / Sh][f + s] += x W[k][c][l][col
    - s Sw]`` for all filters k.

    `weights` are (K, C, Kh, Kw); returns (K, Oh, Ow), summed in float64 (int64 for integers).
    """
    W = np.asarray(weights)
    if W.ndim != 4 or W.shape[1:] != (strips.Ic, strips.Kh, strips.Kw):
        wanted = f"(K, {strips.Ic}, {strips.Kh}, {strips.Kw})"
        raise InputError(f"weights must be of shape {wanted} as the map was encoded, got {W.shape}")
    wide = np.result_type(elements.value, W, np.int64)
    out = np.zeros((strips.Oh, strips.Ow, W.shape[0]), wide)
    x = elements.value.astype(wide)
    for s in range(strips.n):
        for tap_row in range(strips.Kh):
            y, off = np.divmod(elements.row - tap_row, strips.Sh)
            hit = (elements.pattern >= s) & (off == 0) & (y >= 0) & (y < strips.Oh)
            taps = W[:, elements.channel[hit], tap_row, elements.col[hit] - s * strips.Sw].T
            np.add.at(out, (y[hit], elements.strip[hit] + s), x[hit, None] * taps)
    return out.transpose(2, 0, 1)
