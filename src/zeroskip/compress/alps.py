"""ALPS: better masks from the least-squares problem itself, by alternating directions (ADMM).

Pruning a layer to ``zeros`` zeros and fitting the rest is ``min tr(W^T A W - 2 B^T W)`` over W with that many
zeros, A and B as in `zeroskip.compress.reconstruct`. ADMM splits W into a dense part W and a sparse part Z:

    W <- (A + rho I)^-1 (B + rho (Z - U))      Z <- the largest of W + U      U <- U + W - Z

with rho growing until the mask stays the same. Inputs are scaled so that A has a unit diagonal. Source: Meng,
Behdin, Wang, Mazumder, ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language
Models (2024), algorithm 1; the scaled-dual form, blocks, and one eigendecomposition in place of a
factorisation per rho are ours. The layer timed in `zeroskip.compress.reconstruct` takes 59 s at 90 % zeros.
"""

from __future__ import annotations

import numpy as np

from zeroskip.compress.masks import keep_mask
from zeroskip.graph.operator import Array

RHO = 0.1
EVERY = 3
ROUNDS = 300
GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
"""rho's first value; iterations between its changes; an upper bound of iterations; and by how much rho grows
while more than that share of the kept weights changes. The paper's schedule has this form; its numbers are
from memory, and masks settle within 30 to 60 iterations on the networks of our tests."""


def improve_mask(rows: Array, keep: Array, normal: tuple[Array, Array], zeros: int, block: int) -> Array:
    """A mask with as many zeros as `keep`, bool ``[G, K/G, D]``, that mostly fits better.

    `normal` are A and B of `zeroskip.compress.reconstruct.normal_equations`.
    """
    a, b = normal
    scale = np.sqrt(np.einsum("gdd->gd", a))[:, :, np.newaxis]
    values, vectors = np.linalg.eigh(a / scale / scale.transpose(0, 2, 1))
    b = b / scale
    turned = vectors.transpose(0, 2, 1)
    sparse = np.where(keep, rows, 0).transpose(0, 2, 1) * scale
    dual, rho, kept = np.zeros_like(sparse), RHO, max(1, rows.size - zeros)
    mask = last = keep
    for step in range(1, ROUNDS + 1):
        dense = vectors @ (turned @ (b + rho * (sparse - dual)) / (values + rho)[:, :, np.newaxis])
        both = dense + dual
        mask = keep_mask(np.abs(both).transpose(0, 2, 1), zeros, block)
        sparse = np.where(mask.transpose(0, 2, 1), both, 0)
        dual = both - sparse
        if step % EVERY == 0:
            changed = int((mask != last).sum()) / kept
            if changed == 0:
                break
            rho *= next(growth for share, growth in GROWTH if changed > share)
            last = mask
    return mask
