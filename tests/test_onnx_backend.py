"""The official node tests of the onnx package, run through `zeroskip.backend`.

A test belongs here if every operator of its model is in `OPERATORS` (or one that reading rewrites).
"""

from __future__ import annotations

import unittest
import warnings

import numpy as np
import onnx.parser
import pytest

import zeroskip.backend as backend
from zeroskip.errors import InputError
from zeroskip.graph import OPERATORS
from zeroskip.graph.canonical import REPLACED

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the cases compute logarithms of zero while they are being built
    import onnx.backend.test
    from onnx.backend.test.loader import load_model_tests

    RUNNER = onnx.backend.test.BackendTest(backend, __name__)
    CASES = [case for kind in ("node", "simple") for case in load_model_tests(kind=kind)]

_RANDOM = "drops at random in training mode; zeroskip runs networks for inference"
_NOT_A_TENSOR = "its input is a sequence or optional, not a tensor"
_SCALES = "FLOAT8E8M0 is a format for scales of block quantisation; its rounding modes are not implemented"

SKIPPED = {
    "test_cast_e8m0_FLOAT16_to_FLOAT8E8M0": _SCALES,
    "test_cast_e8m0_FLOAT_to_FLOAT8E8M0": _SCALES,
    "test_identity_opt": _NOT_A_TENSOR,
    "test_identity_sequence": _NOT_A_TENSOR,
    "test_training_dropout": _RANDOM,
    "test_training_dropout_default": _RANDOM,
    "test_training_dropout_default_mask": _RANDOM,
    "test_training_dropout_mask": _RANDOM,
}
"""Test name to the reason why it is not run, although its operators are supported."""


def operators_of(case):
    """The operators that a test's model uses."""
    model = case.model or onnx.load(f"{case.model_dir}/model.onnx")
    return {node.op_type if node.domain in ("", "ai.onnx") else node.domain for node in model.graph.node}


SUPPORTED = {*OPERATORS, *REPLACED}
CHOSEN = {case.name: operators_of(case) for case in CASES if operators_of(case) <= SUPPORTED}


for category, tests in RUNNER.test_cases.items():
    for attribute in [a for a in dir(tests) if a.startswith("test_")]:
        name = attribute.removesuffix("_cpu")
        if name not in CHOSEN:
            delattr(tests, attribute)
        elif name in SKIPPED:
            setattr(tests, attribute, unittest.skip(SKIPPED[name])(getattr(tests, attribute)))
    globals()[category] = tests


def test_every_supported_operator_is_tested():
    """Operators that no official test names; ``Constant`` has one, and models always use it."""
    tested = set().union(*(ops for name, ops in CHOSEN.items() if name not in SKIPPED))
    assert set(OPERATORS) - tested == set()


def test_inputs_by_order_and_by_name():
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] a, float[2] b) => (float[2] y) { y = Sub(a, b) }'
    )
    a, b = np.array([3, 4], np.float32), np.array([1, 1], np.float32)
    ready = backend.prepare(model)
    for inputs in ([a, b], {"b": b, "a": a}):
        assert ready.run(inputs)[0].tolist() == [2, 3]
    assert backend.run_model(model, [a, b])[0].tolist() == [2, 3]
    assert backend.run_node(onnx.helper.make_node("Sub", ["a", "b"], ["y"]), [a, b])[0].tolist() == [2, 3]
    with pytest.raises(InputError, match="got 1 inputs, the model has 2: a, b"):
        ready.run([a])


def test_what_cannot_run_is_said():
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] a) => (float[2] y) { y = Selu(a) }'
    )
    assert not backend.is_compatible(model)
    assert backend.supports_device("CPU") and not backend.supports_device("CUDA")
    with pytest.raises(InputError, match="no device CUDA; use CPU"):
        backend.prepare(model, "CUDA")
