"""The options that several commands share, each in the same words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from zeroskip.errors import InputError

_PICTURES = "Pictures"

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX file.", show_default=False)]
Threads = Annotated[int, typer.Option(min=1, metavar="N", help="Worker threads.")]
Algorithm = Annotated[
    str, typer.Option(metavar="NAME", help="auto, or one convolution algorithm for every layer.")
]
Target = Annotated[str, typer.Option(metavar="NAME", help="host, x86-64, x86-64-v2, x86-64-v3 or x86-64-v4.")]
Tune = Annotated[
    bool, typer.Option("--tune/--no-tune", help="Choose kernels by measuring them, or by prediction.")
]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="SHAPE",
        help="Of an input whose sizes the model leaves open: 1x3x224x224, or NAME=1x3x224x224.",
        show_default=False,
    ),
]
Batch = Annotated[int, typer.Option(min=1, metavar="N", help="Pictures in each call.")]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Use N pictures, spread evenly.",
        rich_help_panel=_PICTURES,
        show_default=False,
    ),
]
Preprocessing = Annotated[
    list[str] | None,
    typer.Option(
        "--preprocess",
        "-p",
        metavar="KEY=VALUE",
        help="order=RGB|BGR|grey, layout=NCHW|NHWC, mean=, std=, size=HxW, fit=crop|stretch; repeatable. "
        "Wins over the model's metadata and over a models.json beside the model.",
        rich_help_panel=_PICTURES,
        show_default=False,
    ),
]


_IMAGES = typer.Option(
    "--images",
    metavar="DIR",
    help="Folder of JPEG/PNG with labels.csv (file,label) or one sub-folder per class; or a .zip of it.",
    rich_help_panel=_PICTURES,
    show_default=False,
)
Images = Annotated[Path | None, _IMAGES]
NeededImages = Annotated[Path, _IMAGES]


def preprocess_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """The fields of `Preprocess` that ``KEY=VALUE`` texts give.

    >>> preprocess_options(["mean=1,2,3", "order=BGR", "size=32x32"])
    {'mean': (1.0, 2.0, 3.0), 'order': 'BGR', 'size': (32, 32)}
    """
    options: dict[str, Any] = {}
    for pair in pairs or ():
        key, _, value = pair.partition("=")
        try:
            if key in ("mean", "std"):
                options[key] = tuple(float(v) for v in value.split(","))
            elif key == "size":
                sides = [int(v) for v in value.lower().split("x")]
                options[key] = tuple(sides * 2 if len(sides) == 1 else sides)
            else:
                options[key] = value
        except ValueError:
            raise InputError(
                f"--preprocess {pair}: {value!r} is no {key}; expected e.g. mean=124,117,104 or size=224x224"
            ) from None
    return options
