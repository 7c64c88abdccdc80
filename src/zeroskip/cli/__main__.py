"""``python -m zeroskip.cli``."""

from zeroskip.cli import main

main()
