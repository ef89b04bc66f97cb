"""Recipes and results as tables for people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ggez_hub import recipes, registry
from ggez_hub.errors import ConfigError, did_you_mean
from ggez_hub.hub.publish import Change, size
from ggez_hub.runs import flat

Row = tuple[str, Any, str]  # key, value, where it came from


def listing(kind: registry.Kind) -> list[dict[str, str]]:
    """Everything of a kind: its name and title, and for recipes also family and region."""
    if kind == "families":
        from ggez_hub import families

        return [{"name": name, "title": _first_line(families.get(name).__doc__)} for name in registry.files(kind)]
    rows = []
    for name, path in registry.files(kind).items():
        value = registry.parse_file(path, extends=kind == "recipes")[0]
        wanted = ("title", "family", "region") if kind == "recipes" else ("title",)
        rows.append(
            {"name": name} | {key: str(value.get(key, "") if isinstance(value, dict) else "") for key in wanted}
        )
    return rows


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def values(name: str, overrides: Sequence[str] = ()) -> list[Row]:
    """Every value of a recipe, region, benchmark or family, and its source: default, file, override or KOF.

    Raises:
        ConfigError: Nothing of that name, or problems in its file.
    """
    kinds = [kind for kind in registry.KINDS if name in registry.files(kind)]
    if not kinds and not name.endswith((".yaml", ".yml")):
        known = [n for kind in registry.KINDS for n in registry.files(kind)]
        raise ConfigError([f"nothing is called {name!r}{did_you_mean(name, known)}"], "ggez ls")
    kind = kinds[0] if kinds else registry.kind_of(name)
    given = registry.parse_overrides(overrides)
    if kind == "families":
        from ggez_hub import families

        if given:
            raise ConfigError([f"argument {next(iter(given))}: only recipes and benchmarks take overrides"])
        family = families.get(name)
        names = ("LIBRARY_NAME", "PIPELINE_TAG", "TAGS")
        rows: list[Row] = [(key.lower(), getattr(family, key), f"families/{name}.py") for key in names]
        return [*rows, ("lora_targets", family.lora_targets(), f"families/{name}.py")]
    path = registry.find(kind, name)
    loaded = recipes.load(kind, name, given)
    lines = registry.extended(path)[1]
    rows = []
    for key, value in flat(loaded.model_dump(mode="json", by_alias=True)).items():
        parts = tuple(key.split("."))
        source = "default"
        if any(f"{key}.".startswith(f"{name}.") for name in given):
            source = "override"
        elif parts in lines:
            source = f"{lines[parts][0].name}:{lines[parts][1]}"
        rows.append((key, value, source))
    return rows + _derived(kind, name, loaded)


def _derived(kind: str, name: str, loaded: Any) -> list[Row]:
    """What follows from a file and the KOF table."""
    from ggez_hub import kof

    if kind == "recipes" and loaded.sweep.globalization is None:
        found = kof.lookup(loaded.region, loaded.sweep.year)
    elif kind == "regions" and loaded.kof:
        found = kof.lookup(name)
    else:
        return []
    return [("globalization", found.value, f"KOF: {found.source}, {found.year}")]


def results_table(results: Mapping[str, Any]) -> str:
    """The table of results.json that a run prints."""
    chosen, best = results["chosen"], results["grp_best"]
    lines = [f"{'alpha':>6} {'global':>8} {'regional':>9} {'GRP':>7}"]
    for point in results["points"]:
        marks = [
            text
            for text, alpha in (("chosen", chosen["alpha"]), ("highest GRP", best["alpha"]))
            if alpha == point["alpha"]
        ]
        alpha = max(f"{point['alpha']:.2f}", f"{point['alpha']:g}", key=len)
        numbers = f"{alpha:>6} {point['global']:8.3f} {point['regional']:9.3f} {point['grp']:7.3f}"
        lines.append(f"{numbers}  {', '.join(marks)}".rstrip())
    lines += ["", *(f"{label} α = {judged['alpha']:g}: gain {_with_interval(judged, 'gain')}, retention "
                    f"{_with_interval(judged, 'retention')}, GRP {judged['grp']:.3f}"
                    for label, judged in (("chosen", chosen), ("plain rule", best)))]  # fmt: skip
    if search := results.get("search"):
        lines.append(f"{search['method']}: {search['evaluations']} evaluations instead of {search['grid_evaluations']} "
                     f"at resolution {search['resolution']:g}")  # fmt: skip
    if results["synthetic"]:
        lines.append("Synthetic pictures: the numbers say that the method works here, nothing about the world.")
    return "\n".join(lines)


def _with_interval(judged: Mapping[str, Any], key: str) -> str:
    if judged[key] is None:
        return "undefined (0 at α = 0)"
    interval = judged[f"{key}_ci95"]
    shown = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"{judged[key]:.3f}{shown}"


def filter_table(report: Mapping[str, Any]) -> str:
    """The table of report.json that the filter prints: rows read, dropped and kept, by source."""
    rules = [rule for rule, count in report["dropped"].items() if count]
    names: Sequence[str] = list(report["sources"])
    width = max(map(len, [*rules, "dropped by", "rows"])) + 2
    several = len(names) > 1
    columns: dict[str, Mapping[str, Any]] = {name: report["sources"][name] for name in names} if several else {}
    columns["all" if several else "rows"] = report

    def line(label: str, values: Iterable[Any]) -> str:
        cells = (
            f"{value if isinstance(value, str) else format(value, ','):>{max(len(name), 12) + 2}}"
            for name, value in zip(columns, values, strict=True)
        )
        return f"{label:{width}}{''.join(cells)}"

    lines = [line("", columns), line("read", (column["rows"] for column in columns.values()))]
    lines += [line(rule, (-column["dropped"][rule] for column in columns.values())) for rule in rules]
    lines.append(line("kept", (column["kept"] for column in columns.values())))
    for what in ("countries", "languages"):
        after = report[what]["after"]
        shown = ", ".join(f"{name} {count:,}" for name, count in list(after.items())[:12])
        lines.append(f"{what}: {shown}{f', and {len(after) - 12} more' if len(after) > 12 else ''}")
    if unknown := report["unknown_countries"]:
        shown = ", ".join(unknown[:8]) + (f", and {len(unknown) - 8} more" if len(unknown) > 8 else "")
        lines.append(f"unknown countries: {shown}")
    return "\n".join(lines)


def push_plan(changes: Sequence[Change], collection: str | None, tag: str | None) -> str:
    """What publishing would do: repositories, files, sizes, visibility; and the collection and the tag, if any."""
    lines = []
    for change in changes:
        state = "new repository" if change.parent is None else f"on commit {change.parent[:8]}"
        kind = "" if change.kind == "model" else f"{change.kind} "
        head = f"{kind}{change.repo_id} ({'private' if change.private else 'public'}, {state})"
        if change.is_done:
            lines.append(f"{head}: unchanged")
            continue
        total = sum(size(change.files[path]) for path in change.uploads)
        lines.append(f"{head}: {_count(change.uploads)} to upload, {_bytes(total)}")
        for mark, paths in (("+", change.added), ("~", change.changed)):
            lines += [f"  {mark} {path:44} {_bytes(size(change.files[path])):>10}" for path in sorted(paths)]
        lines += [f"  - {path}" for path in change.removed]
        if same := len(change.files) - len(change.uploads):
            lines.append(f"  {same} unchanged")
    lines += [f"tag {tag}"] if tag else []
    lines += [f"collection {collection!r}"] if collection else []
    return "\n".join(lines)


def _count(items: Sequence[Any]) -> str:
    return f"{len(items)} file{'' if len(items) == 1 else 's'}"


def _bytes(number: int) -> str:
    return f"{number / 1e6:,.1f} MB" if number >= 1e5 else f"{number / 1e3:,.1f} kB"


def published_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Published models, one line each."""
    lines = [f"{'':44} {'family':10} {'region':8} {'α':>5} {'gain':>24} {'retention':>24}"]
    for row in rows:
        alpha = "–" if row["alpha"] is None else f"{row['alpha']:g}"
        lines.append(
            f"{row['id']:44} {row['family'] or '–':10} {row['region'] or '–':8} {alpha:>5} "
            f"{_claim(row, 'gain'):>24} {_claim(row, 'retention'):>24}{'  below the gate' if row['below_gate'] else ''}"
        )
    return "\n".join(lines)


def _claim(row: Mapping[str, Any], key: str) -> str:
    return "–" if row[key] is None else _with_interval(row, key)
