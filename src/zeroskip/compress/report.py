"""What pruning did, layer by layer: a value that prints as a table and turns into JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class PrunedLayer:
    """One layer.

    Errors are the squared error of its outputs as a share of their variance, on the calibration
    images with the inputs of the pruned network: after masking, and after fitting what stays; ``None`` where
    the layer was not reconstructed. `spared` is the reason why it kept all its weights, or empty.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    weights: int
    nonzero: int
    spared: str = ""
    error_before: float | None = None
    error_after: float | None = None
    seconds: float = 0.0

    @property
    def sparsity(self) -> float:
        """Zeros over weights, 0..1."""
        return 1 - self.nonzero / self.weights if self.weights else 0.0


@dataclass(frozen=True)
class PruneReport:
    """What `zeroskip.prune` was asked for and what came out, with one row per layer."""

    criterion: str
    sparsity: float
    scope: str
    block: int
    images: int
    refined: bool
    layers: tuple[PrunedLayer, ...]

    @property
    def weights(self) -> int:
        """All weights of the layers listed, zero or not."""
        return sum(layer.weights for layer in self.layers)

    @property
    def nonzero(self) -> int:
        """Weights that are not zero."""
        return sum(layer.nonzero for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; sparsities and errors are fractions, times in seconds."""
        rows = [asdict(layer) | {"sparsity": layer.sparsity} for layer in self.layers]
        total = {
            "weights": self.weights,
            "nonzero": self.nonzero,
            "sparsity": 1 - self.nonzero / self.weights if self.weights else 0.0,
        }
        asked = {
            "criterion": self.criterion,
            "sparsity": self.sparsity,
            "scope": self.scope,
            "block": self.block,
            "calibration_images": self.images,
            "refined": self.refined,
        }
        return asked | {"total": total, "layers": rows}

    def __str__(self) -> str:
        blocks = "single weights" if self.block == 1 else f"blocks of {self.block}"
        learnt = f"fitted on {self.images} images" if self.images else "not fitted"
        refined = " (masks refined)" if self.refined else ""
        head = f"{self.criterion}{refined} pruning to {self.sparsity:.1%}, {self.scope}, {blocks}, {learnt}"
        names = [layer.name for layer in self.layers]
        width = min(21, max([5, *map(len, names)]))
        lines = [
            head,
            f"{'layer':{width}}  {'weights':>9}  {'non-zero':>9}  {'zeros':>6}  {'error':>15}  spared",
        ]
        lines += [self._line(layer, width) for layer in self.layers]
        zeros = 1 - self.nonzero / self.weights if self.weights else 0.0
        lines.append(f"{'total':{width}}  {self.weights:>9}  {self.nonzero:>9}  {zeros:>6.1%}")
        return "\n".join(line.rstrip() for line in lines)

    @staticmethod
    def _line(layer: PrunedLayer, width: int) -> str:
        name = layer.name if len(layer.name) <= width else "…" + layer.name[1 - width :]
        error = "-"
        if layer.error_before is not None and layer.error_after is not None:
            error = f"{layer.error_before:.1%} > {layer.error_after:.1%}"
        counts = f"{layer.weights:>9}  {layer.nonzero:>9}  {layer.sparsity:>6.1%}"
        return f"{name:{width}}  {counts}  {error:>15}  {layer.spared}"
