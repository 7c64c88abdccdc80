"""Fair comparisons: the same model, inputs, threads and processors; answers first, then times."""

from zeroskip.bench.agreement import difference, tolerance
from zeroskip.bench.compare import Benchmark, Contender, benchmark, onnxruntime_call
from zeroskip.bench.rivals import RIVALS, Rival
from zeroskip.bench.timing import Latency, measure, pinned

__all__ = [
    "RIVALS",
    "Benchmark",
    "Contender",
    "Latency",
    "Rival",
    "benchmark",
    "difference",
    "measure",
    "onnxruntime_call",
    "pinned",
    "tolerance",
]
