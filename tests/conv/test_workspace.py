"""What `zs.conv_memory` says is what convolutions allocate; and the published words are among it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import zeroskip as zs
from zeroskip.codegen import resolve
from zeroskip.codegen.layout import LINE, round_up
from zeroskip.conv import ALGORITHMS, ConvProblem
from zeroskip.encodings import conv_memory as published
from zeroskip.encodings.lowering import WORDS
from zeroskip.engine.executor import Context
from zeroskip.engine.network import Network


@dataclass(frozen=True)
class Case:
    """A convolution, as the arguments of `conv_memory` say it."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def options(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    @property
    def groups(self):
        return self.x[1] // self.w[1]

    @property
    def outputs(self):
        return tuple(
            (
                self.x[2 + a]
                + self.padding[a]
                + self.padding[a + 2]
                - (self.w[2 + a] - 1) * self.dilation[a]
                - 1
            )
            // self.stride[a]
            + 1
            for a in (0, 1)
        )


CASES = {
    "3x3": Case((2, 20, 14, 13), (24, 20, 3, 3), padding=(1, 1, 1, 1)),
    "1x1": Case((1, 40, 7, 9), (33, 40, 1, 1)),
    "strided": Case((1, 12, 15, 16), (16, 12, 3, 3), stride=(2, 2), padding=(1, 1, 1, 1)),
    "dilated": Case((1, 5, 15, 16), (8, 5, 2, 3), dilation=(2, 3), padding=(0, 2, 1, 0)),
    "groups": Case((2, 12, 9, 9), (16, 6, 3, 3), padding=(1, 1, 1, 1)),
    "depthwise": Case((1, 24, 12, 12), (24, 1, 3, 3), padding=(1, 1, 1, 1)),
    "7x7": Case((1, 3, 30, 30), (20, 3, 7, 7), stride=(2, 2), padding=(3, 3, 3, 3)),
    "1-D": Case((2, 9, 1, 50), (10, 9, 1, 9), padding=(0, 4, 0, 4)),
}


@pytest.fixture
def allocations(monkeypatch):
    """Bytes that the last convolution asked for: workspace, and the largest scratch memory of a call."""
    sizes: list[int] = []
    scratch = [0]
    workspace, reserve = Network.workspace, Context.scratch

    def note_workspace(network, size):
        sizes.append(size)
        return workspace(network, size)

    def note_scratch(context, size):
        scratch.append(size * context.plan.threads)
        return reserve(context, size)

    monkeypatch.setattr(Network, "workspace", note_workspace)
    monkeypatch.setattr(Context, "scratch", note_scratch)

    def last():
        total = sum(sizes) + round_up(max(scratch), LINE)
        sizes.clear()
        scratch[1:] = []
        return total

    return last


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_allocated_is_what_is_said(allocations, name):
    rng = np.random.default_rng(0)
    checked = 0
    for case in CASES.values():
        x, w = (rng.standard_normal(shape).astype(np.float32) for shape in (case.x, case.w))
        for threads in (1, 2):
            try:
                said = zs.conv_memory(name, case.x, case.w, measured=True, threads=threads, **case.options)
            except zs.AlgorithmError:
                continue
            allocations()
            zs.conv2d(x, w, groups=case.groups, algorithm=name, threads=threads, **case.options)
            assert allocations() == 4 * said, case
            checked += 1
    assert checked, "no case is accepted"


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name in WORDS])
def test_published_words_are_the_default(name):
    case = CASES["3x3"]
    words = published(name, case.x, case.w, stride=case.stride, padding=case.padding)
    assert zs.conv_memory(name, case.x, case.w, padding=1) == words


LANES = resolve("host").lanes
SUMS = {
    "im2col": lambda case, mr, nv: -(-case.w[0] // case.groups // mr) * mr * nv * LANES,
    "mec": lambda case, mr, nv: -(-case.w[0] // case.groups // mr) * mr * nv * LANES,
    "indirect": lambda case, mr, nv: LANES * LANES * (nv + 1),
    "channel_direct": lambda case, mr, nv: LANES * LANES * nv,
}
"""Scratch words, which the documentation states: sums of a panel of pixels on their way to planes."""


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("case", [CASES["3x3"], CASES["groups"]], ids=["3x3", "groups"])
def test_the_difference_to_the_published_words_is_as_documented(name, case):
    n, c, h, w = case.x
    if name == "indirect":
        expected = n * (h * w + 1) * c
    else:
        expected = published(name, case.x, case.w, stride=case.stride, padding=case.padding)
    w = np.ones(case.w, np.float32)
    problem = ConvProblem(*case.x, w, pads=case.padding, groups=case.groups)
    texts = ALGORITHMS[name].variants(problem, resolve("host"))
    variant = [text for text in texts if "t" not in text][-1]
    mr, nv = map(int, variant.split("/")[0].split("x"))
    said = zs.conv_memory(name, case.x, case.w, measured=True, variant=variant, **case.options)
    assert said == expected + SUMS[name](case, mr, nv)


@pytest.mark.parametrize("name", ["direct", "sparse_direct", "block_sparse"])
def test_nothing_is_lowered(name):
    """Without shifted or segmented panels there is no memory but the input split by strides."""
    problem = ConvProblem(1, 8, 20, 20, np.ones((16, 8, 3, 3), np.float32))
    texts = ALGORITHMS[name].variants(problem, resolve("host"))
    whole = [text for text in texts if "/" not in text and not text.endswith("s")]
    for text in whole[:3]:
        assert zs.conv_memory(name, (1, 8, 20, 20), (16, 8, 3, 3), measured=True, variant=text) == 0
    assert whole
    split = zs.conv_memory(name, (1, 8, 21, 20), (16, 8, 3, 3), stride=2, measured=True)
    assert split >= 8 * 21 * 20
    assert zs.conv_memory(name, (1, 8, 20, 20), (16, 8, 3, 3)) == 0


def test_transforms_say_what_they_allocate():
    """No formula is published that does not depend on tiles: the default is what is allocated."""
    shapes = (1, 16, 30, 30), (16, 16, 3, 3)
    assert zs.conv_memory("winograd", *shapes) == zs.conv_memory("winograd", *shapes, measured=True)
    problem = ConvProblem(1, 16, 30, 30, np.ones(shapes[1], np.float32))
    texts = ALGORITHMS["winograd"].variants(problem, resolve("host"))
    assert len({zs.conv_memory("winograd", *shapes, variant=text) for text in texts}) > 1


@pytest.mark.parametrize(
    "options, error, word",
    [
        ({"algorithm": "mek"}, zs.AlgorithmError, "mec"),
        ({"variant": "9x9", "measured": True}, zs.InputError, "9x9"),
        ({"dilation": 2}, zs.InputError, "measured"),
        ({"algorithm": "fft"}, zs.AlgorithmError, "7 or more"),
        ({"x_shape": (4, 2, 2), "measured": True}, zs.InputError, "kernel"),
        ({"w_shape": (4, 3, 3, 3), "measured": True}, zs.InputError, "multiple"),
    ],
)
def test_bad_arguments(options, error, word):
    arguments = {"algorithm": "im2col", "x_shape": (4, 9, 9), "w_shape": (4, 4, 3, 3)} | options
    with pytest.raises(error, match=word):
        zs.conv_memory(**arguments)


def test_counting_compiles_nothing(monkeypatch):
    monkeypatch.setattr("zeroskip.engine.network.begin", lambda *_: pytest.fail("kernels were compiled"))
    assert zs.conv_memory("im2col", (8, 12, 12), (4, 8, 3, 3), measured=True) > 0
