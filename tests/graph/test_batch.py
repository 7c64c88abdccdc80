"""Which networks may be run a few images at a time."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.graph import Graph, Node, Value, per_image, split_products
from zeroskip.graph.infer import infer_node

F = np.dtype(np.float32)


def apart(op, shape, attributes=None, constants=(), inputs=("x",)):
    """Whether one node on inputs of `shape`, then constants, keeps images apart."""
    arrays = {f"c{i}": np.asarray(array) for i, array in enumerate(constants)}
    node = Node(op, (*inputs, *arrays), ("y",), attributes or {}, "node")
    values = {name: Value(name, shape, F) for name in inputs}
    values |= {name: Value(name, array.shape, array.dtype) for name, array in arrays.items()}
    (y,) = infer_node(node, values, arrays)
    return per_image(Graph("g", (node,), tuple(inputs), ("y",), {**values, "y": y}, arrays))


def numbers(*values):
    return np.array(values, np.int64)


ones = np.ones
IMAGES = (3, 4, 6, 6)
CONV = {"kernel_shape": (1, 1), "strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1), "group": 1}
POOL = {"kernel_shape": (2, 2), "strides": (2, 2), "pads": (0,) * 4}


@pytest.mark.parametrize(
    "op, shape, attributes, constants, expected",
    [
        ("Conv", IMAGES, CONV, [ones((5, 4, 1, 1), F)], True),
        ("MaxPool", IMAGES, POOL, [], True),
        ("Relu", IMAGES, {}, [], True),
        ("Add", IMAGES, {}, [ones((4, 1, 1), F)], True),
        ("Add", IMAGES, {}, [ones((1, 4, 1, 1), F)], True),
        ("Add", IMAGES, {}, [ones((3, 1, 1, 1), F)], False),  # each image another number
        ("Softmax", (3, 4), {"axis": -1}, [], True),
        ("Softmax", (3, 4), {"axis": 0}, [], False),
        ("Transpose", IMAGES, {"perm": (0, 2, 3, 1)}, [], True),
        ("Transpose", IMAGES, {"perm": (1, 0, 2, 3)}, [], False),
        ("Reshape", IMAGES, {}, [numbers(3, -1)], True),
        ("Reshape", IMAGES, {}, [numbers(-1, 6)], False),
        ("Flatten", IMAGES, {"axis": 1}, [], True),
        ("Flatten", IMAGES, {"axis": 2}, [], False),
        ("Gemm", (3, 4), {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}, [ones((4, 2), F)], True),
        ("Gemm", (3, 3), {"alpha": 1.0, "beta": 1.0, "transA": 1, "transB": 0}, [ones((3, 2), F)], False),
        ("MatMul", (3, 5, 4), {}, [ones((4, 2), F)], True),
        ("MatMul", (3, 5, 4), {}, [ones((3, 4, 2), F)], False),
        ("ReduceMean", IMAGES, {"keepdims": 1}, [numbers(2, 3)], True),
        ("ReduceMean", IMAGES, {"keepdims": 1}, [numbers(0)], False),
        ("ReduceMean", IMAGES, {"keepdims": 1}, [], False),
        ("Gather", IMAGES, {"axis": 1}, [numbers(1, 0)], True),
        ("Gather", IMAGES, {"axis": 0}, [numbers(2, 1, 0)], False),
        ("Slice", IMAGES, {}, [numbers(0), numbers(2), numbers(1)], True),
        ("Slice", IMAGES, {}, [numbers(-1), numbers(-9), numbers(0), numbers(-1)], False),
        ("Pad", IMAGES, {"mode": "constant"}, [numbers(0, 0, 1, 1, 0, 0, 1, 1)], True),
        ("Unsqueeze", IMAGES, {}, [numbers(1)], True),
        ("Unsqueeze", IMAGES, {}, [numbers(0)], False),
    ],
)  # fmt: skip
def test_one_node(op, shape, attributes, constants, expected):
    assert apart(op, shape, attributes, constants) is expected


def test_concatenation_of_images():
    assert apart("Concat", IMAGES, {"axis": 1}, inputs=("x", "z"))
    assert not apart("Concat", IMAGES, {"axis": 0}, inputs=("x", "z"))


def test_one_image_tells_nothing():
    assert not apart("Relu", (1, 4, 6, 6))


def chain(*nodes, outputs, **arrays):
    """A graph of nodes (operator, inputs, output), as `x` has four numbers for each image."""
    made = [Node(op, tuple(inputs.split()), (output,), {}, output) for op, inputs, output in nodes]
    names = {"x", *(node.outputs[0] for node in made)}
    values = {name: Value(name, ("N", 4), F) for name in names}
    values |= {name: Value(name, array.shape, F) for name, array in arrays.items()}
    return Graph("g", tuple(made), ("x",), tuple(outputs.split()), values, arrays)


LARGE = ones((512, 64), F)
CHAIN = [("Cos", "x", "a"), ("Flatten", "a", "b"), ("Gemm", "b m", "c"), ("Relu", "c", "y")]


def test_products_at_the_end_are_split_off():
    graph = chain(*CHAIN, outputs="y a", m=LARGE)
    head, rest = split_products(graph)
    assert [node.op for node in head] == ["Cos"] and head.inputs == ("x",) and head.outputs == ("a",)
    assert [node.op for node in rest] == ["Flatten", "Gemm", "Relu"]
    assert rest.inputs == ("a",) and rest.outputs == ("y",) and not head.constants
    assert set(rest.values) == {"a", "b", "c", "y", "m"} and list(rest.constants) == ["m"]


def test_other_outputs_stay_before_the_products():
    head, rest = split_products(chain(*CHAIN, ("Cos", "x", "z"), outputs="y", m=LARGE)) or (None, None)
    assert head is None  # what follows the products is no product
    head, rest = split_products(chain(("Cos", "x", "z"), *CHAIN, outputs="z y", m=LARGE))
    assert head.outputs == ("a", "z") and rest.outputs == ("y",)


@pytest.mark.parametrize(
    "nodes, matrix",
    [
        (CHAIN, ones((8, 8), F)),  # a small matrix
        (CHAIN[1:], LARGE),  # nothing before the products
        (CHAIN[:2], LARGE),  # no product
        ([*CHAIN[:3], ("Add", "c x", "y")], LARGE),  # which read another value
    ],
)
def test_where_nothing_is_split(nodes, matrix):
    nodes = [(op, inputs.replace("a", "x") if nodes[0][0] != "Cos" else inputs, y) for op, inputs, y in nodes]
    assert split_products(chain(*nodes, outputs=nodes[-1][2], m=matrix)) is None
