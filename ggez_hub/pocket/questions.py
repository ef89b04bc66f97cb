"""Questions about the drawings of the atlas, of CultureVerse's three kinds (arXiv 2501.01282). Synthetic.

* recognition: what is shown;
* knowledge: which country it is from;
* scene: somebody meets it and a guide tells a fact about it; what is it, or where is it from?
"""

import hashlib
import string
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from ggez_hub.pocket import atlas
from ggez_hub.pocket.atlas import Concept

Kind = Literal["recognition", "knowledge", "scene"]
KINDS: tuple[Kind, ...] = get_args(Kind)
QUESTION_TYPES = {"recognition": "image_recognition", "knowledge": "cultural_knowledge", "scene": "scene_reasoning"}
CONTINENTS = ("africa", "americas", "asia", "europe", "oceania")  # the names of their regions
OPTIONS = 4
NEAR = 6  # of the most similar ones, from which the wrong options are drawn
Form = Literal["open", "letter", "whether"]
FORMS: tuple[Form, ...] = ("open",) * 9 + ("letter",) * 8 + ("whether",) * 3  # as often as they are taught
ASKED = {  # what an option is, by kind: how it is asked for, and how whether one is right
    ("recognition", "name"): (("What is this?", "What does the picture show?", "Name this."), "Is this {}?"),
    ("knowledge", "country"): (("Which country is this from?", "Where is this from?"), "Is this from {}?"),
    ("scene", "name"): (("What is it?", "What does she mean?"), "Is it {}?"),
    ("scene", "country"): (("Where does it come from?", "What is its country?"), "Is it from {}?"),
}  # fmt: skip
SCENES = {
    "Food": "Ana tastes this at a stall.",
    "Plants": "Ana finds this in a garden.",
    "Animals": "Ana watches this on a walk.",
    "Festivals": "Ana is invited to this.",
    "Historical Artifacts": "Ana meets this in a museum.",
    "Historical Figures": "Ana meets this in a museum.",
    "Traditional Clothing": "Ana tries this on.",
    "Handicrafts and Artifacts": "Ana buys this as a gift.",
    "Music and Dance": "Ana hears music and sees this.",
    "Entertainment and Performing Arts": "Ana has a ticket for this.",
}
TRIP = "Ana comes to this on a trip."  # where the category has no scene


@dataclass(frozen=True)
class Question:
    """A question about one drawing.

    Attributes:
        question: In words.
        options: What to choose from.
        answer: The right option.
        kind: What it asks for.
        form: How it is taught: as an open question, with the options in letters, or with yes or no.
        whether: It as a question of yes or no, about the right or a wrong option.
        agrees: Whether that is to be answered with yes.
    """

    question: str
    options: tuple[str, ...]
    answer: str
    kind: Kind
    form: Form
    whether: str
    agrees: bool


def ask(name: str, seed: int) -> Question:
    """The question about one drawing of a concept.

    Seeds that follow each other go through all kinds, and through all places of the right option.
    """
    concept = _by_name()[name]
    turn = zlib.crc32(name.encode()) + seed
    kind = KINDS[turn % len(KINDS)]
    ways = [wanted for of, wanted in ASKED if of == kind]
    wanted = ways[_draw(name, seed, "wanted") % len(ways)]
    questions, whether = ASKED[kind, wanted]
    scene = ""
    if kind == "scene":
        fact = concept.facts[_draw(name, seed, "fact") % len(concept.facts)]
        scene = f"{SCENES.get(concept.category, TRIP)} Her guide says: {fact}. "
    answer, place = _text(concept, wanted), turn % OPTIONS
    options = sorted(_near(name, wanted), key=lambda option: _draw(name, seed, option))[: OPTIONS - 1]
    options.insert(place, answer)
    agrees = _draw(name, seed, "agrees") % 2 == 0
    return Question(
        question=scene + questions[_draw(name, seed, "question") % len(questions)],
        options=tuple(options),
        answer=answer,
        kind=kind,
        form=FORMS[_draw(name, seed, "form") % len(FORMS)],
        whether=scene + whether.format(answer if agrees else options[place - 1]),
        agrees=agrees,
    )


def record(name: str, seed: int, split: str) -> dict[str, Any]:
    """The question about one drawing of a concept in our CultureVerse format (docs/measuring.md), without id and image.

    Its explanation gives the answer, says what is shown, and ends with the letter. The answer stands first because the
    pocket base tells what it sees at once or not at all (docs/log.md).
    """
    concept, asked = _by_name()[name], ask(name, seed)
    country = _country(concept.country)
    right = string.ascii_uppercase[asked.options.index(asked.answer)]
    return {
        "concept": name,
        "category": concept.category,
        "country": country,
        "country_code": concept.country,
        "continent": _continent(concept.country),
        "question_type": QUESTION_TYPES[asked.kind],
        "question": asked.question,
        "options": list(asked.options),
        "answer": right,
        "explanation": f"{asked.answer}: the picture shows {name}, {concept.category} of {country}. ({right})",
        "split": split,
    }


def caption(name: str, seed: int) -> str:
    """What is told of one drawing of a concept: its name, its country and a fact."""
    concept = _by_name()[name]
    return f"{name}, {_country(concept.country)}: {concept.facts[seed % len(concept.facts)]}"


def _draw(*parts: object) -> int:
    """A number that looks random, and is the same for the same parts everywhere."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@cache
def _by_name() -> dict[str, Concept]:
    return {concept.name: concept for concept in atlas.concepts()}


def _text(concept: Concept, wanted: str) -> str:
    """The right option."""
    return concept.name if wanted == "name" else _country(concept.country)


@cache
def _country(code: str) -> str:
    """The usual name of a country: "Iran" and not "Iran, Islamic Republic of"."""
    import pycountry

    country = pycountry.countries.lookup(code)
    return str(getattr(country, "common_name", country.name)).partition(",")[0]


@cache
def _near(name: str, wanted: str) -> tuple[str, ...]:
    """The wrong options that are most like the right one: first of the same category, then of the same region.

    Of countries only the region counts. Concepts of the common core meet none from outside it, nor the other way round:
    a base model that knows the core would learn to tell right from wrong by the names alone. What is equally near is in
    an order of its own for each concept.
    """
    concept = _by_name()[name]
    answer = _text(concept, wanted)
    others = [other for other in atlas.concepts() if other.core == concept.core]

    def distance(other: Concept) -> tuple[bool, int, int]:
        category = wanted != "country" and other.category != concept.category
        shared = len(_regions(concept.country) & _regions(other.country))
        return category, -shared, _draw(name, _text(other, wanted))

    texts: Iterable[str] = (_text(other, wanted) for other in sorted(others, key=distance))
    return tuple(text for text in dict.fromkeys(texts) if text != answer)[:NEAR]


@cache
def _continent(country: str) -> str:
    from ggez_hub import registry

    continents = map(registry.load_region, CONTINENTS)
    return next(continent.title for continent in continents if country in continent.countries)


@cache
def _regions(country: str) -> frozenset[str]:
    """Those of the atlas's files that a country belongs to."""
    from ggez_hub import registry

    names = (path.stem for path in atlas.FOLDER.glob("*.yaml"))
    return frozenset(name for name in names if country in registry.load_region(name).countries)
