"""The network as data: typed graphs, ONNX in and out, operators, and the passes that simplify."""

from zeroskip.graph.batch import per_image, split_products
from zeroskip.graph.bind import bind, shape_inputs
from zeroskip.graph.cost import Cost, arithmetic_cost, macs_of, total
from zeroskip.graph.interpreter import evaluate
from zeroskip.graph.ir import Dim, Graph, Node, Shape, Value
from zeroskip.graph.onnx_file import ModelFile, load
from zeroskip.graph.onnx_writer import save
from zeroskip.graph.operator import Operator
from zeroskip.graph.operators import OPERATORS
from zeroskip.graph.passes import PASSES, PassReport, simplify, simplify_with_report
from zeroskip.graph.verify import verify

__all__ = [
    "OPERATORS",
    "PASSES",
    "Cost",
    "Dim",
    "Graph",
    "ModelFile",
    "Node",
    "Operator",
    "PassReport",
    "Shape",
    "Value",
    "arithmetic_cost",
    "bind",
    "evaluate",
    "load",
    "macs_of",
    "per_image",
    "save",
    "shape_inputs",
    "simplify",
    "simplify_with_report",
    "split_products",
    "total",
    "verify",
]
