"""Pruning: the weights that matter least become zero, and those that stay are fitted to make up for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from zeroskip.compress.apply import Job, Progress, mask, mask_and_reconstruct
from zeroskip.compress.criteria import Criterion, find_criterion
from zeroskip.compress.layers import ROLES, Layer, check_names, find_layers, nearest, to_rows
from zeroskip.compress.masks import keep_masks, zeros_for
from zeroskip.compress.reconstruct import Fit
from zeroskip.compress.report import PruneReport
from zeroskip.compress.walk import Calibration, Runner, batches
from zeroskip.errors import InputError
from zeroskip.graph import evaluate
from zeroskip.graph.ir import Graph

SCOPES = ("uniform", "global")
BLOCKS = (1, 2, 4, 8)


def prune(
    graph: Graph,
    criterion: str = "magnitude",
    sparsity: float = 0.9,
    *,
    scope: str = "uniform",
    spare: Collection[str] = ROLES,
    calibration: Calibration | None = None,
    block: int = 1,
    per_layer: Mapping[str, float] | None = None,
    refine: bool = False,
    damping: float = 1e-3,
    positions: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    run: Runner | None = None,
    progress: Progress | None = None,
) -> tuple[Graph, PruneReport]:
    """Set the least important weights of every convolution and fully connected layer to zero.

    Args:
        graph: the network. Prune *after* `zeroskip.simplify` where it still has BatchNormalization nodes:
            folding them scales the weights of each channel, and the scaled weights are those that matter and
            that run.
        criterion: what makes a weight important; `zeroskip.compress.criteria()` lists the names.
        sparsity: the share of zeros wanted, in [0, 1). Weights that are zero already count.
        scope: ``"uniform"`` gives every layer that share; ``"global"`` one threshold over all of them.
        spare: roles of layers that keep all weights: ``"first"`` (no layer before it), ``"depthwise"``,
            ``"classifier"`` (no layer behind it).
        calibration: preprocessed images, float32 ``[images, C, H, W]``, or inputs by name, or an iterable of
            batches of either. With them every layer is reconstructed after pruning
            (`zeroskip.compress.reconstruct`).
        block: 1, 2, 4 or 8 neighbouring output channels of a tap stay or go together.
        per_layer: sparsity by layer name (the node's), which overrides `sparsity`, `scope` and `spare`.
        refine: with calibration, start from the criterion's masks and look for better ones (see
            `zeroskip.compress.alps`): fewer points of accuracy lost, more time. The error never gets worse.
        damping: of the reconstruction, see `zeroskip.compress.reconstruct.Fit`.
        positions: of the reconstruction, as `damping`.
        seed: of the reconstruction, as `damping`.
        batch_size: calibration images that run at a time.
        run: what runs the network on calibration images; the NumPy interpreter where it is not given.
        progress: called with (layers done, layers in all, next layer).

    Returns:
        The pruned graph, with the same nodes and names (a layer without a bias may gain one), and the report.
        The graph given stays as it is; an interrupted call leaves nothing behind.

    Raises:
        InputError: an argument is out of range or unknown, or the calibration does not fit the network.
        ModelError: a weight is NaN or infinite.

    >>> import numpy as np
    >>> from zeroskip.graph import Node, Value
    >>> f = np.dtype(np.float32)
    >>> weight = np.arange(1, 9, dtype=f).reshape(2, 4)
    >>> values = {"x": Value("x", ("N", 4), f), "y": Value("y", ("N", 2), f), "w": Value("w", (2, 4), f)}
    >>> layer = Node("Gemm", ("x", "w"), ("y",), {"transB": 1}, name="dense")
    >>> graph = Graph("g", (layer,), ("x",), ("y",), values, {"w": weight})
    >>> pruned, report = prune(graph, sparsity=0.75, spare=())
    >>> pruned.constants["w"]
    array([[0., 0., 0., 0.],
           [0., 0., 7., 8.]], dtype=float32)
    >>> report.nonzero
    2
    """
    layers = find_layers(graph)
    row = find_criterion(criterion)
    _check(row, sparsity, scope, spare, block, per_layer or {}, damping, calibration is not None)
    check_names(layers, per_layer or {})
    spared = _spared(layers, spare, per_layer or {})
    zeros = _zeros(graph, layers, row, sparsity, scope, block, per_layer or {}, spared)
    job = Job(row, zeros, spared, block, refine, Fit(damping, positions, seed), progress or (lambda *_: None))
    if calibration is None:
        pruned, rows = mask(graph, layers, job)
        images = 0
    else:
        inputs = batches(graph, calibration, batch_size)
        pruned, rows = mask_and_reconstruct(graph, layers, job, inputs, run or evaluate)
        images = sum(len(next(iter(batch.values()))) for batch in inputs)
    job.progress(len(layers), len(layers), "")
    return pruned, PruneReport(criterion, sparsity, scope, block, images, refine and images > 0, tuple(rows))


def _check(
    row: Criterion,
    sparsity: float,
    scope: str,
    spare: Collection[str],
    block: int,
    per_layer: Mapping[str, float],
    damping: float,
    calibrated: bool,
) -> None:
    wanted = {"sparsity": sparsity} | {f"per_layer['{name}']": share for name, share in per_layer.items()}
    for name, share in wanted.items():
        if not 0 <= share < 1:
            raise InputError(f"{name} is {share}; expected a share of zeros in [0, 1), such as 0.9 for 90 %")
    if scope not in SCOPES:
        raise InputError(f"unknown scope '{scope}'; {nearest(scope, SCOPES)}")
    if isinstance(spare, str):
        raise InputError(f"spare is the text '{spare}'; expected a list of roles, such as ['{spare}']")
    for role in spare:
        if role not in ROLES:
            raise InputError(f"unknown role '{role}' in spare; {nearest(role, ROLES)}")
    if block not in BLOCKS:
        raise InputError(f"block is {block}; expected one of {BLOCKS} output channels")
    if not damping > 0:
        raise InputError(f"damping is {damping}; expected a number above 0, such as 1e-3")
    if row.needs_inputs and not calibrated:
        raise InputError(f"criterion '{row.name}' looks at the layers' inputs; pass calibration images")
    if row.needs_inputs and scope == "global":
        raise InputError(f"criterion '{row.name}' compares weights inside a layer only; use scope='uniform'")


def _spared(
    layers: tuple[Layer, ...], spare: Collection[str], per_layer: Mapping[str, float]
) -> dict[str, str]:
    """Layer name to the role that spares it, or empty."""
    return {
        layer.name: ""
        if layer.name in per_layer
        else next((role for role in layer.roles if role in spare), "")
        for layer in layers
    }


def _zeros(
    graph: Graph,
    layers: tuple[Layer, ...],
    row: Criterion,
    sparsity: float,
    scope: str,
    block: int,
    per_layer: Mapping[str, float],
    spared: Mapping[str, str],
) -> dict[str, int]:
    """How many weights of each layer are to be zero."""
    zeros = dict.fromkeys(spared, 0)
    zeros |= {
        layer.name: zeros_for(per_layer[layer.name], layer.size)
        for layer in layers
        if layer.name in per_layer
    }
    free = [layer for layer in layers if not spared[layer.name] and layer.name not in per_layer]
    if scope == "uniform":
        return zeros | {layer.name: zeros_for(sparsity, layer.size) for layer in free}
    if free:
        scores = [row.score(to_rows(layer, graph.constants[layer.weight]), None) for layer in free]
        masks = keep_masks(scores, zeros_for(sparsity, sum(layer.size for layer in free)), block)
        zeros |= {layer.name: int((~mask).sum()) for layer, mask in zip(free, masks, strict=True)}
    return zeros
