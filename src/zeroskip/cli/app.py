"""The list of commands."""

from __future__ import annotations

import importlib
import inspect
from typing import Annotated

import typer

import zeroskip
from zeroskip.cli.common import guarded

COMMANDS = ("inspect", "optimize", "bench", "evaluate", "doctor")
"""Module in this folder and name of the command; its function `run` has the options and the help text."""

app = typer.Typer(
    name="zeroskip",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Every command has --json. Exit status: 0 success, 1 bad input, 2 wrong command line.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"zeroskip {zeroskip.__version__}")
        raise typer.Exit


@app.callback()
def _zeroskip(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """CNN inference that skips the zeros: an ONNX network in, the same answers out, faster."""


for _name in COMMANDS:
    _command = importlib.import_module(f"zeroskip.cli.{_name}").run
    # Typer keeps line breaks; a docstring's are those of the source file, so each paragraph becomes one line.
    _paragraphs = (inspect.getdoc(_command) or "").split("\n\n")
    app.command(_name, help="\n\n".join(" ".join(p.split()) for p in _paragraphs))(guarded(_command))
