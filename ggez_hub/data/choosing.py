"""Which of the rows that were examined train the model: what only all of them together tell."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ggez_hub.data import duplicates, mixing, report, rewards, similarity
from ggez_hub.data.parts import Parts
from ggez_hub.schema import Recipe

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class Verdict:
    """What became of the rows that were examined and kept, in the order of parts.

    Attributes:
        first: Of each part: the place of its first row in these.
        rule: What a row was dropped by after all, [rows] of text; None = it trains.
        why: The same in more words.
        reward: float32 [rows], where they are known only now; else None.
        into: The languages that a row was translated into, with "|" between; None = none.
        problems: Why translations failed, and how often.
    """

    first: Mapping[int, int]
    rule: "np.ndarray"
    why: "np.ndarray"
    reward: "np.ndarray | None"
    into: "np.ndarray"
    problems: Mapping[str, int] = field(default_factory=dict)


def choose(recipe: Recipe, parts: Parts) -> Verdict:
    """Decides on what only all rows together tell: rewards by percentile, duplicates, the mix.

    Args:
        recipe: What is asked for.
        parts: Units that were examined.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    settings = recipe.filter
    batches = [_small(parts, number) for number in parts.done()]
    first = dict(zip(parts.done(), itertools.accumulate((b.num_rows for b in batches), initial=0), strict=False))
    rows = pa.concat_tables(batches, promote_options="permissive")
    rule, why = (np.full(rows.num_rows, None, object) for _ in range(2))

    def drop(places: np.ndarray, name: str, reasons: Iterable[str | None]) -> None:
        rule[places] = name
        for place, reason in zip(places, reasons, strict=True):
            why[place] = reason

    def left() -> np.ndarray:
        return np.flatnonzero(rule == None)  # noqa: E711 -- row by row

    def column(name: str, places: np.ndarray) -> Any:
        return rows[name].take(pa.array(places)).combine_chunks()

    def numbers(name: str, places: np.ndarray) -> np.ndarray:
        found: np.ndarray = column(name, places).to_numpy()
        return found

    if "_contamination" in rows.column_names:
        hits = np.flatnonzero(pc.is_valid(rows["_contamination"]).to_numpy())
        drop(hits, "contamination", column("_contamination", hits).to_pylist())
    reward = None
    if "_raw_reward" in rows.column_names:
        places = left()
        reward = np.full(rows.num_rows, np.nan, np.float32)
        reward[places] = rewards.calibrated(column("_raw_reward", places).to_numpy())
        low = places[reward[places] < np.float32(settings.min_reward or 0)]
        drop(low, "reward", (f"{value:.2f} of 5 by its percentile" for value in reward[low]))
    ways: dict[str, Any] = {}  # of places: which earlier one of them each repeats, or -1
    if settings.max_hash_distance is not None or settings.max_cosine is not None:
        ways["picture and text"] = lambda places: duplicates.same_rows(numbers("_said", places))
    if (distance := settings.max_hash_distance) is not None:
        ways["picture"] = lambda places: duplicates.same_files(
            numbers("_digest", places),
            lambda firsts: duplicates.same_pictures(numbers("_hash", places[firsts]), distance),
        )
    if (most := settings.max_cosine) is not None:
        ways["embedding"] = lambda places: duplicates.same_files(
            numbers("_digest", places),
            lambda firsts: duplicates.same_embeddings(similarity.vectors(column("_embedding", places[firsts])), most),
        )
    for what, same in ways.items():
        if not len(places := left()):
            break  # what is to be compared is not there
        of = same(places)
        repeats = places[of >= 0]
        originals = rows.take(pa.array(places[of[of >= 0]])).select(["source", "row", "id"]).to_pylist()
        drop(repeats, "duplicate", (f"{what} of {report.row_name(row, True)}" for row in originals))
    if any(corpus.share or corpus.cap for corpus in recipe.data.corpora.values()):
        places = left()
        ids = pc.coalesce(column("id", places), column("row", places).cast(pa.string()))
        taken = mixing.chosen(column("source", places), ids, recipe.data.corpora, recipe.seed)
        drop(places[~taken], "mix", itertools.repeat(None, int((~taken).sum())))
    return Verdict(first, rule, why, reward, np.full(len(rule), None, object))


SMALL = (
    "_contamination",
    "_raw_reward",
    "_hash",
    "_digest",
    "_said",
    "_embedding",
)  # columns that are looked at all at once


def _small(parts: Parts, number: int) -> "pa.Table":
    """What choosing looks at, of the rows of a part."""
    import pyarrow as pa
    import pyarrow.compute as pc

    decisions = parts.decisions(number)
    named = pa.table(decisions.filter(pc.is_null(decisions["rule"])).select(["source", "row", "id"]))
    for name in SMALL:
        columns = [batch[name] for batch in parts.rows(number) if name in batch.schema.names]
        if columns:
            named = named.append_column(
                name, pa.concat_arrays([*columns, columns[0][:0]])
            )  # a copy: the file is let go
    return named
