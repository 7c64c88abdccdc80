"""The passes in order, and what each did."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from zeroskip.errors import ModelError
from zeroskip.graph.ir import Graph
from zeroskip.graph.passes.affine import fold_affine
from zeroskip.graph.passes.cleanup import drop_dead, drop_no_ops
from zeroskip.graph.passes.composite import (
    matmul_to_gemm,
    merge_pads,
    recognise_activations,
    reduce_to_global_pool,
)
from zeroskip.graph.passes.constant_folding import fold_constants
from zeroskip.graph.passes.fusion import fuse_activations, fuse_residuals
from zeroskip.graph.passes.shuffle import shuffles_to_gather
from zeroskip.graph.passes.standalone_affine import affine_to_depthwise
from zeroskip.graph.passes.transposed import transposed_to_convolution
from zeroskip.graph.verify import verify

Rewriting = Callable[[Graph], tuple[Graph, dict[str, int]]]

PASSES: Mapping[str, Rewriting] = {
    "fold constants": fold_constants,
    "drop no-ops": drop_no_ops,
    "matmul to gemm": matmul_to_gemm,
    "reduce to global pool": reduce_to_global_pool,
    "recognise activations": recognise_activations,
    "merge pads": merge_pads,
    "shuffles to gather": shuffles_to_gather,
    "fold affine": fold_affine,
    "affine to depthwise": affine_to_depthwise,
    "fuse residuals": fuse_residuals,
    "fuse activations": fuse_activations,
    "transposed to convolution": transposed_to_convolution,
    "drop dead": drop_dead,
}
"""Name to pass, in the order in which `simplify` applies them."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PassReport:
    """What one pass did: whether it changed the graph, and counts by its own names."""

    name: str
    modified: bool
    stats: Mapping[str, int]


def simplify(graph: Graph) -> Graph:
    """The same network in fewer and fused nodes; see `simplify_with_report`."""
    return simplify_with_report(graph)[0]


def simplify_with_report(graph: Graph) -> tuple[Graph, tuple[PassReport, ...]]:
    """Apply `PASSES` in order, verifying after each that changed something.

    Raises:
        ModelError: a pass left an inconsistent graph; the message names the pass.
    """
    reports = []
    for name, rewrite in PASSES.items():
        result, stats = rewrite(graph)
        modified = result is not graph
        if modified:
            try:
                verify(result, since=graph)
            except ModelError as error:
                raise ModelError(f'after the pass "{name}": {error}') from error
            _log.debug("%s: %s", name, stats)
        reports.append(PassReport(name, modified, stats))
        graph = result
    return graph, tuple(reports)
