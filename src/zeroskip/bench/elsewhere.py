"""Rivals in environments of their own: what they need may not go together with what others need."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zeroskip.bench import worker
from zeroskip.bench.rivals import Rival
from zeroskip.bench.worker import Array, Message
from zeroskip.errors import InputError, ZeroskipError


def pythons_of(texts: Sequence[str]) -> dict[str, str]:
    """Rivals and their Pythons, of texts such as ``deepsparse=/opt/sparse/bin/python``.

    Raises:
        InputError: a text is not of this form.
    """
    found = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not name or not path:
            raise InputError(f"--python {text}: expected NAME=PATH, e.g. deepsparse=env/bin/python")
        found[name] = path
    return found


class Elsewhere:
    """A rival that another Python runs, on as many processors as this one may use.

    Args:
        python: the other Python's executable.
        rival: which one.
        model: the ONNX file.
        example: the input that it is opened for and that its turns are timed on.
        threads: as of every contender.

    Raises:
        InputError: there is no such executable.
        ZeroskipError: the rival is not installed there, or cannot open the model.
    """

    def __init__(self, python: str, rival: Rival, model: Path, example: Array, threads: int) -> None:
        try:
            self._process = subprocess.Popen(
                [python, worker.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise InputError(
                f"Python for {rival.name}: {python} cannot be run ({error.strerror}); name an executable"
            ) from error
        order = {"rival": rival.name, "model": str(model.resolve()), "threads": threads}
        self.version = str(self._ask(order, example)[0]["version"])

    def __call__(self, x: Array) -> Array:
        """Its answer."""
        return self._ask({}, x)[1]

    def turn(self, seconds: float, warm_up: int) -> list[float]:
        """Times of calls on the example, taken where they are made: without the way there and back."""
        return [float(time) for time in self._ask({"seconds": seconds, "warm_up": warm_up})[0]["times"]]

    def close(self) -> None:
        """End the other process."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, order: Message, array: Array | None = None) -> tuple[Message, Array]:
        source, out = self._process.stdin, self._process.stdout
        assert source is not None
        assert out is not None
        try:
            worker.send(source, order, None if array is None else np.asarray(array))
            answer, values = worker.receive(out)
        except (EOFError, OSError) as error:
            self.close()
            raise ZeroskipError(f"its process ended with status {self._process.returncode}") from error
        if "error" in answer:
            self.close()
            raise ZeroskipError(str(answer["error"]))
        return answer, values
