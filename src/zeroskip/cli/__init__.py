"""The ``zeroskip`` command: one thin module for each sub-command."""

from zeroskip.cli.app import main as main
