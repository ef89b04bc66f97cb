"""Runs the pocket recipes and keeps their cards and results under cards/pocket/, the golden examples.

The adapters that travel with the playground are kept in its folder, too.

python scripts/pocket.py [--bases] [--out runs] [RECIPE ...]
"""

import argparse
import shutil
from pathlib import Path

from ggez_hub import hub, load_recipe, registry, run
from ggez_hub.stages import push

GOLDEN = Path(__file__).parents[1] / "cards" / "pocket"
PLAYGROUND = GOLDEN.parents[1] / "spaces" / "playground" / "models"
JUDGE = "pocket-judge"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", help="default: all pocket recipes")
    parser.add_argument(
        "--bases", action="store_true", help="make the base models that travel in the package anew, too"
    )
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()
    shipped = [name for name in registry.files("recipes") if name.startswith("pocket-")]
    shipped = [name for name in shipped if not load_recipe(name).mixes]  # those are for `ggez ablate`
    bases = [name for name in shipped if load_recipe(name).base.random is not None]
    bases.sort(key=lambda name: name != JUDGE)  # which has to be there to measure another
    for name in bases if args.bases else ():
        replace(hub.SHIPPED / name, run(name, args.out).stage("merge") / "model")
    for name in args.recipes or (name for name in shipped if name not in bases):
        done = run(name, args.out)
        card, sweep = done.stage("card"), done.stage("sweep")
        replace(GOLDEN / name, *(sweep / file for file in ("results.json", "parity.png", "samples.png")))
        for artefact in ("adapter", "merged"):
            shutil.copyfile(card / artefact / "README.md", GOLDEN / name / f"{artefact}.md")
        recipe = load_recipe(name)
        if (shown := PLAYGROUND / hub.repo_id(recipe, name, "adapter")).is_dir():
            files = push.layout(recipe, done, "adapter").items()
            replace(shown, *(file for path, file in files if isinstance(file, Path) and not path.endswith(".png")))
            for path, text in files:  # plots lie in GOLDEN
                if isinstance(text, bytes):
                    (shown / path).write_bytes(text)


def replace(target: Path, *sources: Path) -> None:
    """Makes a folder hold these files, or the files of this folder, and nothing else."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in (file for source in sources for file in (source.iterdir() if source.is_dir() else [source])):
        shutil.copyfile(file, target / file.name)
    print(target)


if __name__ == "__main__":
    main()
