"""Costs add up, and multiply-accumulates are counted as the published networks' are."""

import numpy as np
import pytest

from zeroskip.errors import InputError
from zeroskip.graph import Cost, arithmetic_cost, bind, load, simplify, total

# Published in the networks' own papers or model cards: MobileNets (2017) 569 M, MobileNetV2 (2018) 300 M
# multiply-adds; both count the convolutions and the classifier.
MACS = {"mobilenet_v1_1.0_224": 569e6, "mobilenet_v2_1.0_224_qat": 300e6}


@pytest.mark.parametrize("name", MACS)
def test_multiply_accumulates_of_known_networks(shared, name):
    graph = load(shared / f"models/{name}.onnx")
    cost = arithmetic_cost(simplify(bind(graph, {graph.inputs[0]: (1, 3, 224, 224)})))
    assert cost.dense_macs == pytest.approx(MACS[name], rel=0.01)
    assert cost.dense_macs == sum(part.dense_macs for part in cost.parts)


def test_effectual_multiply_accumulates_follow_the_weights(make):
    w = np.ones((4, 2, 3, 3), np.float32)
    w[:, :, 0] = 0
    body = "[first] c = Conv<pads=[1,1,1,1], group=2>(x, w) f = Flatten(c) [last] y = Gemm(f, g)"
    graph = make("float[N,4,5,5] x", "y", body, w=w, g=np.eye(100, 7, dtype=np.float32))
    cost = arithmetic_cost(bind(graph, {"x": (2, 4, 5, 5)}))
    assert [(p.name, p.dense_macs, p.effectual_macs) for p in cost.parts] == [
        ("first", 2 * 4 * 25 * 18, 2 * 4 * 25 * 12),
        ("last", 2 * 700, 2 * 7),
    ]


def test_transposed_convolution_and_matmul_are_counted(make):
    w = np.ones((4, 3, 2, 2), np.float32)
    graph = make(
        "float[1,4,5,5] x",
        "y",
        "t = ConvTranspose(x, w) y = MatMul(t, m)",
        w=w,
        m=np.ones((6, 2), np.float32),
    )
    cost = arithmetic_cost(bind(graph, {"x": (1, 4, 5, 5)}))
    assert [p.dense_macs for p in cost.parts] == [100 * 12, 3 * 6 * 2 * 6]


def test_trees_add_up():
    a = Cost("a", dense_macs=4, effectual_macs=1, bytes_moved={"dram": 8, "buffer": 2}, seconds=0.25)
    b = Cost("b", dense_macs=6, bytes_moved={"dram": 1}, cycles=7, picojoules=0.5)
    both = total("both", [a, b])
    assert both == Cost("both", 10, 1, {"dram": 9, "buffer": 2}, 7, 0.25, 0.5, (a, b))
    assert [c.name for c in total("all", [both, a])] == ["all", "both", "a", "b", "a"]
    assert total("all", [both, a]).to_dict()["parts"][0]["parts"][1]["picojoules"] == 0.5
    with pytest.raises(InputError, match="cost of wrong does not add up: cycles is 8, its parts sum to 7"):
        Cost("wrong", 10, 1, {"dram": 9, "buffer": 2}, 8, 0.25, 0.5, (a, b))
    with pytest.raises(InputError, match="bytes_moved differ"):
        Cost("wrong", 10, 1, {"dram": 9}, 7, 0.25, 0.5, (a, b))
