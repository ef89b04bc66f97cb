"""English rows into the languages of a region: by NLLB-200, or by any model behind an OpenAI-compatible endpoint.

A text is cut into units (a sentence for NLLB, some sentences of one line for an endpoint). Marks of lists, letters of
options, code and tags around a unit never reach the model; each unit is translated once, kept in a cache, and checked.
"""

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ggez_hub.data.codes import iso639
from ggez_hub.data.conversations import LETTERS
from ggez_hub.data.languages import ENGLISH, FLORES, NO_SPACES, name_of
from ggez_hub.data.readers import row_schema
from ggez_hub.data.texts import (
    AT_PLACEHOLDERS,
    PLACEHOLDERS,
    PROTECTED,
    Part,
    changed,
    likeness,
    other_language,
    parts,
    plain,
    says,
    shown,
    wrong,
)
from ggez_hub.data.translators import Cache, Model, cached, model
from ggez_hub.endpoint import Answer
from ggez_hub.errors import ConfigError
from ggez_hub.hub.licenses import PERMISSIVE
from ggez_hub.schema import Region, Translate, Translator

if TYPE_CHECKING:
    import pyarrow as pa

NLLB_LICENSE = "cc-by-nc-4.0"  # of every checkpoint that Meta published, and so of what is made from one
FILLED = ("id", "text", "messages", "language", "license")  # columns that change
LATIN = "A-Za-zÀ-ɏ\u0300-\u036fḀ-ỿ0-9'’"  # what a letter of an option stands apart from: the B of "Bánh" is none
Why = tuple[str, str]  # what is wrong: a reason to count by, and what exactly


class Problem(NamedTuple):
    """A translation of a row that was not kept.

    Attributes:
        row: The row's place in the batch that was given.
        language: That was asked for, ISO 639-3.
        reason: One of a few, to count by, such as "a number changed".
        detail: What exactly, in some characters; may be empty.
    """

    row: int
    language: str
    reason: str
    detail: str = ""


class Translated(NamedTuple):
    """What became of a batch.

    Attributes:
        batch: The rows that are kept, with the columns of the batch that was given.
        origin: For each of them the place in that batch of the row that it was made from.
        problems: For each translation that is not kept why, in the same order.
    """

    batch: "pa.RecordBatch"
    origin: list[int]
    problems: list[Problem]


# ------------------------------------------------------------------------------------------------------------- settings
def languages(settings: Translate, region: Region) -> tuple[str, ...]:
    """Into which languages rows are translated, ISO 639-3; never English, which they are in."""
    named = settings.languages or tuple(code for code in region.languages if iso639(code) != ENGLISH)
    return tuple(dict.fromkeys(iso639(code) or code for code in named))


def translator_of(settings: Translate, language: str) -> Translator | None:
    """Who translates into a language, if anybody."""
    models = {iso639(code) or code: name for code, name in settings.models.items()}
    name = models.get(language, settings.default)
    return settings.translators[name] if name else None


def problems(settings: Translate, region: Region) -> list[tuple[tuple[str | int, ...], str]]:
    """What cannot be translated as asked: keys of the recipe, and what is wrong there. Loads and fetches nothing.

    Args:
        settings: The recipe's `translate`.
        region: Whose languages are translated into where the settings name none.
    """
    found: list[tuple[tuple[str | int, ...], str]] = []
    targets = languages(settings, region)
    named = [iso639(code) or code for code in settings.languages]
    by = {language: translator_of(settings, language) for language in targets}
    unsupported = [code for code, model in by.items() if model and not model.endpoint and code not in FLORES]
    rest = ", ".join(code for code in targets if code not in unsupported)
    for language in targets:
        if language == ENGLISH:
            why = "is what the rows are in already"
        elif iso639(language) is None:
            why = "is no language of ISO 639-3"
        elif by[language] is None:
            why = f"has no translator; add translate.models.{language}=NAME, or translate.default=NAME for all"
        elif language in unsupported:
            why = (
                f"is unsupported by NLLB-200; leave it out with translate.languages=[{rest}], or name a translator "
                f"with an endpoint for it, translate.models.{language}=NAME"
            )
        else:
            continue
        key = ("languages", named.index(language)) if named else ()
        found.append((("translate", *key), f"{language} ({name_of(language)}) {why}"))
    if not targets:
        found.append((("translate", "languages"), f"none here, and none in region {region.title!r}; name some: [ind]"))
    elif settings.copies > len(targets):
        found.append((("translate", "copies"), f"{settings.copies}, but there are only {len(targets)} languages"))
    return found


def licenses(settings: Translate) -> list[str]:
    """The licenses of what the translators in use write, as the Hub names them; of NLLB also where none is stated."""
    named = [*settings.models.values(), *filter(None, [settings.default])]
    return sorted({license_ for name in named for license_ in _licenses(settings.translators[name])})


def _licenses(translator: Translator) -> list[str]:
    """The stated one, and that of Meta's checkpoints, which no recipe can state away; all that runs here is NLLB."""
    published = translator.endpoint is None or "nllb-200" in translator.id.casefold()
    stated = [translator.license.lower()] if translator.license else []
    return sorted({*stated, *([NLLB_LICENSE] if published else [])})


def _license(own: str | None, translator: Translator) -> str | None:
    """The license of a translated row: of what it and its translator ask for nothing is lost."""
    found = list(dict.fromkeys(filter(None, [own, *_licenses(translator)])))
    strict = [license_ for license_ in found if license_.lower() not in PERMISSIVE]
    return " AND ".join(strict or found[:1]) or None


# ----------------------------------------------------------------------------------------------------------------- rows
class _Row(NamedTuple):
    """A row on its way into a language."""

    place: int
    language: str
    texts: list[list[Part]]  # the caption, empty if there is none; then the messages
    roles: list[str]  # whose they are

    def slots(self) -> list[str]:
        """What of it is translated."""
        return [part.text for text in self.texts for part in text if part.translate]


def translated(batch: "pa.RecordBatch", settings: Translate, region: Region, path: Path) -> Translated:
    """Translates the English rows of a batch: captions, and conversations turn by turn.

    Each English row (of a row of no stated language its words decide) is replaced by `settings.copies` rows, each in
    one of the languages, drawn by its id: the same in every run, order and process. Rows in other languages stay. Of a
    translated row `id` ends in "#" and its `language`; `license` is also that of its translator; `label` stays, for it
    says what the picture shows; `question`, `options` and `answer`, which no training reads, are null. A row of which
    any text fails a check is left out, with a Problem.

    Models are made once in a process, when they are first needed; each process has its own. What is translated is kept
    at once, so that a job that is killed, and started again with the same file, asks for nothing twice.

    Args:
        batch: Rows, see ggez_hub.data.readers.row_schema; of its columns at least `id`, and `text` or `messages`.
        settings: The recipe's `translate`.
        region: Whose languages are translated into where the settings name none.
        path: The file of translations; made if missing. Processes may share it.

    Raises:
        ConfigError: `problems` finds some.
        InputError: No NLLB checkpoint, or the file cannot be written (disk full).
        HubError: The Hub or an endpoint refuses, or cannot be reached. What is translated is kept.
        DependencyError: A library that a check needs is not installed.
    """
    if said := problems(settings, region):
        raise ConfigError([f"{'.'.join(map(str, key))}: {text}" for key, text in said])
    rows: list[dict[str, Any]] = batch.select([name for name in FILLED if name in batch.schema.names]).to_pylist()
    targets = languages(settings, region)
    jobs = {
        place: list(_jobs(place, row, targets, settings.copies))
        for place, row in enumerate(rows)
        if _english(row, (*targets, *region.languages))
    }
    done: dict[tuple[int, str], list[str] | Why] = {}
    with contextlib.closing(Cache(path)) as kept:
        for language in targets:
            if mine := [job for found in jobs.values() for job in found if job.language == language]:
                outcomes = _into(language, mine, settings, targets, kept)
                done |= {(job.place, language): outcome for job, outcome in zip(mine, outcomes, strict=True)}
    made: list[tuple[int, dict[str, Any]]] = []
    failed: list[Problem] = []
    for place, row in enumerate(rows):
        if place not in jobs:
            made.append((place, row))
        for job in jobs.get(place, ()):
            outcome = done[place, job.language]
            if isinstance(outcome, tuple):
                failed.append(Problem(place, job.language, *outcome))
            else:
                made.append((place, _filled(row, job.language, outcome, settings)))
    return Translated(_replaced(batch, made, jobs.keys()), [place for place, _ in made], failed)


def _english(row: dict[str, Any], plausible: Sequence[str]) -> bool:
    if language := (row.get("language") or "").strip():
        return iso639(language) == ENGLISH
    said = [row.get("text"), *(message["content"] for message in row.get("messages") or [])]
    return not other_language(" ".join(filter(None, said)), ENGLISH, plausible)


def _jobs(place: int, row: dict[str, Any], targets: Sequence[str], copies: int) -> Iterator[_Row]:
    """A row in each of the languages that its id draws."""
    messages = row.get("messages") or []
    roles = ["caption", *(message["role"] or "" for message in messages)]
    texts = [parts(plain(text or "")) for text in (row.get("text"), *(message["content"] for message in messages))]
    asked = [part.text for role, text in zip(roles, texts, strict=True) if role == "user" for part in _options(text)]
    options = {_bare(text).casefold(): _bare(text) for text in asked}
    texts = [[new for part in text for new in _as_option(part, options)] for text in texts]
    name = row.get("id") or json.dumps([row.get("text"), messages])
    drawn = sorted(targets, key=lambda code: hashlib.sha256(f"{name}\n{code}".encode()).digest())[:copies]
    return (_Row(place, language, texts, roles) for language in targets if language in drawn)


def _options(text: list[Part]) -> list[Part]:
    """The options A, B, ... that a text lists."""
    found = [part for part in text if part.letter]
    return found if len(found) > 1 and [p.letter for p in found] == list(LETTERS[: len(found)]) else []


def _bare(text: str) -> str:
    return text.rstrip(".")


def _as_option(part: Part, options: dict[str, str]) -> list[Part]:
    """A part; where it repeats an option written as that is, so that it comes out as it does."""
    bare = _bare(part.text)
    option = options.get(bare.casefold()) if part.translate else None
    return [part._replace(text=option), Part(part.text[len(bare) :], False)] if option else [part]


def _into(
    language: str, rows: Sequence[_Row], settings: Translate, targets: Sequence[str], kept: Cache
) -> list[list[str] | Why]:
    """What becomes of each row: its texts in the language, or what is wrong with them."""
    translator = translator_of(settings, language)
    assert translator  # noqa: S101 -- for the type checker
    by = model(translator)
    cut = {text: by.units(text) for row in rows for text in row.slots()}
    done = _units([unit for found in cut.values() for unit in found], language, by, kept)
    outcomes = [_assembled(row, cut, done, settings, targets) for row in rows]
    if settings.min_back is None:
        return outcomes
    used = [
        [unit for text in row.slots() for unit in cut[text]] if isinstance(outcome, list) else []
        for row, outcome in zip(rows, outcomes, strict=True)
    ]
    back = cached(by, dict.fromkeys(str(done[unit]) for found in used for unit in found), language, ENGLISH, kept)
    return [
        _lost(found, [back[str(done[unit])] for unit in found], settings.min_back) or outcome
        for found, outcome in zip(used, outcomes, strict=True)
    ]


def _units(texts: Iterable[str], language: str, by: Model, kept: Cache) -> dict[str, str | Why]:
    """What each unit is in a language. One that loses its placeholders is translated again in pieces between them."""
    done = {
        text: _checked(text, answer, language) for text, answer in cached(by, texts, ENGLISH, language, kept).items()
    }
    # Each as [words, placeholder, words, ...].
    lost = {
        text: AT_PLACEHOLDERS.split(text)
        for text, found in done.items()
        if isinstance(found, tuple) and found[0] == PLACEHOLDERS and PROTECTED.search(text)
    }
    words = [piece.strip() for found in lost.values() for piece in found[::2] if says(piece)]
    new = cached(by, words, ENGLISH, language, kept)
    for text, found in lost.items():
        said = [new.get(piece.strip(), Answer("")) if i % 2 == 0 else Answer("") for i, piece in enumerate(found)]
        whole = "".join(
            piece.replace(piece.strip(), answer.text) if answer.text else piece
            for piece, answer in zip(found, said, strict=True)
        )
        done[text] = _checked(text, next((answer for answer in said if answer.problem), Answer(whole)), language)
    return done


def _checked(source: str, answer: Answer, language: str) -> str | Why:
    if answer.problem:
        return "there is no translation", shown(answer.problem)
    return wrong(source, answer.text, language) or answer.text


def _assembled(
    row: _Row, cut: dict[str, list[str]], done: dict[str, str | Why], settings: Translate, targets: Sequence[str]
) -> list[str] | Why:
    """The texts of a row in its language, or what is wrong with them."""
    new: dict[str, str] = {}
    for text in row.slots():
        found = [done[unit] for unit in cut[text]]
        if why := next((unit for unit in found if isinstance(unit, tuple)), None):
            return why
        new[text] = ("" if row.language in NO_SPACES else " ").join(map(str, found))
    if not new:
        return "it has nothing to translate", ""
    texts = ["".join(new[part.text] if part.translate else part.text for part in text) for text in row.texts]
    if detail := _letters_changed(row, texts):
        return "the letter of an answer changed", detail
    # Names that stay as they are say nothing, unless there is nothing else.
    said = " ".join([text for source, text in new.items() if text != source] or new.values())
    if settings.check_language and (other := other_language(said, row.language, targets)):
        return "it is in another language", other
    return texts


def _letters_changed(row: _Row, texts: Sequence[str]) -> str:
    """Which letters of options an answer no longer names, or names on top. A and I before a word may be words."""
    letters = ""
    for role, before, after in zip(row.roles, row.texts, texts, strict=True):
        if role == "user":
            letters = "".join(option.letter for option in _options(before))
        if role == "assistant" and letters:
            alone = rf"(?<![{LATIN}])(?:[{letters}](?<![AI])|[{letters}](?!\s+\w\w))(?![{LATIN}])"
            named = Counter(re.findall(alone, "".join(part.text for part in before)))
            there = Counter(re.findall(alone.replace(r"(?!\s+\w\w)", ""), after))
            words = Counter({"A": there["A"], "I": there["I"]})  # as which they are never new
            if detail := changed(named - there, there - named - words):
                return detail
    return ""


def _lost(units: Sequence[str], back: Sequence[Answer], least: float) -> Why | None:
    """Whether too little of some units comes back."""
    if problem := next((answer.problem for answer in back if answer.problem), ""):
        return "it cannot be translated back", shown(problem)
    score = likeness(" ".join(answer.text for answer in back), " ".join(units)) if units else 1.0
    return None if score >= least else ("too little of it comes back", f"chrF {score:.2f} < {least:g}")


def _filled(row: dict[str, Any], language: str, texts: list[str], settings: Translate) -> dict[str, Any]:
    """A row in a language."""
    translator = translator_of(settings, language)
    messages = row.get("messages")
    return {
        "id": None if row.get("id") is None else f"{row['id']}#{language}",
        "text": texts[0] if row.get("text") else row.get("text"),
        "messages": messages
        and [message | {"content": text} for message, text in zip(messages, texts[1:], strict=True)],
        "language": language,
        "license": _license(row.get("license"), translator) if translator else row.get("license"),
    }


def _replaced(
    batch: "pa.RecordBatch", made: Sequence[tuple[int, dict[str, Any]]], translated: Collection[int]
) -> "pa.RecordBatch":
    """The rows that are made, with the other columns of the rows at those places."""
    import pyarrow as pa

    origin = [place for place, _ in made]
    taken = batch.take(pa.array(origin, pa.int64()))
    columns = dict(zip(taken.schema.names, taken.columns, strict=True))
    for name in FILLED:
        values = [row.get(name) for _, row in made]
        if name in columns or any(value is not None for value in values):
            kind = columns[name].type if name in columns else row_schema().field(name).type
            columns[name] = pa.array(values, kind)
    for name in {"question", "options", "answer"} & columns.keys():
        places = [None if place in translated else i for i, place in enumerate(origin)]
        columns[name] = columns[name].take(pa.array(places, pa.int64()))
    return pa.RecordBatch.from_pydict(columns)
