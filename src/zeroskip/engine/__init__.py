"""Running networks: layout, memory, selection, threads, sessions."""

from zeroskip.engine.functional import conv2d
from zeroskip.engine.plan import Candidate, Plan, Step
from zeroskip.engine.session import InferenceSession, NodeArg, SessionOptions
from zeroskip.engine.workspace import conv_memory

__all__ = [
    "Candidate",
    "InferenceSession",
    "NodeArg",
    "Plan",
    "SessionOptions",
    "Step",
    "conv2d",
    "conv_memory",
]
