"""Planes: what is a pixel, where planes begin, which layouts agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.codegen import Address, Operand, Plain, Planar
from zeroskip.codegen.layout import LINE, round_up


@st.composite
def planars(draw):
    """Layouts as the engine makes them."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 40))
    return Planar(
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
        height,
        width,
        width + draw(st.integers(0, 5)),
        height + draw(st.integers(0, 3)),
        draw(st.integers(0, 50)),
    )


def pixels(layout):
    """Which floats of a plane are pixels, by counting."""
    there = np.zeros(layout.plane // 4, bool)
    for image in range(layout.images):
        for row in range(layout.height):
            start = (image * layout.rows + row) * layout.pitch
            there[start : start + layout.width] = True
    return there


@given(layout=planars(), lanes=st.sampled_from([4, 8, 16]))
def test_masks_tell_pixels(layout, lanes):
    masks = layout.masks(lanes)
    if lanes == 16:
        assert masks.dtype == np.uint16
        masks = np.unpackbits(masks.view(np.uint8), bitorder="little")
    else:
        assert masks.dtype == np.int32 and set(np.unique(masks)) <= {0, -1}
    np.testing.assert_array_equal(masks.reshape(-1) != 0, pixels(layout))


@given(layout=planars())
def test_planes_hold_their_pixels_and_the_next_lead(layout):
    last = np.flatnonzero(pixels(layout))[-1]
    assert layout.computed == last + 1
    assert layout.plane % LINE == 0 and layout.plane // LINE % 2 == 1
    assert layout.plane >= round_up(4 * layout.computed, LINE) + 4 * layout.lead_floats
    assert layout.plane >= 4 * layout.images * layout.rows * layout.pitch
    assert layout.bytes == layout.lead + layout.channels * layout.plane
    assert layout.lead >= 4 * layout.lead_floats and layout.lead % LINE == 0
    assert layout.image == 4 * layout.rows * layout.pitch


def test_phases_are_planes():
    layout = Planar(1, 3, 4, 4, 5, 5, 0, step=(2, 2), phases=((0, 0), (0, 1), (1, 0)))
    assert layout.planes == 9 and layout.bytes == layout.lead + 9 * layout.plane


@pytest.mark.parametrize(
    "change, same",
    [
        ({}, True),
        ({"channels": 9}, True),
        ({"lead_floats": 16}, True),
        ({"pitch": 9}, False),
        ({"rows": 8}, False),
        ({"width": 6}, False),
        ({"height": 5}, False),
        ({"images": 2}, False),
        ({"step": (2, 1)}, False),
    ],
)
def test_geometry_is_equal_where_pixels_are(change, same):
    plain = {
        "images": 1, "channels": 2, "height": 6, "width": 7, "pitch": 8, "rows": 7, "lead_floats": 0
    }  # fmt: skip
    assert Planar(**plain).same_geometry(Planar(**(plain | change))) is same
    assert not Planar(**plain).same_geometry(Plain((1, 2, 6, 7)))


def test_operands_begin_at_their_first_pixel():
    layout = Planar(1, 2, 3, 4, 5, 4, 6)
    assert Operand(3, layout, 128).address == Address(3, 128 + layout.lead)
    assert Operand(3, Plain((2, 3)), 64).address == Address(3, 64)
    assert Plain((2, 3)).bytes == 24
    with pytest.raises(AssertionError):
        _ = Operand(0, Plain((2,))).planar
