"""Answers the playground's examples: `python scripts/examples.py`, after its adapters or their bases have changed.

An example is a file in spaces/playground/examples/ with a question; the first one is what the page opens with.
"""

from pathlib import Path

from ggez_hub.spaces import _asking as asking
from ggez_hub.spaces import folder


def main(place: Path) -> None:
    """Answers every question anew."""
    shelf = asking.Shelf(place)
    shelf.examples = {}
    for path in sorted((place / "examples").glob("*.json")):
        asking.write_example(path, shelf.grid)
        print(path.name)


if __name__ == "__main__":
    main(folder("playground"))
