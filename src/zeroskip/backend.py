"""The ONNX backend interface: lets tools written against `onnx.backend.base` run models with zeroskip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict

from zeroskip.engine import InferenceSession
from zeroskip.errors import InputError
from zeroskip.graph import load
from zeroskip.graph.dtypes import code_of


class ZeroskipRep(BackendRep):
    """A model made ready to run."""

    def __init__(self, session: InferenceSession) -> None:
        self._session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, in the model's order; inputs are arrays in the model's order, or a mapping by name.

        Raises:
            InputError: inputs are missing or of the wrong type or shape.
        """
        names = [argument.name for argument in self._session.get_inputs()]
        if isinstance(inputs, dict):
            feeds = inputs
        else:
            given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
            if len(given) != len(names):
                raise InputError(f"got {len(given)} inputs, the model has {len(names)}: {', '.join(names)}")
            feeds = dict(zip(names, given))
        outputs = [argument.name for argument in self._session.get_outputs()]
        arrays = {name: np.asarray(array) for name, array in feeds.items()}  # NumPy scalars are welcome here
        return tuple(namedtupledict("Outputs", outputs)(*self._session.run(None, arrays)))


class ZeroskipBackend(Backend):
    """`onnx.backend.base.Backend` over zeroskip; the device is always the CPU."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether every operator of the model is supported."""
        try:
            load(model.SerializeToString())
        except ValueError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> ZeroskipRep:
        """Make a model ready to run.

        Raises:
            InputError: the device is not the CPU.
            ModelError: the model cannot be run.
        """
        if not cls.supports_device(device):
            raise InputError(f"zeroskip has no device {device}; use CPU")
        return ZeroskipRep(InferenceSession(model.SerializeToString()))

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Prepare a model and run it once."""
        return cls.prepare(model, device).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], Any]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run a single operator of the newest opset on the given arrays."""
        arrays = [np.asarray(array) for array in inputs]
        names = [name for name in node.input if name]
        given = [helper.make_tensor_value_info(n, code_of(a.dtype), a.shape) for n, a in zip(names, arrays)]
        infos = outputs_info or [(arrays[0].dtype if arrays else np.dtype(np.float32), None)] * len(
            node.output
        )
        wanted = [
            helper.make_tensor_value_info(name, code_of(np.dtype(info[0])), None)
            for name, info in zip(node.output, infos)
        ]
        graph = helper.make_graph([node], "node", given, wanted)
        return cls.run_model(helper.make_model(graph), arrays, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Only the CPU."""
        return bool(Device(device).type == DeviceType.CPU)


is_compatible = ZeroskipBackend.is_compatible
prepare = ZeroskipBackend.prepare
run_model = ZeroskipBackend.run_model
run_node = ZeroskipBackend.run_node
supports_device = ZeroskipBackend.supports_device
