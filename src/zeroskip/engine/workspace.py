"""What a convolution algorithm takes besides its input, weights and output: as published, and here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from zeroskip.codegen import resolve
from zeroskip.conv import ALGORITHMS, find
from zeroskip.encodings import lowering
from zeroskip.encodings.registry import nearest
from zeroskip.encodings.strips import Pair, pair
from zeroskip.engine.convolutions import Choice, ConvSite
from zeroskip.engine.functional import conv_graph
from zeroskip.engine.lowering import lower
from zeroskip.engine.network import Network
from zeroskip.engine.prepare import prepare
from zeroskip.engine.selection import Selector
from zeroskip.errors import AlgorithmError, InputError


def conv_memory(
    algorithm: str,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    *,
    stride: Pair = 1,
    padding: int | tuple[int, ...] = 0,
    x: ArrayLike | None = None,
    dilation: Pair = 1,
    measured: bool = False,
    variant: str | None = None,
    threads: int = 1,
    target: str = "host",
) -> int:
    """Words (4 bytes) that `algorithm` needs for its lowered or encoded form of the input, the whole batch.

    The answer is the published formula where the algorithm has one (`zeroskip.encodings.lowering`: im2col,
    mec, cscc, cpo, cps, indirect, and 0 where nothing is lowered). With `measured`, and for algorithms whose
    memory depends on how they are built (winograd, fft, activation_sparse ...), it is what `zs.conv2d`
    allocates besides input, weights and output: workspace, and scratch memory of all threads.

    Args:
        algorithm: a name of `zs.algorithms()`; also ``"coo"`` and ``"sparse_tensor"``, which have a formula.
        x_shape: (N, C, H, W) or (C, H, W), before padding.
        w_shape: (K, C / groups, R, S); the number of groups follows.
        stride: a number, or a pair (rows, columns).
        padding: a number, a pair (height, width), or four (top, left, bottom, right).
        x: the map, of shape `x_shape`, on which formulas of sparse forms depend; without it they are for a
            map that has no zeros, padding included: the worst case, which is what gets allocated.
        dilation: a number, or a pair (rows, columns); formulas are for 1.
        measured: count what is allocated, not what is published.
        variant: which variant of the algorithm, as a plan names it; by default the one predicted fastest,
            which `zs.conv2d` runs unless it was tuned.
        threads: threads that share the work.
        target: ``"host"`` or an x86-64 level.

    Raises:
        AlgorithmError: the algorithm is unknown, or refuses this convolution.
        InputError: shapes that do not go together, a variant that there is not.

    >>> [conv_memory(name, (256, 12, 12), (512, 256, 3, 3)) for name in ("im2col", "mec", "direct")]
    [230400, 92160, 0]
    >>> conv_memory("cpo", (256, 12, 12), (512, 256, 3, 3), x=np.zeros((256, 12, 12)))
    33
    """
    if algorithm not in lowering.WORDS and algorithm not in ALGORITHMS:
        known = [*ALGORITHMS, *(name for name in lowering.WORDS if name not in ALGORITHMS)]
        raise AlgorithmError(f"no lowering or encoding named {algorithm!r}; {nearest(algorithm, known)}")
    if not measured and algorithm in lowering.WORDS:
        if pair("dilation", dilation) != (1, 1):
            raise InputError(f"dilation: formulas are for 1, got {dilation}; measured=True counts any")
        return lowering.conv_memory(algorithm, x_shape, w_shape, stride=stride, padding=padding, x=x)
    dilations = pair("dilation", dilation)
    spans = tuple((cells - 1) * step + 1 for cells, step in zip(w_shape[2:], dilations, strict=False))
    # what formulas check of shapes holds for all
    lowering.conv_memory("im2col", x_shape, (*w_shape[:2], *spans), stride=stride, padding=padding)
    batched = (1,) * (4 - len(x_shape)) + tuple(x_shape)
    strides, pads = pair("stride", stride), lowering.four_sided(padding)
    groups = batched[1] // w_shape[1]
    w = np.ones(w_shape, np.float32)
    graph = conv_graph(batched, w, strides=strides, pads=pads, dilations=dilations, groups=groups)
    network = Network(prepare(graph, {"x": batched}, threads=threads), resolve(target), threads)
    return -(-_allocated(network, algorithm, variant) // 4)


def _allocated(network: Network, algorithm: str, variant: str | None) -> int:
    """Bytes that the one convolution of the network allocates for itself."""
    selector = Selector(network.target, network.threads, find(algorithm).name)

    def choose(name: str, site: ConvSite) -> Choice:
        if variant is None:  # what `conv2d` would take, whose operands are the caller's
            given = replace(site.problem, plain_input=True, plain_output=True)
            return selector.choose(name, replace(site, problem=given))
        known = find(algorithm).variants(site.problem, site.target)
        if variant not in known:
            raise InputError(f"{algorithm} has no variant {variant!r} here; {nearest(variant, known)}")
        return Choice(algorithm, variant, "given")

    plan = lower(network, choose, forced=True)
    homes = {operand.buffer for operand in network.homes.values()} | {network.planar("x").buffer}
    workspace = sum(plan.buffers[number].bytes for number in plan.step("conv").buffers if number not in homes)
    return workspace + plan.workspace_bytes
