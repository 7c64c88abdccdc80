"""The network as data: typed graphs, ONNX in and out, operators, and the passes that simplify."""

from zeroskip.graph.interpreter import evaluate
from zeroskip.graph.ir import Dim, Graph, Node, Shape, Value
from zeroskip.graph.onnx_reader import load
from zeroskip.graph.operator import Operator
from zeroskip.graph.operators import OPERATORS

__all__ = [
    "OPERATORS",
    "Dim",
    "Graph",
    "Node",
    "Operator",
    "Shape",
    "Value",
    "evaluate",
    "load",
]
