"""A plan in words: what runs, what else was considered, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeroskip.codegen import Call

if TYPE_CHECKING:
    from zeroskip.engine.plan import Candidate, Plan, Step


def of_plan(plan: Plan) -> str:
    """One line per step, then the memory."""
    lines = [f"{'step':<24} {'op':<18} {'algorithm':<15} {'chosen by':<10} layer"]
    for step in plan.steps:
        chosen = f"{step.algorithm} {step.variant}".strip()
        lines.append(
            f"{_short(step.name, 24):<24} {step.op:<18} {chosen:<15} {step.how:<10} {step.summary}".rstrip()
        )
    megabytes = (plan.peak_bytes / 1e6, plan.weight_bytes / 1e6, plan.workspace_bytes / 1e6)
    lines.append("activations {:.2f} MB, weights {:.2f} MB, workspace {:.2f} MB".format(*megabytes))
    return "\n".join(lines)


def of_layer(step: Step) -> str:
    """The layer, its kernels, and every candidate with its time or its reason."""
    lines = [f"{step.name}: {step.op} {step.summary}".rstrip()]
    chosen = f"{step.algorithm} {step.variant}".strip()
    lines.append(f"  runs {chosen}" + (f", {step.how}" if step.how else ""))
    kernels = [call.kernel.name for call in step.calls if isinstance(call, Call)]
    if kernels:
        lines.append(f"  kernels {', '.join(kernels)}")
    lines.extend(
        _candidate(c, c.algorithm == step.algorithm and c.variant == step.variant) for c in step.candidates
    )
    return "\n".join(lines)


def _candidate(candidate: Candidate, chosen: bool) -> str:
    mark = "*" if chosen else " "
    if candidate.reason:
        return f"  {mark} {candidate.algorithm:<14} {'':<9} refused: {candidate.reason}"
    if candidate.microseconds is not None:
        outcome = f"{candidate.microseconds:10.2f} us"
    else:
        outcome = f"{candidate.predicted_cycles or 0:10.0f} cycles predicted, not measured"
    return f"  {mark} {candidate.algorithm:<14} {candidate.variant:<9} {outcome}"


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else "..." + text[3 - width :]
