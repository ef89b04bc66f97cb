"""How well a text says which country a row is of: precision and recall of the text filter, and some of its mistakes.

python scripts/text_filter.py FILE --text caption_en --country culture_country [--region sea]

FILE is a table (CSV, JSONL, parquet) whose rows say in another column of which country they are; several countries have
commas or "|" between. A row is found for a country if its text names it; precision is the share of the rows found that
are of the country, recall the share of the rows of the country that are found.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ggez_hub.data import gazetteer, regions, tables
from ggez_hub.registry import load_region

MISTAKES = 12


class Figures(NamedTuple):
    """Rows of a country, rows found for it, and the shares that are both."""

    rows: int
    found: int
    precision: float
    recall: float


def read(file: Path, text: str, country: str) -> tuple[list[str | None], list[set[str]]]:
    """The texts of a table, and the countries that its rows are of, in ISO3."""
    rows = [record for _, record in tables.records(file, (text, country))]
    return [row[text] for row in rows], [set(regions.countries_of(row[country])) for row in rows]


def named(texts: Sequence[str | None]) -> list[dict[str, str]]:
    """Of every text the countries that it names: code: as it stands there. Parts of the world name none."""
    found: list[dict[str, str]] = [{} for _ in texts]
    mentions, places = gazetteer.find(texts), gazetteer.gazetteer().places
    for row, place, name in zip(mentions.rows, mentions.place, mentions.names, strict=True):
        codes = places[place].split("|")
        if len(codes) <= 3:
            found[row] |= {code: name for code in codes if code not in found[row]}
    return found


def measure(texts: Sequence[str | None], truth: Sequence[set[str]], region: str = "sea") -> dict[str, Figures]:
    """The figures of a region, by its name, and of each of its countries."""
    import pyarrow as pa

    members = load_region(region).countries
    batch = pa.record_batch({"text": pa.array(texts, pa.string())})
    batch = batch.append_column("messages", pa.nulls(len(texts), tables.nested()["messages"]))
    kept = regions.in_region(load_region(region), ("text",))(batch).kept.to_pylist()
    figures = {region: _figures([bool(codes.intersection(members)) for codes in truth], kept)}
    said = named(texts)
    return figures | {code: _figures([code in x for x in truth], [code in x for x in said]) for code in members}


def _figures(of_it: Sequence[bool], found: Sequence[bool]) -> Figures:
    both = sum(a and b for a, b in zip(of_it, found, strict=True))
    return Figures(sum(of_it), sum(found), both / (sum(found) or 1), both / (sum(of_it) or 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--text", required=True, help="the column with the text")
    parser.add_argument("--country", required=True, help="the column with the country")
    parser.add_argument("--region", default="sea")
    args = parser.parse_args()
    texts, truth = read(args.file, args.text, args.country)
    print("| | rows | found | precision | recall |\n|---|---|---|---|---|")
    for name, figures in measure(texts, truth, args.region).items():
        print(f"| {name} | {figures.rows} | {figures.found} | {figures.precision:.3f} | {figures.recall:.3f} |")
    said = named(texts)
    wrong = [row for row, codes in enumerate(said) if codes and truth[row] and not truth[row] & codes.keys()]
    silent = [row for row, codes in enumerate(said) if not codes]
    print(
        f"\n{len(silent)} of {len(texts)} texts name no country, {len(wrong)} name only others than theirs; of these:\n"
    )
    for row in random.Random(0).sample(wrong, min(MISTAKES, len(wrong))):
        found = ", ".join(f"{name} ({code})" for code, name in said[row].items())
        print(f"* {'|'.join(sorted(truth[row]))}, found {found}: {texts[row]:.150}")


if __name__ == "__main__":
    main()
