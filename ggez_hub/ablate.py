"""Ablations: a recipe with several mixes of its data, side by side, as in figure 3 of the paper."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ggez_hub import recipes
from ggez_hub.errors import InputError
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import load_region
from ggez_hub.runs import Run, read_json, whole, write_json
from ggez_hub.schema import Recipe
from ggez_hub.scoring import paper, statistics
from ggez_hub.scoring.statistics import WARN_BELOW, Answers

LAST = "sweep"  # the stage whose results are compared; nothing is published of a mix
PAPER_REGION, PAPER_TABLE = "sea", 15  # what figure 3 of the paper shows
AT = {"specialist": "α = 1, the regional specialist", "chosen": "the chosen α"}


# ------------------------------------------------------------------------------------------------------------ the mixes
def mixed(name: str, out: str | Path, overrides: Mapping[str, Any]) -> dict[str, tuple[Recipe, Run]]:
    """The recipe and the run folder of each mix, ``OUT/<recipe>.<mix>``.

    Args:
        name: Name or path of a recipe.
        out: The folder that holds the run folders.
        overrides: Values that win over the file.

    Raises:
        InputError: The recipe names no mixes, or cannot be used.
    """
    recipe, stem = recipes.load_recipe(name, overrides), recipes.recipe_name(name)
    if not recipe.mixes:
        raise InputError(
            f"recipe {stem!r} names no mixes",
            f"such as mixes: {{few: {{{next(iter(recipe.data.corpora))}: 1000}}}}: of each source the rows at most",
        )
    return {
        mix: (recipes.load_recipe(name, _of_mix(recipe, mix, overrides)), Run(Path(out) / f"{stem}.{mix}"))
        for mix in recipe.mixes
    }


def _of_mix(recipe: Recipe, mix: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides that make of a recipe one of its mixes: its caps stand in place of the sources' caps and shares."""
    caps = recipe.mixes[mix]
    if not recipe.data.sources:
        changes: dict[str, Any] = {"data.cap": caps["data"], "data.share": None}
        parts: tuple[str, ...] = ("mixes",)
    else:
        given = {name: recipe.data.sources[name].model_dump(mode="json", exclude_unset=True) for name in caps}
        changes = {"data.sources": {name: given[name] | {"cap": cap, "share": None} for name, cap in caps.items()}}
        if not any(recipe.data.sources[name].translate for name in caps):
            changes["translate"] = None
        parts = ("mixes", *changes)
    # What was given for these parts is in the recipe already.
    kept = {key: value for key, value in overrides.items() if not any(f"{key}.".startswith(f"{p}.") for p in parts)}
    return kept | changes | {"mixes": {}}


# ------------------------------------------------------------------------------------------------------------ the table
def compare(name: str, mixes: Mapping[str, tuple[Recipe, Run]]) -> dict[str, Any]:
    """What each mix reached, from the run folders.

    Args:
        name: Of the recipe.
        mixes: The recipe and the complete run folder of each mix.

    Returns:
        What `ggez ablate --json` prints. ``rows`` has one for the base, α = 0, and for each mix two: ``at`` specialist
        (α = 1) and chosen; in each the regional quality, which is the mean over the regional benchmarks, and that of
        each country, with 95% intervals and the number of questions; the global quality; GRP. ``mixes`` says how many
        rows of each source trained. ``paper`` is what figure 3 of the paper shows, where it is the same region.
    """
    first = next(iter(mixes.values()))[0]
    found: dict[str, Any] = {
        "recipe": name,
        "region": first.region,
        "benchmarks": {"regional": list(first.sweep.regional), "global": list(first.sweep.global_)},
        "synthetic": True,
        "few": WARN_BELOW,
        "mixes": {},
        "rows": [],
    }
    for mix, (recipe, run) in mixes.items():
        results = read_json(run.stage("sweep") / "results.json")
        found["synthetic"] &= results["synthetic"]
        found["mixes"][mix] = trained(recipe, run)
        points = {point["alpha"]: point for point in results["points"]}
        wanted = {"base": 0.0} if not found["rows"] else {}  # which is the same of all mixes
        wanted |= {"specialist": 1.0, "chosen": results["chosen"]["alpha"]}
        countries = _by_country(recipe, run, sorted(set(wanted.values())))
        for at, alpha in wanted.items():
            keys = ("regional", "regional_ci95", "global", "global_ci95", "grp")
            row = {"mix": None if at == "base" else mix, "at": at, "alpha": alpha}
            found["rows"].append(row | {key: points[alpha][key] for key in keys} | {"countries": countries[alpha]})
    members, there = load_region(first.region).countries, found["rows"][0]["countries"]
    found["questions"] = {country: there[country]["n"] for country in members if country in there}
    found["unasked"] = [country for country in members if country not in there]
    if first.region == PAPER_REGION:
        found["paper"] = paper.table(PAPER_TABLE).model_dump(mode="json")
    return found


def trained(recipe: Recipe, run: Run) -> dict[str, Any]:
    """How many rows of a mix trained, in all and of each source, from its run folder."""
    report = read_json(run.stage("filter") / "report.json")
    kept = {name: report["sources"][name]["kept"] for name in recipe.data.sources} or {"data": report["kept"]}
    return {"rows": report["kept"], "sources": kept}


def _by_country(recipe: Recipe, run: Run, alphas: Sequence[float]) -> dict[float, dict[str, dict[str, Any]]]:
    """The regional quality by country, with an interval and the number of questions: alpha, country."""
    import numpy as np
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    answers: dict[str, list[Answers]] = {}
    for name in recipe.sweep.regional:
        asked = (pc.field("split") == "test") & (pc.field("benchmark") == name) & pc.field("alpha").isin(alphas)
        table = pq.read_table(run.stage("sweep") / "predictions.parquet", filters=asked)
        cluster = load_benchmark(name).cluster
        clusters = table[cluster if cluster in table.column_names else "id"].to_numpy()
        values = {alpha: pc.equal(table["alpha"], alpha).to_numpy() for alpha in alphas}
        countries = table["country"].to_numpy()
        for country in load_region(recipe.region).countries:
            of = countries == country
            if of.any():
                each = [table["value"].to_numpy()[of & at] for at in values.values()]  # in the order of the questions
                part = Answers(name, [str(c) for c in clusters[of & values[alphas[0]]]], np.stack(each))
                answers.setdefault(country, []).append(part)
    found: dict[float, dict[str, dict[str, Any]]] = {alpha: {} for alpha in alphas}
    for country, parts in answers.items():
        quality = statistics.quality(parts)
        replicates = statistics.resample(parts, recipe.sweep.resamples, recipe.seed).mean(axis=0)
        for i, alpha in enumerate(alphas):
            found[alpha][country] = {
                "value": float(quality[i]),
                "ci95": statistics.interval(replicates[:, i]),
                "n": sum(part.values.shape[1] for part in parts),
            }
    return found


# ----------------------------------------------------------------------------------------------------------------- text
def text(found: Mapping[str, Any]) -> str:
    """The comparison, for people: one table at α = 1 and one at the chosen α of each mix."""
    lines = []
    for mix, trained in found["mixes"].items():
        parts = ", ".join(f"{source} {count}" for source, count in trained["sources"].items())
        lines.append(f"{mix}: {trained['rows']} rows" + (f" ({parts})" if len(trained["sources"]) > 1 else ""))
    base = found["rows"][0]
    countries = [_head(found, country) for country in found["questions"]]
    width = max(map(len, ("questions", "base", *found["mixes"])))
    for at, title in AT.items():
        lines += ["", f"at {title}"]
        heads = "".join(f"{country:>7}" for country in countries)
        lines.append(f"{'':{width}} {'α':>5}  {'regional':22}{heads}  {'global':22} {'GRP':>6}")
        for row in (base, *(row for row in found["rows"] if row["at"] == at)):
            values = "".join(f"{row['countries'][country]['value']:7.3f}" for country in found["questions"])
            lines.append(
                f"{row['mix'] or 'base':{width}} {row['alpha']:5g}  {_value(row, 'regional'):22}{values}  "
                f"{_value(row, 'global'):22} {row['grp']:6.3f}"
            )
        counts = "".join(f"{count:7}" for count in found["questions"].values())
        lines.append(f"{'questions':{width}} {'':5}  {'':22}{counts}")
    lines.append("")
    if any(count < found["few"] for count in found["questions"].values()):
        lines.append(f"* fewer than {found['few']} questions: a rough guess, no more")
    if found["unasked"]:
        lines.append(f"without a question: {', '.join(found['unasked'])}")
    if found["synthetic"]:
        lines.append("Synthetic pictures: the numbers say that the method works here, nothing about the world.")
    if "paper" in found:
        lines += ["", *_paper(found["paper"])]
    return "\n".join(lines)


def _head(found: Mapping[str, Any], country: str) -> str:
    return country + ("*" if found["questions"][country] < found["few"] else "")


def _value(row: Mapping[str, Any], side: str) -> str:
    return f"{row[side]:.3f} {statistics.shown(row[f'{side}_ci95'])}"


def _paper(table: Mapping[str, Any]) -> list[str]:
    """Figure 3 of the paper, as its table prints it."""
    width = max(len(row[0]) for row in table["rows"])
    lines = [f"for comparison, the paper's figure 3: accuracy on SEA-VQA in percent ({table['source']})"]
    lines.append(f"{'':{width}} " + "".join(f"{column:>7}" for column in table["columns"][1:]))
    return lines + [f"{row[0]:{width}} " + "".join(f"{cell!s:>7}" for cell in row[1:]) for row in table["rows"]]


# --------------------------------------------------------------------------------------------------------------- figure
def write(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes table.json and figure3.png; returns their paths."""
    paths = [folder / "table.json", folder / "figure3.png"]
    write_json(paths[0], found)
    plot(found, paths[1])
    return paths


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Draws the regional quality of each mix, in all and by country, at α = 1 and at the chosen α."""
    import matplotlib as mpl
    import numpy as np
    from matplotlib.figure import Figure

    groups = ["all", *(f"{_head(found, country)}\n{count}" for country, count in found["questions"].items())]
    figure = Figure(figsize=(11, 7), layout="constrained")
    for axes, (at, title) in zip(figure.subplots(2, 1, sharey=True), AT.items(), strict=True):
        rows = [found["rows"][0], *(row for row in found["rows"] if row["at"] == at)]
        width = 0.8 / len(rows)
        for i, row in enumerate(rows):
            parts = [row["countries"][country] for country in found["questions"]]
            values = [row["regional"], *(part["value"] for part in parts)]
            ends = [row["regional_ci95"], *(part["ci95"] for part in parts)]
            spread = [(abs(v - e[0]), abs(e[1] - v)) if e else (0, 0) for v, e in zip(values, ends, strict=True)]
            name = row["mix"] or "base"
            label = f"{name}, α = {row['alpha']:g}" if at == "chosen" or not row["mix"] else name
            colour = mpl.colormaps["viridis"]((i - 1) / max(len(rows) - 2, 1)) if row["mix"] else "#bbbbbb"
            places = np.arange(len(groups)) + (i - (len(rows) - 1) / 2) * width
            axes.bar(places, values, width, color=colour, label=label)
            errors = {"fmt": "none", "ecolor": "#444444", "elinewidth": 0.8}
            axes.errorbar(places, values, np.array(spread).T, **errors)
        axes.set_xticks(range(len(groups)), groups)
        axes.set(title=f"at {title}", ylabel="regional quality", ylim=(0, 1))
        axes.legend(fontsize=8, ncols=len(rows))
    few = f"; * fewer than {found['few']} questions" if any("*" in group for group in groups) else ""
    mark = " (synthetic data)" if found["synthetic"] else ""
    figure.suptitle(f"{found['recipe']}{mark}: data mixes by country, with 95% intervals and numbers of questions{few}")
    with whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
