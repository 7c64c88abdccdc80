"""``python -m zeroskip``."""

from zeroskip.cli.app import main

main()
