"""Lists side by side as they are packed: every weight once, tasks of whole blocks, empty rows apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.codegen import Planar
from zeroskip.conv.microkernel import GROUP
from zeroskip.conv.problem import ConvProblem
from zeroskip.conv.tap_lists import pack_sparse, tap_offsets
from zeroskip.conv.tap_variant import Variant, parse_variant


def layer(rng, groups, channels, outputs, kernel, density):
    """A convolution with that many channels in each group, a third of its rows sparser still."""
    w = rng.standard_normal((groups * outputs, channels, *kernel)).astype(np.float32)
    w[rng.random(w.shape) >= density] = 0
    w[rng.random(w.shape[0]) < 0.3] *= rng.random(w.shape[1:]) < 0.2
    return ConvProblem(1, groups * channels, 9, 9, w, groups=groups)


def read(packed):
    """Of each segment its blocks: the rows and the taps (their weights, their offsets in bytes), in turn."""
    kind = [("weights", np.float32, GROUP), ("offsets", np.uint16 if packed.unit else np.int32, GROUP)]
    data = packed.values.view(kind)
    segments = []
    for entries in packed.blocks:
        blocks, end = [], entries[0, 0]
        for first, base, taps, *rows in entries:
            assert first == end, "the groups of a segment are one stream"
            assert taps % GROUP == 0
            end = first + taps // GROUP * data.itemsize
            part = data[first // data.itemsize : end // data.itemsize]
            places = base + part["offsets"].astype(int) * max(1, packed.unit)
            blocks.append((rows, *(array.reshape(-1, len(rows)) for array in (part["weights"], places))))
        segments.append(blocks)
    return segments


@given(
    seed=st.integers(0, 2**16),
    groups=st.integers(1, 3),
    channels=st.integers(1, 40),
    outputs=st.integers(1, 30),
    kernel=st.sampled_from([(1, 1), (3, 3), (2, 5)]),
    density=st.sampled_from([0.02, 0.1, 0.5, 1.0]),
    segment=st.sampled_from([0, 3, 16]),
    runs=st.integers(1, 5),
    rows=st.sampled_from([9, 500]),  # the latter need offsets of 32 bits
    lists=st.sampled_from([2, 4]),
)
def test_lists_side_by_side(seed, groups, channels, outputs, kernel, density, segment, runs, rows, lists):
    problem = layer(np.random.default_rng(seed), groups, channels, outputs, kernel, density)
    x = Planar(1, problem.C, 9, 9, 11, rows * 11, 0)
    packed = pack_sparse(problem, Variant(1, 4, segment, lists=lists), x, runs)
    offsets = tap_offsets(problem, x).reshape(groups, -1)
    found = np.zeros((problem.K, offsets.shape[1]))
    for number, blocks in enumerate(read(packed)):
        seen = []
        for seats, weights, places in blocks:
            at = packed.rows[seats]
            seen += at[at < problem.K].tolist()
            empty = [k for k, list_ in zip(at, weights.T, strict=True) if k < problem.K and not list_.any()]
            assert not empty or not len(weights), "a row without taps stands beside one that has some"
            for k, list_, read_at in zip(at, weights.T, places.T, strict=True):
                if k == problem.K:
                    assert not list_.any()
                    continue
                group = k // outputs
                assert len({j // outputs for j in at if j < problem.K}) == 1, "a block is of one group"
                taps = [int(np.flatnonzero(offsets[group] == place)[0]) for place in read_at]
                np.add.at(found[k], taps, list_.astype(float))
                if segment:
                    channel = np.array(taps) // (kernel[0] * kernel[1])
                    assert (channel // segment == number).all()
        assert sorted(seen) == list(range(problem.K))
    np.testing.assert_allclose(found, problem.w.reshape(problem.K, -1), rtol=2**-52, atol=0)  # halves add up
    bounds = packed.bounds
    assert bounds[0] == 0
    assert bounds[-1] == packed.blocks.shape[1]
    assert (np.diff(bounds) > 0).all()
    assert packed.blocks.shape[1] % groups == 0
    assert len(packed.rows) == packed.blocks.shape[1] * lists


@pytest.mark.parametrize("lists, most", [(4, 1.04), (2, 1.05)])
def test_lists_of_a_block_are_almost_equally_long(lists, most):
    """Rows stand in the order of their taps: padding is a few percent, of pairs of taps half a tap more."""
    rng = np.random.default_rng(1)
    w = (rng.standard_normal((256, 1024, 1, 1)) * (rng.random((256, 1024, 1, 1)) < 0.1)).astype(np.float32)
    problem = ConvProblem(1, 1024, 14, 14, w)
    packed = pack_sparse(problem, Variant(1, 4, 128, lists=lists), Planar(1, 1024, 14, 14, 15, 15, 0), 1)
    taps = packed.blocks[:, :, 2].sum()
    assert problem.nonzeros <= taps < most * problem.nonzeros
    assert packed.unit == 8


@pytest.mark.parametrize("text", ["1x4", "8x3/64", "2x7/13s", "4*1x7/23s", "4*1x3", "2*1x6"])
def test_variants_as_text(text):
    assert str(parse_variant(text)) == text
