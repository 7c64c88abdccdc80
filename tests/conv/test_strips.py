"""CSCC, CPO and CPS: the native encoders write what `zs.encode` does; their workspace is the stated words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from zeroskip.codegen import Address
from zeroskip.conv import ALGORITHMS, strips
from zeroskip.conv.strip_kernels import Encode
from zeroskip.encodings import conv_memory, encode
from zeroskip.engine.executor import Context
from zeroskip.engine.lowering import lower
from zeroskip.engine.network import Network

NAMES = ["cscc", "cpo", "cps"]


@st.composite
def layers(draw, kit):
    """Layers that the encodings take."""
    layer = kit.Layer(
        n=draw(st.sampled_from([1, 2])),
        c=draw(st.integers(1, 4)),
        h=draw(st.integers(2, 9)),
        w=draw(st.sampled_from([2, 3, 5, 8, 16, 17, 18, 33])),
        k=draw(st.sampled_from([1, 3, 16, 17, 70])),
        kernel=draw(st.tuples(st.integers(1, 5), st.integers(1, 5))),
        strides=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        pads=draw(st.tuples(*[st.integers(0, 2)] * 4)),
        seed=draw(st.integers(0, 99)),
    )
    assume(min(layer.size) >= 1 and max(layer.size) > 1)
    return layer


def sparse(layer, density):
    """The layer's input with zeros."""
    x = layer.inputs()["x"]
    x[np.random.default_rng(layer.seed).random(x.shape) >= density] = 0
    return x


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20)  # fmt: skip
@given(data=st.data())
def test_exact_and_encoded_as_defined(runner, kit, name, data):
    layer = data.draw(layers(kit))
    x = sparse(layer, data.draw(st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0])))
    network = Network(kit.alone(layer), runner.target, 1)
    plan = lower(network, kit.always(name), forced=True)
    context = Context(plan)
    outputs = context.fresh_outputs()
    context.run({"x": x}, outputs, None)
    expected, bound = kit.reference(layer, x)
    assert (np.abs(outputs["y"] - expected) <= bound).all()
    call = next(call for step in plan.steps for call in step.calls if call.kernel.name.startswith("encode_"))
    pads = ((0, 0), (layer.pads[0], layer.pads[2]), (layer.pads[1], layer.pads[3]))
    for image in range(layer.n):
        wanted = encode(np.pad(x[image], pads), name, kernel=layer.kernel, stride=layer.strides)
        pointers, values, indices = _encoded(context, call, image)
        words = wanted["columns" if name == "cscc" else "indices"]
        np.testing.assert_array_equal(pointers.reshape(-1), wanted["pointers"])
        np.testing.assert_array_equal(values, wanted["values"])
        np.testing.assert_array_equal(indices[: words.size], words)


def _encoded(context, call, image):
    """Pointers, values and index words that the encoder left in memory, the patterns' lists joined."""
    slots = dict(zip(Encode, call.arguments, strict=True))
    patterns, width = slots[Encode.PATTERNS], slots[Encode.STRIPS] + 1

    def array(address, step, kind):
        assert isinstance(address, Address)
        start = context.plan.offsets[address.buffer] + address.offset + image * step
        return context.arena[start : start + step].view(kind)

    pointers = array(slots[Encode.POINTERS], slots[Encode.POINTER_BYTES], np.int32).reshape(patterns, width)
    values = array(slots[Encode.VALUES], slots[Encode.VALUE_BYTES], np.float32)
    indices = array(slots[Encode.INDICES], slots[Encode.INDEX_BYTES], np.int32)
    starts = slots[Encode.BASES].tolist()
    counts = pointers[:, -1]
    joined = np.concatenate([values[a : a + n] for (a, _), n in zip(starts, counts, strict=True)])
    words = [_words(indices[b:], n) for (_, b), n in zip(starts, counts, strict=True)]
    return pointers, joined, np.concatenate(words)


def _words(indices, count):
    """The index words of `count` values: a prefix (negative) and its set stand for several."""
    at = 0
    while count > 0:
        folded = indices[at] < 0
        count -= int(indices[at + 1]).bit_count() if folded else 1
        at += 2 if folded else 1
    return indices[:at]


@pytest.mark.parametrize("name", NAMES)
def test_workspace_is_that_of_a_map_without_zeros(runner, kit, name):
    layer = kit.Layer(n=2, c=5, h=11, w=13, k=4, kernel=(3, 3), strides=(1, 2), pads=(1, 1, 1, 1))
    network = Network(kit.alone(layer), runner.target, 1)
    lower(network, kit.always(name), forced=True)
    words = conv_memory(name, (2, 5, 11, 13), (4, 5, 3, 3), stride=(1, 2), padding=1)
    assert 4 * words in [buffer.bytes for buffer in network.buffers]


@pytest.mark.parametrize("change, word", [({"dilations": (2, 2)}, "dilations"), ({"groups": 2}, "groups")])
def test_refuses_in_words(runner, kit, change, word):
    layer = kit.Layer(**{"c": 8, "h": 12, "w": 12, "k": 8, "kernel": (3, 3), **change})
    for name in NAMES:
        assert word in ALGORITHMS[name].refuses(layer.problem(), runner.target)


def test_columns_of_the_published_example():
    """Iw = 9, Kw = 3, Sw = 2: patterns and first strips (0,0)(0,0)(1,0)(0,1)(1,1)(0,2)(1,2)(0,3)(0,3)."""
    geometry = strips.Strips(1, 1, 9, 1, 3, 1, 2)
    table = strips.columns_of(geometry, strips.Form("columns"))
    assert table[0].tolist() == [[0, 2], [3, 1], [5, 1], [7, 2]]
    assert table[1].tolist() == [[2, 1], [4, 1], [6, 1], [0, 0]]
