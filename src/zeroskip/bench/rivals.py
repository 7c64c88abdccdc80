"""Other runtimes that `zeroskip bench` compares with: one row each, used where it is installed.

A row opens a model and returns a call ``inputs -> first output``. Runtimes that read ONNX get the file;
the others take a converted file beside it, as their own converters write it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Call = Callable[[Array], Array]


@dataclass(frozen=True)
class Rival:
    """One runtime.

    Attributes:
        name: as the tables print it.
        module: what to import.
        package: what to `pip install`.
        open: ``(model path, example input, threads) -> call``.
        beside: suffixes of the converted files that it needs instead of the ONNX file.
    """

    name: str
    module: str
    package: str
    open: Callable[[Path, Array, int], Call]
    beside: tuple[str, ...] = ()

    def refuses(self, model: Path) -> str:
        """Why this runtime cannot run `model` here, in words; empty where it can."""
        if not self.version():
            return f"not installed (pip install {self.package})"
        missing = [model.with_suffix(s).name for s in self.beside if not model.with_suffix(s).is_file()]
        return f"needs {' and '.join(missing)} beside the model" if missing else ""

    def version(self) -> str:
        """The installed version; empty where it is not installed."""
        if importlib.util.find_spec(self.module) is None:
            return ""
        return importlib.metadata.version(self.package)


def _onnxruntime(model: Path, example: Array, threads: int) -> Call:
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    entry = ort.InferenceSession(str(model), options, providers=providers).get_inputs()[0]
    # With its symbolic sizes fixed, onnxruntime plans its memory once: the form in which it is fastest.
    for symbol, actual in zip(entry.shape, example.shape, strict=True):
        if isinstance(symbol, str):
            options.add_free_dimension_override_by_name(symbol, actual)
    session = ort.InferenceSession(str(model), options, providers=providers)
    name = entry.name
    return lambda x: session.run(None, {name: x})[0]


def _openvino(model: Path, example: Array, threads: int) -> Call:
    ov = importlib.import_module("openvino")
    core = ov.Core()
    network = core.read_model(str(model))
    network.reshape(list(example.shape))
    # Its default on some CPUs is bfloat16; all contenders compute in float32.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    lanes = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(network, "CPU", exact | lanes).create_infer_request()

    def call(x: Array) -> Array:
        request.set_input_tensor(ov.Tensor(x, shared_memory=True))
        request.infer()
        return np.asarray(request.get_output_tensor(0).data)

    return call


def _deepsparse(model: Path, example: Array, threads: int) -> Call:
    engine = importlib.import_module("deepsparse").Engine(
        str(model), batch_size=len(example), num_cores=threads
    )
    return lambda x: np.asarray(engine.run([x], val_inp=False)[0])


def _ncnn(model: Path, example: Array, threads: int) -> Call:
    ncnn = importlib.import_module("ncnn")
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.load_param(str(model.with_suffix(".ncnn.param")))
    net.load_model(str(model.with_suffix(".ncnn.bin")))

    def call(x: Array) -> Array:
        outputs = []
        for image in x:
            extractor = net.create_extractor()
            extractor.input("in0", ncnn.Mat(image))
            outputs.append(np.array(extractor.extract("out0")[1]).reshape(-1))
        return np.stack(outputs)

    return call


def _mnn(model: Path, example: Array, threads: int) -> Call:
    mnn = importlib.import_module("MNN")
    interpreter = mnn.Interpreter(str(model.with_suffix(".mnn")))
    session = interpreter.createSession({"numThread": threads, "backend": "CPU", "precision": "high"})
    entry = interpreter.getSessionInput(session)
    interpreter.resizeTensor(entry, example.shape)
    interpreter.resizeSession(session)
    kind = mnn.Tensor_DimensionType_Caffe

    def call(x: Array) -> Array:
        entry.copyFrom(mnn.Tensor(x.shape, mnn.Halide_Type_Float, x, kind))
        interpreter.runSession(session)
        result = interpreter.getSessionOutput(session)
        host = mnn.Tensor(
            result.getShape(), mnn.Halide_Type_Float, np.zeros(result.getShape(), np.float32), kind
        )
        result.copyToHostTensor(host)
        return np.array(host.getNumpyData(), copy=True)

    return call


RIVALS = (
    Rival("onnxruntime", "onnxruntime", "onnxruntime", _onnxruntime),
    Rival("openvino", "openvino", "openvino", _openvino),
    Rival("deepsparse", "deepsparse", "deepsparse", _deepsparse),
    Rival("ncnn", "ncnn", "ncnn", _ncnn, (".ncnn.param", ".ncnn.bin")),
    Rival("MNN", "MNN", "MNN", _mnn, (".mnn",)),
)
