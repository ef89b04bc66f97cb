"""What the parity page compares: adapters that travel with the package, published ones, the paper's, and uploads."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ggez_hub import gate, hub, kof, method, registry
from ggez_hub.errors import ConfigError, InputError, did_you_mean
from ggez_hub.hub import search
from ggez_hub.schema import Facts, Interval, Recipe, Results
from ggez_hub.scoring import paper
from ggez_hub.spaces import page, split_revision

MAX_UPLOAD = 1_000_000  # bytes of a results.json; one of the pocket's has 120,000
MAX_POINTS = 200
LARGEST = 1e6  # value of a benchmark, and number of questions
KEPT = 0.98  # of the base's global quality, what most want to keep
PAPER_REGION = "sea"
KOF = "KOF Globalisation Index"

Place = tuple[float, int | None]  # value and number of questions
Places = Mapping[float, Mapping[str, Place]]  # by alpha and country (ISO 3166)


@dataclass(frozen=True)
class Point:
    """Both qualities of a model at an alpha."""

    alpha: float
    global_: float
    regional: float

    def grp(self, globalization: float) -> float:
        """Its parity."""
        return method.grp(self.global_, self.regional, globalization)


@dataclass(frozen=True)
class Entry:
    """An adapter and what was measured of it.

    Attributes:
        name: What it is called on the page; no two have the same.
        origin: Where its numbers are from.
        points: By rising alpha, the first of them at 0.
        chosen: The alpha that is recommended.
        grp_best: The alpha of the highest parity, the paper's plain rule.
        group: What was asked: only qualities of the same group can be compared.
        places: By benchmark, the values of countries.
        metrics: By benchmark, what its values are.
        below_gate: Whether it misses what publishing asks for; None = unknown.
        repo: Where it was published.
    """

    name: str
    origin: str
    region: str
    family: str
    base: str
    points: tuple[Point, ...]
    chosen: float
    grp_best: float
    globalization: float
    group: str
    gain_ci95: Interval = None
    retention_ci95: Interval = None
    places: Mapping[str, Places] = None  # type: ignore[assignment]  # always given
    metrics: Mapping[str, str] = None  # type: ignore[assignment]
    synthetic: bool = False
    below_gate: bool | None = None
    repo: str | None = None

    def at(self, alpha: float) -> Point:
        """The point of a measured alpha."""
        return next(point for point in self.points if point.alpha == alpha)

    def retention(self, point: Point) -> float | None:
        """The share of global quality that is kept at a point."""
        return method.retention(point.global_, self.points[0].global_)

    def gain(self, point: Point) -> float | None:
        """The relative gain of regional quality at a point."""
        return method.gain(point.regional, self.points[0].regional)


# -------------------------------------------------------------------------------------------------------------- reading
def shipped() -> list[Entry]:
    """The pocket adapters, whose results travel with the package."""
    found = []
    for path in sorted((registry.data_root() / "cards" / "pocket").glob("*/results.json")):
        name = path.parent.name
        recipe = registry.read(Recipe, registry.find("recipes", name))
        results = _results(hub.read_json(path, hub.MAX_FACTS), name)
        missed = bool(gate.figures(results.chosen.model_dump(), recipe.push))
        entry = _entry(name, results, "in this package", family=recipe.family, base=hub.base_name(recipe.base))
        found.append(replace(entry, synthetic=True, below_gate=missed))
    return found


def published(repo: str, folder: Path, others: Iterable[str] = ()) -> Entry:
    """A published adapter.

    Args:
        repo: A Hub id (also with ``@`` and a revision), a folder in the layout of one, or a run folder.
        folder: The folder of the Space, in which such a folder may travel.
        others: Names that are taken.

    Raises:
        InputError: Not one that ggez_hub published.
        HubError: The Hub refused or cannot be reached.
    """
    name, revision = split_revision(repo)
    beside = folder / "models" / name
    place = beside if beside.is_dir() else Path(name)
    run = place / "card" / "adapter"
    with hub.naming(name):
        if (run / hub.FACTS).is_file():
            root, facts = place, hub.read(run, hub.FACTS, Facts, name)
            results = hub.read(place / "sweep", "results.json", Results, name)
        else:
            root, facts, results = search.described(str(place) if beside.is_dir() else name, revision)
        called = "/".join(root.resolve().parts[-2:]) if place.is_dir() else name  # no need to know the whole path
        entry = _entry(
            unique(shorter(called), others),
            checked(results),
            page.origin(hub.commit_of(root)),
            family=facts.family,
            base=shorter(str(facts.base)),
        )
    return replace(entry, repo=repo, synthetic=facts.synthetic or results.synthetic, below_gate=bool(facts.gate))


def uploaded(path: str | Path, others: Iterable[str]) -> Entry:
    """What a user's results.json says.

    Args:
        path: The file.
        others: Names that are taken.

    Raises:
        InputError: Too large, not JSON, or not such a file: the key is named.
    """
    path = Path(path)
    called = shorter(path.name)
    try:
        value = hub.read_json(path, MAX_UPLOAD)
    except InputError as err:
        raise InputError(
            err.message.replace(str(path), called), "a results.json of a run or a repository works"
        ) from err
    results = _results(value, called)
    recipe = value.get("recipe")
    stem = recipe if isinstance(recipe, str) and path.stem.startswith("results") else path.stem
    name = unique(f"uploaded: {shorter(stem)}", others)
    return replace(_entry(name, results, f"uploaded as {called}", family="", base=""), synthetic=results.synthetic)


def _results(value: Any, called: str) -> Results:
    try:
        return checked(registry.check(Results, value, lambda key: f"{called}:"))
    except RecursionError as err:
        raise InputError(f"{called}: nested too deeply") from err


def checked(results: Results) -> Results:
    """Raises InputError where the points do not fit together, or cannot be drawn."""
    alphas = [point.alpha for point in results.points]
    if len(alphas) > MAX_POINTS:
        raise InputError(f"points: {len(alphas)}, expected {MAX_POINTS} at most")
    if len(set(alphas)) < len(alphas):
        raise InputError("points: an alpha is there twice")
    for point in results.points:
        if max(abs(point.global_), abs(point.regional), abs(point.grp)) > LARGEST:
            raise InputError(f"points: a quality of more than {LARGEST:g} at alpha {point.alpha:g}")
    for wanted, why in ((0.0, "the global base, that others are judged against"), (results.chosen.alpha, "chosen")):
        if wanted not in alphas:
            raise InputError(f"points: alpha {wanted:g} is missing, {why}")
    return results


def _entry(name: str, results: Results, origin: str, family: str, base: str) -> Entry:
    points = sorted(results.points, key=lambda point: point.alpha)
    asked = {benchmark: found for benchmark, found in points[0].benchmarks.items() if len(benchmark) <= 100}
    places: dict[str, Places] = {}
    for benchmark in asked:
        by_alpha = {}
        for point in points:
            found = point.benchmarks.get(benchmark)
            parts = found.by.get("country", {}) if found else {}
            if any(max(abs(part.value), part.n) > LARGEST for part in parts.values()):
                raise InputError(f"points: {benchmark}: by.country: a value of more than {LARGEST:g}")
            by_alpha[point.alpha] = {code: (part.value, part.n) for code, part in parts.items() if page.country(code)}
        if any(by_alpha.values()):
            places[benchmark] = by_alpha
    of = ", ".join(f"{benchmark} ({found.n} questions)" for benchmark, found in sorted(asked.items()))
    return Entry(
        name=name,
        origin=origin,
        region=results.region,
        family=family,
        base=base,
        points=tuple(Point(point.alpha, point.global_, point.regional) for point in points),
        chosen=results.chosen.alpha,
        grp_best=results.grp_best.alpha,
        globalization=results.globalization.value,
        group=f"{region_title(results.region)}: {of}",
        gain_ci95=results.chosen.gain_ci95,
        retention_ci95=results.chosen.retention_ci95,
        places=places,
        metrics={benchmark: shorter(found.metric) for benchmark, found in asked.items()},
    )


def printed() -> list[Entry]:
    """The paper's models, as its tables print them, with the alpha that its own rule picks."""

    def one(name: str, number: int, family: str, base: str, qualities: Any, scale: float = 100) -> Entry:
        table = paper.table(number)
        points = [Point(row["alpha"], *(value / scale for value in qualities(row))) for row in table.records()]
        weight = kof.lookup(PAPER_REGION, 2023).value
        best = max(points, key=lambda point: point.grp(weight)).alpha
        return Entry(
            name=f"paper: {name}", origin=table.source, region=PAPER_REGION, family=family, base=base,
            points=tuple(points), chosen=best, grp_best=best, globalization=weight,
            group=f"paper, table {number}", places={}, metrics={},
        )  # fmt: skip

    vlm = one("SEA-Gemma-3", 1, "vlm", "Gemma-3 27B", lambda row: (row["global_avg"], row["sea_avg"]))
    countries = paper.table(10).columns[3:]
    seavqa: Places = {
        row["alpha"]: {code: (row[code] / 100, None) for code in countries} for row in paper.table(10).records()
    }
    by_country = "SEA-VQA (table 10)"
    return [
        replace(vlm, origin="arXiv 2604.11490 v2, tables 1 and 10", places={by_country: seavqa},
                metrics={by_country: "accuracy"}),
        one("SEA-SigLIP2", 5, "embedding", "SigLIP2-SO400m",
            lambda row: (row["cvqa_global"], (row["cvqa_sea"] + row["seavqa_sea"]) / 2)),
        one("SEA-Gemma-3 (human ranks)", 2, "vlm", "Gemma-3 27B", lambda row: (row["global"], row["sea"]), scale=1),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ comparing
def winners(entries: Sequence[Entry], globalization: float) -> list[dict[str, Any]]:
    """Which model wins at which alpha, in every group of models that were asked the same.

    Args:
        entries: The models.
        globalization: Weight of the global quality, 0..1.

    Returns:
        For each group: ``compared`` (what was asked), ``models`` (names), ``winner`` of the highest GRP, and
        ``keeping``, the winner among what keeps 98% of its base's global quality; both as model, alpha, global,
        regional, grp and retention. Of equal ones the smaller alpha wins.
    """
    found = []
    for group in dict.fromkeys(entry.group for entry in entries):
        members = [entry for entry in entries if entry.group == group]
        ways = [(entry, point) for entry in members for point in entry.points]
        kept = [(entry, point) for entry, point in ways if point is entry.points[0] or keeps(entry, point)]

        def best(among: list[tuple[Entry, Point]]) -> dict[str, Any]:
            entry, point = min(among, key=lambda way: (-way[1].grp(globalization), way[1].alpha))
            return {"model": entry.name, "alpha": point.alpha, "global": point.global_, "regional": point.regional,
                    "grp": point.grp(globalization), "retention": entry.retention(point)}  # fmt: skip

        names = [entry.name for entry in members]
        found.append({"compared": group, "models": names, "winner": best(ways), "keeping": best(kept)})
    return found


def keeps(entry: Entry, point: Point) -> bool:
    """Whether a point keeps 98% of the base's global quality."""
    return method.keeps(point.global_, entry.points[0].global_, KEPT)


def envelope(points: Sequence[Point]) -> list[tuple[float, float, Point]]:
    """The highest GRP over the globalization: pieces (from, to, point whose line it is), from 0 to 1."""
    at, best = 0.0, min(points, key=lambda p: (-p.regional, -p.global_, p.alpha))
    pieces: list[tuple[float, float, Point]] = []
    while True:
        crossings = []
        for other in points:
            slope = (other.global_ - other.regional) - (best.global_ - best.regional)
            if slope > 0 and (where := (best.regional - other.regional) / slope) < 1:
                crossings.append((max(where, at), -other.global_, other.alpha, other))
        if not crossings:
            return [*pieces, (at, 1.0, best)]
        where, _, _, other = min(crossings, key=lambda crossing: crossing[:3])
        pieces += [(at, where, best)] if where > at else []
        at, best = where, other


# ---------------------------------------------------------------------------------------------------------------- words
def region_title(name: str) -> str:
    """A region as people say it; the name itself where it is not one of ours."""
    if name not in registry.files("regions"):
        return shorter(name)
    try:
        return registry.load_region(name).title
    except ConfigError:  # a file in the user's folder that is not in order
        return name


def shorter(text: str, most: int = 60) -> str:
    """A stranger's text, of so many characters that can be shown."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: 4 * most])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def unique(name: str, others: Iterable[str]) -> str:
    """A name that nothing else has; no commas, which part names in the address."""
    taken, name = set(others), name.replace(",", " ")
    return next(n for n in (name, *(f"{name} ({i})" for i in range(2, 1000))) if n not in taken)


def one_of(name: Any, known: Sequence[str], what: str) -> str:
    """A name that was asked for. Raises InputError if it is not among those known."""
    if not isinstance(name, str) or name not in known:
        shown = shorter(str(name)) if isinstance(name, (str, int, float)) else type(name).__name__
        near = did_you_mean(shown, known) if isinstance(name, str) else ""
        raise InputError(f"unknown {what} {shown!r}{near}")
    return name


def fraction(value: Any) -> float:
    """A number that was asked for, as number or text. Raises InputError if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError) as err:
        raise InputError(f"alpha {shorter(str(value))!r}: expected a number from 0 to 1") from err
    if not math.isfinite(number):
        raise InputError(f"alpha {number}: expected a number from 0 to 1")
    return number
