"""Taking turns; as a script, a rival in a Python of its own, which answers and takes turns when told.

The script needs NumPy and the rival, no more: the other Python may lack what zeroskip requires, or have what
it cannot use. Messages are a line of JSON, then the bytes of an array where the line has a ``shape``.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

Message = dict[str, Any]
Array = np.ndarray[Any, Any]


def turn(call: Callable[[], object], seconds: float, warm_up: int) -> list[float]:
    """Times of at least two calls; a call slower than the whole turn needs no longer warm-up."""
    now = time.perf_counter
    for _ in range(warm_up):
        start = now()
        call()
        if now() - start > seconds:
            break
    times: list[float] = []
    end = now() + seconds
    while len(times) < 2 or now() < end:
        start = now()
        call()
        times.append(now() - start)
    return times


def send(stream: IO[bytes], message: Message, array: Array | None = None) -> None:
    """Write a message, with an array of float32 where there is one."""
    if array is not None:
        message = {**message, "shape": array.shape}
    stream.write(json.dumps(message).encode() + b"\n")
    if array is not None:
        stream.write(np.ascontiguousarray(array, np.float32).tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[Message, Array]:
    """The next message and its array (an empty one where it has none).

    Raises:
        EOFError: there is none.
    """
    line = stream.readline()
    if not line:
        raise EOFError
    message = json.loads(line)
    shape = message.get("shape", [0])
    data = stream.read(4 * math.prod(shape))
    return message, np.frombuffer(data, np.float32).reshape(shape)


def main() -> None:
    """Open the rival that the first message names, then do what the others say, until there are no more."""
    source, out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a rival prints is no message
    opening, example = receive(source)
    try:
        rivals = importlib.import_module("rivals")  # beside this script
        rival = next(row for row in rivals.RIVALS if row.name == opening["rival"])
        model = Path(opening["model"])
        if reason := rival.refuses(model):
            raise RuntimeError(reason)
        call = rival.open(model, example, opening["threads"])
        send(out, {"version": rival.version()}, np.asarray(call(example)))
    except Exception as error:  # whatever it is, the comparison names it
        send(out, {"error": " ".join(str(error).split()) or type(error).__name__})
        return
    while True:
        try:
            order, array = receive(source)
        except EOFError:
            return
        if "seconds" in order:
            send(out, {"times": turn(lambda: call(example), order["seconds"], order["warm_up"])})
        else:
            send(out, {}, np.asarray(call(array)))


if __name__ == "__main__":
    main()
