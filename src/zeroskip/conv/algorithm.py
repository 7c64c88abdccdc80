"""What an algorithm tells of itself: the row that tests, the selector, the command line and the docs read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zeroskip.codegen import Call, Operand, Target
from zeroskip.conv.problem import ConvProblem

# Of the multiply-adds that the core could do, where nothing else is in the way.
PEAK = 0.9
# Predictions take this share of a ReLU's outputs to be non-zero; measurements tell.
DENSITY = 0.5


@dataclass(frozen=True)
class Site:
    """Where a convolution happens: its operands in memory, the machine, and how many threads share the work.

    Operands are planes; for `plain` algorithms `x` and `y` may be plain arrays (N, C, H, W), `y` only where
    there is no residual. `x` is split by the strides (see `Planar.phases`) when the algorithm is `shifted`
    and the layer is strided. `allocate` gives a buffer of so many bytes for the layer's own use, undefined
    at first.
    """

    x: Operand
    y: Operand
    residual: Operand | None
    target: Target
    threads: int
    allocate: Callable[[int], int]


def _as_direct(variant: str) -> float:
    return 1.0


def _none(variant: str) -> bool:
    return False


@dataclass(frozen=True)
class Algorithm:
    """A named way to do a convolution.

    `refuses` says in words why a layer cannot be done, or None. `variants` lists its parameter choices as
    text, `build` makes the kernel calls of one, `cycles` predicts its time (only ratios matter). `shifted`
    algorithms read planes split by strides, but for the variants that take the input `whole`; the others
    read the input as it is. `growth` says how many times a variant's rounding errors may exceed those of
    summing the products, for data of equal size. Those that are `in_place` read each residual right before
    they write that pixel, so that the two may be the same memory. `plain` ones read their input and write
    their output as plain arrays too, if such there are; the others know planes only. Those with `borders`
    read the zeros around an image in its planes. Variants that `pools` write the maxima of a pooled layer; a
    pool is to follow others. `skips` says whose zeros save time: ``"weights"``, ``"activations"`` or
    ``"both"``.
    """

    name: str
    description: str
    source: str
    refuses: Callable[[ConvProblem, Target], str | None]
    variants: Callable[[ConvProblem, Target], list[str]]
    cycles: Callable[[ConvProblem, str, Target], float]
    build: Callable[[ConvProblem, str, Site], tuple[Call, ...]]
    shifted: bool = True
    growth: Callable[[str], float] = _as_direct
    whole: Callable[[str], bool] = _none
    in_place: bool = False
    plain: bool = False
    borders: bool = True
    pools: Callable[[str], bool] = _none
    skips: str = ""

    def aligned(self, variant: str) -> bool:
        """Whether a variant needs input, split by strides, and output in planes of one geometry."""
        return self.shifted and not self.whole(variant)

    def converts(self, problem: ConvProblem, variant: str) -> tuple[bool, bool]:
        """Whether planes with room for the padding stand in for the input (unless split) and the output."""
        return (
            not self.plain if problem.plain_input else problem.apart and self.borders,
            not self.plain
            if problem.plain_output
            else problem.apart and not problem.strided and self.aligned(variant),
        )

    @property
    def guesses(self) -> bool:
        """Whether `cycles` guesses how many activations are zero: nobody knows before measuring."""
        return self.skips in ("activations", "both")
