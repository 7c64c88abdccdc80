"""Sizes and ratios of CPO, CPS, MEC and CSCC against the numbers their authors logged.

Sources and their standing:
- *read*: the logs and formulas in the public trial repositories of Amer et al. (SPMv-trials and
  conv_sparsity_analysis), made before arXiv 2104.08314. The paper's own tables were not available.
- *computed*: derived from the formulas (the worked example, MEC's sizes).
- *from memory*: the list of MEC's layers cv1 to cv12; only the sizes that follow from it are asserted.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.encodings import conv_memory, cpo, encode
from zeroskip.encodings import lowering as low
from zeroskip.encodings.strips import strips_of
from zeroskip.errors import AlgorithmError, InputError

EXAMPLE = np.array(
    [[1, 0, 2, 0, 0, 3], [0, 4, 0, 0, 5, 0], [6, 0, 0, 7, 0, 0], [0, 0, 8, 0, 9, 0], [0, 1, 0, 0, 0, 2]],
    np.float32,
)


def test_computed_worked_example_of_cpo():
    encoded = encode(EXAMPLE, "cpo", kernel=3)
    ptr = cpo.ranges(strips_of(EXAMPLE.shape, 3), encoded)
    assert ptr.tolist() == [[0, 2, 2, 2, 4], [0, 2, 2, 4, 4], [0, 2, 3, 3, 3]]
    assert encoded["indices"].tolist() == [0, 6, 2, 14, 4, 13, 5, 11, 2, 11, 8]
    assert encoded["values"].tolist() == [1, 6, 3, 2, 4, 1, 5, 9, 2, 8, 7]
    assert encode(EXAMPLE, "cpo", kernel=3, npo_pointer="short")["pointers"][:3].tolist() == [0, 2, 4]


def test_computed_patterns_where_the_stride_does_not_divide_the_kernel():
    s = strips_of((9, 9), 3, 2)
    pairs = list(zip(s.pattern.tolist(), s.first.tolist(), strict=True))
    assert pairs == [(0, 0), (0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (0, 3)]
    assert s.n == 2
    assert strips_of((10, 10), 3, 2).pattern.tolist()[-1] == -1  # the right remainder is in no strip


def test_computed_stride_one_rises_stays_and_descends():
    s = strips_of((3, 10), (3, 4))
    assert s.pattern.tolist() == [0, 1, 2, 3, 3, 3, 3, 2, 1, 0]


def test_our_marking_of_prefixes():
    x = np.zeros((7, 3), np.float32)
    x[[0, 1, 3], 0] = 1  # three of the first group: a prefix and the set 0b1011
    x[[4, 5, 6], 1] = 2  # all three rows of the tail: a prefix and the set 0b111
    x[[2, 3, 5], 2] = 3  # two and one: plain
    encoded = encode(x, "cps", kernel=3)
    # Columns 0, 1, 2 have patterns 0, 0, 0: there is one strip only. A prefix p is stored as -1 - p.
    assert encoded["indices"].tolist() == [-1 - 0, 0b1011, -1 - 13, 0b111, 8, 11, 17]
    assert encoded["values"].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert encoded.words == 3 * (1 + 1) + 9 + 7


def test_neighbouring_columns_do_not_share_a_group():
    # Columns 2 to 4 have one pattern and the same place in successive strips, rows ascending over them.
    x = np.zeros((4, 7), np.float32)
    x[0, 2] = x[1, 3] = x[2, 4] = 1
    encoded = encode(x, "cps", kernel=3)
    assert (encoded["indices"] >= 0).all() and encoded["indices"].size == 3
    np.testing.assert_array_equal(encoded.decode(), x)


# Columns of the log: map after padding, kernel, stride, output, non-zeros, those lowered, N1 to N4. Then the
# compression ratios of CPO, CPS, MEC, CSCC, and the density bounds of CPO against MEC and CSCC.
INCEPTION_V3 = {
    0: ((3, 299, 299), (3, 3), 2, (149, 149), 268203, 400959, (0, 0, 897, 66378)),
    1: ((32, 149, 149), (3, 3), 1, (147, 147), 548092, 1622171, (6292, 3237, 8554, 127416)),
    2: ((32, 149, 149), (3, 3), 1, (147, 147), 408146, 1218800, (13908, 12813, 20172, 77024)),
    3: ((64, 73, 73), (1, 1), 1, (73, 73), 327622, 327622, (5044, 490, 1310, 79417)),
    4: ((80, 73, 73), (3, 3), 1, (71, 71), 261701, 757338, (16548, 11859, 11957, 46391)),
    7: ((48, 39, 39), (5, 5), 1, (35, 35), 45449, 219064, (1714, 1133, 2559, 8448)),
    10: ((96, 37, 37), (3, 3), 1, (35, 35), 47729, 140299, (5357, 2534, 2976, 7094)),
    26: ((288, 35, 35), (3, 3), 2, (17, 17), 142971, 206900, (23615, 15942, 12812, 12259)),
    29: ((96, 35, 35), (3, 3), 2, (17, 17), 20834, 30255, (8568, 3531, 1236, 374)),
    33: ((128, 23, 17), (7, 1), 1, (17, 17), 17316, 17316, (2791, 1778, 1571, 1564)),
    38: ((128, 17, 23), (1, 7), 1, (17, 17), 16244, 101625, (2399, 1096, 1191, 2020)),
    62: ((192, 17, 23), (1, 7), 1, (17, 17), 9370, 55400, (3855, 1704, 501, 151)),
    65: ((192, 23, 17), (7, 1), 1, (17, 17), 11908, 11908, (4735, 2151, 633, 243)),
    71: ((192, 17, 17), (3, 3), 2, (8, 8), 9412, 13172, (3416, 1644, 628, 206)),
    81: ((448, 10, 10), (3, 3), 1, (8, 8), 7385, 19069, (2215, 1119, 596, 286)),
    87: ((384, 8, 10), (1, 3), 1, (8, 8), 2037, 5707, (991, 332, 86, 31)),
    90: ((448, 10, 10), (3, 3), 1, (8, 8), 5098, 13035, (1837, 870, 355, 114)),
    91: ((384, 8, 10), (1, 3), 1, (8, 8), 6432, 17653, (1700, 756, 420, 490)),
}
RATIOS_AND_BOUNDS = {
    0: (1.117, 1.487, 1.495, 0.747, 0.747, 1.495),
    1: (5.675, 7.469, 2.960, 1.918, 1.480, 2.283),
    2: (7.620, 9.686, 2.960, 2.553, 1.480, 1.715),
    3: (0.520, 0.689, 1.000, 0.520, 0.500, 0.961),
    4: (6.932, 8.665, 2.918, 2.396, 1.459, 1.776),
    7: (16.140, 20.524, 4.487, 3.355, 2.242, 3.000),
    10: (11.075, 13.500, 2.838, 3.771, 1.419, 1.067),
    26: (2.619, 3.013, 1.457, 1.810, 0.729, 0.586),
    29: (5.987, 6.286, 1.457, 4.125, 0.728, 0.257),
    33: (7.473, 8.646, 5.174, 7.473, 0.500, 0.346),
    38: (7.940, 9.456, 1.000, 1.274, 2.586, 2.029),
    62: (20.588, 21.503, 1.000, 3.505, 2.586, 0.737),
    65: (16.297, 17.100, 5.174, 16.297, 0.500, 0.159),
    71: (5.869, 6.212, 1.412, 4.197, 0.706, 0.237),
    81: (17.439, 18.934, 2.400, 6.765, 1.200, 0.425),
    87: (17.978, 18.651, 1.000, 6.454, 1.200, 0.185),
    90: (25.242, 26.768, 2.400, 9.895, 1.200, 0.291),
    91: (5.719, 6.416, 1.000, 2.088, 1.200, 0.574),
}
LOGGED = pytest.mark.parametrize("node", INCEPTION_V3)


def map_with_counts(shape, kernel, stride, lowered, groups):
    """A map with groups[q - 1] aligned groups of q non-zeros each, and `lowered` non-zeros when lowered.

    A group is four rows; a tail of Ih mod 4 rows takes single non-zeros, or three as one group if it has
    three.
    """
    s = strips_of(shape, kernel, stride)
    Ic, Ih, _ = shape
    seen = s.n * sum(q * n for q, n in enumerate(groups, start=1))
    missing = seen - lowered  # how many strips the elements at the edges are short of
    short = s.n - 1 - s.pattern
    by_shortness = [np.flatnonzero(short == d) for d in range(s.n)]
    for sizes in ((4, 3, 2, 1), (1, 2, 3, 4)):
        x, left, debt = np.zeros(shape, np.float32), dict(enumerate(groups, start=1)), missing
        slots = [_slots(columns, Ic, Ih) for columns in by_shortness]
        for d in range(s.n - 1, 0, -1):
            for q in sizes:
                while left[q] and debt >= q * d and _put(x, slots[d], q):
                    left[q], debt = left[q] - 1, debt - q * d
        for q in (3, 1, 4, 2):
            while left[q] and _put(x, slots[0], q):
                left[q] -= 1
        if not debt and not any(left.values()):
            return x
    raise AssertionError(f"could not place {groups} in {shape}")


def _slots(columns, channels, rows):
    """Free places of these columns: whole groups, tails of three rows, single rows of shorter tails."""
    cells = [(c, int(j)) for j in columns for c in range(channels)]
    tail = rows - rows % 4
    return {
        "group": [(c, i, j) for c, j in cells for i in range(0, tail, 4)],
        "tail3": [(c, tail, j) for c, j in cells] if rows % 4 == 3 else [],
        "tail1": [(c, i, j) for c, j in cells for i in range(tail, rows)] if rows % 4 in (1, 2) else [],
    }


def _put(x, free, q):
    """Place a group of q non-zeros in the best free place; whether there was one."""
    for kind in {1: ("tail1", "tail3", "group"), 3: ("tail3", "group")}.get(q, ("group",)):
        if free[kind]:
            c, i, j = free[kind].pop()
            if q == 1 and kind == "tail3":  # two singles of a tail are two plain words: room for one more
                free["tail1"].append((c, i + 1, j))
            x[c, i : i + q, j] = 1
            return True
    return False


@LOGGED
def test_read_inception_v3_ratios_from_maps_with_the_logged_counts(node):
    shape, kernel, stride, out, nnz, lowered, groups = INCEPTION_V3[node]
    *ratios, mec_bound, cscc_bound = RATIOS_AND_BOUNDS[node]
    x = map_with_counts(shape, kernel, stride, lowered, groups)
    s = strips_of(shape, kernel, stride)
    assert (s.Oh, s.Ow) == out
    assert np.count_nonzero(x) == nnz
    im2col = conv_memory("im2col", shape, (8, shape[0], *kernel), stride=stride)
    words = {n: encode(x, n, kernel=kernel, stride=stride).words for n in ("cpo", "cps", "cscc")}
    words["mec"] = conv_memory("mec", shape, (8, shape[0], *kernel), stride=stride)
    for name, logged in zip(("cpo", "cps", "mec", "cscc"), ratios, strict=True):
        assert im2col / words[name] == pytest.approx(logged, abs=0.00051), name
        assert conv_memory(name, shape, (8, shape[0], *kernel), stride=stride, x=x) == words[name]
    density = low.density_bounds(s, lowered / low.mec_words(s))
    assert (density["mec"], density["cscc"]) == pytest.approx((mec_bound, cscc_bound), abs=0.00051)


@LOGGED
def test_computed_density_bounds_are_where_the_sizes_cross(node):
    shape, kernel, stride, _, nnz, lowered, _ = INCEPTION_V3[node]
    s = strips_of(shape, kernel, stride)
    bounds = low.density_bounds(s, lowered / low.mec_words(s))
    rivals = {"im2col": low.im2col_words(s), "mec": low.mec_words(s), "cscc": low.cscc_words(s, lowered)}
    for name, words in rivals.items():
        # At equal size (one pattern: CPO is CSCC) the bound is the density itself.
        assert np.sign(low.cpo_words(s, nnz) - words) == np.sign(
            round(nnz / np.prod(shape) - bounds[name], 12)
        ), name


# Kernel, side of the map, and the logged ratios at densities .10, .20, .50, 1.0.
MICRO_BENCHMARK = [
    ((3, 3), 8, (10.5, 7.5, 3.9, 2.2)),
    ((3, 3), 17, (21.8, 13.4, 6.2, 3.3)),
    ((3, 3), 50, (34.5, 18.8, 8.0, 4.1)),
    ((1, 3), 17, (8.2, 5.1, 2.4, 1.3)),
    ((1, 3), 50, (12, 6.5, 2.8, 1.4)),
    ((3, 1), 17, (10.1, 5.7, 2.5, 1.3)),
    ((3, 1), 50, (13.1, 6.9, 2.8, 1.4)),
    ((7, 1), 17, (17.2, 9.8, 4.3, 2.2)),
    ((1, 7), 17, (9.8, 6.9, 3.6, 2.0)),
    ((1, 7), 50, (19.9, 12.1, 5.6, 2.9)),
]


@pytest.mark.parametrize(("kernel", "side", "printed"), MICRO_BENCHMARK)
def test_read_micro_benchmark_ratios_with_the_short_pointer(kernel, side, printed):
    for density, logged in zip((0.10, 0.20, 0.50, 1.0), printed, strict=True):
        # The log has densities, not counts: the density in whole elements, give or take one.
        count = int(np.ceil(density * side * side - 1e-9))
        ratios = []
        for nnz in {count - 1, count, min(count + 1, side * side)}:
            x = np.zeros(side * side, np.float32)
            x[np.random.default_rng(nnz).permutation(side * side)[:nnz]] = 1
            encoded = encode(x.reshape(side, side), "cpo", kernel=kernel, npo_pointer="short")
            s = strips_of((side, side), kernel)
            assert encoded.words == low.cpo_words(s, nnz, short_npo=True)
            ratios.append(low.im2col_words(s) / encoded.words)
        digits = 0.5 if logged == 12 else 0.05
        assert min(abs(r - logged) for r in ratios) <= digits + 1e-9, (density, ratios)


def test_read_micro_benchmark_17_by_17_with_15_non_zeros():
    s = strips_of((17, 17), 3)
    im2col = low.im2col_words(s)
    assert im2col == 2025
    assert low.cpo_words(s, 15, short_npo=True) == 35 + 30
    assert im2col / 65 == pytest.approx(31.2, abs=0.05)
    assert low.cscc_words(s, 37) == 16 + 74
    assert im2col / 90 == pytest.approx(22.5, abs=0.05)


# Layer: input (C, H, W), weights (K, C, R, S), stride, words of im2col and MEC, ratio.
MEC_LAYERS = {
    "cv1": ((3, 227, 227), (96, 3, 11, 11), 4, 1_098_075, 412_005, 2.67),
    "cv2": ((3, 231, 231), (96, 3, 11, 11), 4, 1_138_368, 426_888, 2.67),
    "cv3": ((3, 227, 227), (64, 3, 7, 7), 2, 1_811_187, 529_137, 3.42),
    "cv4": ((64, 224, 224), (64, 64, 7, 7), 2, 37_258_816, 10_938_368, 3.41),
    "cv5": ((96, 24, 24), (256, 96, 5, 5), 1, 960_000, 230_400, 4.17),
    "cv6": ((256, 12, 12), (512, 256, 3, 3), 1, 230_400, 92_160, 2.50),
    "cv7": ((3, 224, 224), (64, 3, 3, 3), 1, 1_330_668, 447_552, 2.97),
    "cv8": ((64, 112, 112), (128, 64, 3, 3), 1, 6_969_600, 2_365_440, 2.95),
    "cv9": ((64, 56, 56), (64, 64, 3, 3), 1, 1_679_616, 580_608, 2.89),
    "cv10": ((128, 28, 28), (128, 128, 3, 3), 1, 778_752, 279_552, 2.79),
    "cv11": ((256, 14, 14), (256, 256, 3, 3), 1, 331_776, 129_024, 2.57),
    "cv12": ((512, 7, 7), (512, 512, 3, 3), 1, 115_200, 53_760, 2.14),
}


@pytest.mark.parametrize("layer", MEC_LAYERS)
def test_computed_sizes_of_mec_layers_remembered(layer):
    x_shape, w_shape, stride, im2col, mec, ratio = MEC_LAYERS[layer]
    assert conv_memory("im2col", x_shape, w_shape, stride=stride) == im2col
    assert conv_memory("mec", x_shape, w_shape, stride=stride) == mec
    assert im2col / mec == pytest.approx(ratio, abs=0.005)
    assert conv_memory("mec", (7, *x_shape), w_shape, stride=stride) == 7 * mec


def test_computed_mean_ratio_of_mec_layers():
    ratios = [im2col / mec for _, _, _, im2col, mec, _ in MEC_LAYERS.values()]
    assert np.mean(ratios) == pytest.approx(2.93, abs=0.005)


@settings(max_examples=200)
@given(st.data())
def test_computed_mec_saving_over_im2col(data):
    """Saved words are ic ow kw (ih - kh)(kh / sh - 1) where the stride divides."""
    kh, kw, sh, sw = (data.draw(st.integers(1, 5)) for _ in range(4))
    ih, iw, ic = (
        kh + sh * data.draw(st.integers(0, 9)),
        kw + data.draw(st.integers(0, 9)),
        data.draw(st.integers(1, 4)),
    )
    s = strips_of((ic, ih, iw), (kh, kw), (sh, sw))
    saving = low.im2col_words(s) - low.mec_words(s)
    assert saving * sh == ic * s.Ow * kw * (ih - kh) * (kh - sh)


@settings(max_examples=200)
@given(st.data())
def test_computed_cps_is_at_most_four_thirds_better_than_cpo(data):
    kernel = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    stride = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    shape = (data.draw(st.integers(1, 3)), *(k + data.draw(st.integers(0, 20)) for k in kernel))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = (rng.random(shape) < data.draw(st.sampled_from([0.05, 0.3, 0.6, 0.9, 1]))).astype(np.float32)
    cpo_words, cps_words = (encode(x, n, kernel=kernel, stride=stride).words for n in ("cpo", "cps"))
    assert cps_words <= cpo_words and 3 * cpo_words <= 4 * cps_words


def test_computed_limit_at_full_density():
    """Even without zeros CPO approaches Kh Kw / 2, because it stores each element once."""
    s = strips_of((64, 500, 500), 3)
    assert low.compression_ratio("cpo", s, low.census(s, None)) == pytest.approx(4.5, rel=0.01)


@settings(max_examples=60)
@given(st.data())
def test_conv_memory_is_what_the_encoders_store(data):
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = data.draw(st.sampled_from([1, 2, (1, 3)]))
    padding = data.draw(st.sampled_from([0, 1, (1, 0), (0, 2, 1, 1)]))
    top, left, bottom, right = low.four_sided(padding)
    shape = (data.draw(st.integers(1, 3)), 2, *(k + data.draw(st.integers(0, 9)) for k in kernel))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = rng.standard_normal(shape) * (rng.random(shape) < data.draw(st.sampled_from([0, 0.3, 1])))
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    w_shape = (5, 2, *kernel)
    for name in ("cpo", "cps", "cscc"):
        stored = sum(encode(image, name, kernel=kernel, stride=stride).words for image in padded)
        assert conv_memory(name, shape, w_shape, stride=stride, padding=padding, x=x) == stored
        assert stored <= conv_memory(name, shape, w_shape, stride=stride, padding=padding)


def test_conv_memory_of_grouped_weights_and_of_coordinates():
    assert conv_memory("im2col", (6, 5, 5), (4, 2, 3, 3)) == 3 * 3 * 9 * 6
    x = np.zeros((1, 2, 4, 4), np.float32)
    x[0, 1, 2, 3] = 1
    assert conv_memory("sparse_tensor", x.shape, (1, 2, 3, 3), x=x) == 3
    assert conv_memory("coo", x.shape, (1, 2, 3, 3)) == 3 * 32


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("cpoo", (1, 4, 4), (1, 1, 3, 3)), {}, "no lowering or encoding named 'cpoo'; did you mean 'cpo'"),
        (("cpo", (4, 4), (1, 1, 3, 3)), {}, "x_shape must be"),
        (("cpo", (1, 0, 4), (1, 1, 3, 3)), {}, "x_shape must be"),
        (("cpo", (1, 4, 4), (1, 3, 3)), {}, "w_shape must be"),
        (("cpo", (3, 4, 4), (1, 2, 3, 3)), {}, "3 channels, which are not a multiple"),
        (("cpo", (1, 4, 4), (1, 1, 5, 5)), {}, "does not fit"),
        (("cpo", (1, 4, 4), (1, 1, 3, 3)), {"padding": -1}, "padding must be"),
        (("cpo", (1, 4, 4), (1, 1, 3, 3)), {"padding": (1, 2, 3)}, "padding must be"),
        (("cpo", (1, 4, 4), (1, 1, 3, 3)), {"padding": None}, "padding must be"),
        (("cpo", (1, 4, 4), (1, 1, 3, 3)), {"stride": 1.5}, "stride must be"),
        (("cpo", (1, 4, 4), (1, 1, 3, 3)), {"stride": 0}, "stride must be"),
        (("cpo", (1, 4, 4), (1, 1, 3, 3)), {"x": np.ones((4, 4))}, "x must have the shape"),
    ],
)
def test_bad_input_is_refused_in_words(arguments, options, words):
    with pytest.raises(InputError, match=words) as caught:
        conv_memory(*arguments, **options)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, AlgorithmError) == (arguments[0] == "cpoo")
