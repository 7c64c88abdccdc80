"""ONNX models as files and bytes, which can be read again: weights need not wait in memory in between."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from zeroskip.errors import ModelError
from zeroskip.graph.ir import Graph
from zeroskip.graph.onnx_reader import from_proto
from zeroskip.graph.onnx_stream import StreamError, split
from zeroskip.graph.operator import Array
from zeroskip.preprocess import metadata_beside

# An open file cannot be replaced on Windows.
_CAN_STAY_OPEN = os.name != "nt"


def load(source: str | os.PathLike[str] | bytes) -> Graph:
    """Read an ONNX model from a path or from bytes.

    Constant nodes and initializers become constants; every operator is rewritten to its newest meaning.

    Raises:
        ModelError: the file is missing, truncated or not ONNX; an operator is not supported; names dangle,
            repeat or form a cycle; external data is missing; weights hold NaN or infinity; shapes
            contradict each other.
    """
    return ModelFile(source).read()


class ModelFile:
    """A model that can be read more than once; `read` raises as `load` does.

    The file stays open: replacing or deleting it changes nothing. A model that cannot be read again (its
    weights lie in other files) is kept in memory.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        self._graph: Graph | None = None
        self._path: Path | None = None
        if isinstance(source, bytes | bytearray | memoryview):
            content = bytes(source)
            self._file: BinaryIO = BytesIO(content)
            self._size = len(content)
            return
        self._path = Path(source)
        try:
            self._file = self._path.open("rb")
            self._stamp = self._changed()
        except FileNotFoundError:
            raise ModelError(f"{self._path} does not exist") from None
        except OSError as error:
            raise self._unreadable(error) from error
        self._size = self._stamp[0]

    def read(self) -> Graph:
        """The model as a graph."""
        if self._graph is not None:
            return self._graph
        try:
            if self._path is not None and self._changed() != self._stamp:
                raise ModelError(f"{self._path} was changed after it was opened; open it again")
            self._file.seek(0)
            graph, whole = self._parsed()
        except OSError as error:
            raise self._unreadable(error) from error
        if not whole or (self._path is not None and not _CAN_STAY_OPEN):
            self._graph = graph
            self._file.close()
        return graph

    def _changed(self) -> tuple[int, int]:
        """What differs after somebody wrote into the file."""
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def _unreadable(self, error: OSError) -> ModelError:
        return ModelError(f"cannot read {self._path}: {error.strerror or error}")

    def _parsed(self) -> tuple[Graph, bool]:
        """The graph, and whether all of it was in this file."""
        path = self._path
        where = "the model" if path is None else str(path)
        model, payloads = _parse(self._file, self._size)
        if model is None:
            raise ModelError(
                f"{where} is not an ONNX model, or is truncated ({self._size} bytes); export or copy it again"
            )
        if not model.HasField("graph") or not model.opset_import:
            raise ModelError(f"{where} is not an ONNX model: it has no graph or names no operator set")
        whole = all(t.data_location != TensorProto.EXTERNAL for t in model.graph.initializer)
        try:
            if path is None:
                return from_proto(model, None, "model", payloads), whole
            graph = from_proto(model, path.parent, path.stem, payloads)
        except ModelError as error:
            raise ModelError(f"{where}: {error}") from error
        # What a models.json beside the file says of its pictures travels along; the model's own word wins.
        return graph.with_(metadata={**metadata_beside(path), **graph.metadata}), whole


def _parse(file: BinaryIO, size: int) -> tuple[ModelProto | None, list[Array | None]]:
    """The message and the data kept out of it; None where the bytes are no ONNX message."""
    model = ModelProto()
    try:
        content, payloads = split(file, size)
        model.ParseFromString(content)
        if not model.functions:  # inlining needs the whole model
            return model, payloads
    except (StreamError, DecodeError):
        pass
    file.seek(0)
    try:
        model.ParseFromString(file.read())
    except DecodeError:
        return None, []
    return model, []
