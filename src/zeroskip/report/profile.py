"""A network's time, step by step, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from zeroskip.report.tables import table
from zeroskip.report.units import milliseconds, size

if TYPE_CHECKING:  # it needs LLVM, which tables do not
    from zeroskip.bench.profile import Profile, StepTime

_LAYER, _KERNEL = 27, 21  # as long as ResNet-50's longest


def profile_table(found: Profile) -> RenderableType:
    """One row for each step, in order; below, what the limit is."""
    shape = "x".join(map(str, found.shape))
    threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
    total = found.total
    columns = ("layer", "kernel", "µs", "share", "GFLOP/s", "limit")
    footer = (
        "total",
        "",
        f"{total.microseconds:.0f}",
        "",
        f"{total.gflops:.1f}",
        _whole(total.share_of_limit),
    )
    rows = [_row(step, total.microseconds) for step in found.steps]
    end = (
        f"A whole run takes {milliseconds(found.run_ms)}; the steps are timed one by one{_part(found)}. "
        f"GFLOP/s counts multiply-adds with non-zero weights, each as two. Limit: the least possible time as "
        f"a share of the time taken, with {found.peak_gflops:.0f} GFLOP/s (the measured peak) and "
        f"{found.read_gbs:.0f} GB/s (measured, reading {size(found.plan_bytes)}, as much as the plan holds). "
        f"{_beyond(found)}{found.cpu}."
    )
    title = f"{found.model}, input {shape}, {threads}"
    return Group(table(columns, rows, title=title, footer=footer, left=2), "", Text(end, style="dim"))


def _part(found: Profile) -> str:
    """What of the batch the steps are timed on, if not on all."""
    if found.shape[:1] in ((), (found.at_once,)):
        return ""
    return f", on {found.at_once} of {found.shape[0]} images: so many run at once"


def _beyond(found: Profile) -> str:
    """How a step can take less than the least time of its multiply-adds, where one does."""
    if all(step.share_of_limit <= 1 for step in found.steps):
        return ""
    return (
        "Beyond 100 %: fewer multiply-adds than weights and pixels call for, since activations were zero or "
        "products shared (Winograd, FFT). "
    )


def _row(step: StepTime, total: float) -> tuple[str, ...]:
    micro = step.microseconds
    return (
        _cut(_layer(step), _LAYER),
        _cut(step.kernel, _KERNEL),
        f"{micro:.1f}" if micro < 999 else f"{micro:.0f}",
        _whole(micro / total),
        f"{step.gflops:.1f}" if step.effectual_macs else "",
        _whole(step.share_of_limit),
    )


def _layer(step: StepTime) -> str:
    """A convolution's shapes in few words, e.g. ``64x56x56→64 3x3 10 %``; else the operator and the name."""
    if not step.layer:
        return f"{step.op} {step.name}"
    text = step.layer.replace(", 100 % dense", "").replace(" % dense", " %").replace(" groups", " g")
    return text.replace(" -> ", "→").replace(",", "")


def _whole(share: float) -> str:
    return f"{100 * share:.0f} %"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
