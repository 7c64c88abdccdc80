"""A plan in words: what runs, what else was considered, and why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zeroskip.codegen import Call

if TYPE_CHECKING:
    from zeroskip.engine.plan import Candidate, Plan, Step


def of_plan(plan: Plan) -> str:
    """One line per step, then the memory; of large batches what runs for some images, then for all."""
    then = plan.then.steps if plan.then else ()
    rows = [("step", "op", "algorithm", "chosen by", "layer")]
    rows += [(_short(s.name, 24), s.op, _chosen(s), s.how, s.summary) for s in (*plan.steps, *then)]
    lines = _aligned(rows)
    if plan.then:
        lines.insert(1 + len(plan.steps), f"then for {_images(plan.then)} images at once:")
        lines.insert(1, f"for {_images(plan)} of the images:")
    megabytes = (plan.peak_bytes / 1e6, plan.weight_bytes / 1e6, plan.workspace_bytes / 1e6)
    memory = "activations {:.2f} MB, weights {:.2f} MB, workspace {:.2f} MB".format(*megabytes)
    return "\n".join([*lines, memory])


def of_layer(step: Step) -> str:
    """The layer, its kernels, and every candidate with its time or its reason."""
    lines = [f"{step.name}: {step.op} {step.summary}".rstrip()]
    lines.append(f"  runs {_chosen(step)}" + (f", {step.how}" if step.how else ""))
    kernels = Counter(call.kernel.name for call in step.calls if isinstance(call, Call))
    if kernels:
        named = (f"{name} ({count} times)" if count > 1 else name for name, count in kernels.items())
        lines.append(f"  kernels {', '.join(named)}")
    running = (step.algorithm, step.variant)
    rows = [
        ("*" if (c.algorithm, c.variant) == running else " ", c.algorithm, c.variant, _outcome(c))
        for c in step.candidates
    ]
    return "\n".join(lines + [f"  {line}" for line in _aligned(rows)])


def _images(plan: Plan) -> int:
    return next(iter(plan.shapes.values()))[0]


def _chosen(step: Step) -> str:
    return f"{step.algorithm} {step.variant}".rstrip()


def _outcome(candidate: Candidate) -> str:
    if candidate.reason:
        return f"refused: {candidate.reason}"
    if candidate.microseconds is not None:
        return f"{candidate.microseconds:10.2f} us"
    return f"{candidate.predicted_cycles or 0:10.0f} cycles predicted, not measured"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of columns as wide as their widest cell; the last column is as wide as it is."""
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    return [
        " ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else "..." + text[3 - width :]
