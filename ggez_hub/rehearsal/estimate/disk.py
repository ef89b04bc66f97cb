"""What a run fetches and writes."""

from collections.abc import Mapping

from ggez_hub.recipes import load_benchmark
from ggez_hub.rehearsal.bases import Architecture
from ggez_hub.rehearsal.estimate import data, models
from ggez_hub.rehearsal.estimate.assumptions import hardware
from ggez_hub.rehearsal.estimate.memory import STATES
from ggez_hub.rehearsal.estimate.models import Model
from ggez_hub.rehearsal.estimate.results import Number, value
from ggez_hub.schema import Recipe


def needed(
    recipe: Recipe,
    architecture: Architecture,
    made: Model,
    trained: int,
    rows: Mapping[str, Number],
    missing: list[str],
) -> dict[str, Number]:
    """What is fetched and written."""
    count = sum(models.base_parameters(part) for part in made.parts.values())
    said = str(architecture.config.get("dtype") or architecture.config.get("torch_dtype") or "float32")
    width = 2 if said.endswith("16") else 4
    stored = count * width
    how = f"{count:.3e} parameters x {width} bytes ({said})"
    items = {"base": Number(stored, "bytes", how)}
    if architecture.download is not None:
        items["base"] = Number(architecture.download, "bytes", f"its files ({architecture.known_from})")
    fetched = _fetched(recipe, missing)
    items["data"] = Number(
        sum(size for size, _ in fetched), "bytes", "; ".join(how for _, how in fetched) or "of none known"
    )
    kept, assumed = rows["all"].value, hardware().assumed
    if kept is not None:
        size = assumed.picture
        items["examples"] = Number(
            kept * size, "bytes", f"{kept:,.0f} rows at most x {size / 1e3:g} kB of a picture (assumption)"
        )
        items["rows"] = Number(kept * size, "bytes", "the same, uncompressed, until the training ends")
        if made.loaded.pipeline:
            numbers = models.stored(made)
            items["latents"] = Number(
                kept * numbers * 2, "bytes", f"{kept:,.0f} rows x {numbers:,} numbers x 2 bytes, until it ends"
            )
    else:
        missing.append("disk of the rows that train: how many is not known")
    what = "model" if recipe.train.method == "full" else "adapter"
    items[what] = Number(4 * trained, "bytes", f"{trained:.3e} parameters x 4 bytes")
    items["checkpoint"] = Number(
        4 * (1 + STATES) * trained, "bytes", f"{trained:.3e} parameters x (1 + {STATES}) x 4 bytes, until it ends"
    )
    items["merged"] = Number(stored, "bytes", f"{how}, in the layout of the base")
    return items | {"all": Number(sum(value(number) for number in items.values()), "bytes", "the sum")}


def _fetched(recipe: Recipe, missing: list[str]) -> list[tuple[float, str]]:
    """Bytes of the data sets that are fetched, each once."""
    benchmarks = (load_benchmark(name).source for name in recipe.sweep.benchmarks)
    found: dict[str, tuple[float, str]] = {}
    for source in [*recipe.data.corpora.values(), *benchmarks]:
        if source.id is None or source.path or source.id in found:
            continue
        size = data.bytes_of(source)
        line = f"bytes of {source.id}: not known"
        if size is None:
            missing += [line] if line not in missing else []
        else:
            found[source.id] = size, f"{source.id} {size / 1e9:,.1f} GB"
    return list(found.values())
