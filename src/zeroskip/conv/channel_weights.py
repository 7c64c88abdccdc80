"""What algorithms on vectors of output channels share: how tiles are called, how weights lie."""

from __future__ import annotations

import numpy as np

from zeroskip.conv.problem import Array, ConvProblem


def tile_of(variant: str) -> tuple[int, int]:
    """MR pixels and NV vectors of output channels, of a variant called ``7x3``."""
    mr, nv = map(int, variant.split("x"))
    return mr, nv


def channel_weights(problem: ConvProblem, width: int) -> tuple[Array, Array]:
    """In chunks of `width` channels of a group: float32 (chunks, R S, C/groups, width) and (chunks, width).

    Channels that are missing in a group's last chunk are zero.
    """
    outputs, inputs = problem.K // problem.groups, problem.C // problem.groups
    chunks = -(-outputs // width)
    shape = (problem.groups, chunks * width)
    w = np.zeros((*shape, inputs, problem.R * problem.S), np.float32)
    w[:, :outputs] = problem.w.reshape(problem.groups, outputs, inputs, -1)
    w = w.reshape(problem.groups * chunks, width, inputs, -1).transpose(0, 3, 2, 1)
    bias = np.zeros(shape, np.float32)
    if problem.bias is not None:
        bias[:, :outputs] = problem.bias.reshape(problem.groups, outputs)
    return np.ascontiguousarray(w), bias
