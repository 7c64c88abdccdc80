"""How a picture becomes a model's input: colour order, layout, mean, standard deviation, size.

Three sources, the weakest first: a `models.json` beside the model, the model's own metadata, explicit
options. They are merged field by field, so that ``mean=...`` alone changes the mean alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from zeroskip.errors import InputError

METADATA_KEY = "zeroskip.preprocess"
"""Key in the model's metadata; its value is the JSON of a `Preprocess`, the form that `models.json` uses."""

_CHANNELS = {"RGB": 3, "BGR": 3, "grey": 1}
_CHOICES = {"order": tuple(_CHANNELS), "layout": ("NCHW", "NHWC"), "fit": ("crop", "stretch")}

# The ONNX standard's own metadata for image models (MetadataProps.md of the ONNX documentation).
_ONNX_ORDERS = {"Gray8": "grey", "Rgb8": "RGB", "Bgr8": "BGR"}
_ONNX_RANGES = {
    "NominalRange_0_255": ((0.0,), (1.0,)),
    "Normalized_0_1": ((0.0,), (255.0,)),
    "Normalized_1_1": ((127.5,), (127.5,)),
}


@dataclass(frozen=True)
class Preprocess:
    """The arithmetic from 8-bit pixels to a float32 tensor: ``(pixel - mean) / std`` per channel.

    Attributes:
        order: channel order of the model's input: ``"RGB"``, ``"BGR"`` or ``"grey"`` (one channel).
        layout: ``"NCHW"`` or ``"NHWC"``.
        mean: subtracted, in units of 0-255; one number, or one for each channel in the model's order.
        std: divided by, in the same units.
        size: height and width of the model's input in pixels; None takes them from the model.
        fit: what happens to a picture of another size: ``"crop"`` scales it until it covers the input and
            cuts the middle out, ``"stretch"`` scales both sides.

    Raises:
        InputError: an unknown order, layout or fit, a standard deviation of 0, a wrong count of numbers.

    >>> Preprocess(order="grey", std=(255,)).channels
    1
    """

    order: str = "RGB"
    layout: str = "NCHW"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None
    fit: str = "crop"

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"preprocess {name}: got {getattr(self, name)!r}, expected one of {', '.join(allowed)}"
                )
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name), self.channels))
        if any(s == 0 for s in self.std):
            raise InputError(
                f"preprocess std: got {list(self.std)}; a standard deviation of 0 divides by zero"
            )
        if self.size is not None:
            object.__setattr__(self, "size", _size(self.size))

    @property
    def channels(self) -> int:
        """Channels of the model's input: 1 or 3."""
        return _CHANNELS[self.order]

    def to_json(self) -> str:
        """The value to store under `METADATA_KEY`."""
        return json.dumps({k: v for k, v in asdict(self).items() if v is not None})


def _numbers(name: str, value: Any, channels: int) -> tuple[float, ...]:
    try:
        numbers = (float(value),) if isinstance(value, (int, float)) else tuple(float(v) for v in value)
    except (TypeError, ValueError):
        raise InputError(f"preprocess {name}: got {value!r}, expected numbers") from None
    if len(numbers) not in (1, channels) or not all(map(math.isfinite, numbers)):
        raise InputError(f"preprocess {name}: got {list(numbers)}, expected 1 or {channels} finite numbers")
    return numbers


def _size(value: Any) -> tuple[int, int]:
    sides = (value, value) if isinstance(value, int) else value
    if (
        not isinstance(sides, Sequence)
        or len(sides) != 2
        or not all(isinstance(v, int) and v > 0 for v in sides)
    ):
        raise InputError(f"preprocess size: got {value!r}, expected height and width in pixels")
    return (sides[0], sides[1])


def preprocess_for(
    path: str | Path | None = None, metadata: Mapping[str, str] | None = None, **options: Any
) -> Preprocess:
    """The preprocessing of a model: `models.json` beside `path`, `metadata`, `options`; the last wins.

    Args:
        path: the model's file; its folder may hold a `models.json`.
        metadata: the model's metadata, as `Graph.metadata` has it.
        **options: any fields of `Preprocess`; None means not given.

    Raises:
        InputError: nothing says how to preprocess, an unknown field, or a value that makes no sense.
    """
    given = {k: v for k, v in options.items() if v is not None}
    known = {f.name for f in fields(Preprocess)}
    if unknown := sorted(set(given) - known):
        raise InputError(
            f"preprocess: unknown option {unknown[0]!r}; expected one of {', '.join(sorted(known))}"
        )
    merged = beside(path) | from_metadata(metadata or {}) | given
    if not {"mean", "std"} & set(merged):
        where = f"of {path} " if path is not None else ""
        raise InputError(
            f"the preprocessing {where}is not known: no models.json beside it describes it and its "
            f"metadata has no {METADATA_KEY}; give mean and std (0 and 1 for raw pixels, "
            "0 and 255 for pixels from 0 to 1)"
        )
    return Preprocess(**merged)


def beside(path: str | Path | None) -> dict[str, Any]:
    """The fields that a `models.json` in the model's folder gives for it; empty where there is none.

    The entry is the one whose ``file`` is the model's file name, or whose key is that name without suffix.
    """
    if path is None or not (index := Path(path).parent / "models.json").is_file():
        return {}
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {index}: {error}; mend it or move it away") from None
    if not isinstance(entries, dict):
        raise InputError(
            f"{index}: got a {type(entries).__name__}, expected an object of one entry per model"
        )
    for key, entry in entries.items():
        if isinstance(entry, dict) and (entry.get("file") == Path(path).name or key == Path(path).stem):
            return _known_fields(entry.get("preprocess", {}), f"{index}, entry {key!r}")
    return {}


def metadata_beside(path: str | Path) -> dict[str, str]:
    """What `beside` finds, as metadata for the model, so that it travels with the graph.

    A `models.json` that cannot be read is no reason not to load a model: it counts as none here, and
    `preprocess_for` reports it to whoever needs it.
    """
    try:
        found = beside(path)
        return {METADATA_KEY: Preprocess(**found).to_json()} if found else {}
    except InputError:
        return {}


def from_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The fields that a model's metadata gives: ours, or the ONNX standard's ``Image.*`` keys."""
    if METADATA_KEY in metadata:
        try:
            stored = json.loads(metadata[METADATA_KEY])
        except ValueError as error:
            raise InputError(f"the model's metadata {METADATA_KEY} is not JSON: {error}") from None
        return _known_fields(stored, f"the model's metadata {METADATA_KEY}")
    found: dict[str, Any] = {}
    if order := _ONNX_ORDERS.get(metadata.get("Image.BitmapPixelFormat", "")):
        found["order"] = order
    if scaling := _ONNX_RANGES.get(metadata.get("Image.NominalPixelRange", "")):
        found["mean"], found["std"] = scaling
    return found


def _known_fields(stored: Any, where: str) -> dict[str, Any]:
    if not isinstance(stored, dict):
        raise InputError(f"{where}: preprocess is {stored!r}, expected an object with order, mean, std, ...")
    known = {f.name for f in fields(Preprocess)}
    if unknown := sorted(set(stored) - known):
        raise InputError(
            f"{where}: preprocess has {unknown[0]!r}; expected some of {', '.join(sorted(known))}"
        )
    return {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
