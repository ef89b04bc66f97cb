"""Texts that are translated: taken apart into units, and compared with what came of them. Source is English."""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from ggez_hub.data.languages import ENGLISH, NEAR, NO_SPACES, SAME, SCRIPTS, SHARED, name_of, script_of
from ggez_hub.errors import DependencyError

CHINESE_DIGITS = {c: str(i) for i, c in enumerate("〇一二三四五六七八九十")} | {"两": "2", "兩": "2"}
SCALES = {  # words that make a number larger, and the zeros that they stand for
    word: zeros
    for zeros, words in {
        2: "hundred 百", 3: "thousand ribu libo nghìn ngàn พัน ພັນ ពាន់ ထောင် 千", 4: "หมื่น ໝື່ນ ម៉ឺន သောင်း 万 萬",
        5: "แสน ແສນ សែន သိန်း", 6: "million juta triệu milyon ล้าน ລ້ານ លាន သန်း மில்லியன் 百万 百萬", 7: "千万 千萬",
        8: "亿 億", 9: "billion miliar bilion tỷ bilyon", 12: "trillion triliun trilyon",
    }.items()
    for word in words.split()
}  # fmt: skip
BUDDHIST = ("khm", "lao", "tha")  # languages in which years may be counted from the Buddha, 543 years earlier
DENSE = (*NO_SPACES, "kor")  # a character says more than one of an alphabet
LONGEST, SHORTEST = 3.0, 0.3  # of a translation, relative to a text of more than a few words
FEW = 40  # characters
SHORT, LONG = 10, 80  # letters from which the language of a text can be told: from an unrelated, a related one
CERTAIN = 0.9  # probability that a text is in another language
NAME_WORDS = 4  # words of a text that may be a name, and stay as it is


# ----------------------------------------------------------------------------------------------------------------- text
_TAG = r"<\|[^<>\n]{1,100}\|>|</?[A-Za-z!][^<>\n]{0,300}>"
_EMOJI = "[\U0001f000-\U0001faff\u2600-\u27bf][\U0001f000-\U0001faff\u2600-\u27bf\ufe0f\u200d]*"
_AROUND = re.compile(f"{_TAG}|{_EMOJI}")  # what may stand after a sentence
PROTECTED = re.compile(  # what has to come out as it went in
    rf"""{_TAG}|{_EMOJI}
    |`[^`\n]+`
    |(?:https?://|www\.)(?:(?=[!-~])[^\s<>"])*(?=[!-~])[^\s<>".,;:!?)\]}}'’]
    |(?<![A-Za-z0-9_.+-])[A-Za-z0-9_.+-]{{1,64}}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+
    |\$?\{{\{{?[\w.: -]*\}}?\}}
    |%(?:\(\w+\)|\d+\$)?[-+0\#]?\d*(?:\.\d+)?[sdifgxXc](?![A-Za-z])
    |\$(?=\S)(?=[^$\n]*[\\^_=])[^$\n]+\$
    |\\\([^\n]{{0,300}}?\\\)""",
    re.VERBOSE,
)
AT_PLACEHOLDERS = re.compile(f"({PROTECTED.pattern})", re.VERBOSE)
_BEFORE = re.compile(  # spaces, tags, and marks of lists
    rf"(?:\s+|{_TAG}|{_EMOJI}|(?:[-*•>]|\#{{1,6}}|\d{{1,3}}[.)]|\(?([A-Za-z])[.):])\s+)*"
)
_OPTION = re.compile(r"(?<!\S)\(?([A-Z])[.):]\s+")
_LONE = re.compile(r"[(\[]?[A-Za-z][)\]]?[.):]?")  # the letter of an option
_END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]]*(\s+)(?=[\"'“‘(\[]*[A-Z\d<{])")
_SHORTENED = re.compile(
    r"(?:Mr|Mrs|Ms|Dr|Prof|St|Mt|No|Fig|Figs|Eq|vs|etc|approx|ca|cf|al|Jr|Sr|Gen|Col|Capt|Inc|Ltd|Co|[A-Za-z]"
    r"|(?:[A-Za-z]\.)+[A-Za-z])"
)


class Part(NamedTuple):
    """A stretch of a text.

    Attributes:
        text: Its characters; those of all parts are the text.
        translate: Whether it is for the model.
        letter: Of an option, its letter; else empty.
    """

    text: str
    translate: bool
    letter: str = ""


def parts(text: str) -> list[Part]:
    """Takes a text apart into what is translated and what stays: marks of lists, code, tags at the ends, spaces."""
    found: list[Part] = []
    in_code = False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("```"):
            in_code = not in_code
            found.append(Part(line, False))
        elif in_code:
            found.append(Part(line, False))
        else:
            for piece in _at_options(line):
                found += _inner(piece)
    return found


def _at_options(line: str) -> list[str]:
    """A line cut before each of the options A, B, ... that stand in it."""
    marks = list(_OPTION.finditer(line))
    if len(marks) < 2 or [mark[1] for mark in marks] != [chr(ord("A") + i) for i in range(len(marks))]:
        return [line]
    places = [0, *(mark.start() for mark in marks), len(line)]
    return [line[start:end] for start, end in itertools.pairwise(places) if start < end]


def _inner(piece: str) -> Iterator[Part]:
    """A piece of a line as: what stays, what is translated, what stays."""
    before = _BEFORE.match(piece)
    start, end = before.end() if before else 0, len(piece.rstrip())
    for found in reversed(list(_AROUND.finditer(piece, start))):
        if piece[found.end() : end].strip():
            break
        end = len(piece[: found.start()].rstrip())
    if not says(piece[start:end]):
        yield Part(piece, False)
        return
    yield Part(piece[:start], False)
    yield Part(piece[start:end], True, (before and before[1]) or "")
    yield Part(piece[end:], False)


def says(text: str) -> bool:
    """Whether there is anything to translate: a letter outside what is protected, and more than an option's."""
    return not _LONE.fullmatch(text.strip()) and any(map(str.isalpha, PROTECTED.sub(" ", text)))


def sentences(text: str) -> Iterator[str]:
    """The sentences of an English text."""
    start = 0
    for end in _END.finditer(text):
        last = text[start : end.start()].rpartition(" ")[2].lstrip("([\"'“‘")
        if not (end[0].startswith(".") and _SHORTENED.fullmatch(last)):
            yield text[start : end.start(1)]
            start = end.end()
    yield text[start:]


def units(text: str, fits: Callable[[str], bool], several: bool) -> list[str]:
    """Cuts one line of English into what is translated at once; with spaces between, they are the line.

    Args:
        text: The line.
        fits: Whether a text is short enough. One word is not cut, whether it fits or not.
        several: Whether a unit may hold several sentences.
    """
    text = " ".join(text.split())
    if several and fits(text):
        return [text]
    found = []
    for sentence in sentences(text):
        if fits(sentence):
            found.append(sentence)
            continue
        for clause in _packed(re.split(r"(?<=[,;:])\s", sentence), fits):
            found += [clause] if fits(clause) else _packed(clause.split(" "), fits)
    return list(_packed(found, fits)) if several else found


def _packed(pieces: Iterable[str], fits: Callable[[str], bool]) -> Iterator[str]:
    """Joins neighbours as long as they fit."""
    held = ""
    for piece in pieces:
        if held and not fits(f"{held} {piece}"):
            yield held
            held = ""
        held = f"{held} {piece}" if held else piece
    if held:
        yield held


def plain(text: str) -> str:
    """A text without control characters."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


# --------------------------------------------------------------------------------------------------------------- checks
PLACEHOLDERS = "a placeholder, tag or address changed"
_NUMBER = re.compile(
    rf"(\d+(?:[.,\u00a0\u202f]\d{{3}})*)(?:[.,](\d+))?(?:\s?({'|'.join(sorted(SCALES, key=len, reverse=True))}))?",
    re.IGNORECASE,
)
_REPEATED = re.compile(r"(.{2,80}?)\1{5,}", re.DOTALL)
_WORDS_OF_NUMBERS = re.compile(
    r"\b(?:one|once|two|twice|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|fo?u?rty"
    r"|fifty|sixty|seventy|eighty|ninety|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundreds?"
    r"|thousands?|millions?|billions?|dozens?|pair|couple|both|single|half|quarter|noon|midnight)\b",
    re.IGNORECASE,
)
_ENGLISH_WORDS = re.compile(
    r"^a\b|(?-i:\ba\b)|\b(?:the|an|of|in|on|at|and|or|is|are|was|were|with|for|from|this|that|what|which|who|how|where"
    r"|yes|not?)\b",
    re.IGNORECASE,
)


def wrong(source: str, target: str, language: str) -> tuple[str, str] | None:
    """What is wrong with a translation, as far as its characters tell: (reason, detail), or None.

    Args:
        source: One line of English.
        target: Its translation.
        language: That was asked for, ISO 639-3.
    """
    if not target.strip():
        return "nothing came back", ""
    if detail := changed(Counter(PROTECTED.findall(source)), Counter(PROTECTED.findall(target))):
        return PLACEHOLDERS, detail
    own, other = PROTECTED.sub(" ", source), PROTECTED.sub(" ", target)
    if detail := changed_numbers(own, other, language):
        return "a number changed", detail
    if _words(own) == _words(other) and not _may_stay(own):
        return "it is not translated", shown(target)
    if (repeated := _REPEATED.search(other)) and repeated[1].strip() and not _REPEATED.search(own):
        return "it repeats itself", shown(repeated[1])
    if len(target) > LONGEST * len(source) + FEW:
        return "it is too long", f"{len(source)} characters became {len(target)}"
    if len(source) > FEW and len(target) < SHORTEST * len(source) * (0.4 if language in DENSE else 1):
        return "it is too short", f"{len(source)} characters became {len(target)}"
    return None


def changed(before: Counter[str], after: Counter[str]) -> str:
    """What is missing or new, in words; nothing where all is as it was."""
    return "; ".join(
        f"{word} {shown(', '.join(lost.elements()))}"
        for word, lost in (("lost", before - after), ("new", after - before))
        if lost
    )


def changed_numbers(source: str, target: str, language: str) -> str:
    """Which numbers in digits were lost or are new; nothing where they are the same.

    Digits of any script count alike, and so do ways to set thousands and decimals apart, thousands and millions in
    words or in digits, and years of the Buddhist era. A number that the source spells out in words may come out in
    digits; in Chinese one digit may become its character.
    """
    source, target = (
        "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text) for text in (source, target)
    )
    runs = [Counter(run.lstrip("0") or "0" for run in re.findall(r"\d+", text)) for text in (source, target)]
    if runs[0] == runs[1]:
        return ""
    for scaled in (True, False):
        before, after = _numbers(source, scaled), _numbers(target, scaled)
        lost, new = before - after, after - before
        if language in BUDDHIST:
            years = {year: str(int(year) + 543) for year in lost if len(year) == 4}
            same = {year: min(lost[year], new[era]) for year, era in years.items() if era in new}
            lost, new = lost - Counter(same), new - Counter({years[year]: count for year, count in same.items()})
        if language in NO_SPACES:
            lost -= Counter(CHINESE_DIGITS[c] for c in target if c in CHINESE_DIGITS)
        if _WORDS_OF_NUMBERS.search(source):
            new.clear()
        if not lost and not new:
            return ""
    return changed(lost, new)


def _numbers(text: str, scaled: bool) -> Counter[str]:
    """The numbers in a text as digits alone; scaled = "1.5 million" as 1500000."""
    found: Counter[str] = Counter()
    for whole, decimals, scale in _NUMBER.findall(text):
        zeros = SCALES.get(scale.casefold(), 0) if scaled else 0
        found[(re.sub(r"\D", "", whole) + decimals.ljust(zeros, "0")).lstrip("0") or "0"] += 1
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _may_stay(text: str) -> bool:
    """Whether a text may be a name, which is the same in other languages."""
    words = text.split()
    return len(words) <= NAME_WORDS and text.strip()[:1].isupper() and not _ENGLISH_WORDS.search(text)


def shown(text: str) -> str:
    """The beginning of a text, for a message."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def other_language(text: str, language: str, plausible: Iterable[str] = ()) -> str:
    """Which other language or script a text is in than the one asked for; nothing where it may be in that one.

    The script decides for languages that have one of their own (Thai, Khmer, Tamil, ...). For the others py3langid
    does, which knows about 140 languages, between English, the one asked for and `plausible` ones. What it cannot know
    is no error: few letters, close relatives in short texts (Malay and Javanese), Indonesian and Malay in any.

    Args:
        text: What came back.
        language: That was asked for, ISO 639-3.
        plausible: Others that it could be in.

    Raises:
        DependencyError: py3langid is not installed.
    """
    text = PROTECTED.sub(" ", text)
    scripts = Counter(_script_of(c) for c in text if c.isalpha())
    letters = scripts.total()
    if not letters:
        return ""
    expected, most = script_of(language), scripts.most_common(1)[0][0]
    kana = scripts["HIRAGANA"] + scripts["KATAKANA"]
    if expected in ("Hans", "Hant") and kana > letters / 10:
        return "Japanese"
    if 2 * sum(scripts[name] for name in SCRIPTS[expected].split()) < letters:
        return f"{most.capitalize()} letters"
    if expected not in SHARED or letters < SHORT:
        return ""
    known = _identifier()
    scores = dict(known.rank(text))
    found = {code: scores[label] for code in {ENGLISH, language, *plausible} if (label := _label(code)) in scores}
    if found.keys() == {ENGLISH} != {language}:  # nothing to compare with but all other languages
        return name_of(ENGLISH) if max(scores, key=scores.__getitem__) == _label(ENGLISH) else ""
    best, total = max(found, key=lambda code: found[code]), sum(found.values())
    # Of a language that it does not know it can only say that a text is not in English.
    fine = {language} if language in found else found.keys() - {ENGLISH}
    for group in SAME if letters >= LONG else (*SAME, *NEAR):
        fine |= set(group.split()) if language in group.split() else set()
    # English is what a model writes that did not translate: the likelier of the two is enough.
    if language != ENGLISH and found.get(ENGLISH, 0) >= total / 2:
        return name_of(ENGLISH)
    return name_of(best) if sum(found[code] for code in fine & found.keys()) < (1 - CERTAIN) * total else ""


@cache
def _script_of(character: str) -> str:
    return unicodedata.name(character, "UNKNOWN").split()[0]


@cache
def _label(language: str) -> str:
    """What py3langid calls a language: by two letters where there are such."""
    import pycountry

    found = pycountry.languages.get(alpha_3=language)
    return {"fil": "tl", "zsm": "ms"}.get(language) or str(getattr(found, "alpha_2", language))


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as err:
        raise DependencyError("checking languages needs py3langid", 'pip install "ggez_hub[translate]"') from err
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def likeness(back: str, source: str) -> float:
    """How much of a text came back, 0..1: chrF as sacrebleu computes it, without regard to case.

    Raises:
        DependencyError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as err:
        raise DependencyError("translating back needs sacrebleu", 'pip install "ggez_hub[translate]"') from err
    return float(CHRF(lowercase=True).sentence_score(back, [source]).score) / 100
