"""Words of a language for synthetic texts: names of places, months, days and languages, as CLDR has them."""

import hashlib
import itertools
import random
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from ggez_hub.data.codes import iso639
from ggez_hub.data.languages import ENGLISH, FLORES, NEAR, SAME, SCRIPTS, script_of

if TYPE_CHECKING:
    from babel import Locale

ENOUGH = 40  # words; of a language of which CLDR has fewer, others are taken
LONGEST = 14  # letters of a word
IN_PLACE = {  # languages of which CLDR has enough, by script: for those of which it has not
    "Arab": "ara", "Beng": "ben", "Cyrl": "rus", "Deva": "hin", "Ethi": "amh", "Mymr": "mya", "Tibt": "bod",
}  # fmt: skip
SYLLABLES = [consonant + vowel for consonant in "bdgklmnprstwy" for vowel in ("a", "e", "i", "o", "u", "aa", "oo")]
_ENGLISH = {  # what captions and questions are made of
    "what": "basket bell boat bowl bridge carpet chair cloth clay drum fan flute garden gate hat house jar kite knot "
    "ladder lamp loaf market mask mat mill necklace oven paddle pot puppet quilt ribbon roof saddle scarf shell shirt "
    "shrine spoon stool table tower tray umbrella vase wagon wall well wheel",
    "how": "bright broad carved clean curved dark dry faded flat folded glazed heavy hollow large light long low "
    "narrow old painted pale plain polished rough round sharp short small smooth soft square striped tall thick thin "
    "tiny warm wet wide wooden woven yellow",
    "where": "above against around before behind below beside near over under",
}
PLAIN = {kind: listed.split() for kind, listed in _ENGLISH.items()}


def drawn(*key: object) -> random.Random:
    """A source of random numbers that is the same for the same key, in every process."""
    return random.Random(int.from_bytes(hashlib.sha256("\n".join(map(str, key)).encode()).digest()[:8], "big"))


@cache
def words(language: str) -> tuple[str, ...]:
    """Words of a language, none of them English, in a fixed order.

    Where CLDR has too few: words of a language that is hardly told from it (Minangkabau: Indonesian), else of one in
    the same script, else made-up ones in Latin letters.

    Args:
        language: ISO 639-3.
    """
    if language == ENGLISH:
        return tuple(PLAIN["what"] + PLAIN["how"])
    for other in (language, *_relatives(language), *filter(None, [IN_PLACE.get(script_of(language))])):
        if len(found := _of_cldr(other)) >= ENOUGH:
            return found
    own, parts = (
        drawn("made up", language),
        SYLLABLES if script_of(language) == "Latn" else _letters(script_of(language)),
    )
    return tuple(sorted({"".join(own.choices(parts, k=own.randint(3, 5))) for _ in range(3 * ENOUGH)}))


def _letters(script: str) -> list[str]:
    """Some letters of a script."""
    every = filter(str.isalpha, map(chr, range(0x370, 0x10000)))
    return list(itertools.islice((letter for letter in every if _is_of(letter, script)), ENOUGH))


def _is_of(letter: str, script: str) -> bool:
    return unicodedata.name(letter, "").startswith(tuple(SCRIPTS[script].split()))


def _relatives(language: str) -> Iterator[str]:
    """Languages that are hardly told from one, those that CLDR has the most words of first."""
    found = {code for group in (*SAME, *NEAR) if language in group.split() for code in group.split()} - {language}
    yield from sorted(found, key=lambda code: (-len(_of_cldr(code)), code))


@cache
def _of_cldr(language: str) -> tuple[str, ...]:
    from babel import Locale

    locale = locale_of(language)
    if locale is None:
        return ()
    english = {word for name in _names(Locale("en")) for word in name.casefold().split()}
    script = script_of(language)
    found = {word for name in _names(locale) for word in name.split() if 2 <= len(word) <= LONGEST}
    return tuple(sorted(word for word in found if word.casefold() not in english and _is_word(word, script)))


def _is_word(text: str, script: str) -> bool:
    """Whether a text is of letters of a script, and of marks on these."""
    return all(_is_of(c, script) if c.isalpha() else unicodedata.category(c).startswith("M") for c in text)


@cache
def locale_of(language: str) -> "Locale | None":
    """CLDR's locale of a language, if it has one."""
    import pycountry
    from babel import Locale, UnknownLocaleError

    known = pycountry.languages.get(alpha_3=language)
    for name in filter(None, (getattr(known, "alpha_2", None), language)):
        try:
            return Locale.parse(name)
        except (UnknownLocaleError, ValueError):
            continue
    return None


def _names(locale: "Locale") -> Iterator[str]:
    for names in (locale.territories, locale.languages, locale.months["format"]["wide"], locale.days["format"]["wide"]):
        yield from map(str, names.values())


def name_in(country: str, language: str) -> str:
    """What a country is called in a language, in English where CLDR does not know.

    Args:
        country: ISO 3166, three letters.
        language: ISO 639-3.
    """
    import pycountry
    from babel import Locale

    code = getattr(pycountry.countries.get(alpha_3=country), "alpha_2", country)
    locale = locale_of(language)
    return str((locale and locale.territories.get(code)) or Locale("en").territories.get(code, country))


@cache
def spoken_in(country: str) -> tuple[str, ...]:
    """The languages of a country that CLDR calls official, ISO 639-3, those of most people first."""
    import pycountry
    from babel.languages import get_official_languages

    code = getattr(pycountry.countries.get(alpha_3=country), "alpha_2", country)
    found = get_official_languages(code, de_facto=True)
    codes = (iso639(name) for name in found)
    return tuple(dict.fromkeys(code for code in codes if code in FLORES or code == ENGLISH)) or (ENGLISH,)


def said(language: str, *key: object, count: int = 9, place: str | None = None) -> str:
    """A synthetic sentence.

    Args:
        language: ISO 639-3.
        key: The same gives the same sentence.
        count: Words, about.
        place: A country that it names, ISO 3166.
    """
    own = drawn("sentence", language, *key)
    named = name_in(place, language) if place else None
    if language == ENGLISH:
        things = [f"{own.choice(PLAIN['how'])} {own.choice(PLAIN['what'])}" for _ in range(max(2, count // 3))]
        text = "A " + "".join(f"{thing} {own.choice(PLAIN['where'])} the " for thing in things[:-1]) + things[-1]
        return f"{text} in {named}." if named else f"{text}."
    chosen = own.sample(words(language), min(count, len(words(language))))
    return " ".join([*chosen, *([named] if named else [])]) + "."
