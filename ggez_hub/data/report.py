"""What the filter did, computed from its decisions alone.

Decisions are record batches, a row for each row that was read: source, row (its number in there, from 0), id, country,
language, rule (what dropped it; null = it is kept), why, into (the languages that it was translated into, with "|"
between), and text, the beginning of the caption.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ggez_hub.schema import Recipe

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 5  # rows of a kind
RULES = (  # in the order in which they are applied
    "region", "text", "license", "unsafe", "broken conversation", "reward", "broken picture", "size", "region by image",
    "unscored", "contamination", "duplicate", "mix", "translation",
)  # fmt: skip
Row = dict[str, Any]
SAMPLE = ("source", "row", "id", "country", "language", "text", "why")


def asked(recipe: Recipe) -> set[str]:
    """The rules that a recipe asks for; a report names them even where they dropped nothing."""
    settings, corpora = recipe.filter, recipe.data.corpora.values()
    evidence = settings.region if isinstance(settings.region, tuple) else ()
    regional = bool(settings.region) and any(corpus.regional for corpus in corpora)
    wanted = {
        "region": regional and evidence != ("image",),
        "text": True,
        "license": settings.licenses,
        "unsafe": settings.unsafe,
        "reward": settings.min_reward is not None,
        "broken picture": True,
        "size": settings.min_side or settings.max_aspect,
        "region by image": regional and "image" in evidence,
        "unscored": settings.reward,
        "duplicate": settings.max_hash_distance is not None or settings.max_cosine is not None,
        "mix": any(corpus.share or corpus.cap for corpus in corpora),
        "translation": recipe.translate,
    }
    return {rule for rule, is_wanted in wanted.items() if is_wanted}


def report(recipe: Recipe, decisions: "Iterable[pa.RecordBatch]", problems: Mapping[str, int]) -> dict[str, Any]:
    """The contents of report.json.

    Args:
        recipe: What was asked for.
        decisions: On every row, once; each batch of one source.
        problems: Why translations failed, and how often.
    """
    import pyarrow.compute as pc

    counts: Counter[tuple[str, str | None]] = Counter()  # by source and rule
    tallies = {f"{field} {when}": Counter[str]() for field in ("country", "language") for when in ("before", "after")}
    into: Counter[str] = Counter()
    translated = 0
    samples: dict[str, list[tuple[int, Row]]] = {}
    for batch in decisions:
        source = batch["source"][0].as_py()
        by_rule = _counted(batch["rule"])
        counts.update({(source, rule): count for rule, count in by_rule.items()})
        kept = batch.filter(pc.is_null(batch["rule"]))
        for field in ("country", "language"):
            tallies[f"{field} before"].update(_counted(batch[field]))
            own = kept.filter(pc.is_null(kept["into"])) if field == "language" else kept
            tallies[f"{field} after"].update(_counted(own[field]))
        for names, count in _counted(kept["into"]).items():
            into.update(dict.fromkeys(names.split("|"), count) if names else {})
        translated += len(kept) - kept["into"].null_count
        for rule in filter(None, by_rule):
            _sample(samples.setdefault(rule, []), batch.filter(pc.equal(batch["rule"], rule)))
    tallies["language after"].update(into)
    found = {rule: sum(count for (_, of), count in counts.items() if of == rule) for rule in RULES}
    shown = [rule for rule in RULES if found[rule] or rule in asked(recipe)]
    places = {name: place for place, name in enumerate(recipe.data.corpora)}

    def place(row: "Row") -> tuple[int, int]:
        return places[row["source"]], row["row"]

    shown_samples = {rule: sorted((row for _, row in samples[rule]), key=place) for rule in shown if rule in samples}
    sources: dict[str, dict[str, Any]] = {
        name: {
            "rows": sum(count for (source, _), count in counts.items() if source == name),
            "kept": counts[name, None],
            "dropped": {rule: counts[name, rule] for rule in shown},
        }
        for name in recipe.data.corpora
    }
    return {
        "rows": counts.total(),
        "kept": sum(source["kept"] for source in sources.values()),
        "dropped": {rule: found[rule] for rule in shown},
        "sources": sources,
        "broken": [
            f"{row_name(row, len(sources) > 1)}: {row['why']}"
            for rule in ("broken conversation", "broken picture")
            for row in shown_samples.get(rule, ())
        ],
        "countries": {when: _ordered(tallies[f"country {when}"]) for when in ("before", "after")},
        "languages": {when: _ordered(tallies[f"language {when}"]) for when in ("before", "after")},
        "unknown_countries": sorted(str(name) for name in tallies["country before"] if not _is_iso3(name)),
        "unscored": found["unscored"],
        "contamination": _contamination(recipe, found["contamination"]),
        "mix": {
            name: {"left": taken + source["dropped"]["mix"], "taken": taken}
            for name, source in sources.items()
            for taken in [source["kept"] + source["dropped"].get("translation", 0)]
        }
        if "mix" in shown
        else None,
        "translation": {"rows": translated, "into": _ordered(into), "problems": _ordered(Counter(problems))}
        if recipe.translate
        else None,
        "samples": shown_samples,
    }


def row_name(row: Mapping[str, Any], several: bool) -> str:
    """How a row is called in a message."""
    name = f"row {row['row'] if row['id'] is None else row['id']}"
    return f"{row['source']}, {name}" if several else name


def _contamination(recipe: Recipe, hits: int) -> dict[str, Any]:
    if recipe.filter.contamination == "keep":
        return {"setting": "keep", "benchmarks": [], "hits": None}  # nobody looked
    return {"setting": recipe.filter.contamination, "benchmarks": list(recipe.sweep.benchmarks), "hits": hits}


def _counted(values: "pa.Array") -> dict[Any, int]:
    return {each["values"]: each["counts"] for each in values.value_counts().to_pylist()}


def _ordered(counter: Counter[str]) -> dict[str, int]:
    return {str(name): count for name, count in counter.most_common()}


def _is_iso3(country: str | None) -> bool:
    return bool(country) and all(len(one) == 3 and one.isupper() for one in str(country).split("|"))


def _sample(kept: list[tuple[int, Row]], rows: "pa.RecordBatch") -> None:
    """Takes rows into a sample, in the order of a draw that depends on a row's place in the data alone."""
    import numpy as np

    start = zlib.crc32(rows["source"][0].as_py().encode())
    drawn = (rows["row"].to_numpy().astype(np.uint64) + np.uint64(start)) * np.uint64(0x9E3779B97F4A7C15)
    best = np.argsort(drawn, kind="stable")[:SHOWN]
    found = rows.take(best).select(SAMPLE).to_pylist()
    kept[:] = sorted([*kept, *zip(drawn[best].tolist(), found, strict=True)], key=lambda each: each[0])[:SHOWN]
