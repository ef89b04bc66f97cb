"""Breaks one thing at a time in a copy of each shipped recipe, and shows what `ggez rehearse` says of it: a table."""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ggez_hub.data import folders
from ggez_hub.hub import is_shipped
from ggez_hub.registry import data_root, files, to_yaml
from ggez_hub.rehearsal import checks, child, world
from ggez_hub.rehearsal.report import Problem, Report
from ggez_hub.schema import Recipe

NO_KOF = "title: Nowhere\ncountries: [ATA]\n"
UNKNOWN = {"model_type": "mamba9", "architectures": ["Mamba9ForEverything"]}
POCKET = ("pocket", "pocket_questions")
FREE = ("parquet", *folders.READERS)  # readers of any columns: the data decide which there are
Broken = dict[str, Any] | None  # the keys that break a recipe; None = it has nothing of that kind


# ----------------------------------------------------------------------------------------------------------- breakages
def _source(recipe: Recipe, **changes: Any) -> dict[str, Any]:
    """A change of the first source."""
    return {"data": {"sources": {next(iter(recipe.data.sources)): changes}} if recipe.data.sources else changes}


def wrong_column(recipe: Recipe) -> Broken:
    """A column that the data do not have."""
    return _source(recipe, columns={"text": "captoin"})


def impossible_batch(recipe: Recipe) -> Broken:
    """A batch that is not even counted."""
    return {"train": {"batch_size": 10**6, "micro_batch_size": 10**6}}


def batch_beyond_gpus(recipe: Recipe) -> Broken:
    """A batch of which counting shows that no GPU holds it: by base and training, which other regions share."""
    if recipe.region != "sea" or not recipe.base.id or is_shipped(recipe.base.id):
        return None
    rows = checks.MOST_DRAWINGS if recipe.family == "diffusion" else checks.MOST_ROWS
    return {"train": {"batch_size": rows, "micro_batch_size": rows}}


def micro_above_batch(recipe: Recipe) -> Broken:
    """Parts of a batch that are larger than it."""
    return {"train": {"micro_batch_size": recipe.train.batch_size + 1}}


def data_license(recipe: Recipe) -> Broken:
    """Data that forbid commercial use, under a license that does not."""
    return _source(recipe, license="cc-by-nc-4.0") | {"card": {"license": "apache-2.0", "license_name": None}}


def base_license(recipe: Recipe) -> Broken:
    """The same of the base."""
    if recipe.base.random is not None:
        return None
    return {"base": {"license": "cc-by-nc-4.0"}, "card": {"license": "apache-2.0", "license_name": None}}


def region_without_kof(recipe: Recipe) -> Broken:
    """A region that the KOF table lacks."""
    return {"region": "nowhere", "sweep": {"globalization": None, "year": None}}


def unknown_architecture(recipe: Recipe) -> Broken:
    """A base that no family knows."""
    return {"base": {"id": "unknown", "license": "mit"}}


def lost_column(recipe: Recipe) -> Broken:
    """A data set without a column that its reader needs."""
    first = next(iter(recipe.data.corpora.values()))
    return None if first.reader in POCKET else {}


BREAKAGES: dict[str, Callable[[Recipe], Broken]] = {
    "wrong column": wrong_column,
    "impossible batch": impossible_batch,
    "batch beyond every GPU": batch_beyond_gpus,
    "micro batch above batch": micro_above_batch,
    "license of the data": data_license,
    "license of the base": base_license,
    "region without KOF": region_without_kof,
    "unknown architecture": unknown_architecture,
    "lost column": lost_column,
}


# ------------------------------------------------------------------------------------------------------------- catching
def caught(name: str, breakage: str, folder: Path) -> list[Problem] | None:
    """What a rehearsal says of a broken copy of a recipe before anything of it runs, with the code that it runs on.

    Args:
        name: A shipped recipe.
        breakage: One of BREAKAGES.
        folder: An empty folder; the copy is ``copy.yaml`` in it.

    Returns:
        The problems; None if the recipe has nothing that could be broken so.
    """
    recipe, _ = checks.opened(name, {})
    changes = BREAKAGES[breakage](recipe)
    if changes is None:
        return None
    (folder / "recipes" / "regions").mkdir(parents=True)
    (folder / "recipes" / "regions" / "nowhere.yaml").write_text(NO_KOF)
    (folder / "unknown").mkdir()
    (folder / "unknown" / "config.json").write_text(json.dumps(UNKNOWN))
    if breakage == "wrong column" and _has_no_layout(recipe):  # the reader takes any columns: the data decide
        made = world.data(recipe, folder / "theirs", folder)
        changes["data"]["path"] = str(Path("theirs", made.overrides["data.path"]))
    (folder / "copy.yaml").write_text(to_yaml({"extends": name, **changes}))
    with contextlib.chdir(folder):
        found = list(_looked(folder / "rehearsal", breakage == "lost column"))
    # What is said of the copy's own lines first: another license on the card can clash with more than what is broken.
    return sorted(found, key=lambda problem: not problem.place.startswith("copy.yaml:"))


def _has_no_layout(recipe: Recipe) -> bool:
    return not recipe.data.sources and recipe.data.reader in FREE


def _looked(folder: Path, loses_column: bool) -> Iterator[Problem]:
    """What is looked at of copy.yaml in the current folder, in the order of a rehearsal."""
    folder.mkdir()
    try:
        recipe, place = checks.opened("copy.yaml", {})
    except checks.ConfigError as err:
        yield from checks.invalid(err)
        return
    if found := [*checks.offline(recipe, place), *checks.readable(recipe, place, here=True)]:
        yield from found
        return
    made, given = world.data(recipe, folder, Path.cwd()), str(Path("copy.yaml").absolute())
    with contextlib.chdir(folder):
        short, _ = checks.opened(given, made.overrides)
        for lost in _losing(next(iter(made.written.values()))) if loses_column else [""]:
            if found := list(checks.readable(short, place)):
                yield from (Problem(problem.place, f"{lost}{problem.text}", problem.hint) for problem in found)
                return
    if not loses_column:
        report = Report("copy")
        with contextlib.suppress(child.Stop):
            child.estimated(recipe, place, report)
        yield from report.problems


def _losing(data: Path) -> Iterator[str]:
    """Takes one column after the other from the files of a data set."""
    import pyarrow.parquet as pq

    for path in sorted(path for path in data.rglob("*") if path.suffix in (".parquet", ".jsonl", ".json")):
        whole = path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            for column in table.column_names:
                pq.write_table(table.drop_columns([column]), path)
                yield f"(lost {column}) "
        else:
            lines = path.suffix == ".jsonl"
            rows = [json.loads(line) for line in whole.splitlines()] if lines else json.loads(whole)
            for column in dict.fromkeys(key for row in rows for key in row):
                left = [{key: value for key, value in row.items() if key != column} for row in rows]
                path.write_text("\n".join(map(json.dumps, left)) if lines else json.dumps(left))
                yield f"(lost {column}) "
        path.write_bytes(whole)


# ---------------------------------------------------------------------------------------------------------------- table
def table(names: Sequence[str]) -> str:
    """Every recipe and breakage with the first line of what is said, as Markdown."""
    lines = ["| recipe | broken | caught at | what is said | next step |", "| --- | --- | --- | --- | --- |"]
    for name in names:
        for breakage in BREAKAGES:
            print(f"{name}: {breakage}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as folder:
                found = caught(name, breakage, Path(folder))
            if found is None:
                continue
            problem = found[0] if found else Problem("**not caught**", "")
            cells = (name, breakage, Path(problem.place).name, problem.text.partition("\n")[0], problem.hint)
            lines.append("| " + " | ".join(cell.replace("|", "¦").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipes", nargs="*", help="default: all shipped ones")
    args = parser.parse_args()
    os.chdir(data_root())
    print(table(args.recipes or list(files("recipes"))), end="")


if __name__ == "__main__":
    from huggingface_hub import constants

    constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = "hub", True
    main()
