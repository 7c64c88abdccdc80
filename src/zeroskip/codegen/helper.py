"""Compile kernels in a process of its own: IR texts on standard input, objects on standard output."""

from __future__ import annotations

import sys

from zeroskip.codegen.compile import compile_text, split_messages
from zeroskip.codegen.target import resolve


def main() -> None:
    """Answer each length-prefixed IR text with the length-prefixed object compiled from it."""
    target = resolve(sys.argv[1])
    for text in split_messages(sys.stdin.buffer.read()):
        body = compile_text(text.decode(), target)
        sys.stdout.buffer.write(len(body).to_bytes(8, "little") + body)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
