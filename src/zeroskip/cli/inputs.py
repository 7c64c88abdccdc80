"""Shapes and arrays to run a network on, from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zeroskip.errors import InputError
from zeroskip.evaluation import input_size, preprocess_of
from zeroskip.graph import Graph
from zeroskip.images import open_images


def input_shapes(
    graph: Graph, given: Sequence[str] | None, size: tuple[int, int] | None = None, batch: int = 1
) -> dict[str, tuple[int, ...]]:
    """A shape of known sizes for each input: as given, else the model's with `batch` and `size` in its gaps.

    Raises:
        InputError: a size stays open, or `given` is malformed or names no input.
    """
    wanted = dict(_named_shape(text, graph) for text in given or ())
    shapes: dict[str, tuple[int, ...]] = {}
    for name in graph.inputs:
        declared = graph.values[name].shape
        if name in wanted:
            shapes[name] = wanted[name]
            continue
        filled = list(declared or ())
        if filled and not isinstance(filled[0], int):
            filled[0] = batch
        if size and len(filled) == 4:
            filled[2:] = [d if isinstance(d, int) else s for d, s in zip(filled[2:], size, strict=True)]
        if declared is None or not all(isinstance(d, int) for d in filled):
            shown = "x".join("?" if d is None else str(d) for d in declared or ("?",))
            raise InputError(
                f"input {name!r} has shape {shown}; give its sizes with --shape, e.g. --shape 1x3x224x224"
            )
        shapes[name] = tuple(d for d in filled if isinstance(d, int))
    return shapes


def _named_shape(text: str, graph: Graph) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    name = name or graph.inputs[0]
    if name not in graph.inputs:
        raise InputError(f"--shape {text}: the model has no input {name!r}; it has {', '.join(graph.inputs)}")
    try:
        return name, tuple(int(v) for v in sizes.lower().split("x"))
    except ValueError:
        raise InputError(f"--shape {text}: expected sizes such as 1x3x224x224") from None


def input_arrays(
    graph: Graph,
    shape: Sequence[str] | None,
    batch: int,
    images: Path | None,
    preprocess: Mapping[str, Any],
) -> np.ndarray[Any, Any]:
    """One batch for a network with one input: pictures, or standard normal numbers (the same each time)."""
    if len(graph.inputs) != 1:
        raise InputError(
            f"the model has inputs {', '.join(graph.inputs)}; this command takes models with one"
        )
    name = graph.inputs[0]
    if images is None:
        sizes = input_shapes(graph, shape, batch=batch)[name]
        try:
            return np.random.default_rng(7).standard_normal(sizes).astype(graph.values[name].dtype)
        except (MemoryError, ValueError) as error:
            shown = "x".join(map(str, sizes))
            raise InputError(
                f"input {name!r} of shape {shown} does not fit into memory ({error}); "
                "give smaller sizes with --shape, or a smaller --batch"
            ) from error
    steps = preprocess_of(graph, **preprocess)
    sizes = input_shapes(graph, shape, steps.size, batch)[name]
    pictures = open_images(images).take(sizes[0])
    array = next(pictures.batches(steps, input_size(sizes, steps), sizes[0]))
    return np.resize(array, sizes)
