"""Accuracy on labelled pictures: top-1 and top-5."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from zeroskip.errors import InputError, ModelError
from zeroskip.graph import Graph, load
from zeroskip.images import ImageSet, open_images
from zeroskip.preprocess import Preprocess, preprocess_for

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int], None]
"""Called with the number of pictures done and the number of all."""


class Runnable(Protocol):
    """What `evaluate` needs of a session: ours, onnxruntime's, or anything like them."""

    def run(self, output_names: list[str] | None, feed: dict[str, Array]) -> Sequence[Array]:
        """Outputs for named inputs."""

    def get_inputs(self) -> Sequence[Any]:
        """Descriptions with `name`, `shape` and `type`."""


@dataclass(frozen=True)
class Evaluation:
    """How often the right class came first, and among the first five.

    Attributes:
        top1: share of pictures, 0 to 1, whose label has the highest score (of equal scores the first counts).
        top5: share of pictures whose label is among the five highest scores.
        count: number of pictures.
        predictions: class index with the highest score, for each picture in order.
        labels: the right class index, for each picture in order.
    """

    top1: float
    top5: float
    count: int
    predictions: tuple[int, ...]
    labels: tuple[int, ...]

    def __iter__(self) -> Iterator[float]:
        """``top1, top5 = evaluate(...)``."""
        return iter((self.top1, self.top5))

    def to_dict(self) -> dict[str, float | int]:
        """The figures as JSON has them."""
        return {"top1": self.top1, "top5": self.top5, "images": self.count}


def evaluate(
    model: Graph | Runnable | str | os.PathLike[str],
    images: str | os.PathLike[str] | ImageSet | tuple[Array, Sequence[int] | Array],
    *,
    preprocess: Preprocess | None = None,
    batch: int = 1,
    limit: int | None = None,
    options: Any = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Top-1 and top-5 of a model on labelled pictures.

    Args:
        model: a graph, the path of an ONNX file, or a session (anything with `run` and `get_inputs`). Its
            first input takes the pictures, its first output gives one score for each class.
        images: a folder or .zip of labelled pictures (see `zeroskip.images`), an `ImageSet`, or a pair of
            arrays: inputs as the model takes them (N first) and N class indices.
        preprocess: from pixels to input; found as `preprocess_for` says where it is not given.
        batch: pictures for each call; a model with a fixed batch has its own.
        limit: use at most this many pictures, spread evenly over the set.
        options: `SessionOptions` for the session made of a graph or path.
        progress: called after each batch.

    Raises:
        InputError: no labels, a label outside the model's classes, an unreadable picture, no known
            preprocessing.
        ModelError: the model's output is no array of finite scores.
    """
    session = _session(model, options)
    entry = session.get_inputs()[0]
    shape, dtype = list(entry.shape), _dtype(str(entry.type))
    fixed = shape[0] if shape and isinstance(shape[0], int) else None
    size = fixed or max(1, batch)
    if isinstance(images, tuple):
        batches, labels = _array_batches(images, limit, size)
    else:
        pictures = open_images(cast("str", images)).take(limit)
        if pictures.labels is None:
            raise InputError(
                f"images: {pictures.path} has no labels; add labels.csv (columns file,label) or "
                "one sub-folder for each class"
            )
        steps = preprocess or preprocess_of(model)
        batches, labels = pictures.batches(steps, input_size(shape, steps), size), pictures.labels
    predictions: list[int] = []
    hits1 = hits5 = 0
    for inputs in batches:
        count, done = len(inputs), len(predictions)
        scores = _scores(session, entry.name, _padded(inputs, fixed).astype(dtype, copy=False))[:count]
        best, rank = _ranks(scores, np.asarray(labels[done : done + count]))
        predictions += best.tolist()
        hits1 += int((rank < 1).sum())
        hits5 += int((rank < 5).sum())
        if progress is not None:
            progress(len(predictions), len(labels))
    total = len(labels)
    return Evaluation(hits1 / total, hits5 / total, total, tuple(predictions), tuple(labels))


def preprocess_of(model: Graph | Runnable | str | os.PathLike[str], **options: Any) -> Preprocess:
    """The preprocessing of a graph, session or file; `options` are fields of `Preprocess` and win."""
    if isinstance(model, (str, os.PathLike)):
        return preprocess_for(os.fspath(model), load(model).metadata, **options)
    return preprocess_for(None, _metadata(model), **options)


def input_size(shape: Sequence[Any], preprocess: Preprocess) -> tuple[int, int] | None:
    """Height and width of an image model's input shape; None where the model leaves them open.

    Raises:
        InputError: the shape has not four dimensions, or other channels than the preprocessing gives.
    """
    if len(shape) != 4:
        raise InputError(f"the model's input has shape {list(shape)}; pictures need four dimensions")
    nchw = preprocess.layout == "NCHW"
    channels, (height, width) = (shape[1], shape[2:]) if nchw else (shape[3], shape[1:3])
    if isinstance(channels, int) and channels != preprocess.channels:
        raise InputError(
            f"the model's input has shape {list(shape)} ({preprocess.layout}), so {channels} channels; "
            f"preprocessing gives {preprocess.channels} ({preprocess.order}); set order or layout"
        )
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _session(model: Graph | Runnable | str | os.PathLike[str], options: Any) -> Runnable:
    if not isinstance(model, (Graph, str, os.PathLike)):
        return model
    from zeroskip.engine import InferenceSession, SessionOptions  # LLVM only where a session is needed

    return cast("Runnable", InferenceSession(model, options=options or SessionOptions()))


def _metadata(model: Any) -> Mapping[str, str]:
    """Metadata of a graph, of a session that has one, or of an onnxruntime session."""
    source = model if isinstance(model, Graph) else getattr(model, "graph", None)
    if isinstance(source, Graph):
        return source.metadata
    if hasattr(model, "get_modelmeta"):
        return cast("Mapping[str, str]", model.get_modelmeta().custom_metadata_map)
    return {}


def _dtype(type_name: str) -> np.dtype[Any]:
    """``tensor(float)`` as NumPy's type."""
    names = {"float": "float32", "double": "float64"}
    inner = type_name.removeprefix("tensor(").removesuffix(")")
    return np.dtype(names.get(inner, inner))


def _array_batches(
    pair: tuple[Array, Sequence[int] | Array], limit: int | None, size: int
) -> tuple[Iterator[Array], tuple[int, ...]]:
    inputs, labels = np.asarray(pair[0]), tuple(int(v) for v in pair[1])
    if len(inputs) != len(labels) or not labels:
        raise InputError(
            f"images: got {len(inputs)} inputs and {len(labels)} labels; expected as many, and some"
        )
    chosen = (
        range(len(labels))
        if limit is None
        else [i * len(labels) // limit for i in range(min(limit, len(labels)))]
    )
    kept = np.fromiter(chosen, int)
    batches = (inputs[kept[i : i + size]] for i in range(0, len(kept), size))
    return batches, tuple(labels[i] for i in kept)


def _padded(inputs: Array, fixed: int | None) -> Array:
    """The last batch, filled up with its last picture where the model takes full batches only."""
    missing = 0 if fixed is None else fixed - len(inputs)
    return inputs if missing == 0 else np.concatenate([inputs, np.repeat(inputs[-1:], missing, axis=0)])


def _scores(session: Runnable, name: str, inputs: Array) -> Array:
    scores = np.asarray(session.run(None, {name: inputs})[0])
    if scores.ndim < 2 or scores.shape[0] != len(inputs):
        raise ModelError(
            f"the model's first output has shape {list(scores.shape)} for {len(inputs)} pictures; expected "
            "one row of class scores for each"
        )
    scores = scores.reshape(len(inputs), -1)
    if not np.isfinite(scores).all():
        raise ModelError("the model's first output holds NaN or Inf; check the weights and the preprocessing")
    return scores


def _ranks(scores: Array, labels: Array) -> tuple[Array, Array]:
    """First class of each row, and how many classes stand before the label (of equals, the lower index)."""
    classes = scores.shape[1]
    if labels.max() >= classes:
        raise InputError(
            f"images: label {labels.max()} is given, but the model has {classes} classes (0-{classes - 1})"
        )
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    before = (scores > own) | ((scores == own) & (np.arange(classes) < labels[:, None]))
    return scores.argmax(axis=1), before.sum(axis=1)
