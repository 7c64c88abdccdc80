"""Every encoding gives back what it was given, for any shape, density, type and special value."""

import doctest
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.encodings import base, encode, encodings, find, huffman, lowering, registry, strips
from zeroskip.errors import InputError

DTYPES = [np.float32, np.float16, np.float64, np.int8, np.uint8, np.int32, np.bool_]
VARIANTS = {
    "bcsr": [{}, {"block": 1}, {"block": 2}, {"blocks": (4, 2)}],
    "csc_relative": [{}, {"run_bits": 1}, {"run_bits": 2, "pes": 3}, {"pes": 64}],
    "shared_weights": [{}, {"run_bits": 1}, {"huffman": True}, {"huffman": True, "run_bits": 2}],
    "run_length": [{}, {"run_bits": 1}, {"run_bits": 5, "pairs_per_word": 3}, {"run_bits": 2, "segment": 5}],
}
PLAIN = [(n, o) for n in encodings() if not find(n).of_maps for o in VARIANTS.get(n, [{}])]
MAPS = [n for n in encodings() if find(n).of_maps]


@st.composite
def arrays(draw, shape):
    """Arrays of any type with a drawn share of zeros among ordinary and special values."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    size = draw(shape)
    seed, density = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0, 0.05, 0.3, 0.7, 0.95, 1]))
    rng = np.random.default_rng(seed)
    if dtype.kind == "f":
        info = np.finfo(dtype)
        special = [np.nan, -np.nan, np.inf, -np.inf, info.max, info.tiny, info.smallest_subnormal, -0.0]
        values = rng.standard_normal(size).astype(dtype)
        odd = rng.random(size) < 0.2
        values[odd] = rng.choice(np.array(special, dtype), int(odd.sum()))
    else:
        top = 1 if dtype.kind == "b" else np.iinfo(dtype).max
        low = 0 if dtype.kind == "b" else np.iinfo(dtype).min
        values = rng.integers(low, top, size, endpoint=True).astype(dtype)
    values[rng.random(size) >= density] = 0
    return values


def bits(array):
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}" if array.dtype.kind != "b" else bool)


def without_negative_zero(array):
    return np.where(array == 0, array.dtype.type(0), array)


@pytest.mark.parametrize(("name", "options"), PLAIN)
@settings(max_examples=40)
@given(data=st.data())
def test_decode_inverts_encode_bit_for_bit(name, options, data):
    array = data.draw(arrays(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)))
    if options.get("block", 1) > (array.shape[0] if array.ndim > 1 else 1):
        array = np.concatenate([array.reshape(1, -1)] * 2)
    encoded = encode(array, name, **options)
    back = encoded.decode()
    expected = array if name == "dense" else without_negative_zero(array)
    assert back.dtype == array.dtype and back.shape == array.shape
    np.testing.assert_array_equal(bits(back), bits(expected))
    assert encoded.bits == sum(p.data.size * p.bits for p in encoded.parts.values())
    assert all(len(p.pack()) == -(-p.total_bits // 8) for p in encoded.parts.values())


@pytest.mark.parametrize("name", MAPS)
@settings(max_examples=60)
@given(data=st.data())
def test_maps_come_back_where_a_window_reads_them(name, data):
    kernel = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 6)))
    rows, columns = (k + data.draw(st.integers(0, 12)) for k in kernel)
    shape = data.draw(st.sampled_from([(rows, columns), (1, rows, columns), (3, rows, columns)]))
    array = data.draw(arrays(st.just(shape)))
    encoded = encode(array, name, kernel=kernel, stride=stride)
    read = np.zeros(columns, bool)
    for f in range((columns - kernel[1]) // stride[1] + 1):
        read[f * stride[1] : f * stride[1] + kernel[1]] = True
    expected = without_negative_zero(array)
    expected[..., ~read] = 0
    np.testing.assert_array_equal(bits(encoded.decode()), bits(expected))
    size = lowering.census(strips.strips_of(array.shape, kernel, stride), strips.as_map(array))
    assert encoded.words == lowering.WORDS[name](strips.strips_of(array.shape, kernel, stride), size)
    if name != "cscc" and stride[1] == 1:
        short = encode(array, name, kernel=kernel, stride=stride, npo_pointer="short")
        np.testing.assert_array_equal(bits(short.decode()), bits(expected))
        geometry = strips.strips_of(array.shape, kernel, stride)
        saved = lowering.pattern_pointers(geometry) - lowering.pattern_pointers(geometry, short_npo=True)
        assert encoded.words - short.words == saved


def test_a_signalling_nan_keeps_its_payload():
    array = np.array([[0x7F800001, 0, 0xFFC12345, 0]] * 4, np.uint32).view(np.float32)
    for name, options in PLAIN:
        np.testing.assert_array_equal(encode(array, name, **options).decode().view("u4"), array.view("u4"))


def test_non_contiguous_and_swapped_bytes():
    array = np.arange(24, dtype=">f4").reshape(4, 6)[::2, ::-1]
    for name, options in PLAIN:
        np.testing.assert_array_equal(encode(array, name, **options).decode(), array)


def test_decoding_gives_a_fresh_array():
    array = np.ones((2, 3), np.float32)
    for name, _ in PLAIN:
        encoded = encode(array, name)
        encoded.decode()[:] = 7
        np.testing.assert_array_equal(encoded.decode(), array)
        assert (array == 1).all()


@pytest.mark.parametrize("name", encodings())
def test_every_row_says_what_it_is(name):
    row = find(name)
    assert row.description and row.words and row.source and row.name == name


def test_the_docs_page_has_every_encoding():
    text = (Path(__file__).parents[2] / "docs/encodings.md").read_text(encoding="utf-8")
    for name in encodings():
        assert f"`{name}`" in text, f"docs/encodings.md does not mention {name}"


def test_the_room_is_the_listing():
    import zeroskip
    import zeroskip.encodings as room

    assert zeroskip.encodings() == room() == room.encodings() == registry.encodings()
    assert list(registry.encodings()) == sorted(registry.encodings())


def test_the_first_example_of_the_docs_page_runs():
    page = (Path(__file__).parents[2] / "docs/encodings.md").read_text(encoding="utf-8")
    names = {"print": str}
    exec(page.split("```python\n")[1].split("```")[0], names)
    encoded = names["encoded"]
    assert (encoded.words, encoded.bits, encoded.ratio) == (10, 320, 1.2)
    np.testing.assert_array_equal(encoded.decode(), names["weights"])


@pytest.mark.parametrize("module", [registry, lowering, base, huffman])
def test_docstring_examples_run(module):
    assert doctest.testmod(module, extraglobs={"np": np}).failed == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: encode(x, "crs"), "did you mean 'csr'"),
        (lambda x: encode(x, "bcsr", blok=2), "did you mean 'block'"),
        (lambda x: encode(x, "csr", block=2), "has no option 'block'"),
        (lambda x: encode(x, "bcsr", block=9), "from 1 to 4 rows, got 9"),
        (lambda x: encode(x, "bcsr", block="best"), "got 'best'"),
        (lambda x: encode(x, "cpo"), "kernel"),
        (lambda x: encode(x, "cpo", kernel=7), "does not fit in the padded map of 4 x 6"),
        (lambda x: encode(x, "cpo", kernel=0), "kernel must be"),
        (lambda x: encode(x, "cpo", kernel=3, stride=(1, 0)), "stride must be"),
        (lambda x: encode(x, "cps", kernel=3, stride=2, npo_pointer="short"), "npo_pointer"),
        (lambda x: encode(x[None, None], "cscc", kernel=3), "encode one image"),
        (lambda x: encode(x, "run_length", run_bits=0), "run_bits must be"),
        (lambda x: encode(x, "run_length", segment=-1), "segment must be"),
        (lambda x: encode(x, "csc_relative", pes=0), "pes must be"),
        (
            lambda x: encode(np.arange(9), "shared_weights", code_bits=2),
            "8 distinct values need 3 code_bits, got 2",
        ),
        (lambda x: encode(x, "csr", index_bits=0), "index_bits must be"),
        (lambda x: encode(x, "csr", index_bits=2), "needs 3 bits, got 2"),
        (lambda x: encode(x.astype(complex), "csr"), "complex128"),
        (lambda x: encode(["a"], "csr"), "cannot encode"),
        (
            lambda x: find("cpo").convolve(encode(x, "cpo", kernel=3), np.ones((2, 2, 3, 3))),
            "weights must be",
        ),
        (lambda x: encode(x, "csr", value_bits=4).parts["values"].pack(), "cannot pack"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        call(np.ones((4, 6), np.float32))
