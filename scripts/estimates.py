"""Writes docs/estimates.json, what the real run of each recipe needs, from which scripts/docs.py makes tables.

python scripts/estimates.py [RECIPE ...]      all recipes whose base is a published model; two minutes, no network
"""

import argparse
import json
from pathlib import Path
from typing import Any

from ggez_hub import recipes, registry
from ggez_hub.hub import is_shipped
from ggez_hub.rehearsal import bases, estimate
from ggez_hub.rehearsal.estimate import Number, shown
from ggez_hub.runs import write_text

FILE = Path(__file__).parents[1] / "docs" / "estimates.json"
HEAD = ("recipe", "parameters", "trained", "memory of a GPU", "smallest machine", "training", "sweep", "disk", "cost")


def wanted() -> list[str]:
    """Recipes that start from a published model."""
    bases_of = {name: recipes.load_recipe(name).base.id for name in registry.files("recipes")}
    return [name for name, base in bases_of.items() if base and not is_shipped(base)]


def entry(family: str, found: estimate.Estimate) -> dict[str, Any]:
    """What is kept of an estimate: plain numbers in the units that `Number` has, on the smallest machine that does."""
    way = found.ways[0] if found.ways else None
    numbers = {
        "parameters": sum(number.value or 0 for number in found.parameters.values()),
        "trained": found.trained.value,
        "memory": (way.memory if way and way.gpus > 1 else found.peak).value,
        "training": way and way.hours["train"].value,
        "sweep": way and way.hours["sweep"].value,
        "disk": found.disk["all"].value,
        "cost": way and way.cost.value,
    }
    kept = {name: value if value is None else float(f"{value:.3g}") for name, value in numbers.items()}
    machine = f"{way.gpus} x {way.gpu}" if way else None
    return {"family": family, "machine": machine, **kept, "missing": list(found.missing)}


def rows(family: str) -> list[tuple[str, ...]]:
    """Rows of a table with the columns of HEAD, of a family's recipes."""
    kept: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    return [_row(name, one) for name, one in kept.items() if one["family"] == family]


def _row(name: str, kept: dict[str, Any]) -> tuple[str, ...]:
    units = {"memory": "bytes", "training": "hours", "sweep": "hours", "disk": "bytes", "cost": "USD"}
    told = {key: shown(Number(kept[key], unit, "")) for key, unit in units.items()}
    least = "≥ " if any(line.startswith(("bytes of", "disk of")) for line in kept["missing"]) else ""
    return (
        f"`{name}`",
        f"{kept['parameters'] / 1e9:.2f} B",
        f"{kept['trained'] / 1e6:,.1f} M",
        told["memory"],
        kept["machine"] or "none",
        told["training"],
        told["sweep"],
        f"{least}{told['disk']}",
        told["cost"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*")
    asked = parser.parse_args().recipes
    kept: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if asked and FILE.is_file() else {}
    for name in asked or wanted():
        recipe = recipes.load_recipe(name)
        kept[name] = entry(recipe.family, estimate.estimate(recipe, bases.of(recipe)))
        print(" | ".join(_row(name, kept[name])), flush=True)
    write_text(FILE, json.dumps(dict(sorted(kept.items())), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
