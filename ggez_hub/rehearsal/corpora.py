"""Twins of training corpora, see ggez_hub.data.corpora: what is UNCONFIRMED of a layout there is so here."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from itertools import count

from ggez_hub.data import joining
from ggez_hub.data.codes import iso3, iso639
from ggez_hub.data.tables import Row
from ggez_hub.rehearsal.making import (
    ELSEWHERE,
    SEEN,
    Made,
    Shown,
    Twin,
    about,
    image_type,
    shown,
    spelled,
    write_archive,
    write_jsonl,
    write_parquet,
)
from ggez_hub.rehearsal.words import name_in, said, words
from ggez_hub.runs import write_text

SEA = frozenset({"BRN", "IDN", "KHM", "LAO", "MMR", "MYS", "PHL", "SGP", "THA", "TLS", "VNM"})  # of SEA-VL's pictures


def caption(twin: Twin, row: Shown, language: str = "eng") -> str:
    """What a row says of its picture, in a language; of a row without text nothing."""
    if row.odd == "empty":
        return ""
    text = said(language, twin.seed, twin.name, row.key, count=12, place=row.about.country)
    return text[: twin.rules.max_text]


# --------------------------------------------------------------------------------------------------------------- SEA-VL
def sea_vl(twin: Twin) -> None:
    """The crowdsourced set, or the crawled one, of which only the columns are known that the source names."""
    elsewhere = {*ELSEWHERE} - {*twin.region.countries}  # its places are free texts, so there may be some
    made = about(twin, twin.rows, SEA | elsewhere)
    rows: list[Row] = []
    for row in shown(twin, made):
        image = {"bytes": row.image, "path": f"{row.name}.jpg"}
        if twin.option("crawled", False):
            texts = {name: caption(twin, row) for field, name in twin.source.columns.items() if field != "image"}
            rows.append({twin.source.columns.get("image", "image"): image, **texts})
            continue
        place = f"{words('ind')[row.key % 20]}, {spelled(row.about.country)}"
        rows.append(
            {
                "id": row.name,
                "image": image,
                "caption": caption(twin, row),
                "caption_native_lang": caption(twin, row, row.about.language) or None,
                "native_lang": row.about.language if row.key % 2 else _language(row.about.language),
                "culture_relevant_loc": "Thailand, Laos" if row.key == 1 and not row.odd else place,
                "avg_cultural_relevance": 3.0 + row.key % 3,
                "avg_caption_fit": 4.0,
                "avg_img_quality": 4.0,
                "n_annotator": 2,
            }
        )
    pictured = {name: image_type() for name, value in rows[0].items() if isinstance(value, dict)}
    write_parquet(twin.folder / "data" / "train-00000-of-00001.parquet", rows, pictured)


def _language(code: str) -> str:
    import pycountry

    known = pycountry.languages.get(alpha_3=code)
    name = str(getattr(known, "name", code)).partition(" (")[0]
    return name if iso639(name) == code else code


# ------------------------------------------------------------------------------------------------------- CulturalGround
_FILES = (  # the 42 countries that it has, as its files spell them
    "bangladesh brazil bulgaria china czechia egypt ethiopia france germany greece india indonesia iran ireland israel "
    "italy japan kenya malaysia mexico mongolia netherlands nigeria norway pakistan poland portugal romania russia "
    "rwanda saudi_arabia singapore south_korea spain sri_lanka taiwan tanzania thailand turkey ukraine united_kingdom "
    "vietnam"
)


@cache
def culturalground_files() -> dict[str, str]:
    """What CulturalGround's files of a country are called, by its ISO 3166 code."""
    return {iso3(name.replace("_", " ")) or name: name for name in _FILES.split()}


def culturalground(twin: Twin) -> None:
    """The refined files and the archives of countries: those that the source asks for, and some that it does not."""
    files, asked = culturalground_files(), str(twin.option("countries")) or None
    regional = twin.region.countries
    made = about(twin, twin.rows, files.keys(), lambda code: joining.among(files[code], asked) or code not in regional)
    by_file: dict[str, list[Shown]] = {}
    for row in shown(twin, made):
        by_file.setdefault(files[row.about.country], []).append(row)
    for file, rows in by_file.items():
        records = [_refined(twin, row) for row in rows]
        write_jsonl(twin.folder / "CulturalGround-Recipes/CulturalGround-Refined-OE" / f"{file}_refined.jsonl", records)
        pictures = {f"{file}/{record['media']}": row.image for record, row in zip(records, rows, strict=True)}
        write_archive(twin.folder / "CultureGroundImages" / f"{file}.tar.gz", pictures)


_KINDS = (("What is it called?", "It is called {name}."), ("Which country is it from?", "It is from {place}."))


def _refined(twin: Twin, row: Shown) -> Row:
    language, place = row.about.language, row.about.country
    what = said(language, twin.seed, twin.name, row.key, count=3).rstrip(".")
    kind = row.key % 2
    english = {"name": what, "place": name_in(place, "eng")}
    asked = f"{said(language, twin.seed, 'asked', row.key, count=7).rstrip('.')}?"
    told = said(language, twin.seed, "told", row.key, count=8, place=place)
    if row.odd == "empty":
        asked = told = "None"
    return {
        "id": f"Q{1000 + row.key}_{'None' if row.key % 5 == 0 else f'P{row.key}'}",
        "language": {"heb": "iw", "zsm": "ms"}.get(language) or _two_letters(language),
        "original_question": _KINDS[kind][0] if row.odd != "empty" else "None",
        "reformulated_question": f'"{asked}"' if row.key % 7 == 3 else asked,
        "original_answer": _KINDS[kind][1].format(**english) if row.odd != "empty" else "None",
        "reformulated_answer": told,
        "label": what if row.key % 6 else "None",
        "property_id": f"P{row.key}",
        "question_type": str(_question_types(twin)[row.key % len(_question_types(twin))]),
        "media": f"{what} {row.name}.jpg".replace("/", " "),
        "image": "None",
    }


def _question_types(twin: Twin) -> list[object]:
    return [*twin.wanted("question_type")] or [SEEN]


def _two_letters(language: str) -> str:
    import pycountry

    return str(getattr(pycountry.languages.get(alpha_3=language), "alpha_2", language))


# ----------------------------------------------------------------------------------------------------------- MAmmoTH-VL
def mammoth_vl(twin: Twin) -> None:
    """The list of single pictures, and shards: those that the source asks for, and one that it does not."""
    asked = str(twin.option("shards")) or None
    numbered = [name for i in range(1, 200) if joining.among(name := f"shard_{i}", asked)][:2]
    shards = numbered or [name.replace("*", "1").replace("?", "1") for name in (asked or "").split("|")]
    packed: dict[str, dict[str, bytes]] = {shard: {} for shard in shards}
    rows: list[Row] = []
    for row in shown(twin, [Made(i, "", False, "eng") for i in range(2 * twin.rows)]):
        folder = ("coco", "vg")[row.key % 2]
        path = f"{folder}/{row.name}.jpg"
        packed[shards[row.key % len(shards)]][path] = row.image
        turns = 1 + (row.key % 4 == 3)
        talk = [turn for i in range(turns) for turn in _turns(twin, row, i)]
        source = ("captions", "charts")[row.key % 2]
        rows.append({"id": row.key if row.key % 5 == 4 else row.name, "source": f"{SEEN} {source}"})
        rows[-1] |= {"image": f"single_image_data/{path}" if row.key % 3 == 1 else path, "conversations": talk}
    some = rows[0]["conversations"]
    plain = [turn | {"value": turn["value"].replace("<image>\n", "")} for turn in some]
    rows += [
        {"id": f"{SEEN}-text", "source": SEEN, "conversations": plain},
        {"id": f"{SEEN}-video", "source": SEEN, "video": "0.mp4", "conversations": plain},
        {
            "id": f"{SEEN}-several",
            "source": SEEN,
            "image": [rows[0]["image"], rows[1]["image"]],
            "conversations": plain,
        },
        {"id": f"{SEEN}-elsewhere", "source": SEEN, "image": "vg/elsewhere.jpg", "conversations": some},
    ][: len(rows) if "media" in twin.source.where else twin.broken()]
    write_text(twin.folder / "mammoth_si_10M.json", json.dumps(rows, indent=1) + "\n")
    for shard, members in packed.items():
        write_archive(twin.folder / "single_image_data" / f"{shard}.tar.gz", members)
    if asked and (other := next(name for i in count(1) if not joining.among(name := f"shard_{i}", asked))):
        write_archive(
            twin.folder / "single_image_data" / f"{other}.tar.gz", {"vg/elsewhere.jpg": twin.picture("elsewhere")}
        )


def _turns(twin: Twin, row: Shown, turn: int) -> list[Row]:
    """A question and its answer: open, or with options in letters, or a list."""
    key = twin.seed, twin.name, row.key, turn
    options = [said("eng", *key, letter, count=3).strip("A .") for letter in "ABCD"]
    asked, told = [
        ("What does the picture show?", said("eng", *key, count=15)),
        (
            "Which of these is shown?\n" + "\n".join(f"{a}. {b}" for a, b in zip("ABCD", options, strict=True)),
            f"{'ABCD'[row.key // 4 % 4]}",
        ),
        ("List what is there.", "\n".join(f"{i}. {option}" for i, option in enumerate(options, 1))),
    ][(row.key + turn) % 3]
    mark = "" if turn else "<image>\n"
    return [{"from": "human", "value": mark + asked}, {"from": "gpt", "value": "" if row.odd == "empty" else told}]


# ------------------------------------------------------------------------------------------------------------ Flickr30k
def flickr30k(twin: Twin) -> None:
    """Pictures with five captions each; what split they are of stands in a column."""
    import pyarrow as pa

    rows = []
    for row in shown(twin, [Made(i, "", False, "eng") for i in range(twin.rows)]):
        said_of = [said("eng", twin.seed, twin.name, row.key, n, count=12) for n in range(1 if row.odd else 5)]
        rows.append(
            {
                "image": {"bytes": row.image, "path": f"{row.name}.jpg"},
                "caption": [] if row.odd == "empty" else said_of,
                "sentids": [str(5 * row.key + n) for n in range(len(said_of))],
                "split": "train" if row.odd else ("train", "train", "test", "val")[row.key % 4],
                "img_id": row.name,
                "filename": f"{row.name}.jpg",
            }
        )
    types = {"image": image_type(), "caption": pa.list_(pa.string())}
    write_parquet(twin.folder / "data" / "test-00000-of-00001.parquet", rows, types)


MAKERS: Mapping[str, Callable[[Twin], None]] = {
    "culturalground": culturalground,
    "flickr30k": flickr30k,
    "mammoth_vl": mammoth_vl,
    "sea_vl": sea_vl,
}
