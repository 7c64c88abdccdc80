"""``python -m zeroskip.cli``."""

from zeroskip.cli.app import main

main()
