"""Making networks smaller: pruning with reconstruction. A graph goes in; a graph and a report come out."""

from zeroskip.compress.criteria import criteria
from zeroskip.compress.prune import prune
from zeroskip.compress.report import PrunedLayer, PruneReport

__all__ = ["PruneReport", "PrunedLayer", "criteria", "prune"]
