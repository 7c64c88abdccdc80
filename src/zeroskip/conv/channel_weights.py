"""Weights and biases for vectors of output channels."""

from __future__ import annotations

import numpy as np

from zeroskip.conv.problem import Array, ConvProblem


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
