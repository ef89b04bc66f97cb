"""Generalisation matrices: what a recipe's mixes were trained on against what is asked, as CultureVLM compares.

arXiv 2501.01282 trains on one continent or category and tests on the others, and looks at what is forgotten elsewhere.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import registry
from ggez_hub.ablate import AT, trained
from ggez_hub.errors import InputError, did_you_mean
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import load_region
from ggez_hub.runs import Run, read_json, whole, write_json
from ggez_hub.schema import Recipe
from ggez_hub.scoring import groups, items, statistics
from ggez_hub.scoring.statistics import WARN_BELOW, Answers

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

FIELDS = ("country", "category", "kind")  # what predictions.parquet says of every question
OWN = "◆"  # marks the groups that a mix was trained on
SUCH = "such as --by continent, category or kind"
WIDE = 150  # characters of a line for people


@dataclass(frozen=True)
class _Asked:
    """The test answers to one benchmark at some alphas, and the group of every question."""

    answers: Answers
    groups: list[str]

    def part(self, of: "np.ndarray") -> Answers:
        """The answers to some of the questions, given as bool [questions]."""
        clusters = [cluster for cluster, there in zip(self.answers.clusters, of, strict=True) if there]
        return Answers(self.answers.benchmark, clusters, self.answers.values[:, of])


def check(mixes: Mapping[str, tuple[Recipe, Run]], field: str) -> None:
    """Raises InputError if the questions of the regional benchmarks have no such field, before anything is trained."""
    recipe, _ = next(iter(mixes.values()))
    for name in recipe.sweep.regional if field not in (*groups.PARTITIONS, *FIELDS) else ():
        known = items.load(load_benchmark(name), recipe.data.path, load_region(recipe.region))
        _check_field(known, name, field)
        if not any(known[field].to_pylist()):
            raise InputError(f"--by {field}: no question of {name!r} says its {field}", SUCH)


def matrix(name: str, mixes: Mapping[str, tuple[Recipe, Run]], field: str) -> dict[str, Any]:
    """What each mix of a recipe reached in each group of the questions, from the run folders.

    Args:
        name: Of the recipe.
        mixes: The recipe and the complete run folder of each mix.
        field: What makes the groups: ``continent``, ``region`` (the World Bank's), country, category, kind, or another
            field of the questions, such as ``language``.

    Returns:
        What `ggez ablate --by FIELD --json` prints. ``groups`` says how many questions of the regional benchmarks each
        has, and how many are independent of each other. ``rows`` has one for the base, α = 0, and for each mix two:
        ``at`` specialist (α = 1) and chosen. In a row, ``groups`` has the quality in each group, the mean over the
        regional benchmarks, and its ``difference`` from the base; ``own`` tells whether the mix was trained on it, as
        its name or the `where` of its sources says; ``elsewhere`` is the same for all questions of other groups, None
        where there are none, or no own; ``global`` is what is left of the quality on the global benchmarks: value,
        difference and ``retention``. All have 95% intervals, those of differences paired.

    Raises:
        InputError: The questions have no such field, or none has a value in it.
    """
    first = next(iter(mixes.values()))[0]
    found: dict[str, Any] = {
        "recipe": name,
        "region": first.region,
        "by": field,
        "benchmarks": {"regional": list(first.sweep.regional), "global": list(first.sweep.global_)},
        "synthetic": True,
        "few": WARN_BELOW,
        "mixes": {},
        "groups": {},
        "rows": [],
    }
    for mix, (recipe, run) in mixes.items():
        results = read_json(run.stage("sweep") / "results.json")
        found["synthetic"] &= results["synthetic"]
        found["mixes"][mix] = trained(recipe, run)
        wanted = {"base": 0.0, "specialist": 1.0, "chosen": results["chosen"]["alpha"]}
        alphas = sorted(set(wanted.values()))
        sides = {
            side: [_asked(recipe, run, benchmark, alphas, field if side == "regional" else None) for benchmark in names]
            for side, names in found["benchmarks"].items()
        }
        found["groups"] = found["groups"] or _groups(sides["regional"], field)
        for at, alpha in wanted.items():
            if at != "base":
                found["rows"].append(_row(found, recipe, mix, at, alpha, alphas, sides))
            elif not found["rows"]:  # which is the same of all mixes
                found["rows"].append(_row(found, recipe, None, at, alpha, alphas, sides))
    return found


# ------------------------------------------------------------------------------------------------------------ questions
def _asked(recipe: Recipe, run: Run, name: str, alphas: Sequence[float], field: str | None) -> _Asked:
    """The test answers to a benchmark, [alphas, questions] in the order of the alphas, and their groups by a field."""
    import numpy as np
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    test = (pc.field("split") == "test") & (pc.field("benchmark") == name) & pc.field("alpha").isin(alphas)
    table = pq.read_table(run.stage("sweep") / "predictions.parquet", filters=test)
    at = [table.filter(pc.equal(table["alpha"], alpha)) for alpha in alphas]  # in the order of the questions
    cluster = load_benchmark(name).cluster
    asked = _joined(recipe, name, at[0], {cluster} | ({field} - set(groups.PARTITIONS) if field else set()))
    values = np.stack([part["value"].to_numpy() for part in at])
    members = groups.members(asked, field) if field else []
    return _Asked(Answers(name, [str(value) for value in asked[cluster].to_pylist()], values), members)


def _joined(recipe: Recipe, name: str, asked: "pa.Table", fields: set[str]) -> "pa.Table":
    """Questions with fields that predictions.parquet lacks, from the benchmark's own data."""
    import pyarrow as pa

    if missing := sorted(fields - set(asked.column_names)):
        benchmark = load_benchmark(name)
        known = items.load(benchmark, recipe.data.path, load_region(recipe.region))
        rows = {key: row for row, key in enumerate(items.names(known, benchmark.key).to_pylist())}
        places = pa.array([rows[key] for key in items.names(asked, benchmark.key).to_pylist()], pa.int64())
        for field in missing:
            if field != benchmark.cluster:
                _check_field(known, name, field)
            column = known["cluster" if field == benchmark.cluster else field]
            asked = asked.append_column(field, column.cast(pa.string()).take(places))
    return asked


def _check_field(questions: "pa.Table", name: str, field: str) -> None:
    there = [*groups.PARTITIONS, *(column for column in questions.column_names if column != "options")]
    if field not in there:
        problem = f"--by {field}: the questions of {name!r} have no such field{did_you_mean(field, there)}"
        raise InputError(problem, f"known: {', '.join(there)}")


def _groups(asked: Sequence[_Asked], field: str) -> dict[str, dict[str, Any]]:
    """The groups in which there are questions: title, number of questions, and of those independent of each other."""
    names = sorted({name for part in asked for name in part.groups} - {"", groups.SEVERAL, groups.ELSEWHERE})
    if not names:
        raise InputError(f"--by {field}: no question says its {field}", SUCH)
    found = {}
    for name in names:
        clusters = [
            c for part in asked for c, own in zip(part.answers.clusters, part.groups, strict=True) if own == name
        ]
        title = registry.load_region(name).title if field in groups.PARTITIONS else name
        if field == "country":
            title = groups.country(name) or name
        found[name] = {"title": title, "n": len(clusters), "independent": len(set(clusters))}
    return found


# ----------------------------------------------------------------------------------------------------------------- rows
def _row(
    found: Mapping[str, Any],
    recipe: Recipe,
    mix: str | None,
    at: str,
    alpha: float,
    alphas: list[float],
    sides: Mapping[str, Sequence[_Asked]],
) -> dict[str, Any]:
    """What the model at an alpha reached, against alpha = 0, the first."""
    import numpy as np

    i, own = alphas.index(alpha), _own(found, recipe, mix) if mix else []

    def of(names: Sequence[str]) -> dict[str, Any]:
        there = [(part, np.isin(part.groups, names)) for part in sides["regional"]]
        return _measured([part.part(inside) for part, inside in there if inside.any()], i, recipe)

    parts = {name: of([name]) | {"own": name in own} for name in found["groups"]}
    others = [name for name in found["groups"] if name not in own]
    kept = _measured([part.answers for part in sides["global"]], i, recipe, retention=True)
    elsewhere = of(others) if own and others else None
    return {"mix": mix, "at": at, "alpha": alpha, "groups": parts, "elsewhere": elsewhere, "global": kept}


def _measured(parts: list[Answers], i: int, recipe: Recipe, retention: bool = False) -> dict[str, Any]:
    """The quality at the i-th alpha, and its difference from that at the first, with intervals."""
    quality = statistics.quality(parts)
    replicates = statistics.resample(parts, recipe.sweep.resamples, recipe.seed).mean(axis=0)
    value = {
        "value": float(quality[i]),
        "ci95": statistics.interval(replicates[:, i]),
        "difference": float(quality[i] - quality[0]),
        "difference_ci95": statistics.interval(replicates[:, i] - replicates[:, 0]),
    }
    if retention:
        both, change = (float(quality[0]), float(quality[i])), replicates[:, [0, i]]
        judged = statistics.change({"global": both, "regional": both}, {"global": change, "regional": change})
        value |= {key: judged[key] for key in ("retention", "retention_ci95")}
    return value


def _own(found: Mapping[str, Any], recipe: Recipe, mix: str) -> list[str]:
    """The groups that a mix was trained on: those that it is named after, and those that its sources select."""
    selected = (value for corpus in recipe.data.corpora.values() for value in corpus.where.get(found["by"], ()))
    wanted = {_slug(str(name)) for name in (mix, *selected)}
    return [name for name, group in found["groups"].items() if wanted & {_slug(name), _slug(group["title"])}]


def _slug(name: str) -> str:
    """A name as mixes are called: ``Traditional Clothing`` is ``traditional-clothing``."""
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")


# ----------------------------------------------------------------------------------------------------------------- text
def text(found: Mapping[str, Any]) -> str:
    """The matrix, for people: at α = 1 and at the chosen α of each mix, and what was forgotten beside it."""
    lines = [f"{mix}: {count['rows']} rows" for mix, count in found["mixes"].items()]
    width = max(map(len, ("against base", "questions", *found["mixes"])))
    for at, title in AT.items():
        rows = [found["rows"][0], *(row for row in found["rows"] if row["at"] == at)]
        lines += ["", f"quality by {found['by']}, at {title}"]
        for names in _fitting(found["groups"], width):
            lines.append(" " * width + "".join(f"  {_head(found, name, 23):24}" for name in names))
            for row in rows:
                cells = [row["groups"][name] for name in names]
                shown = (f"  {_three(c, 'value')} {OWN if c['own'] else ' '}" for c in cells)
                lines.append(f"{row['mix'] or 'base':{width}}" + "".join(f"{cell:26}" for cell in shown).rstrip())
                if row["mix"]:
                    shown = (f" {_three(cell, 'difference', '+')}" for cell in cells)
                    lines.append(f"{'against base':>{width}}" + "".join(f"{cell:26}" for cell in shown).rstrip())
            counts = "".join(f"  {found['groups'][name]['n']:<24}" for name in names)
            lines += [f"{'questions':{width}}{counts.rstrip()}", ""]
        lines.append(
            f"{'':{width}}     α  {'global quality':22}  {'retention':22}  {'outside its own, against base':30}"
        )
        for row in rows:
            outside = _three(row["elsewhere"], "difference", "+") if row["elsewhere"] else "–"
            kept = f"{_three(row['global'], 'value'):22}  {_three(row['global'], 'retention'):22}  {outside}"
            lines.append(f"{row['mix'] or 'base':{width}} {row['alpha']:5g}  {kept}")
    lines.append("")
    if any(part["own"] for row in found["rows"] for part in row["groups"].values()):
        lines.append(f"{OWN} what the mix was trained on")
    if any(group["independent"] < found["few"] for group in found["groups"].values()):
        lines.append(f"* fewer than {found['few']} independent questions: a rough guess, no more")
    if found["synthetic"]:
        lines.append("Synthetic pictures: the numbers say that the method works here, nothing about the world.")
    return "\n".join(lines)


def _fitting(names: Mapping[str, Any], width: int) -> list[list[str]]:
    """The columns, as many below each other as a line has room for."""
    every, room = list(names), max(1, (WIDE - width) // 26)
    return [every[start : start + room] for start in range(0, len(every), room)]


def _head(found: Mapping[str, Any], name: str, longest: int | None = None) -> str:
    group = found["groups"][name]
    return str(group["title"])[:longest] + ("*" if group["independent"] < found["few"] else "")


def _three(part: Mapping[str, Any], key: str, sign: str = "") -> str:
    ends = part[f"{key}_ci95" if key != "value" else "ci95"]
    low_high = f" [{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]" if ends else ""
    return f"{part[key]:{sign}.3f}{low_high}" if part[key] is not None else "–"


# --------------------------------------------------------------------------------------------------------------- figure
def write(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes matrix-<field>.json and matrix-<field>.png; returns their paths."""
    paths = [folder / f"matrix-{found['by']}.{kind}" for kind in ("json", "png")]
    write_json(paths[0], found)
    plot(found, paths[1])
    return paths


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Draws heat maps at α = 1 and at the chosen α: quality, and in colour its difference from the base."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    names = list(found["groups"])
    # Noise stays pale.
    most = max(0.1, *(abs(part["difference"]) for row in found["rows"] for part in _cells(row)))
    colours = mpl.cm.ScalarMappable(mpl.colors.Normalize(-most, most), "RdBu")
    labels = [*(f"{textwrap.fill(_head(found, n), 14)}\nn {found['groups'][n]['n']}" for n in names), "global"]
    rows = len(found["mixes"]) + 1
    figure = Figure(figsize=(max(9.0, 2.2 + 0.95 * len(labels)), 1.6 + 2 * (1.1 + 0.42 * rows)), layout="constrained")
    for axes, (at, title) in zip(figure.subplots(2, 1), AT.items(), strict=True):
        shown = [found["rows"][0], *(row for row in found["rows"] if row["at"] == at)]
        for y, row in enumerate(shown):
            for x, part in enumerate(_cells(row)):
                face = colours.to_rgba(part["difference"]) if row["mix"] else "#eeeeee"
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="white"))
                said = f"{part['value']:.2f}" + (f"\n{part['difference']:+.2f}" if row["mix"] else "")
                dark = row["mix"] and abs(part["difference"]) > 0.7 * most
                axes.text(x, y, said, ha="center", va="center", fontsize=8, color="white" if dark else "black")
        for y, row in enumerate(shown):  # above their neighbours
            for x, part in enumerate(_cells(row)):
                if part.get("own"):
                    axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, fill=False, linewidth=2))
        axes.set(title=f"at {title}", xlim=(-0.5, len(labels) - 0.5), ylim=(len(shown) - 0.5, -0.5))
        axes.set_xticks(range(len(labels)), labels, fontsize=8)
        alphas = (f", α = {row['alpha']:g}" if at == "chosen" and row["mix"] else "" for row in shown)
        axes.set_yticks(range(len(shown)), [(row["mix"] or "base") + a for row, a in zip(shown, alphas, strict=True)])
        axes.tick_params(length=0)
        axes.axvline(len(names) - 0.5, color="black", linewidth=1.5)
    few = f"; * fewer than {found['few']} independent questions" if any("*" in label for label in labels) else ""
    mark = " (synthetic data)" if found["synthetic"] else ""
    about = f"trained on a part (rows), asked by {found['by']} (columns; framed: the part itself)"
    figure.suptitle(f"{found['recipe']}{mark}: {about}\nquality, and its difference from the base{few}", fontsize=10)
    with whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def _cells(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*row["groups"].values(), row["global"]]
