"""The verifier finds every kind of broken graph, with the place."""

import numpy as np
import pytest

from zeroskip.errors import InputError, ModelError
from zeroskip.graph import Node, Value, evaluate, verify

F = np.dtype(np.float32)


def good(make):
    return make("float[2,3] x", "y", "t = Relu(x) y = Add(t, c)", c=np.ones(3, np.float32))


def test_good_graphs_pass(make):
    graph = good(make)
    verify(graph)
    verify(graph, since=graph)


def broken(graph):
    relu, add = graph.nodes

    def value(name, *shape, dtype=F):
        return {**graph.values, name: Value(name, shape, np.dtype(dtype))}

    return {
        "order": (graph.with_(nodes=(add, relu)), r'reads "t" before it is defined'),
        "undefined": (
            graph.with_(nodes=(relu, add.with_(inputs=("t", "q")))),
            r'reads "q" before it is defined',
        ),
        "two producers": (graph.with_(nodes=(relu, relu, add)), r'defines "t" a second time'),
        "producer of an input": (
            graph.with_(nodes=(relu.with_(outputs=("x",)), add)),
            r'defines "x" a second time',
        ),
        "type": (
            graph.with_(values=value("t", 2, 3, dtype="i4")),
            'computes float32, but "t" is said to be int32',
        ),
        "shape": (graph.with_(values=value("y", 2, 4)), 'computes 2×3, but "y" is said to be 2×4'),
        "rank": (graph.with_(values=value("y", 2, 3, 1)), 'computes 2×3, but "y" is said to be 2×3×1'),
        "constant's type": (graph.with_(values=value("c", 3, dtype="f8")), "its type says float64 3"),
        "constant's shape": (
            graph.with_(values=value("c", 1)),
            'the constant "c" is float32 3, its type says',
        ),
        "untyped constant": (
            graph.with_(constants={**graph.constants, "d": np.ones(1)}),
            'the constant "d" has no type',
        ),
        "untyped output": (
            graph.with_(nodes=(relu, add.with_(outputs=("z",)))),
            'computes "z", which has no type',
        ),
        "unknown graph output": (graph.with_(outputs=("z",)), 'the output "z" has no type'),
        "missing graph output": (graph.with_(nodes=(relu,)), 'nothing computes the output "y"'),
        "constant input": (graph.with_(inputs=("x", "c")), '"c" is both an input and a constant'),
        "input twice": (graph.with_(inputs=("x", "x")), 'the input "x" is listed twice'),
        "unknown operator": (
            graph.with_(nodes=(relu.with_(op="Selu"), add)),
            "does not support the operator Selu",
        ),
        "arity": (graph.with_(nodes=(relu, add.with_(inputs=("t",)))), "Add takes 2"),
        "misfit": (
            graph.with_(nodes=(relu, Node("Conv", ("t", "c"), ("y",)))),
            "must have one rank, at least 3",
        ),
    }


def test_broken_graphs_are_found(make):
    graph = good(make)
    for bad, message in broken(graph).values():
        for since in (None, graph):
            with pytest.raises(ModelError, match=message):
                verify(bad, since)


def test_inputs_are_checked(make):
    graph = good(make)
    x = np.ones((2, 3), np.float32)
    for feeds, message in (
        ({}, r'input "x" is missing; the network\'s inputs are "x" \(2×3\)'),
        ({"x": x, "q": x}, r'no input "q"; its inputs are "x" \(2×3\)'),
        ({"x": x.astype(np.float64)}, r"has type float64, expected float32; convert it with \.astype"),
        ({"x": x[0]}, r"has shape 3 \(1 axes\), expected 2×3 \(2 axes\)"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(graph, feeds)


def test_inputs_are_never_modified(make):
    graph = make("float[2,3] x", "y, z", "y = Identity(x) z = Reshape(x, k)", k=np.array([3, 2]))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    z = evaluate(graph, {"x": x})[1]
    assert z.shape == (3, 2)
    np.testing.assert_array_equal(x, np.arange(6).reshape(2, 3))


def test_any_value_can_be_asked_for(make):
    graph = good(make)
    t, c = evaluate(graph, {"x": np.full((2, 3), -1, np.float32)}, outputs=("t", "c"))
    assert not t.any() and c.sum() == 3
    with pytest.raises(InputError, match='no value "nothing"'):
        evaluate(graph, {"x": t}, outputs=("nothing",))
