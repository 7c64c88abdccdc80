"""Passes: each takes a graph and returns another with the same answers, and counts of what it did."""

from zeroskip.graph.passes.pipeline import PASSES, PassReport, simplify, simplify_with_report

__all__ = ["PASSES", "PassReport", "simplify", "simplify_with_report"]
