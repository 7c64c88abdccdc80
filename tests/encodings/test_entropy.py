"""Huffman's code and Deep Compression's storage: optimal, canonical, and of the published size."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.encodings import encode
from zeroskip.encodings import huffman as hf


@settings(max_examples=200)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=40))
def test_code_is_complete_prefix_free_and_within_a_bit_of_entropy(counts):
    counts = np.array(counts)
    lengths, codes = hf.code_lengths(counts), hf.codes(hf.code_lengths(counts))
    assert sum(2.0 ** -lengths.astype(float)) == 1  # Kraft's sum of a complete code
    words = sorted(
        f"{code:0{length}b}" for code, length in zip(codes.tolist(), lengths.tolist(), strict=True)
    )
    assert not any(b.startswith(a) for a, b in pairwise(words))
    p = counts / counts.sum()
    entropy = -(p * np.log2(p)).sum()
    assert entropy - 1e-9 <= (p * lengths).sum() < entropy + 1


def test_canonical_codes_of_one_length_are_consecutive():
    # computed by hand; the same example is in RFC 1951, section 3.2.2
    lengths = np.array([3, 3, 3, 3, 3, 2, 4, 4])
    assert [f"{c:b}".zfill(n) for c, n in zip(hf.codes(lengths).tolist(), lengths.tolist(), strict=True)] == [
        "010", "011", "100", "101", "110", "00", "1110", "1111"
    ]  # fmt: skip


@settings(max_examples=100)
@given(st.lists(st.sampled_from([0, 0, 0, 0, 1, 1, 2, 9]), max_size=200))
def test_read_inverts_write(symbols):
    symbols = np.array(symbols, int)
    lengths = hf.code_lengths(np.bincount(symbols))
    stream = hf.write(symbols, lengths)
    assert stream.size == lengths[symbols].sum()
    np.testing.assert_array_equal(hf.read(stream, lengths, symbols.size), symbols)


def test_very_long_codes():
    counts = np.array([1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584, 4181, 6765])
    symbols = np.random.default_rng(0).permutation(np.repeat(np.arange(counts.size), counts))
    lengths = hf.code_lengths(counts)
    assert lengths.max() == counts.size - 1
    np.testing.assert_array_equal(hf.read(hf.write(symbols, lengths), lengths, symbols.size), symbols)


def test_size_of_a_huffman_coded_array():
    x = np.array([0, 0, 0, 0, 7, 7, 5, 0], np.int8)
    encoded = encode(x, "huffman")
    assert encoded["symbols"].tolist() == [0, 5, 7]
    assert encoded["lengths"].tolist() == [1, 2, 2]
    assert encoded.bits == 3 * 8 + 3 * 6 + (5 * 1 + 3 * 2)
    assert encode(np.zeros(100, np.int8), "huffman").bits == 8 + 6 + 100


def shared(density, centroids, size=200_000):
    rng = np.random.default_rng(5)
    book = np.linspace(-1, 1, centroids + 1, dtype=np.float32)
    book = book[book != 0][:centroids]
    x = rng.choice(book, size)
    x[rng.random(size) >= density] = 0
    return x


def test_shared_weights_layout():
    x = np.array([0, 2, 2, *[0] * 17, 3, 0], np.float32)
    encoded = encode(x, "shared_weights")
    assert encoded["codebook"].tolist() == [0, 2, 3]
    assert encoded["codes"].tolist() == [1, 1, 0, 2]
    assert encoded["runs"].tolist() == [1, 0, 15, 1]
    assert encoded.bits == 3 * 32 + 4 * (2 + 4)


# read (Han et al. 2016, AlexNet): share of weights kept, code bits, size after pruning and sharing in %.
DEEP_COMPRESSION = {
    "conv1": (0.84, 8, 32.6), "conv2": (0.38, 8, 14.5), "conv3": (0.35, 8, 13.1), "conv4": (0.37, 8, 14.1),
    "conv5": (0.37, 8, 14.0), "fc6": (0.09, 5, 3.0), "fc7": (0.09, 5, 3.0), "fc8": (0.25, 5, 7.3),
}  # fmt: skip


@pytest.mark.parametrize("layer", DEEP_COMPRESSION)
def test_read_deep_compression_rates_on_random_masks(layer):
    # Within a tenth: our masks are random, and need more placeholders than trained ones (fc6, fc7).
    density, bits, percent = DEEP_COMPRESSION[layer]
    encoded = encode(shared(density, 2**bits - 1), "shared_weights", code_bits=bits)
    codebook = encoded.parts["codebook"].total_bits
    assert 100 * (encoded.bits - codebook) / (200_000 * 32) == pytest.approx(percent, rel=0.1)


def test_huffman_shortens_runs_that_are_not_uniform():
    x = shared(0.35, 255)
    plain, coded = encode(x, "shared_weights"), encode(x, "shared_weights", huffman=True)
    entries = plain["runs"].size
    # read (Han et al. 2016): conv3, 35 % kept, needs 2.6 bits per index; its mask is trained, ours random
    share = np.bincount(plain["runs"]) / entries
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
    assert entropy <= coded["runs"].size / entries < entropy + 0.1
    assert coded["runs"].size / entries == pytest.approx(2.6, abs=0.2)
    np.testing.assert_array_equal(coded.decode(), x)
