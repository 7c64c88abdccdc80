"""Convolution algorithms, one file each, and their registry."""

from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.problem import ConvProblem
from zeroskip.conv.registry import ALGORITHMS, algorithms, find

__all__ = ["ALGORITHMS", "Algorithm", "ConvProblem", "Site", "algorithms", "find"]
