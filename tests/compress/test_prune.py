"""Which weights pruning removes: counts, roles, scopes, blocks, names, errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.compress import criteria, prune
from zeroskip.compress.layers import find_layers, from_rows, to_rows
from zeroskip.compress.masks import keep_mask, zeros_for
from zeroskip.errors import InputError, ModelError
from zeroskip.graph import Graph, Node, Value, evaluate, load, simplify, verify

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits.onnx"
F32 = np.dtype(np.float32)


@pytest.fixture(scope="module")
def digits() -> Graph:
    return simplify(load(DIGITS))


def small_network(seed: int = 0) -> Graph:
    """Two plain convolutions, a depthwise and a grouped one, a Gemm and a MatMul; no biases."""
    draw = np.random.default_rng(seed)
    shapes = {
        "w1": (8, 3, 3, 3),
        "w2": (12, 8, 1, 1),
        "w3": (12, 1, 3, 3),
        "w4": (10, 6, 3, 3),
        "w5": (10, 7),
        "w6": (7, 5),
    }
    constants = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    spread = {"pads": (1, 1, 1, 1)}
    nodes = (
        Node("Conv", ("x", "w1"), ("a",), spread, "c1"),
        Node("Relu", ("a",), ("ar",)),
        Node("Conv", ("ar", "w2"), ("b",), {}, "c2"),
        Node("Conv", ("b", "w3"), ("c",), {"group": 12, **spread}, "c3"),
        Node("Conv", ("c", "w4"), ("d",), {"group": 2, "strides": (2, 2)}, "c4"),
        Node("GlobalAveragePool", ("d",), ("p",)),
        Node("Flatten", ("p",), ("f",), {"axis": 1}),
        Node("Gemm", ("f", "w5"), ("g",), {"alpha": 0.5}, "fc1"),
        Node("MatMul", ("g", "w6"), ("y",), {}, "fc2"),
    )
    ranks = {"x": ("N", 3, 9, 9), "y": ("N", 5)}
    values = {name: Value(name, array.shape, F32) for name, array in constants.items()}
    for name in ("x", "a", "ar", "b", "c", "d", "p", "f", "g", "y"):
        values[name] = Value(name, ranks.get(name), F32)
    return Graph("small", nodes, ("x",), ("y",), values, constants)


def nonzeros(graph: Graph) -> dict[str, int]:
    return {layer.name: np.count_nonzero(graph.constants[layer.weight]) for layer in find_layers(graph)}


def test_roles_are_found():
    roles = {layer.name: layer.roles for layer in find_layers(small_network())}
    assert roles == {
        "c1": ("first",),
        "c2": (),
        "c3": ("depthwise",),
        "c4": (),
        "fc1": (),
        "fc2": ("classifier",),
    }


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 0.97])
def test_uniform_prunes_each_layer_to_the_exact_count_and_spares_the_rest(digits, sparsity):
    pruned, report = prune(digits, sparsity=sparsity)
    for layer, row in zip(find_layers(digits), report.layers, strict=True):
        expected = layer.size if layer.roles else layer.size - zeros_for(sparsity, layer.size)
        assert row.nonzero == np.count_nonzero(pruned.constants[layer.weight]) == expected
        assert row.spared == (layer.roles[0] if layer.roles else "")


def test_what_stays_is_unchanged_and_larger_than_what_goes(digits):
    pruned, _ = prune(digits, sparsity=0.8)
    for layer in find_layers(digits):
        before, after = digits.constants[layer.weight], pruned.constants[layer.weight]
        gone = after == 0
        np.testing.assert_array_equal(after[~gone], before[~gone])
        assert np.abs(before[gone]).max(initial=0) <= np.abs(before[~gone]).min()


def test_the_given_graph_stays_as_it_is():
    graph = small_network()
    copies = {name: array.copy() for name, array in graph.constants.items()}
    x = np.random.default_rng(1).normal(size=(4, 3, 9, 9)).astype(np.float32)
    prune(graph, sparsity=0.5, calibration=x, refine=True)
    for name, array in copies.items():
        np.testing.assert_array_equal(graph.constants[name], array)


def test_global_scope_has_one_threshold_and_the_exact_total(digits):
    pruned, _ = prune(digits, sparsity=0.9, scope="global")
    free = [layer for layer in find_layers(digits) if not layer.roles]
    total = sum(layer.size for layer in free)
    counts = nonzeros(pruned)
    assert sum(counts[layer.name] for layer in free) == total - zeros_for(0.9, total)
    gone = [digits.constants[x.weight][pruned.constants[x.weight] == 0] for x in free]
    kept = [pruned.constants[x.weight][pruned.constants[x.weight] != 0] for x in free]
    assert np.abs(np.concatenate(gone)).max() <= np.abs(np.concatenate(kept)).min()
    assert len({round(counts[layer.name] / layer.size, 2) for layer in free}) > 1


def test_lamp_does_not_care_how_a_layer_is_scaled():
    graph = small_network()
    scaled = graph.with_(constants={**graph.constants, "w2": graph.constants["w2"] * np.float32(64)})
    options = {"criterion": "lamp", "scope": "global", "sparsity": 0.7, "spare": ()}
    first, second = prune(graph, **options)[0], prune(scaled, **options)[0]
    for name in graph.constants:
        np.testing.assert_array_equal(first.constants[name] == 0, second.constants[name] == 0)
    assert all(nonzeros(first).values())


@pytest.mark.parametrize("name", criteria())
@pytest.mark.parametrize("block", [1, 2, 4, 8])
def test_blocks_stay_or_go_as_one(digits, name, block):
    pruned, report = prune(digits, name, 0.75, block=block, spare=())
    for layer in find_layers(digits):
        rows = to_rows(layer, pruned.constants[layer.weight])
        for start in range(0, rows.shape[1], block):
            live = (rows[:, start : start + block] != 0).sum(axis=1)
            assert set(np.unique(live)) <= {0, min(block, rows.shape[1] - start)}
    # Whole blocks only: a layer misses its count by less than one block.
    for row, layer in zip(report.layers, find_layers(digits), strict=True):
        assert 0 <= row.nonzero - (layer.size - zeros_for(0.75, layer.size)) < block


@given(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 20), st.floats(0, 0.99), st.sampled_from([1, 2, 4])
)
def test_masks_have_the_count_and_never_drop_a_better_block(groups, outputs, depth, sparsity, block):
    scores = np.random.default_rng(groups * outputs * depth).random((groups, outputs, depth))
    zeros = zeros_for(sparsity, scores.size)
    keep = keep_mask(scores, zeros, block)
    assert keep.shape == scores.shape
    dropped = int((~keep).sum())
    assert dropped == zeros if block == 1 else zeros - block < dropped <= zeros
    if block == 1 and 0 < dropped < scores.size:
        assert scores[~keep].max() <= scores[keep].min()


def test_rows_round_trip():
    graph = small_network()
    for layer in find_layers(graph):
        weight = graph.constants[layer.weight]
        np.testing.assert_allclose(from_rows(layer, to_rows(layer, weight)), weight, rtol=1e-6)


def test_per_layer_overrides_everything():
    pruned, _ = prune(small_network(), sparsity=0.5, scope="global", per_layer={"c1": 0.25, "c2": 0.0})
    counts = nonzeros(pruned)
    assert counts["c1"] == 216 - 54
    assert counts["c2"] == 96
    assert counts["c3"] == 108
    assert counts["c4"] + counts["fc1"] == (540 + 70) - 305


def test_zero_weights_already_there_count():
    graph = small_network()
    half = graph.constants["w2"].copy()
    half[:6] = 0
    pruned, _ = prune(graph.with_(constants={**graph.constants, "w2": half}), sparsity=0.5)
    np.testing.assert_array_equal(pruned.constants["w2"], half)


def test_shared_weights_are_pruned_once_and_not_fitted():
    graph = small_network()
    twice = graph.nodes[2].with_(inputs=("ar", "w2"), outputs=("b2",), name="again")
    join = Node("Add", ("b1", "b2"), ("b",))
    nodes = (*graph.nodes[:2], graph.nodes[2].with_(outputs=("b1",)), twice, join, *graph.nodes[3:])
    values = {**graph.values, **{name: Value(name, None, F32) for name in ("b1", "b2")}}
    shared = graph.with_(nodes=nodes, values=values)
    x = np.random.default_rng(1).normal(size=(8, 3, 9, 9)).astype(np.float32)
    pruned, report = prune(shared, sparsity=0.5, calibration=x)
    assert [row.name for row in report.layers].count("c2") == 1
    kept = pruned.constants["w2"] != 0
    np.testing.assert_array_equal(pruned.constants["w2"][kept], graph.constants["w2"][kept])
    row = next(row for row in report.layers if row.name == "c2")
    assert row.error_before == row.error_after
    verify(pruned)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sparsity": 1.0}, "[0, 1)"),
        ({"sparsity": -0.1}, "[0, 1)"),
        ({"sparsity": float("nan")}, "[0, 1)"),
        ({"criterion": "magnitud"}, "did you mean 'magnitude'?"),
        ({"scope": "globl"}, "did you mean 'global'?"),
        ({"spare": ["dephtwise"]}, "did you mean 'depthwise'?"),
        ({"spare": "first"}, "['first']"),
        ({"block": 3}, "(1, 2, 4, 8)"),
        ({"per_layer": {"c22": 0.5}}, "did you mean 'c2'?"),
        ({"per_layer": {"c2": 1.5}}, "per_layer['c2'] is 1.5"),
        ({"damping": 0.0}, "damping"),
        ({"calibration": np.zeros((4, 1, 9, 9), np.float32)}, "('N', 3, 9, 9)"),
        ({"calibration": np.zeros((4, 3, 9), np.float32)}, "shape (4, 3, 9)"),
        ({"calibration": np.zeros((4, 3, 9, 9))}, "astype('float32')"),
        ({"calibration": np.full((4, 3, 9, 9), np.nan, np.float32)}, "NaN"),
        ({"calibration": np.zeros((0, 3, 9, 9), np.float32)}, "no images"),
        ({"calibration": []}, "no images"),
        ({"calibration": {"z": np.zeros((4, 3, 9, 9), np.float32)}}, "['x']"),
    ],
)
def test_wrong_arguments_say_what_to_do(options, words):
    with pytest.raises(InputError) as error:
        prune(small_network(), **options)
    assert words in str(error.value)


def test_weights_that_are_not_finite_are_refused():
    graph = small_network()
    bad = graph.constants["w2"].copy()
    bad[3] = np.inf
    with pytest.raises(ModelError, match="'w2' of Conv 'c2'"):
        prune(graph.with_(constants={**graph.constants, "w2": bad}))


def test_the_report_prints_and_turns_into_json(golden):
    _, report = prune(small_network(), sparsity=0.5)
    golden("report.txt", str(report))
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["total"] == {"weights": 1065, "nonzero": 712, "sparsity": pytest.approx(353 / 1065)}
    assert [row["name"] for row in plain["layers"]] == ["c1", "c2", "c3", "c4", "fc1", "fc2"]


def test_progress_counts_every_layer():
    seen = []
    prune(small_network(), progress=lambda done, total, name: seen.append((done, total, name)))
    names = ["c1", "c2", "c3", "c4", "fc1", "fc2", ""]
    assert seen == [(index, 6, name) for index, name in enumerate(names)]


def test_a_network_without_layers_is_returned_as_it_is():
    graph = Graph(
        "none",
        (Node("Relu", ("x",), ("y",)),),
        ("x",),
        ("y",),
        {name: Value(name, ("N", 3), F32) for name in "xy"},
        {},
    )
    pruned, report = prune(graph, calibration=np.ones((2, 3), np.float32))
    assert report.layers == () and report.weights == 0
    np.testing.assert_array_equal(evaluate(pruned, {"x": np.ones((1, 3), np.float32)})[0], np.ones((1, 3)))
