"""merge: the merged checkpoint at the chosen alpha, in the layout of the base."""

from pathlib import Path
from typing import Any

from ggez_hub import hub
from ggez_hub.merging import checkpoints
from ggez_hub.runs import Run, read_json
from ggez_hub.schema import Recipe

NEEDS = ("train", "sweep")
RESUMABLE = False


def inputs(recipe: Recipe, run: Run) -> dict[str, Any]:
    """What the stage depends on."""
    return recipe.section("family", "base") | {
        "method": recipe.train.method,
        "alpha": chosen_alpha(run) if run.manifest("sweep") else None,
        "train": run.outputs_hash("train"),
    }


def chosen_alpha(run: Run) -> float:
    """The alpha that the sweep chose."""
    return float(read_json(run.stage("sweep") / "results.json")["chosen"]["alpha"])


def run(recipe: Recipe, run: Run, folder: Path) -> None:
    """Writes model/."""
    base, alpha, train = hub.base_folder(recipe.base, run), chosen_alpha(run), run.stage("train")
    if recipe.train.method == "full":
        checkpoints.merge_full(base, train / "model", alpha, folder / "model")
    else:
        checkpoints.merge_adapters(base, {train / "adapter": alpha}, folder / "model")
