"""What it costs to bring operands into the planes that a variant reads and writes, or back; and to pool."""

from __future__ import annotations

from math import prod

from zeroskip.conv.algorithm import Algorithm
from zeroskip.conv.problem import ConvProblem

# Cycles a float between plain arrays and planes (64x56x56 in and 64x54x54 out take 64 us), and a float of
# planes split by strides (of 64x112x112 and 256x56x56, from the last cache).
CONVERSION, SPLIT = 0.7, 0.6
# And a float that a pool of 2x2 pixels reads.
POOLED = 0.6


def preparation(row: Algorithm, variant: str, problem: ConvProblem) -> float:
    """Cycles before and after the variant's own."""
    convert_x, convert_y = row.converts(problem, variant)
    cycles = 0.0
    if problem.strided and row.aligned(variant):
        cycles += SPLIT * problem.N * problem.C * len(problem.phases) * prod(problem.split_size)
    elif convert_x:
        cycles += CONVERSION * problem.N * problem.C * problem.H * problem.W
    outputs = problem.N * problem.K * problem.P * problem.Q
    if problem.pooled and not row.pools(variant):
        cycles += POOLED * outputs
    elif convert_y:
        cycles += CONVERSION * outputs
    return cycles
