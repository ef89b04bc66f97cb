"""Readers of benchmarks: questions about pictures, each benchmark in the layout that it is published in.

Each is a corpus reader (see ggez_hub.data.readers) whose rows are questions. Labels that are blank or name none of the
options give `answer: null`: such a question can be asked, but not scored. Rows without an id or without readable
options are errors that name file and row. With ``pictures=False`` no picture is read, which `ggez score` does without.
"""

import ast
import io
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.data import images, tables
from ggez_hub.data.conversations import LETTERS
from ggez_hub.data.tables import Row
from ggez_hub.errors import InputError, did_you_mean
from ggez_hub.hub import datasets

if TYPE_CHECKING:
    import pyarrow as pa

WORLDCUISINES_LANGUAGES = (
    "en", "id_formal", "id_casual", "zh_cn", "ko_formal", "ko_casual", "ja_formal", "ja_casual", "su_loma", "jv_krama",
    "jv_ngoko", "cs", "es", "fr", "ar", "hi", "bn", "mr", "si_formal_spoken", "yo", "yue", "nan", "nan_spoken", "tl",
    "th", "az", "ru_formal", "ru_casual", "it", "sc",
)  # fmt: skip
# Parts of countries, and the two countries that are not told apart.
NATIONS = {"England": "GBR", "Scotland": "GBR", "Wales": "GBR", "Northern Ireland": "GBR", "Korea": "KOR|PRK"}
REASONED = (
    "Describe what the picture shows, then weigh every option. End with the letter of the right one in round brackets."
)
_PAIR = re.compile(r"""\(\s*['"]([^()]+)['"]\s*,\s*['"]([^()]+)['"]\s*\)""")
_NUMBERED = re.compile(r"^[ \t]*(\d+)\.(.*)$", re.MULTILINE)


# -------------------------------------------------------------------------------------------------------- WorldCuisines
def worldcuisines(
    path: str,
    *,
    task: int | None = None,
    size: str = "large",
    kb: str | None = None,
    kb_revision: str | None = None,
    references: str | None = None,
    pictures: bool = True,
) -> Iterator["pa.RecordBatch"]:
    """WorldCuisines: what a dish is called, and where it is from, in 30 languages.

    Either as published (JSONL, one question in one language a line; countries and pictures from a knowledge base of
    dishes), or wide (``*_items.csv``, one question a line with its countries, `prompt_<language>` for some languages).
    Of the wide form every question is given in all 30 languages, since the right number is the same in each; where its
    prompt is not there the question is null.

    Args:
        path: A file, or a folder of them.
        task: 1 asks for the dish (prompt types 1, 3, 4), 2 for its country (prompt type 2); None = both.
        size: "large" or "small", the test set of a folder that holds both.
        kb: The knowledge base: a file or folder, CSV or parquet, or a Hub id. Empty = none.
        kb_revision: Its commit on the Hub. Empty = the newest.
        references: None = multiple choice. Otherwise the open question is asked, and right are the names of the
            `own` language, of `dual` (English as well), or of `multi` (any of the languages).
        pictures: Whether to read the pictures of the knowledge base; others are known by their address.

    Raises:
        InputError: Options that cannot be read, a question twice, a column that is not there.
    """
    one_of("references", references, (None, "own", "dual", "multi"))
    one_of("task", task, (None, 1, 2))
    one_of("size", size, ("large", "small"))
    files = tables.files(path, (".csv", ".jsonl"))
    if wide := [
        file for file in files if file.suffix == ".csv" and (file.name.endswith("_items.csv") or len(files) == 1)
    ]:
        asked = [row for file in wide for row in _wide(file)]
    else:
        files = [f for f in files if f.suffix == ".jsonl" and not of_other_set(f, size)]
        asked = [row for file in files for row in _published(file)]
    if not asked:
        raise InputError(f"{path}: no question of WorldCuisines there", "it holds *.jsonl or *_items.csv files")
    seen: dict[tuple[str, ...], str] = {}
    for row in asked:
        _once(seen, row["where"], qa_id=row["id"], language=row["language"])
    needed = pictures or not wide  # the wide form has the countries itself
    dishes = _dishes(kb, kb_revision, {row["url"] for row in asked}, pictures) if kb and needed else {}
    names: dict[str, dict[str, str]] = {}  # id -> language -> the right answer
    for row in asked:
        if row["name"]:
            names.setdefault(row["id"], {})[row["language"]] = row["name"]
    yield from tables.batches(
        (row["where"], _dish_question(row, dishes.get(row["url"], {}), names.get(row["id"], {}), references))
        for row in asked
        if task is None or (row["prompt_type"] == "2") == (task == 2)
    )


def of_other_set(file: Path, size: str) -> bool:
    """Whether the name of a file of WorldCuisines says that it is of another set: large, small, or train."""
    sets = {part for part in ("large", "small", "train") if re.search(rf"(^|_){part}_", file.name)}
    return bool(sets) and size not in sets


def _published(file: Path) -> Iterator[Row]:
    wanted = (
        "qa_id", "lang", "food_id", "prompt_type", "multi_choice_prompt", "open_ended_prompt", "image_url", "answer",
        "multi_choice_answer",
    )  # fmt: skip
    for where, record in tables.records(file, wanted):
        yield {
            "where": where,
            "id": _text(where, record, "qa_id"),
            "language": _text(where, record, "lang"),
            "food_id": str(record["food_id"]),
            "prompt_type": str(record["prompt_type"]),
            "choice": record["multi_choice_prompt"],
            "open": record["open_ended_prompt"],
            "url": _words(where, record, "image_url"),
            "options": _numbered(where, record["multi_choice_prompt"]),
            "gold": record["multi_choice_answer"],
            "name": _words(where, record, "answer"),
            "country": None,
        }


def _wide(file: Path) -> Iterator[Row]:
    wanted = ("qa_id", "food_id", "countries", "prompt_type", "image_url", "gold")
    for where, record in tables.records(file, wanted):
        prompts = {language: record.get(f"prompt_{language}") or None for language in WORLDCUISINES_LANGUAGES}
        options = {language: _numbered(where, text) for language, text in prompts.items() if text}
        if not options:
            raise InputError(f"{where}: no prompt in any language", "its columns are called prompt_en, prompt_th, ...")
        some = next(iter(options.values()))  # for languages whose prompt is not there: the numbers are the same
        for language, prompt in prompts.items():
            here = options.get(language)
            yield {
                "where": where,
                "id": _text(where, record, "qa_id"),
                "language": language,
                "food_id": record["food_id"],
                "prompt_type": record["prompt_type"],
                "choice": prompt,
                "open": prompt and _opened(prompt),
                "url": record["image_url"],
                "options": here or some,
                "gold": record["gold"],
                "name": _chosen(here, record["gold"], first=1) if here else None,
                "country": record["countries"],
            }


def _dish_question(row: Row, dish: Mapping[str, Any], names: Mapping[str, str], references: str | None) -> Row:
    language = row["language"]
    options = _distinct(row["options"])
    if references:
        wanted = {"own": [language], "dual": [language, "en"], "multi": list(names)}[references]
        answer = _references(names[other] for other in wanted if other in names)
    else:
        answer = _chosen(options, row["gold"], first=1)
    countries = row["country"] if row["country"] is not None else dish.get("countries", "")
    return {
        "id": row["id"],
        "image": dish.get("image") or {"bytes": None, "path": row["url"] or None},
        "language": language,
        "food_id": row["food_id"],
        "prompt_type": row["prompt_type"],
        "kind": "country" if row["prompt_type"] == "2" else "dish",
        "category": dish.get("category"),
        "country": "|".join(NATIONS.get(name, name) for name in countries.split("|")) or None,
        "question": row["open"] if references else row["choice"],
        "options": [] if references else options,
        "answer": answer,
    }


def _opened(prompt: str) -> str:
    """The open form of a multiple choice prompt, as the published data have it."""
    return f"{_NUMBERED.split(prompt, maxsplit=1)[0].strip()}\n\nPrint only the answer."


def _numbered(where: str, prompt: Any) -> list[str]:
    """The options in the lines "1. ...", "2. ..." of a prompt."""
    found = _NUMBERED.findall(prompt if isinstance(prompt, str) else "")
    if len(found) < 2 or [int(number) for number, _ in found] != list(range(1, len(found) + 1)):
        raise InputError(
            f"{where}: no options in the prompt {str(prompt)[:80]!r}", "they stand in lines that begin with 1., 2., ..."
        )
    return [text.strip() for _, text in found]


def _dishes(kb: str, revision: str | None, urls: set[str], pictures: bool) -> dict[str, Row]:
    """What the knowledge base knows of the dish in each of these pictures."""
    found: dict[str, Row] = {}
    for url, dish in known_dishes(kb, revision, pictures):
        if url in urls:
            found.setdefault(url, dish)
    return found


def known_dishes(kb: str, revision: str | None, pictures: bool) -> Iterator[tuple[str, Row]]:
    """The address of each picture in the knowledge base, and of its dish: countries, category, the picture itself."""
    folder = Path(kb)
    if not folder.exists():  # the CSV beside the parquet files is small, and has no pictures
        folder = datasets.fetch(kb, revision or None, ("*.parquet",) if pictures else ("*.csv",))
        if not pictures and not any(folder.rglob("*.csv")):
            folder = datasets.fetch(kb, revision or None, ("*.parquet",))
    for _, dish, found in _knowledge(folder, ("image1_url", "countries"), pictures):
        for url, image in found:
            yield url, dish | {"image": image}


def _knowledge(
    folder: Path, wanted: Sequence[str], pictures: bool
) -> Iterator[tuple[str, Row, list[tuple[str, Row | None]]]]:
    """Every dish in a knowledge base: where it stands, what is known of it, and its pictures with their addresses."""
    files = tables.files(str(folder), (".csv", ".parquet"))
    for file in [file for file in files if file.suffix == ".parquet"] or files:
        for where, record in tables.records(file, (), pictures):
            known = {re.sub(r"\W+", "_", name).casefold(): value for name, value in record.items()}
            for name in wanted:
                if name not in known:
                    raise InputError(
                        f"{where}: no column {name!r} in the knowledge base{did_you_mean(name, known)}",
                        f"it needs image1_url to image8_url, and {' and '.join(wanted[1:])}",
                    )
            category = next(
                iter(_parts(known.get("coarse_categories") or known.get("coarse_grained_categories"))), None
            )
            dish = {"name": known.get("name"), "countries": "|".join(_parts(known["countries"])), "category": category}
            found: list[tuple[str, Row | None]] = []
            for i in range(1, 9):
                if url := known.get(f"image{i}_url"):
                    image = known.get(f"image{i}")
                    found.append((url, image if isinstance(image, dict) and image.get("bytes") else None))
            yield where, dish, found


def worldcuisines_dishes(path: str, *, pictures: bool = True) -> Iterator["pa.RecordBatch"]:
    """The dishes of WorldCuisines' knowledge base, each with the first of its pictures: to be named, or to be drawn.

    A dish without a picture is left out. `fold`, "0" to "9", is drawn from its name: some folds can choose alpha and
    others test, and a part is enough where every question is a drawing.

    UNCONFIRMED: what the columns are called, apart from name, region1..5 and image1..8(_url); the license.

    Args:
        path: The knowledge base: a parquet or CSV file, or a folder of them, of which parquet is read if there is any.
        pictures: Whether to read the pictures.

    Raises:
        InputError: A column or a name that is not there.
    """
    folder = Path(path)

    def rows() -> Iterator[tuple[str, Row]]:
        seen: Counter[str] = Counter()
        for where, dish, found in _knowledge(folder, ("image1_url", "countries", "name"), pictures):
            if not found:
                continue
            name = _text(where, dish, "name")
            seen[name] += 1
            (url, image), *_ = found
            yield (
                where,
                {
                    "id": name if seen[name] == 1 else f"{name} ({seen[name]})",
                    "image": image or {"bytes": None, "path": url},
                    "label": name,
                    "category": dish["category"],
                    "country": "|".join(NATIONS.get(place, place) for place in dish["countries"].split("|")) or None,
                    "language": "en",
                    "fold": str(zlib.crc32(name.casefold().encode()) % 10),
                    "question": "Which dish is this?",
                    "options": [],
                    "answer": name,
                },
            )

    yield from tables.batches(rows())


def _parts(value: Any) -> list[str]:
    """The names in a list, or in a text with "|" or "," between them."""
    parts = re.split(r"[|,]", value) if isinstance(value, str) else value or ()
    return [str(part).strip() for part in parts if str(part).strip()]


# ----------------------------------------------------------------------------------------------------------------- CVQA
def cvqa(path: str, *, prompts: str = "both", pictures: bool = True) -> Iterator["pa.RecordBatch"]:
    """CVQA: four options, asked in English and in the language of the place.

    Args:
        path: A parquet file, or a folder of them.
        prompts: "english", "local" or "both": one row of each id for every way of asking.
        pictures: Whether to read the pictures.

    Raises:
        InputError: Options or a subset that cannot be read, an id twice, a column that is not there.
    """
    one_of("prompts", prompts, ("both", "english", "local"))
    wanted = (
        "ID", "Subset", "Question", "Translated Question", "Options", "Translated Options", "Category", "Image Source",
        "License", *(("image",) if pictures else ()),
    )  # fmt: skip
    ways = [(way, prefix) for way, prefix in (("english", "Translated "), ("local", "")) if prompts in ("both", way)]

    def rows() -> Iterator[tuple[str, Row]]:
        seen: dict[tuple[str, ...], str] = {}
        for file in tables.files(path, (".parquet",)):
            for where, record in tables.records(file, wanted, pictures):
                language, country = _subset(where, record["Subset"])
                name = _text(where, record, "ID")
                _once(seen, where, id=name)
                for way, prefix in ways:
                    options = _options(where, f"{prefix}Options", record[f"{prefix}Options"])
                    yield (
                        where,
                        {
                            "id": name,
                            "image": record.get("image"),
                            "category": record["Category"],
                            "country": country,
                            "language": language,
                            "source": record["Image Source"],
                            "license": record["License"],
                            "question": record[f"{prefix}Question"],
                            "options": options,
                            "answer": _chosen(options, record.get("Label")),
                            "prompt_type": way,
                        },
                    )

    yield from tables.batches(rows())


def _subset(where: str, text: Any) -> tuple[str, str]:
    """Language and country of the text of a Python pair, which is read and never run."""
    try:
        pair = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        found = _PAIR.fullmatch(str(text).strip())
        pair = found.groups() if found else None
    if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
        raise InputError(f"{where}: Subset {str(text)[:80]!r} is no pair", "expected ('LANGUAGE', 'COUNTRY')")
    return str(pair[0]), str(pair[1])


# -------------------------------------------------------------------------------------------------------------- SEA-VQA
SEA_VQA_COUNTRIES = frozenset(
    {"cambodia", "indonesia", "laos", "malaysia", "philippines", "singapore", "thailand", "vietnam"}
)


def sea_vqa(path: str, *, pictures: bool = True) -> Iterator["pa.RecordBatch"]:
    """SEA-VQA: four options, in English, one split for each country.

    The data name no question: its id is ``<country>/<row>``, the row counted from 0 within the country as the Hub does.

    Args:
        path: A folder with ``<country>/data-*.arrow``, ``<country>_parquet/*.parquet`` or ``<country>.json``; or one
            such file. Pictures below ``images/`` are found by the name of the file; others are known by their address.
        pictures: Changes nothing: the data hold none.

    Raises:
        InputError: A column that is not there, a row without options.
    """
    files = [
        f
        for f in tables.files(path, (".arrow", ".parquet", ".json", ".jsonl"))
        if not f.name.startswith(("dataset_", "state."))
    ]
    splits: dict[str, list[Path]] = {}
    for file in files:
        names = (
            file.stem.partition("-")[0].casefold(),
            file.absolute().parent.name.removesuffix("_parquet").casefold(),
        )
        country = next((name for name in names if name in SEA_VQA_COUNTRIES), None)
        if country is None:
            raise InputError(
                f"{file}: which country is it of?", "its name, or its folder's, begins with that: indonesia"
            )
        splits.setdefault(country, []).append(file)
    local: dict[str, list[str]] = {}
    if (root := Path(path)).is_dir():
        for picture in sorted((root / "images").rglob("*")):
            local.setdefault(picture.name, []).append(str(picture.relative_to(root)))
    letters = [f"choice_{letter}" for letter in "abcd"]
    wanted = ("question", *letters, "correct_answer", "image_path")

    def rows() -> Iterator[tuple[str, Row]]:
        for country, parts in sorted(splits.items()):
            same_kind = [part for part in parts if part.suffix == parts[0].suffix]  # the Hub has a split twice
            records = (found for part in same_kind for found in tables.records(part, wanted))
            for number, (where, record) in enumerate(records):
                said = [str(record[letter] or "").strip() for letter in letters]
                if sum(map(bool, said)) < 2:
                    raise InputError(f"{where}: no options", "they stand in choice_a to choice_d")
                options = _distinct(said)
                label = str(record["correct_answer"] or "").strip().lower()
                place = str(record["image_path"] or "").strip()
                name = place.partition("?")[0].rpartition("/")[2]
                here = [f for f in local.get(name, ()) if len(local[name]) == 1 or country in Path(f).parts]
                yield (
                    where,
                    {
                        "id": f"{country}/{number}",
                        "image": {"bytes": None, "path": here[0] if len(here) == 1 else place or None},
                        "country": country,
                        "language": "en",
                        "source": record.get("image_page"),
                        "question": record["question"],
                        "options": options,
                        "answer": options["abcd".index(label)] if label in set("abcd") else None,
                        "picture": place,
                    },
                )

    yield from tables.batches(rows())


# --------------------------------------------------------------------------------------------------------- CultureVerse
def cultureverse(path: str, *, split: str = "given", pictures: bool = True) -> Iterator["pa.RecordBatch"]:
    """CultureVerse questions in our format, JSONL (the data are not published): see docs/measuring.md.

    The question is asked with its options in lines "(A) ...", and with the request to describe, to weigh each of them,
    and to end with the letter.

    Args:
        path: A JSONL file, or a folder of them; paths of pictures are relative to the folder.
        split: What is test: as `given` in the file; the questions about the first picture of each concept (`image`, the
            paper's way, where training and test share concepts); or a fifth of the concepts as a whole (`concept`).
        pictures: Changes nothing: pictures are files beside.

    Raises:
        InputError: A field that is not there, options that cannot be read, an id twice.
    """
    one_of("split", split, ("given", "image", "concept"))

    def rows() -> Iterator[tuple[str, Row]]:
        seen: dict[tuple[str, ...], str] = {}
        first: dict[tuple[str, str], str] = {}
        for file in tables.files(path, (".jsonl",)):
            for where, record in tables.records(file, culture_fields(split)):
                row = culture_question(where, record, split, first)
                _once(seen, where, id=row["id"])
                yield where, row

    yield from tables.batches(rows())


def culture_fields(split: str) -> tuple[str, ...]:
    """The fields that a question of CultureVerse has to have."""
    fields = (
        "id", "image", "concept", "category", "country", "continent", "question_type", "question", "options", "answer",
    )  # fmt: skip
    return (*fields, "split") if split == "given" else fields


def culture_question(where: str, record: Row, split: str, first: dict[tuple[str, str], str]) -> Row:
    """A question of CultureVerse as a row.

    Args:
        where: Where it stands.
        record: What stands there.
        split: See `cultureverse`.
        first: The first picture of each concept so far, which grows.

    Raises:
        InputError: No id, concept or question, options that cannot be read.
    """
    concept = _text(where, record, "concept")
    options = _options(where, "options", record["options"])
    letters = LETTERS[: len(options)]
    letter = str(record["answer"] or "").strip().strip("().").upper()
    country = record.get("country_code") or record["country"]
    if split == "given":
        side = record["split"]
    elif split == "image":
        side = "test" if first.setdefault((str(country), concept), record["image"]) == record["image"] else "train"
    else:
        side = "test" if zlib.crc32(concept.casefold().encode()) % 5 == 0 else "train"
    listed = (f"({letter}) {option}" for letter, option in zip(letters, options, strict=True))
    return {
        "id": _text(where, record, "id"),
        "image": {"bytes": None, "path": record["image"]},
        "category": record["category"],
        "country": country,
        "language": "en",
        "question": "\n".join((_text(where, record, "question"), *listed, REASONED)),
        "options": options,
        "answer": options[letters.index(letter)] if len(letter) == 1 and letter in letters else None,
        "kind": record["question_type"],
        "concept": concept,
        "continent": record["continent"],
        "split": side,
    }


# ---------------------------------------------------------------------------------------------------------- CulturalVQA
def cultural_vqa(path: str, *, pictures: bool = True) -> Iterator["pa.RecordBatch"]:
    """Open questions with one or several right answers, as CulturalVQA has them; `columns` say which column is what.

    A column of lists of texts becomes one text with "|" between: all the answers that are right.

    Args:
        path: A parquet or JSONL file, or a folder of them.
        pictures: Whether to read columns of pictures.

    Raises:
        InputError: A file that cannot be read.
    """
    import pyarrow as pa

    for file in tables.files(path, (".parquet", ".jsonl")):
        rows = [
            (where, {name: _plain(name, value) for name, value in record.items()})
            for where, record in tables.records(file, (), pictures)
        ]
        pictured = {name for _, row in rows for name, value in row.items() if isinstance(value, Mapping)}
        fields = dict.fromkeys(name for _, row in rows for name in row)
        kinds = [(name, tables.nested()["image"] if name in pictured else pa.string()) for name in fields]
        yield tables.batch(rows, pa.schema(kinds))


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return _references(str(part) for part in value if part is not None)
    if name == "image" and isinstance(value, str):
        return {"bytes": None, "path": value}
    return value if value is None or isinstance(value, Mapping) else str(value)


# ------------------------------------------------------------------------------------------------------------ DPG-Bench
def dpg(
    path: str, *, pictures_folder: str | None = None, tiles: int = 4, pictures: bool = True
) -> Iterator["pa.RecordBatch"]:
    """DPG-Bench: yes-or-no questions about pictures that were drawn from a prompt, each about every tile of a picture.

    Of a proposition of an item that stands there twice the later row counts, at the place of the first, as the
    published program has it: its answers are kept by the number of the proposition.

    Args:
        path: The file of questions (``dpg_bench.csv``), or a folder with it.
        pictures_folder: Where ``<item_id>.png`` are, tiles two in a row; None = answered elsewhere.
        tiles: Drawings in a picture, 1 to 4.
        pictures: Whether to cut the tiles out.

    Raises:
        InputError: A column that is not there, a picture that is not there or cannot be read.
    """
    one_of("tiles", tiles, (1, 2, 3, 4))
    wanted = (
        "item_id", "text", "keywords", "proposition_id", "dependency", "category_broad", "category_detailed", "tuple",
        "question_natural_language",
    )  # fmt: skip

    asked: dict[tuple[str, str], tuple[int, str, Row]] = {}  # by item and proposition, in the order of the file
    found = (found for file in tables.files(path, (".csv",)) for found in tables.records(file, wanted))
    for number, (where, record) in enumerate(found):
        name = _text(where, record, "item_id"), _text(where, record, "proposition_id")
        first = asked[name][0] if name in asked else 0  # that program does not see row 0
        asked[name] = first or number, where, record

    def rows() -> Iterator[tuple[str, Row]]:
        cut: tuple[str, list[Any]] = ("", [None] * tiles)  # an item's tiles, while its questions follow each other
        for (item, proposition), (number, where, record) in asked.items():
            if pictures and pictures_folder and cut[0] != item:
                cut = item, _tiles(where, item, Path(pictures_folder), tiles)
            kind = record["tuple"].partition("(")[0].strip()
            for tile in range(tiles):
                yield (
                    where,
                    {
                        "id": item,
                        "proposition_id": proposition,
                        "tile": str(tile),
                        "row": number,
                        "image": cut[1][tile],
                        "text": record["text"],
                        "category": kind.partition("-")[0].strip(),
                        "kind": kind,
                        "language": "en",
                        "dependency": record["dependency"],
                        "tuple": record["tuple"],
                        "question": record["question_natural_language"],
                        "options": [],
                        "answer": "yes",
                    },
                )

    yield from tables.batches(rows(), ("row",))


def _tiles(where: str, item: str, folder: Path, count: int) -> list[Row]:
    """The tiles of an item's picture as PNG, row by row."""
    try:
        whole = images.decode(images.fetch({"bytes": None, "path": f"{item}.png"}, folder))
    except images.BrokenImage as err:
        raise InputError(
            f"{where}: the picture of item {item!r}: {err.message}", "give source.options.pictures_folder="
        ) from err
    side = whole.width if count == 1 else whole.width // 2
    if min(side, whole.height) < 1:
        raise InputError(f"{where}: the picture of item {item!r} is too small for {count} tiles")
    found = []
    for tile in range(count):
        left, top = tile % 2 * side, tile // 2 * side
        held = io.BytesIO()
        whole.crop((left, top, left + side, top + (whole.height if count == 1 else side))).save(held, "PNG")
        found.append({"bytes": held.getvalue(), "path": None})
    return found


# --------------------------------------------------------------------------------------------------------------- XM3600
# Of locales whose language is spoken in one country for the most part. Not of the others: ar, de, en, es, fr, nl, pt,
# sw and zh are those of many countries, bn (Bangladesh, India), quz (the Andes) and ru of several. mi is spoken in New
# Zealand, but where the pictures of its locale were taken is not documented.
XM3600_COUNTRIES = {
    "cs": "CZE", "da": "DNK", "el": "GRC", "fa": "IRN", "fi": "FIN", "fil": "PHL", "he": "ISR", "hi": "IND",
    "hr": "HRV", "hu": "HUN", "id": "IDN", "it": "ITA", "ja": "JPN", "ko": "KOR", "no": "NOR", "pl": "POL",
    "ro": "ROU", "sv": "SWE", "te": "IND", "th": "THA", "tr": "TUR", "uk": "UKR", "vi": "VNM",
}  # fmt: skip


def xm3600(path: str, *, pictures: bool = True) -> Iterator["pa.RecordBatch"]:
    """XM3600: captions of the same pictures in 36 languages, one split for each.

    The language is that of the captions, the split; the country is told by the locale of the picture, for 23 of
    them.

    Args:
        path: A parquet file named after its language (``th-00000-of-00001.parquet``), or a folder of them.
        pictures: Whether to read the pictures.

    Raises:
        InputError: A column that is not there, a picture twice in a language.
    """
    wanted = ("image_id", "image_locale", "captions", *(("image",) if pictures else ()))

    def rows() -> Iterator[tuple[str, Row]]:
        seen: dict[tuple[str, ...], str] = {}
        for file in tables.files(path, (".parquet",)):
            language = file.stem.partition("-")[0].casefold()
            for where, record in tables.records(file, wanted, pictures):
                name = _text(where, record, "image_id")
                _once(seen, where, image_id=name, language=language)
                captions = record["captions"] or []
                if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
                    raise InputError(f"{where}: 'captions' cannot be read", "expected a list of texts")
                locale = _words(where, record, "image_locale")
                yield (
                    where,
                    {
                        "id": name,
                        "image": record.get("image"),
                        "country": XM3600_COUNTRIES.get(locale or ""),
                        "language": language,
                        "question": f"Write a short caption of this picture in {_language(language)}.",
                        "options": [],
                        "answer": _references(captions),
                        "locale": locale,
                    },
                )

    yield from tables.batches(rows())


@cache
def _language(code: str) -> str:
    """The English name of a language."""
    import pycountry

    found = pycountry.languages.get(alpha_2=code) or pycountry.languages.get(alpha_3=code)
    return re.split(r"[;(]", found.name)[0].strip() if found else code


# -------------------------------------------------------------------------------------------------------------- reading
def _once(seen: dict[tuple[str, ...], str], where: str, **key: str) -> None:
    """Raises InputError for a question that was seen already."""
    name = tuple(key.values())
    if name in seen:
        said = ", ".join(f"{field} {value!r}" for field, value in key.items())
        raise InputError(f"{where}: {said} stands in {seen[name]} already", "remove one of the two")
    seen[name] = where


def one_of(option: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raises InputError for an option that is none of these."""
    if value not in allowed:
        raise InputError(f"options.{option}: {value!r} is none of {', '.join(map(str, allowed))}")


def _text(where: str, record: Row, name: str) -> str:
    """A value that cannot be left out."""
    value = record[name]
    if value is None or not str(value).strip():
        raise InputError(f"{where}: no {name!r}")
    return str(value).strip()


def _words(where: str, record: Row, name: str) -> str | None:
    """A text, or None where there is none."""
    value = record[name]
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: {name!r} is {str(value)[:80]!r}, expected a text")
    return value


def _chosen(options: Sequence[str], label: Any, first: int = 0) -> str | None:
    """The option of a number, of which `first` names the first; None where the label names none."""
    number = re.fullmatch(r"(\d{1,3})(\.0)?", str(label).strip(), re.ASCII)  # where labels are missing, 2 may be 2.0
    place = int(number[1]) - first if number else -1
    return options[place] if 0 <= place < len(options) else None


def _options(where: str, name: str, value: Any) -> list[str]:
    """The options in a list, or in the text of a list."""
    said = []
    try:
        listed = ast.literal_eval(value) if isinstance(value, str) else value
        if isinstance(listed, list | tuple) and all(isinstance(option, str | int | float) for option in listed):
            said = [str(option).strip() for option in listed]  # no str of an int of thousands of digits: a ValueError
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        pass
    if not 2 <= len(said) <= len(LETTERS):
        raise InputError(f"{where}: {name!r} cannot be read", "expected a list of texts, or the text of one")
    return _distinct(said)


def _distinct(options: Sequence[str]) -> list[str]:
    """The options; those that read alike get their number, so that each can be told from the others."""
    numbered = [f"{option} ({i})".strip() for i, option in enumerate(options, 1)]
    found = [n if options.count(o) > 1 else o for o, n in zip(options, numbered, strict=True)]
    return found if len(set(found)) == len(found) else numbered  # where "x (1)" was an option already


def _references(answers: Iterable[str]) -> str | None:
    """All right answers with "|" between them, each once."""
    return "|".join(dict.fromkeys(" ".join(answer.replace("|", " ").split()) for answer in answers)) or None


READERS: dict[str, Callable[..., Iterator["pa.RecordBatch"]]] = {
    "cultural_vqa": cultural_vqa,
    "cultureverse": cultureverse,
    "cvqa": cvqa,
    "dpg": dpg,
    "sea_vqa": sea_vqa,
    "worldcuisines": worldcuisines,
    "worldcuisines_dishes": worldcuisines_dishes,
    "xm3600": xm3600,
}
PATTERNS: dict[str, tuple[str, ...]] = {  # what is fetched of a data set on the Hub
    "cultural_vqa": ("*.parquet",),
    "cultureverse": ("*.jsonl", "*.jpg", "*.jpeg", "*.png", "*.webp"),
    "cvqa": ("*.parquet",),
    "dpg": ("*.csv",),
    "sea_vqa": ("*.arrow", "*.parquet"),
    "worldcuisines": ("*large_eval_task*.jsonl", "*small_eval_task*.jsonl"),
    "worldcuisines_dishes": ("*.parquet",),
    "xm3600": ("*.parquet",),
}
LINKED = frozenset(
    {"sea_vqa", "worldcuisines", "worldcuisines_dishes"}
)  # readers whose pictures may be addresses on the web
