"""The performance model of direct sparse convolution: Park et al., ICLR 2017, section 3 (arXiv 1608.01409).

Symbols as there. Of a layer: C dense operations (two per multiply-add), S_A bytes of input and output
activations, S_W bytes of dense weights, x the fraction of weights that are not zero. Of a machine: F
operations per second of the dense convolution, B bytes per second of memory, alpha how many times longer a
multiply-add takes in the sparse kernel, beta how many times larger a stored non-zero is than a dense weight.

    t_dense = C / F        t_comp = alpha x C / F        t_bw = (S_A + beta x S_W) / B
    speed-up = t_dense / max(t_comp, t_bw)

Sparsity is useful between the knee, where t_comp = t_bw and fewer non-zeros gain nothing any more, and
x = 1 / alpha, above which dense is faster.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from zeroskip.codegen import resolve
from zeroskip.codegen.cache import cache_directory
from zeroskip.encodings.lowering import layer_strips
from zeroskip.encodings.strips import Pair
from zeroskip.errors import CacheWarning, InputError
from zeroskip.files import write_text

FLOAT = 4


@dataclass(frozen=True)
class SparseMachine:
    """A machine's parameters.

    Attributes:
        flops: F, operations per second that the dense convolution reaches.
        bandwidth: B, bytes per second.
        alpha: time of a multiply-add in the sparse kernel over its time in the dense one.
        beta: bytes stored per non-zero weight over those of a dense weight.
    """

    flops: float
    bandwidth: float
    alpha: float
    beta: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not (math.isfinite(value) and value > 0):
                raise InputError(f"machine: {name} must be a positive number, got {value!r}")


PUBLISHED = {
    "atom-c2750": SparseMachine(62e9, 15e9, 1.2, 2.0),
    "xeon-e5-2697v4": SparseMachine(2150e9, 122e9, 3.0, 2.0),
}
"""The paper's machines, all cores: SGEMM speed, memory bandwidth, and alpha as measured there."""


@dataclass(frozen=True)
class SparseRoofline:
    """What the model says of one layer on one machine.

    Attributes:
        flops: C, operations of the dense layer, the batch included.
        activation_bytes: S_A.
        weight_bytes: S_W, dense.
        machine: F, B, alpha, beta.
    """

    flops: float
    activation_bytes: float
    weight_bytes: float
    machine: SparseMachine

    @property
    def dense_seconds(self) -> float:
        """t_dense."""
        return self.flops / self.machine.flops

    @property
    def knee(self) -> float:
        """The x at which t_comp = t_bw; infinite where the weights' bytes alone take longer than the work."""
        m = self.machine
        per_x = m.alpha * self.dense_seconds - m.beta * self.weight_bytes / m.bandwidth
        return self.activation_bytes / m.bandwidth / per_x if per_x > 0 else math.inf

    @property
    def useful(self) -> tuple[float, float] | None:
        """The densities from the knee to 1 / alpha; None where the knee lies above, so that nothing gains."""
        knee, break_even = self.knee, min(1.0, 1 / self.machine.alpha)
        return (knee, break_even) if knee < break_even else None

    def seconds(self, density: float) -> float:
        """max(t_comp, t_bw) at the density x."""
        if not 0 <= density <= 1:
            raise InputError(f"density: expected a fraction of non-zero weights from 0 to 1, got {density!r}")
        m = self.machine
        moved = self.activation_bytes + m.beta * density * self.weight_bytes
        return max(m.alpha * density * self.dense_seconds, moved / m.bandwidth)

    def speedup(self, density: float) -> float:
        """How many times faster than dense the sparse layer is at the density x."""
        return self.dense_seconds / self.seconds(density)

    def effective_flops(self, density: float) -> float:
        """The dense layer's operations over the sparse layer's time."""
        return self.flops / self.seconds(density)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; an infinite knee is null."""
        return asdict(self) | {
            "dense_seconds": self.dense_seconds,
            "knee": self.knee if math.isfinite(self.knee) else None,
            "useful": self.useful,
        }


def sparse_roofline(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    *,
    stride: Pair = 1,
    padding: int | tuple[int, ...] = 0,
    machine: SparseMachine | str | None = None,
) -> SparseRoofline:
    """How much faster than dense a direct sparse convolution can be, at which densities of its weights.

    Args:
        x_shape: (N, C, H, W) or (C, H, W), before padding.
        w_shape: (K, C / groups, R, S).
        stride: a number or a pair (height, width).
        padding: a number, a pair, or (top, left, bottom, right).
        machine: its parameters, the name of one of the paper's (`PUBLISHED`), or None for this machine as
            ``zeroskip doctor --calibrate`` found it (one core).

    Raises:
        InputError: shapes that do not go together, an unknown machine, or no calibration of this one.

    >>> conv5 = sparse_roofline((144, 384, 13, 13), (256, 192, 3, 3), padding=1, machine="xeon-e5-2697v4")
    >>> round(conv5.speedup(0.09), 1), round(conv5.knee, 3)
    (3.7, 0.017)
    """
    strips, images = layer_strips(x_shape, w_shape, stride, padding)
    pixels = images * strips.Oh * strips.Ow * w_shape[0]
    inputs = images * prod(x_shape[-3:])
    return SparseRoofline(
        flops=2.0 * pixels * prod(w_shape[1:]),
        activation_bytes=float(FLOAT * (inputs + pixels)),
        weight_bytes=float(FLOAT * prod(w_shape)),
        machine=_machine(machine),
    )


def _machine(given: SparseMachine | str | None) -> SparseMachine:
    if isinstance(given, SparseMachine):
        return given
    if isinstance(given, str) and given in PUBLISHED:
        return PUBLISHED[given]
    if given is not None:
        raise InputError(f"machine: expected a SparseMachine or one of {', '.join(PUBLISHED)}; got {given!r}")
    found = calibration()
    if found is None:
        raise InputError(
            "machine: this one is not calibrated; run `zeroskip doctor --calibrate`, or give machine="
        )
    return found.machine


@dataclass(frozen=True)
class Calibration:
    """A machine's parameters, as measured.

    Attributes:
        target: the code generator's name for the processor; another processor's numbers are not used.
        date: when, as YYYY-MM-DD.
        machine: F, B, alpha, beta, of one core.
        layers: each layer measured: its name, ``alpha``, ``dense_gflops`` and ``points``, which hold the
            density with the measured and the predicted speed-up.
    """

    target: str
    date: str
    machine: SparseMachine
    layers: tuple[Mapping[str, Any], ...]


def calibration_path() -> Path:
    """Where the calibration is kept."""
    return cache_directory() / "sparse-roofline.json"


def keep(found: Calibration) -> None:
    """Keep a calibration for `sparse_roofline`; `InputError` where it cannot be written."""
    path = calibration_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "set ZEROSKIP_CACHE_DIR to a writable folder"
        raise InputError(f"cannot write {path}: {error.strerror or error}; {hint}") from error
    write_text(path, json.dumps(asdict(found), indent=1) + "\n")


def calibration() -> Calibration | None:
    """The calibration kept for this processor, or None; a damaged one is as good as none, with a warning."""
    path = calibration_path()
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        layers = tuple({**layer} for layer in read["layers"])
        found = Calibration(str(read["target"]), str(read["date"]), SparseMachine(**read["machine"]), layers)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        hint = "run `zeroskip doctor --calibrate` again"
        warnings.warn(f"the calibration {path} cannot be used ({error}); {hint}", CacheWarning, stacklevel=2)
        return None
    return found if found.target == resolve().key else None
