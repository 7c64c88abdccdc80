"""Output channels in the vector: which tiles there are, and how rows are cut into pieces."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.codegen import resolve
from zeroskip.conv import ALGORITHMS, ConvProblem
from zeroskip.conv.channel_direct_kernel import Piece
from zeroskip.engine import conv2d


@given(st.sampled_from([4, 8, 16]), st.data())
def test_pieces_hold_whole_tiles_and_reach_every_pixel(lanes: int, data: st.DataObject) -> None:
    mr = data.draw(st.integers(1, lanes))
    width = data.draw(st.integers(mr, 300))
    piece = Piece.of(mr, width, lanes)
    assert piece.columns <= piece.share
    assert piece.rows * piece.share <= lanes
    starts = range(0, width, piece.columns)
    assert sum(min(piece.columns, width - start) for start in starts) == width
    assert min(piece.columns, width - starts[-1]) + piece.right(width) == piece.share
    # rows share a piece only where each of them is whole
    assert piece.rows == 1 or len(starts) == 1


def test_seven_pixels_share_a_vector_with_the_next_row() -> None:
    assert Piece.of(7, 7, 16) == Piece(mr=7, tiles=1, rows=2, share=8)
    assert Piece.of(7, 14, 16) == Piece(mr=7, tiles=2, rows=1, share=16)


def test_tiles_suit_the_rows() -> None:
    def tiles(width: int, channels: int) -> list[str]:
        problem = ConvProblem(1, 8, 5, width, np.ones((channels, 8, 1, 1), np.float32))
        return ALGORITHMS["channel_direct"].variants(problem, resolve("x86-64-v4"))

    assert tiles(7, 96) == ["7x3", "4x6"]
    assert tiles(1, 200) == ["1x8"]
    assert tiles(14, 16) == ["14x1", "13x1", "10x1", "9x1", "8x1", "7x1"]


def test_tiles_must_not_read_past_the_slack() -> None:
    def refusal(stride: int) -> str | None:
        problem = ConvProblem(1, 1, 1, 2000, np.ones((1, 1, 1, 1), np.float32), strides=(1, stride))
        return ALGORITHMS["channel_direct"].refuses(problem, resolve("x86-64-v4"))

    assert refusal(64) is None
    assert "columns 65 apart" in refusal(65)


def test_strides_are_read_in_place() -> None:
    rng = np.random.default_rng(6)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 8, 15, 23), (20, 4, 3, 5)))
    options = {"stride": (2, 3), "padding": (1, 2, 0, 4), "dilation": (2, 1), "groups": 2}
    expected = conv2d(x, w, algorithm="direct", **options)
    np.testing.assert_allclose(conv2d(x, w, algorithm="channel_direct", **options), expected, atol=1e-4)
