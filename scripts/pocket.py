"""Runs the pocket recipes and keeps their cards and results under cards/pocket/, the golden examples.

python scripts/pocket.py [--out runs] [RECIPE ...]
"""

import argparse
import shutil
from pathlib import Path

from ggez_hub import registry, run

GOLDEN = Path(__file__).parents[1] / "cards" / "pocket"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", help="default: all pocket recipes but those that make the bases")
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()
    shipped = [name for name in registry.files("recipes") if name.startswith("pocket-") and "-base-" not in name]
    for name in args.recipes or shipped:
        done = run(name, args.out)
        folder = GOLDEN / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for artefact in ("adapter", "merged"):
            shutil.copyfile(done.stage("card") / artefact / "README.md", folder / f"{artefact}.md")
        for file in ("results.json", "parity.png"):
            shutil.copyfile(done.stage("sweep") / file, folder / file)
        print(folder)


if __name__ == "__main__":
    main()
