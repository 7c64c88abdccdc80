"""Indirect convolution: what the indirection buffer holds, and how large it is."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.codegen import resolve
from zeroskip.conv import ALGORITHMS, indirect


def test_entries_of_a_small_layer(kit):
    """A row of three pixels of two channels, three cells, padded by one; pixel 3 is the row of zeros."""
    layer = kit.Layer(c=2, h=1, w=3, k=1, kernel=(1, 3), pads=(0, 1, 0, 1))
    table = indirect.indirection(layer.problem(), 2)
    pixels = (table // 8).transpose(0, 2, 1).reshape(4, 3)
    assert pixels.tolist() == [[3, 0, 1], [0, 1, 2], [1, 2, 3], [3, 3, 3]]


@pytest.mark.parametrize("mr", [1, 4, 8])
def test_padding_strides_and_dilation_are_entries(kit, mr):
    layer = kit.Layer(
        c=3, h=7, w=6, k=2, kernel=(3, 2), strides=(2, 1), pads=(2, 0, 1, 1), dilations=(2, 3)
    )  # fmt: skip
    problem = layer.problem()
    table = indirect.indirection(problem, mr).transpose(0, 2, 1).reshape(-1, 6)
    zeros = 4 * 3 * 7 * 6
    for number, cells in enumerate(table):
        p, q = divmod(number, problem.Q)
        for cell, offset in enumerate(cells):
            row, column = p * 2 + cell // 2 * 2 - 2, q + cell % 2 * 3
            inside = 0 <= row < 7 and 0 <= column < 6 and p < problem.P
            assert offset == (12 * (row * 6 + column) if inside else zeros)


def test_the_buffer_has_a_word_per_pixel_and_cell(kit):
    """P Q R S words: im2col's matrix divided by the input channels."""
    layer = kit.Layer(c=64, h=14, w=14, k=8, kernel=(3, 3), pads=(1, 1, 1, 1))
    assert indirect.indirection(layer.problem(), 1).size == 14 * 14 * 9


def test_cells_that_read_padding_alone_have_no_entry(kit):
    """Two rows of pixels, a tile each: the kernel's upper row meets the second alone, its lower the first."""
    layer = kit.Layer(c=3, h=2, w=4, k=1, kernel=(3, 1), pads=(1, 0, 1, 0))
    problem = layer.problem()
    table = indirect.indirection(problem, 4)
    first, entries = indirect.entries(problem, table)
    assert first.tolist() == [0, 2, 4]
    assert entries[:, 0].tolist() == [1, 2, 0, 1]
    assert np.array_equal(entries[:, 1:], table[[0, 0, 1, 1], [1, 2, 0, 1]])


@pytest.mark.parametrize("dilation", [1, 3, 7])
def test_fewer_cells_are_predicted_to_take_less_time(kit, dilation):
    layer = kit.Layer(c=64, h=8, w=8, k=64, kernel=(3, 3), pads=(dilation,) * 4, dilations=(dilation,) * 2)
    problem = layer.problem()
    table = indirect.indirection(problem, 8)
    exact = len(indirect.entries(problem, table)[1]) / table[..., 0].size
    assert indirect.share_inside(problem, 8) == pytest.approx(exact)


def test_tiles_are_no_wider_than_the_channels(kit):
    layer = kit.Layer(c=4, h=5, w=5, k=3, kernel=(3, 3))
    texts = ALGORITHMS["indirect"].variants(layer.problem(), resolve("host"))
    assert texts and all(text.endswith("x1") for text in texts)
