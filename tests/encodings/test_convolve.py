"""The reference convolutions beside the activation encodings, against a direct NumPy convolution."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from zeroskip.encodings import encode, encodings, find

MAPS = [name for name in encodings() if find(name).of_maps]


def direct(x, w, stride):
    """Convolution of a padded map (C, H, W) with weights (K, C, R, S), straight from its definition."""
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(1, 2))
    return np.einsum("cpqrs,kcrs->kpq", windows[:, :: stride[0], :: stride[1]], w)


@pytest.mark.parametrize("name", MAPS)
@settings(max_examples=100)
@given(data=st.data())
def test_convolution_equals_direct(name, data):
    kernel = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    C, K = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    H, W = (k + data.draw(st.integers(0, 9)) for k in kernel)
    density = data.draw(st.sampled_from([0, 0.1, 0.4, 0.8, 1]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    # Integers, so that the sums are exact in any order.
    x = rng.integers(-9, 10, (C, H, W)) * (rng.random((C, H, W)) < density)
    w = rng.integers(-9, 10, (K, C, *kernel))
    expected = direct(x, w, stride)
    whole = find(name).convolve(encode(x, name, kernel=kernel, stride=stride), w)
    assert whole.dtype == np.int64
    np.testing.assert_array_equal(whole, expected)
    real = encode(x.astype(np.float32), name, kernel=kernel, stride=stride)
    np.testing.assert_array_equal(find(name).convolve(real, w.astype(np.float32)), expected)


@pytest.mark.parametrize("name", MAPS)
def test_special_values_reach_the_outputs_that_see_them(name):
    x = np.zeros((1, 5, 5), np.float32)
    x[0, 0, 0], x[0, 4, 4], x[0, 2, 2] = np.nan, np.inf, np.finfo(np.float32).smallest_subnormal
    out = find(name).convolve(encode(x, name, kernel=3), np.ones((1, 1, 3, 3), np.float32))[0]
    assert np.isnan(out[0, 0]) and np.isposinf(out[2, 2])
    assert out[0, 1] == out[0, 2] == out[1, 0] == x[0, 2, 2]
