"""Shifted panels: widths around vectors and row groups, strides, dilations, groups; what must not be read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.codegen import Planar
from zeroskip.conv import ALGORITHMS
from zeroskip.conv.shifted_panel import Strip, places, row_groups, strips
from zeroskip.conv.tap_variant import parse_variant


def shifted(layer, runner, name):
    texts = ALGORITHMS[name].variants(layer.problem(), runner.target)
    return [text for text in texts if parse_variant(text).shifted]


def check(runner, kit, layer, name, text, threads=1):
    arrays = layer.inputs()
    ((got,),) = runner.run(kit.alone(layer), kit.always(name, text), arrays, threads=threads, borders=("y",))
    exact, bound = kit.reference(layer, **arrays)
    assert (np.abs(got - exact) <= bound).all()


@pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 8, 9, 13, 15, 16, 17, 20, 28, 31, 33, 55])
def test_widths(runner, kit, width):
    """Images narrower than a vector share it with other rows of theirs; wider ones end within one."""
    for n, height in ((1, 7), (3, 10)):
        layer = kit.Layer(
            n=n, c=9, h=height, w=width, k=5, kernel=(3, 3), pads=(1, 1, 1, 1), density=0.5,
            activation=("Relu",), residual=True, seed=width,
        )  # fmt: skip
        for name in ("sparse_direct", "block_sparse"):
            texts = shifted(layer, runner, name)
            assert texts
            for text in texts[:2]:
                check(runner, kit, layer, name, text, threads=n - n // 2)


@pytest.mark.parametrize(
    "change",
    [
        {"strides": (2, 2)},
        {"strides": (1, 2), "kernel": (2, 5)},
        {"strides": (3, 1), "pads": (2, 0, 1, 3)},
        {"dilations": (2, 3)},
        {"dilations": (9, 2), "pads": (9, 2, 4, 2)},
        {"strides": (2, 2), "dilations": (3, 1)},
        {"groups": 3, "c": 12, "k": 9},
        {"kernel": (1, 1), "strides": (2, 2), "pads": (0, 1, 0, 1)},
        {"c": 120, "k": 17, "density": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("width", [12, 37])
def test_layers(runner, kit, change, width):
    layer = kit.Layer(
        **{
            "n": 2, "c": 10, "h": 15, "w": width, "k": 8, "kernel": (3, 3), "pads": (1, 1, 1, 1),
            "density": 0.4, **change,
        }
    )  # fmt: skip
    for name in ("sparse_direct", "block_sparse"):
        texts = shifted(layer, runner, name)
        assert texts
        for text in texts:
            check(runner, kit, layer, name, text, threads=2)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_rows_asked_for_ahead(runner, kit, strides):
    """Inputs larger than the second cache, with several segments, one, and two groups of the convolution."""
    for groups, c, k in ((1, 64, 9), (1, 20, 5), (2, 24, 8)):
        layer = kit.Layer(
            c=c,
            h=140,
            w=100,
            k=k,
            kernel=(3, 3),
            pads=(1, 1, 1, 1),
            strides=strides,
            groups=groups,
            density=0.1,
        )
        for text in shifted(layer, runner, "sparse_direct"):
            check(runner, kit, layer, "sparse_direct", text, threads=2)


def test_row_groups():
    assert row_groups(7, 7, 8, 16) == 2
    assert row_groups(4, 8, 5, 16) == 4
    assert row_groups(4, 1, 5, 16) == 1  # one row is one group
    assert row_groups(9, 9, 10, 16) == 1  # two rows do not fit
    assert row_groups(4, 9, 2000, 16) == 1  # rows below the image would lie outside of memory


def test_strips():
    """Columns that fill half a vector share it with another row, those of a quarter with three."""
    assert strips(28, 28, 29, 16) == (Strip(0, 16, 1, 28), Strip(16, 8, 2, 14), Strip(24, 4, 4, 7))
    assert strips(56, 56, 57, 16) == (Strip(0, 48, 1, 56), Strip(48, 8, 2, 28))
    assert strips(14, 14, 15, 16) == (Strip(0, 14, 1, 14),)  # 8 and 6 would take as many vectors
    assert strips(31, 9, 32, 16) == (Strip(0, 31, 1, 9),)
    assert strips(7, 7, 8, 16) == (Strip(0, 7, 2, 4),)


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([4, 8, 16]))
def test_strips_are_all_columns_and_never_more_vectors(width, height, lanes):
    cut = strips(width, height, width + 1, lanes)
    assert [strip.first for strip in cut] == [0, *np.cumsum([strip.width for strip in cut])[:-1]]
    assert sum(strip.width for strip in cut) == width
    assert all(strip.rows * strip.groups >= height for strip in cut)
    assert sum(strip.rows * strip.side(lanes) for strip in cut) <= height * -(-width // lanes)


@pytest.mark.parametrize("lanes, beside", [(4, 4), (8, 2), (16, 1)])
def test_panels_that_share_cache_lines_follow_each_other(lanes, beside):
    plane = Planar(1, 1, 12, 48, 49, 13, 50)
    (strip,) = places(plane, plane, (1, 1), 4, lanes)
    starts = strip.table[:, 0, 1] // 4
    assert sorted(starts) == [49 * row + column for row in (0, 4, 8) for column in range(0, 48, lanes)]
    rows, columns = np.divmod(starts.reshape(-1, beside), 49)
    assert (rows == rows[:, :1]).all() and (columns // 16 == columns[:, :1] // 16).all()
    np.testing.assert_array_equal(rows[:3, 0], (0, 4, 8))


def test_what_cannot_be_shifted_is_not_offered(runner, kit):
    """Taps of 1x1 layers are aligned; every third column is not a shuffle."""
    for change in ({"kernel": (1, 1)}, {"strides": (3, 3)}):
        layer = kit.Layer(**{"c": 9, "h": 20, "w": 20, "k": 4, "kernel": (3, 3), **change})
        assert not shifted(layer, runner, "sparse_direct")
