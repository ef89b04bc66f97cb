"""`python -m ggez_hub` is `ggez`."""

from ggez_hub.cli import main

main()
