"""The ``zeroskip`` command: one thin module for each sub-command."""

import sys

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 plus the signal's number, as shells have it."""


def main() -> None:
    """Entry point of the console script; Ctrl-C ends it quietly, even while it imports what it needs."""
    try:
        from zeroskip.cli.app import app

        app(prog_name="zeroskip")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
