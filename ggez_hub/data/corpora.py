"""Readers of the paper's training corpora: captions and conversations, each corpus in the layout it is published in.

Each is a corpus reader (see ggez_hub.data.readers). A row that cannot be used (no caption, a conversation that cannot
be read, no picture) is given with what it lacks left empty, so that the filter drops and counts it; files that are not
of the corpus are errors. Nothing is read whole: records go by one at a time. Pictures that lie in archives beside their
records are found by ggez_hub.data.joining.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.data import benchmarks, joining, tables
from ggez_hub.data.codes import ALIASES, iso3, iso639
from ggez_hub.data.conversations import IMAGE, LETTERS
from ggez_hub.data.joining import Placed
from ggez_hub.data.tables import Row
from ggez_hub.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_OPTIONS = [re.compile(rf"(?:^|[\s(]){letter}[.):]\s") for letter in "AB"]  # options in letters
_SHORT = frozenset({"lao", "uae", "uk", "us", "usa"})  # short names of countries that are no codes of other places


# --------------------------------------------------------------------------------------------------------------- SEA-VL
_CROWD = {
    "id": "id",
    "image": "image",
    "english": "caption",
    "native": "caption_native_lang",
    "language": "native_lang",
    "country": "culture_relevant_loc",
    "place": "culture_relevant_loc",
}
_CAPTIONS = {
    "english": "caption_en",
    "native": "caption_native",
    "language": "native_language",
    "country": "culture_country",
    "place": "image_place",
}
_RATINGS = ("avg_cultural_relevance", "avg_caption_fit", "avg_img_quality")


def sea_vl(
    path: str, *, captions: str = "both", crawled: bool = False, pictures: bool = True
) -> Iterator["pa.RecordBatch"]:
    """SEA-VL: pictures from Southeast Asia with a caption in English and one in a language of the place.

    Three layouts: the crowdsourced set (parquet), the table of its captions without pictures (CSV), and the crawled set
    (parquet). The countries of a row are all that its place names; a place that names none stays as it is written.
    Further columns are `caption` (english or native), `place`, and the ratings of the crowdsourced set.

    UNCONFIRMED: the scale of the ratings, which are a `reward` only where `columns` say so; the crawled set's columns
    and license. It is given as it is: `columns` name its text, and of no row the country is known.

    Args:
        path: A parquet or CSV file, or a folder of them.
        captions: "english", "native", or "both": a row for each, one alone where they are the same.
        crawled: Whether this is the crawled set.
        pictures: Whether to read the pictures.

    Raises:
        InputError: A column that is not there, a file that cannot be read.
    """
    benchmarks.one_of("captions", captions, ("both", "english", "native"))
    if crawled:
        found = (row for file in tables.files(path, (".parquet",)) for row in _records(file, (), pictures))
        source = {"source": "SEACrowd/sea-vl_crawling"}
        yield from tables.batches(((where, record | source) for _, where, record in found), strict=False)
        return

    def rows() -> Iterator[Placed]:
        for file in tables.files(path, (".csv", ".parquet")):
            names = _CAPTIONS if file.suffix == ".csv" else _CROWD
            wanted = [name for field, name in names.items() if pictures or field != "image"]
            for name, where, record in _records(file, wanted, pictures):
                said = {field: _text(record.get(theirs)) for field, theirs in names.items()}
                row = {
                    "image": _image(record.get("image")),
                    "country": _countries(said["country"] or said["place"]),
                    "source": "SEACrowd/sea-vl-experiments" if names is _CAPTIONS else "SEACrowd/sea-vl_crowdsourcing",
                    "license": None if names is _CAPTIONS else "cc-by-sa-4.0",
                    "place": said["place"],
                } | {rating: record.get(rating) for rating in _RATINGS if names is _CROWD}
                ways = {"english": "eng", "native": _language(said["language"])}
                if captions != "both":
                    ways = {captions: ways[captions]}
                elif said["english"] == said["native"]:
                    del ways["native"]
                for way, language in ways.items():
                    told = {"text": said[way], "language": language, "caption": way}
                    yield where, {"id": f"{said.get('id') or name}/{way}"} | row | told

    yield from tables.batches(rows(), strict=False)


@lru_cache(4096)
def _countries(place: str | None) -> str | None:
    """The codes of all countries that a place names, with "|" between; of one that names none its own words."""
    if place is None:
        return None
    if code := iso3(place):
        return code
    # "LA" and "IN" are countries where they stand alone, and something else in "Vientiane Street, LA".
    parts = [part.strip(" .") for part in re.split(r"[,;/|&]", place)]
    codes = [iso3(part) for part in parts if len(part) > 3 or part.casefold() in _SHORT]
    if not any(codes):
        codes = [iso3(name) for name in _country_names().findall(place)]
    return "|".join(dict.fromkeys(filter(None, codes))) or place.replace("|", " ")


@cache
def _country_names() -> re.Pattern[str]:
    """Finds the names of countries in a text, the longest first; New Mexico is not in Mexico."""
    import pycountry

    ways = ("name", "common_name", "official_name")
    names = {name for country in pycountry.countries for way in ways if (name := getattr(country, way, None))}
    names |= {alias for alias in ALIASES if len(alias) > 3 and "." not in alias}
    listed = "|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name)))
    return re.compile(rf"(?<!\w)(?<!new )(?:{listed})(?!\w)", re.IGNORECASE)


# ------------------------------------------------------------------------------------------------------- CulturalGround
def culturalground(
    path: str, *, countries: str | None = None, questions: str = "open", pictures: bool = True
) -> Iterator["pa.RecordBatch"]:
    """CulturalGround: questions about pictures of cultural things, with answers, in 39 languages.

    Two layouts: ``<country>_refined.jsonl``, one file a country with richer fields; or one JSON list of conversations
    (``CulturalGround-OE-Filtered-14M.json``). Of a folder with both the refined files are read. Pictures are in
    ``<country>.tar.gz``, or in a folder of the country. The text "None" is a missing value, and quotes around a
    question or an answer are none of its own. Further columns are `media` (see `mammoth_vl`) and, of the refined,
    `question_type` and `property_id`. `label` is the short answer there, `kind` open or choice. `answer` is what the
    conversation answers first: a sentence about the picture, which ``columns: {text: answer}`` makes a caption of, for
    models that match pictures with texts.

    UNCONFIRMED: how paths of pictures in the list look: the country of a row is the first folder in it that is called
    like one, else what the file is called after. The names of the files of multiple choice questions: such a question
    is told by options in letters that its text lists.

    Args:
        path: The folder, or a JSONL or JSON file in it.
        countries: Those whose files and archives are fetched and read, with "|" between, as the files have them:
            ``south_korea|thailand``. None = all. A list is read whole: choose there with ``where: {country: [...]}``.
        questions: "open", "choice" (multiple choice), or "both".
        pictures: Whether to read the archives; without, pictures are known by their paths.

    Raises:
        InputError: A field that is not there, a file that cannot be read.
    """
    benchmarks.one_of("questions", questions, ("open", "choice", "both"))
    root = joining.root_of(path)
    files = tables.files(path, (".json", ".jsonl"))
    files = [file for file in files if file.suffix == ".jsonl"] or files
    names = {file: file.stem.removesuffix("_refined") for file in files}
    files = [file for file in files if not joining.called(names[file]) or joining.among(names[file], countries)]
    if not files:
        raise InputError(f"{path}: no file of {countries}", f"there are: {', '.join(sorted(names.values()))}")
    shards = joining.shards(root, countries) if pictures else []

    def rows() -> Iterator[Placed]:
        for file in files:
            country = joining.called(names[file])
            here = [
                shard for shard in shards if not country or (joining.called(joining.stem(shard)) or country) == country
            ]
            reading = _refined(file, country) if file.suffix == ".jsonl" else _listed(file, country)
            asked = ((where, row) for where, row in reading if questions in ("both", row["kind"]))
            yield from joining.joined(asked, root, here)

    yield from tables.batches(rows(), strict=False)


def _refined(file: Path, country: str | None) -> Iterator[Placed]:
    wanted = ("id", "language", "original_question", "original_answer", "media")
    for name, where, record in _records(file, wanted):
        question, answer = (
            _present(record.get(f"reformulated_{part}")) or _present(record[f"original_{part}"])
            for part in ("question", "answer")
        )
        image = _image(_present(record.get("image")) or _present(record["media"]))
        row = {
            "id": _text(record["id"]) or name,
            "image": image,
            "messages": _asked(question, answer, bool(image)),
            "answer": answer,
            "label": _present(record.get("label")),
            "question_type": _present(record.get("question_type")),
            "property_id": _present(record.get("property_id")),
        }
        yield where, row | _cultural(image, country, record["language"], question)


def _listed(file: Path, country: str | None) -> Iterator[Placed]:
    for name, where, record in _records(file, ("id", "conversations")):
        image = _image(_present(record.get("image")))
        messages = _messages(record["conversations"], bool(image), lambda text: _present(text) or "")
        folders = ((image or {}).get("path") or "").split("/")[:-1]
        row = {
            "id": _text(record["id"]) or name,
            "image": image,
            "messages": messages,
            "answer": next((said["content"] for said in messages or () if said["role"] == "assistant"), None),
        }
        place = next(filter(None, map(joining.called, folders)), country)
        question = messages[0]["content"] if messages else None
        yield where, row | _cultural(image, place, record.get("language"), question)


def _cultural(image: Row | None, country: str | None, language: Any, question: str | None) -> Row:
    place = (country or "").replace(" ", "_")
    first, second = _OPTIONS
    found = first.search(question or "")
    return {
        "kind": "choice" if found and second.search(question or "", found.end() - 1) else "open",
        "country": country,
        "language": _language(_present(language)),
        "text": None,
        "source": "neulab/CulturalGround",
        "license": "apache-2.0",
        "media": "picture" if image else "none",
        "_folders": ("", f"{place}/", f"CultureGroundImages/{place}/"),
    }


def _present(value: Any) -> str | None:
    """A text without quotes around it, or None where it is missing, which CulturalGround writes as "None"."""
    text = _text(value) or ""
    if text.count('"') == 1:
        text = re.sub(r'^"|(?<!\d)"$', "", text).strip()  # but inches stay
    elif text[:1] == text[-1:] == '"':
        second = text.index('"', 1)
        if second == len(text) - 1 or text[second - 1] in " (\n":  # those of '"Batik" and "ikat"' stay
            text = text[1:-1].strip()
    return None if text in ("", "None") else text


# ----------------------------------------------------------------------------------------------------------- MAmmoTH-VL
def mammoth_vl(path: str, *, shards: str | None = None, pictures: bool = True) -> Iterator["pa.RecordBatch"]:
    """MAmmoTH-VL: conversations about pictures of all kinds, in English; the general part of the paper's mixture.

    The records are one JSON list (streamed), JSONL, or parquet (where a conversation is the text of a list); pictures
    are in ``*.tar.gz`` shards below the folder, or unpacked there. `media` says what a row is about: "picture"; "none",
    "video" or "pictures" (several), which have no `image`; or "missing", a picture that none of the shards has for
    certain. Train on ``where: {media: [picture]}``: without a picture rows count as broken. Some shards are enough to
    train on the rows whose pictures they hold.

    UNCONFIRMED: how the shards are called, and what is in which.

    Args:
        path: The folder, or a JSON, JSONL or parquet file in it.
        shards: Which archives are fetched and read: names without ``.tar.gz``, ``*`` for anything, with "|" between;
            None = all.
        pictures: Whether to read the archives; without, pictures are known by their paths.

    Raises:
        InputError: A field that is not there, a file that cannot be read.
    """
    root = joining.root_of(path)

    def rows() -> Iterator[Placed]:
        for file in tables.files(path, (".json", ".jsonl", ".parquet")):
            for name, where, record in _records(file, ("id", "conversations"), pictures):
                image = _image(record.get("image"))
                row = {
                    "id": _text(record["id"]) or name,
                    "image": image,
                    "messages": _messages(record["conversations"], bool(image)),
                    "text": None,
                    "language": "eng",
                    "source": "/".join(filter(None, ("MAmmoTH-VL", _text(record.get("source"))))),
                    "license": "apache-2.0",
                    "media": _media(record, image),
                    "_folders": ("", "single_image_data/"),
                }
                yield where, row

    yield from tables.batches(
        joining.joined(rows(), root, joining.shards(root, shards) if pictures else []), strict=False
    )


def _media(record: Row, image: Row | None) -> str:
    if record.get("video"):
        return "video"
    if isinstance(record.get("image"), list) and len(record["image"]) > 1:
        return "pictures"
    return "picture" if image else "none"


# --------------------------------------------------------------------------------------------------------------- XM3600
def xm3600_captions(path: str, *, pictures: bool = True) -> Iterator["pa.RecordBatch"]:
    """XM3600 for training: a row for every caption, in the language that its file is named after.

    The country is told by the locale of the picture, for 23 of 36; it is no country of the language.

    Args:
        path: A parquet file named after its language (``th-00000-of-00001.parquet``), or a folder of them.
        pictures: Whether to read the pictures.

    Raises:
        InputError: A column that is not there, a file that cannot be read.
    """
    wanted = ("image_id", "image_locale", "captions", *(("image",) if pictures else ()))

    def rows() -> Iterator[Placed]:
        for file in tables.files(path, (".parquet",)):
            language = file.stem.partition("-")[0].casefold()
            for name, where, record in _records(file, wanted, pictures):
                row = {
                    "image": _image(record.get("image")),
                    "country": benchmarks.XM3600_COUNTRIES.get(_text(record["image_locale"]) or ""),
                    "language": _language(language),
                    "source": "floschne/xm3600",
                    "license": "cc-by-4.0",
                    "locale": _text(record["image_locale"]),
                }
                name = f"{_text(record['image_id']) or name}/{language}"
                for caption_name, caption in _captions(name, record["captions"]):
                    yield where, {"id": caption_name, "text": caption} | row

    yield from tables.batches(rows(), strict=False)


def _captions(name: str, value: Any) -> Iterator[tuple[str, str | None]]:
    """Each caption of a picture with a name of its own; of one without any an empty one, so that it is counted."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # the text of a list
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    for number, caption in enumerate(value if isinstance(value, list) and value else [value]):
        yield f"{name}/{number}", _text(caption)


# ------------------------------------------------------------------------------------------------------------ Flickr30k
def flickr30k(path: str, *, split: str | None = None, pictures: bool = True) -> Iterator["pa.RecordBatch"]:
    """Flickr30k: a row for every caption of a picture, in English; about no country.

    For research under Flickr's terms: its license is "other", and nothing made of it should be passed on as one's own.

    Args:
        path: A parquet file, or a folder of them.
        split: Keep the rows whose column `split` says so: train, val or test. The Hub's own split is called test
            whatever is in it, and some copies lack the column. None = all.
        pictures: Whether to read the pictures.

    Raises:
        InputError: A column that is not there, a file that cannot be read.
    """
    wanted = ("caption", *(("image",) if pictures else ()), *(("split",) if split else ()))

    def rows() -> Iterator[Placed]:
        for file in tables.files(path, (".parquet",)):
            for name, where, record in _records(file, wanted, pictures):
                if split and record["split"] != split:
                    continue
                row = {
                    "image": _image(record.get("image")),
                    "language": "eng",
                    "source": "Flickr30k",
                    "license": "other",
                    "split": _text(record.get("split")),
                }
                name = _text(record.get("img_id")) or _text(record.get("filename")) or name
                for caption_name, caption in _captions(name, record["caption"]):
                    yield where, {"id": caption_name, "text": caption} | row

    yield from tables.batches(rows(), strict=False)


# -------------------------------------------------------------------------------------------------------- WorldCuisines
def worldcuisines_train(
    path: str,
    *,
    task: int | None = None,
    questions: str = "open",
    kb: str | None = None,
    kb_revision: str | None = None,
    pictures: bool = True,
) -> Iterator["pa.RecordBatch"]:
    """WorldCuisines for training: what a dish is called, and where it is from, as conversations in 30 languages.

    The answer is the name in the language of the question, or the number of the option; it is a column as well, which
    ``columns: {text: answer}`` makes a caption of. Countries and pictures come from the knowledge base of dishes, which
    goes to a temporary database; without it a picture is known by its address alone, which is not visited. The license
    is that of the questions; each picture has its own.

    UNCONFIRMED: what the split is called; of a folder, files named ``*train*`` are read, or those that name no split.

    Args:
        path: A JSONL file, or a folder of them.
        task: 1 asks for the dish, 2 for its country; None = both.
        questions: "open", or "choice" (multiple choice).
        kb: The knowledge base: a file or folder, CSV or parquet, or a Hub id. Empty = none.
        kb_revision: Its commit on the Hub. Empty = the newest.
        pictures: Whether to read the pictures of the knowledge base.

    Raises:
        InputError: A field that is not there, a file that cannot be read.
    """
    benchmarks.one_of("task", task, (None, 1, 2))
    benchmarks.one_of("questions", questions, ("open", "choice"))
    files = [file for file in tables.files(path, (".jsonl",)) if not benchmarks.of_other_set(file, "train")]
    if not files:
        raise InputError(f"{path}: no training file of WorldCuisines there", "they are called *train_task1*.jsonl")
    asked, answered = {
        "open": ("open_ended_prompt", "answer"),
        "choice": ("multi_choice_prompt", "multi_choice_answer"),
    }[questions]

    def rows() -> Iterator[Placed]:
        table = "dishes (url TEXT PRIMARY KEY, countries TEXT, category TEXT, picture BLOB)"
        wanted = ("qa_id", "lang", "prompt_type", "image_url", asked, answered)
        with joining.database(table) as dishes:
            for url, dish in benchmarks.known_dishes(kb, kb_revision, pictures) if kb else ():
                known = (url, dish["countries"], dish["category"], (dish["image"] or {}).get("bytes"))
                dishes.execute("INSERT OR IGNORE INTO dishes VALUES (?, ?, ?, ?)", known)
            for name, where, record in (found for file in files for found in _records(file, wanted)):
                kind = "country" if str(record["prompt_type"]) == "2" else "dish"
                if task and (kind == "country") != (task == 2):
                    continue
                address, question, answer = (_text(record[field]) for field in ("image_url", asked, answered))
                query = "SELECT countries, category, picture FROM dishes WHERE url = ?"
                countries, category, picture = dishes.execute(query, (address,)).fetchone() or ("", None, None)
                places = [benchmarks.NATIONS.get(place, place) for place in countries.split("|") if place]
                row = {
                    "id": f"{_text(record['qa_id']) or name}/{_text(record['lang'])}",
                    "image": {"bytes": picture, "path": address},
                    "text": None,
                    "messages": _asked(question, answer),
                    "answer": answer,
                    "category": category,
                    "country": "|".join(places) or None,
                    "language": _language(_text(record["lang"])),
                    "source": "worldcuisines/vqa",
                    "license": "cc-by-sa-4.0",
                    "kind": kind,
                    "prompt_type": _text(record["prompt_type"]),
                }
                yield where, row

    yield from tables.batches(rows(), strict=False)


# --------------------------------------------------------------------------------------------------------- CultureVerse
def cultureverse_train(path: str, *, split: str = "given", pictures: bool = True) -> Iterator["pa.RecordBatch"]:
    """CultureVerse for training, in our format (the data are not published): questions with reasoned answers.

    The question is asked as the benchmark `cultureverse` asks it; the target is the explanation, which ends with the
    letter of the right option in round brackets. Without an explanation it is that letter alone; an explanation that
    ends with another letter makes no conversation.

    Args:
        path: A JSONL file, or a folder of them; paths of pictures are relative to the folder.
        split: What is training, as in `cultureverse`: as `given`, by `image`, or by `concept`.
        pictures: Changes nothing: pictures are files beside.

    Raises:
        InputError: A field that is not there, a file that cannot be read.
    """
    benchmarks.one_of("split", split, ("given", "image", "concept"))
    first: dict[tuple[str, str], str] = {}

    def rows() -> Iterator[Placed]:
        for file in tables.files(path, (".jsonl",)):
            for name, where, record in _records(file, benchmarks.culture_fields(split)):
                fields = ("id", "image", "category", "country", "language", "kind", "concept", "continent", "split")
                row: Row = dict.fromkeys((*fields, "messages")) | {"id": name, "split": record.get("split")}
                with contextlib.suppress(InputError):  # a row without a conversation is dropped, and counted
                    asked = benchmarks.culture_question(where, record, split, first)
                    row = {field: asked[field] for field in fields} | {"messages": _reasoned(asked, record)}
                if row["split"] is None:  # it may be for the test
                    row["messages"] = None
                if row["split"] in ("train", None):
                    yield where, row | {"text": None, "language": "eng", "source": "CultureVerse"}

    yield from tables.batches(rows(), strict=False)


def _reasoned(asked: Row, record: Row) -> list[Row] | None:
    """The conversation of a question, or None where no answer is right, or the explanation comes to another."""
    if asked["answer"] is None:
        return None
    letters = LETTERS[: len(asked["options"])]
    right = f"({letters[asked['options'].index(asked['answer'])]})"
    told = _text(record.get("explanation")) or ""
    said = re.findall(rf"\([{letters}]\)", told)
    if said and said[-1] != right:
        return None
    return _asked(asked["question"], told if told.endswith((right, f"{right}.")) else f"{told}\n{right}".strip())


# --------------------------------------------------------------------------------------------------------------- values
def _records(file: Path, wanted: Sequence[str], pictures: bool = True) -> Iterator[tuple[str, str, Row]]:
    """The rows of a file: a name for each that has none of its own, where it stands, and what it says."""
    for number, (where, record) in enumerate(tables.records(file, wanted, pictures, strict=False), 1):
        yield f"{file.stem}/{number}", where, record


def _text(value: Any) -> str | None:
    """A text or whole number as text; None where there is none."""
    return tables.clean(str(value)).strip() or None if isinstance(value, str | int) else None


def _image(value: Any) -> Row | None:
    """A reference to a picture from {bytes, path}, a path, bytes, or a list of one of these."""
    if isinstance(value, list):
        return _image(value[0]) if len(value) == 1 else None
    held = value if isinstance(value, dict) else {"bytes": value, "path": value}
    data = held.get("bytes") if isinstance(held.get("bytes"), bytes) else None
    path = tables.clean(held["path"]).strip() if isinstance(held.get("path"), str) else None
    return {"bytes": data or None, "path": path or None} if data or path else None


@lru_cache(4096)
def _language(name: str | None) -> str | None:
    """The ISO 639-3 code of a language; of one that is not known the name as it stands."""
    return name and (iso639(name) or name)


def _messages(value: Any, pictured: bool, told: Callable[[str], str] = str.strip) -> list[Row] | None:
    """A conversation; the picture's mark stands at the first message of the user where there is none.

    Args:
        value: What `tables.conversation` reads.
        pictured: Whether there is a picture.
        told: What makes a text out of what was written.
    """
    messages = tables.conversation(value)
    for message in messages or ():
        before, mark, after = told(message["content"]).partition(IMAGE)
        inside = before.strip() and after.strip()
        message["content"] = before + mark + after if inside else told(before) + mark + told(after)
    asked = [message for message in messages or () if message["role"] == "user"]
    if pictured and asked and not any(IMAGE in message["content"] for message in asked):
        asked[0]["content"] = IMAGE + asked[0]["content"]
    return messages


def _asked(question: str | None, answer: str | None, pictured: bool = True) -> list[Row] | None:
    """A conversation of a question and its answer, or None where there is not both."""
    if question is None or answer is None:
        return None
    asked = IMAGE + question if pictured else question
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


READERS: dict[str, Callable[..., Iterator["pa.RecordBatch"]]] = {
    "cultureverse_train": cultureverse_train,
    "culturalground": culturalground,
    "flickr30k": flickr30k,
    "mammoth_vl": mammoth_vl,
    "sea_vl": sea_vl,
    "worldcuisines_train": worldcuisines_train,
    "xm3600_captions": xm3600_captions,
}
PATTERNS: dict[str, tuple[str, ...]] = {  # what is fetched of a data set on the Hub; {option} = any, unless it is given
    "cultureverse_train": benchmarks.PATTERNS["cultureverse"],
    "culturalground": ("*/{countries}_refined.jsonl", "*/{countries}.tar.gz"),
    "flickr30k": ("*.parquet",),
    "mammoth_vl": ("mammoth_si_10M.json", "single_image_data/{shards}.tar.gz"),
    "sea_vl": ("*.parquet",),
    "worldcuisines_train": ("*train_task*.jsonl",),
    "xm3600_captions": ("*.parquet",),
}
