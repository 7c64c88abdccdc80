"""How threads share the taps of a layer: by pixels, by channels where that leaves nobody idle, in bands."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.codegen import Planar
from zeroskip.conv import ConvProblem
from zeroskip.conv.shifted_panel import places
from zeroskip.conv.taps import split

LANES = 16


def layer(size: int, images: int = 1) -> ConvProblem:
    return ConvProblem(images, 64, size, size, np.ones((256, 64, 1, 1), np.float32))


@pytest.mark.parametrize(
    "size, images, panels, threads, expected",
    [
        (56, 1, 29, 1, (1, 1)),
        (56, 1, 28, 2, (28, 1)),
        (56, 1, 29, 2, (29, 1)),  # one thread has 15 of them, which is 3 % more than its share
        (56, 1, 3, 2, (3, 2)),  # one would have two thirds
        (56, 1, 200, 2, (29, 1)),  # tasks of 7 panels
        (14, 1, 2, 2, (1, 2)),  # planes of 784 bytes
        (14, 4, 8, 2, (8, 1)),
    ],
)
def test_runs_of_panels_and_of_blocks(size, images, panels, threads, expected):
    assert split(layer(size, images), panels, threads) == expected


def test_a_small_layer_is_one_task():
    small = ConvProblem(1, 4, 5, 5, np.ones((4, 4, 1, 1), np.float32))
    assert split(small, 2, 2) == (1, 1)


@pytest.mark.parametrize("size", [56, 28, 31, 7])
@pytest.mark.parametrize("bands", [2, 3, 9])
def test_bands_are_the_same_panels_from_top_to_bottom(size, bands):
    plane = Planar(2, 3, size, size, size + 1, size + 1, size + 2)
    whole, cut = (places(plane, plane, (1, 1), 7, LANES, number) for number in (1, bands))
    for one, other in zip(whole, cut, strict=True):
        assert (one.nv, one.wide, one.groups) == (other.nv, other.wide, other.groups)
        assert sorted(map(tuple, one.table.reshape(len(one.table), -1))) == sorted(
            map(tuple, other.table.reshape(len(other.table), -1))
        )


def test_a_thread_with_half_of_the_panels_has_half_of_the_rows():
    plane = Planar(1, 3, 56, 56, 57, 57, 58)
    (wide, _) = places(plane, plane, (1, 1), 7, LANES, 2)
    rows = wide.table[:, 0, 1] // (4 * 57)
    assert len(rows) == 24 and rows[:12].max() < 28 <= rows[12:].min()
