"""Binding shapes: everything static afterwards, pads explicit, and contradictions told in words."""

import numpy as np
import pytest

from zeroskip.errors import InputError, ModelError
from zeroskip.graph import bind, evaluate, shape_inputs


def net(make):
    w = np.ones((6, 3, 3, 3), np.float32)
    return make("float[N,3,H,8] x, float[N,2] z", "y", "y = Conv(x, w)", w=w)


WRONG = {
    "missing": ({"x": (1, 3, 8, 8)}, 'the shape of input "z" is missing'),
    "unknown": ({"x": (1, 3, 8, 8), "z": (1, 2), "q": (1,)}, 'no input "q"; its inputs are x, z'),
    "rank": ({"x": (3, 8, 8), "z": (1, 2)}, r"has shape 3×8×8 \(3 axes\), expected N×3×H×8 \(4 axes\)"),
    "fixed": ({"x": (1, 4, 8, 8), "z": (1, 2)}, "has shape 1×4×8×8, expected N×3×H×8: axis 1 is fixed"),
    "batch of 0": ({"x": (0, 3, 8, 8), "z": (0, 2)}, "has a batch of 0"),
    "size 0": ({"x": (1, 3, 0, 8), "z": (1, 2)}, "has size 0 at axis 2"),
    "negative": ({"x": (1, 3, -8, 8), "z": (1, 2)}, "has size -8 at axis 2"),
    "symbol": ({"x": (1, 3, 8, 8), "z": (2, 2)}, r'the size "N" is 1 in input "x" but 2 in input "z"'),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shapes(make, name):
    shapes, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        bind(net(make), shapes)


def test_sizes_that_do_not_fit_the_network_are_model_errors(make):
    with pytest.raises(ModelError, match=r"kernel .* does not fit into the padded input 1×3×2×8"):
        bind(net(make), {"x": (1, 3, 2, 8), "z": (1, 2)})


def test_automatic_pads_become_explicit(make, rng):
    w = rng.standard_normal((2, 3, 3, 4)).astype(np.float32)
    for mode, pads in (("SAME_UPPER", (0, 1, 1, 2)), ("SAME_LOWER", (1, 2, 0, 1)), ("VALID", (0, 0, 0, 0))):
        graph = make("float[N,3,H,V] x", "y", f'y = Conv<auto_pad="{mode}", strides=[2,1]>(x, w)', w=w)
        x = rng.standard_normal((2, 3, 6, 7)).astype(np.float32)
        bound = bind(graph, {"x": x.shape})
        node = bound.nodes[0]
        assert node.attributes == {
            "kernel_shape": (3, 4),
            "strides": (2, 1),
            "dilations": (1, 1),
            "pads": pads,
            "group": 1,
        }
        np.testing.assert_array_equal(evaluate(bound, {"x": x})[0], evaluate(graph, {"x": x})[0])


@pytest.mark.parametrize(
    "text", ["output_shape=[9,12]", 'auto_pad="SAME_UPPER"', "output_padding=[1,0], pads=[1,0,0,1]"]
)
def test_transposed_convolutions_become_explicit(make, rng, text):
    w = rng.standard_normal((3, 2, 3, 2)).astype(np.float32)
    graph = make("float[N,3,H,V] x", "y", f"y = ConvTranspose<{text}, strides=[2,3]>(x, w)", w=w)
    x = rng.standard_normal((2, 3, 4, 4)).astype(np.float32)
    bound = bind(graph, {"x": x.shape})
    assert not {"auto_pad", "output_shape"} & set(bound.nodes[0].attributes)
    np.testing.assert_array_equal(evaluate(bound, {"x": x})[0], evaluate(graph, {"x": x})[0])


def test_shape_computations_fold(make):
    body = "s = Shape(x) h = Slice(s, a, b) k = Concat<axis=0>(h, m) y = Expand(c, k)"
    constants = {name: np.array([n], np.int64) for name, n in (("a", 0), ("b", 2), ("m", 1))}
    constants["c"] = np.float32(4)
    graph = make("float[N,3,H] x", "y", body, **constants)
    bound = bind(graph, {"x": (2, 3, 5)})
    assert bound.nodes == ()
    assert bound.constants["y"].shape == (2, 3, 1)
    assert evaluate(bound, {"x": np.zeros((2, 3, 5), np.float32)})[0].shape == (2, 3, 1)


def test_contents_that_decide_shapes(make):
    body = "t = Add(s, one) y = Reshape(x, t) z = Add(x, x)"
    graph = make("float[N,6] x, int64[2] s", "y, z", body, one=np.array([1, 0], np.int64))
    assert shape_inputs(graph) == ("s",)
    with pytest.raises(
        ModelError,
        match=r'shape of "y" \(\?×\?\) cannot be inferred, because "t" is computed from .*; export',
    ):
        bind(graph, {"x": (2, 6), "s": (2,)})
    bound = bind(graph, {"x": (2, 6)}, {"s": np.array([2, -1], np.int64)})
    assert bound.inputs == ("x",)
    assert bound.values["y"].shape == (3, 4)


def test_shapes_that_depend_on_sizes_only_need_no_contents(make):
    body = "s = Shape(t) y = Reshape(x, s) t = Flatten(x)"
    assert shape_inputs(make("float[N,6] x", "y", body)) == ()


def test_binding_again_with_other_sizes(make, rng):
    w = rng.standard_normal((2, 3, 3, 3)).astype(np.float32)
    graph = make("float[N,3,H,V] x", "y", "t = Conv(x, w) y = Flatten(t)", w=w)
    for shape, out in (((1, 3, 4, 4), (1, 8)), ((3, 3, 3, 5), (3, 6))):
        assert bind(graph, {"x": shape}).values["y"].sizes == out
