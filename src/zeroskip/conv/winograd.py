"""Winograd convolution F(m x m, r x r) (Lavin & Gray, CVPR 2016).

A tile of m x m output pixels takes a = m + r - 1 rows and columns of input d. With the matrices of
`toom_cook`,

    Y = A^T [ sum over c of (G g_c G^T) * (B^T d_c B) ] A,

that is a^2 products per channel for m^2 outputs instead of r^2 m^2. For 3 x 3 kernels a = 4, 6 and 8 give the
paper's F(2x2, 3x3), F(4x4, 3x3) and F(6x6, 3x3): 2.25, 4 and 5.06 times fewer. Tiles are done in *blocks*
that stay in the second cache: transform the block's input, multiply for a *chunk* of output channels,
transform back with the epilogue, next chunk. With several threads a few blocks are done at a time.

Vectors hold a number of many tiles (`winograd_tiles`) or, for few, of many channels (`winograd_channels`).

A strided layer is a sum over the phases of its input, with stride 1 and a kernel of r = ceil(R / stride) rows
for each: 7x7/2 is F(3x3, 4x4) on four times the channels, 3.06 times fewer products. Kernels that are not
square are filled up with zeros.

Rounding: where direct convolution errs by at most ``n u sum |g| |d|`` (n = R S C terms, u = 2^-24), here it
is at most ``(n + 4 a^2) u |A^T| [sum (|G| |g| |G^T|) * (|B^T| |d| |B|)] |A|``; for data of equal size that is
larger by `Transforms.growth`: for 3 x 3 kernels 7 with a = 4, 60 with a = 6 and 509 with a = 8. What is met
is far smaller: the largest error over the largest output of 256 channels of normal data is 6e-7, 3e-6 and
2e-5 (direct 9e-7), and of 16 channels 2e-7, 7e-7 and 6e-6. Two float32 runs of a network are taken to agree
within ``8 * 2^-23 * sqrt(R S C)`` per layer (`zeroskip.bench.agreement`), 5e-5 and 1.1e-5 for these; so a = 8
is offered from 144 terms R S C on, which 16 channels have, or 3 of a 7x7 kernel (there a third to a half of
that tolerance; with 4 channels of 3x3 all of it). NaN and infinity spread over their tiles.
"""

from __future__ import annotations

from zeroskip.codegen import Call, Target
from zeroskip.conv import winograd_channels, winograd_tiles
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.problem import ConvProblem
from zeroskip.conv.toom_cook import POINTS
from zeroskip.conv.winograd_variant import kernel_size, parse_variant

# Terms R S C of a sum from which on `a` products a dimension are accurate enough: see above.
LEAST_TERMS = {4: 1, 6: 1, 8: 144}
# Kernels of more rows leave tiles of one pixel, or products too inexact.
LARGEST_KERNEL = 5


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    r = kernel_size(problem)
    if r == 1:
        return "no two outputs read the same input pixel, so no products can be saved"
    if r > LARGEST_KERNEL:
        return f"the kernel is {problem.R}x{problem.S}; beyond {LARGEST_KERNEL} rows transforms are inexact"
    if problem.dilations != (1, 1):
        return f"dilations {problem.dilations}; the transforms take neighbouring pixels"
    if problem.groups != 1:
        return f"{problem.groups} groups; the transforms pay only where many channels are summed"
    return None


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    r = kernel_size(problem)
    sizes = [a - r + 1 for a in POINTS if a > r and LEAST_TERMS[a] <= problem.R * problem.S * problem.C]
    ways = (winograd_tiles.variants, winograd_channels.variants)
    return [str(variant) for m in sizes for variants in ways for variant in variants(problem, m, r, target)]


def _cycles(problem: ConvProblem, text: str, target: Target) -> float:
    variant = parse_variant(text)
    cycles = winograd_channels.cycles if variant.mr else winograd_tiles.cycles
    return cycles(problem, variant, target)


def _build(problem: ConvProblem, text: str, site: Site) -> tuple[Call, ...]:
    variant = parse_variant(text)
    build = winograd_channels.build if variant.mr else winograd_tiles.build
    return build(problem, variant, site)


ALGORITHM = Algorithm(
    "winograd",
    "F(2x2, 3x3), F(4x4, 3x3), F(6x6, 3x3) and their kin: 2.25 to 5 times fewer products, more rounding",
    "Lavin & Gray, CVPR 2016",
    _refuses,
    _variants,
    _cycles,
    _build,
    growth=lambda text: parse_variant(text).matrices.growth,
    in_place=True,
)
