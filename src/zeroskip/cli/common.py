"""How every command runs: one-line errors, progress on a terminal, one JSON object or tables."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zeroskip.cli import INTERRUPTED
from zeroskip.errors import ZeroskipError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@dataclass(frozen=True)
class Result:
    """What a command found: for programs, and for people.

    Attributes:
        payload: the object that ``--json`` prints.
        views: what is printed without it, in order.
    """

    payload: dict[str, Any]
    views: tuple[RenderableType, ...]


def guarded(command: Callable[..., Result]) -> Callable[..., None]:
    """The command with its result printed, and errors turned into one line on standard error and a status."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        as_json, debug = options.pop("as_json"), options.pop("debug")
        try:
            with _stdout_to_stderr() if as_json else nullcontext():
                result = command(**options)
            with _said_where():
                _print(result, as_json)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise  # click ends quietly when the reader of a pipe is gone
        except (ZeroskipError, OSError, MemoryError) as error:
            _fail(_one_line(error), debug)
        except Exception as error:
            _fail(f"internal error: {type(error).__name__}: {_one_line(error)} (--debug shows where)", debug)

    # The two options that concern printing alone are added here, so that no command has to carry them.
    own = inspect.signature(command, eval_str=True)
    shared = [
        inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json),
        inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug),
    ]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.parameters.values()] + shared
    run.__signature__ = own.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


@contextmanager
def _said_where() -> Iterator[None]:
    """Errors of a full disk and the like, with what could not be written."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"cannot write the result to standard output: {error.strerror or error}") from error


def _fail(line: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"zeroskip: {line}\n")
    raise typer.Exit(1)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _show_warning(message: Warning | str, *_: Any) -> None:
    sys.stderr.write(f"zeroskip: warning: {' '.join(str(message).split())}\n")


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send whatever libraries print (native ones too) to standard error while the block runs."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def _print(result: Result, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(result.payload, indent=2, allow_nan=False, default=str) + "\n")
        return
    console = Console(highlight=False)
    for view in result.views:
        console.print(view)


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while the block runs, if that is a terminal; yields its setter."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
