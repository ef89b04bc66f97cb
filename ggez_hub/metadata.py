"""The front matter of a model card: read safely, and checked without a network by a part of what the Hub checks."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from ggez_hub.errors import InputError, did_you_mean

MAX_SIZE = 2**20  # characters of a front matter
MAX_DEPTH = 20  # of what is nested in it
MAX_TAGS = 100
BLOCK = re.compile(r"\s*---\r?\n(.*?)^---[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE)
HUB_ID = re.compile(r"(?=.{3,193}$)(?!.*(--|\.\.))[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")  # as in schema.Name
RELATIONS = ("adapter", "merge", "quantized", "finetune")

# What the Hub knows: its page on licenses, and the pipelines of its library of tasks. Languages are those of ISO 639.
LICENSES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research
    intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit
    mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openmdw-1.1 openrail openrail++ osl-3.0 other pddl postgresql
    unknown unlicense wtfpl zlib
    """.split()  # noqa: SIM905 -- as words they stay readable
)
PIPELINE_TAGS = frozenset(
    """
    any-to-any audio-classification audio-text-to-text audio-to-audio automatic-speech-recognition biology
    depth-estimation document-question-answering feature-extraction fill-mask graph-ml image-classification
    image-feature-extraction image-segmentation image-text-to-image image-text-to-text image-text-to-video image-to-3d
    image-to-image image-to-text image-to-video keypoint-detection mask-generation multiple-choice object-detection
    other question-answering reinforcement-learning robotics sentence-similarity summarization
    table-question-answering table-to-text tabular-classification tabular-regression tabular-to-text text-classification
    text-generation text-ranking text-retrieval text-to-3d text-to-audio text-to-image text-to-speech text-to-video
    text2text-generation time-series-forecasting token-classification translation unconditional-image-generation
    video-classification video-text-to-text video-to-video visual-document-retrieval visual-question-answering
    voice-activity-detection zero-shot-classification zero-shot-image-classification zero-shot-object-detection
    """.split()  # noqa: SIM905 -- as words they stay readable
)


# ------------------------------------------------------------------------------------------------------------- reading
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain data only; a key given twice is an error, as it is for the Hub."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} given twice", key.start_mark)
            seen.add(key.value)
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


def split(text: str) -> tuple[str, str]:
    """A card's front matter as YAML, and the Markdown after it.

    Raises:
        InputError: There is no front matter.
    """
    found = BLOCK.match(text)
    if not found:
        raise InputError("front matter: found none, expected a card that begins with --- YAML ---")
    return found[1], text[found.end() :]


def read(text: str) -> dict[str, Any]:
    """The front matter of a card, from wherever it comes, as plain data. What it says is not checked.

    Args:
        text: The whole card.

    Returns:
        The mapping; it holds nothing that JSON could not hold as well, except dates.

    Raises:
        InputError: None there, too large, too deep, no mapping, no YAML, or YAML with anchors, aliases or tags.
    """
    block, _ = split(text)
    if len(block) > MAX_SIZE:
        raise InputError(f"front matter: found {len(block)} characters, expected at most {MAX_SIZE}")
    depth = 0
    try:
        for event in yaml.parse(block, Loader=_Loader):
            # An alias can stand for a thousand others; a tag can ask for any kind of value.
            if getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise InputError("front matter: found an anchor, alias or tag (& * !), expected plain YAML")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise InputError(f"front matter: found more than {MAX_DEPTH} levels, expected fewer")
        data = _Loader(block).get_single_data()
        json.dumps(data, default=str)  # refuses numbers of thousands of digits and keys that are no text
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None) or getattr(err, "context_mark", None)
        where = f", line {mark.line + 2}" if mark else ""
        raise InputError(f"front matter{where}: {getattr(err, 'problem', None) or err}, expected YAML") from err
    except (ValueError, TypeError) as err:  # a date of month 13, a number too long
        raise InputError(f"front matter: {err}, expected YAML") from err
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise InputError(f"front matter: found {_short(data)}, expected a mapping whose keys are text")
    return data


# ------------------------------------------------------------------------------------------------------------ checking
Problem = tuple[str, Any, str]  # key, what was found there, what was expected
Check = Callable[[str, Any], Iterator[Problem]]  # of a key and its value


def problems(text: str) -> list[str]:
    """What is wrong with the front matter of a card.

    Args:
        text: The whole card.

    Returns:
        One line each: the key, what was found, what was expected. Keys that are not known here are not looked at.
    """
    try:
        data = read(text)
    except InputError as err:
        return [err.message]
    found = [problem for key, check in CHECKS.items() if key in data for problem in check(key, data[key])]
    if data.get("license") == "other" and "license_name" not in data:
        found.append(("license_name", None, "the name of the license, as license is 'other'"))
    return [f"{key}: found {_short(value)}, expected {expected}" for key, value, expected in found]


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _clean(value: Any) -> bool:
    """Whether a value is text in one line, without control characters."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value)
    )


def _finite(value: Any, low: float = -1e300, high: float = 1e300) -> bool:
    """Whether a value is a number within these bounds; NaN is within none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_finite, value)) and value[0] <= value[1]


def _is(good: Callable[[Any], bool], expected: str) -> Check:
    def check(key: str, value: Any) -> Iterator[Problem]:
        if not good(value):
            yield key, value, expected

    return check


def _known(names: frozenset[str], what: str) -> Check:
    def check(key: str, value: Any) -> Iterator[Problem]:
        if not isinstance(value, str) or value not in names:
            yield key, value, f"{what}{did_you_mean(str(value), names)}"

    return check


def _some(good: Callable[[Any], bool], expected: str) -> Check:
    """One thing, or a list of such."""

    def check(key: str, value: Any) -> Iterator[Problem]:
        if not isinstance(value, list) and not good(value):
            yield key, value, f"{expected}, or a list of such"
        for i, one in enumerate(value) if isinstance(value, list) else ():
            if not good(one):
                yield f"{key}[{i}]", one, expected

    return check


def _tags(key: str, value: Any) -> Iterator[Problem]:
    if not isinstance(value, list) or len(value) > MAX_TAGS:
        yield key, value, f"a list of at most {MAX_TAGS}"
    else:
        yield from _some(_clean, "a line of text")(key, value)


def is_hub_id(value: Any) -> bool:
    """Whether a value can be the name of a repository, ``namespace/name``."""
    return isinstance(value, str) and HUB_ID.fullmatch(value) is not None and not value.endswith((".git", "-", "."))


def _is_language(value: Any) -> bool:
    import pycountry

    if not isinstance(value, str) or not re.fullmatch("[a-z]{2,3}", value):
        return value in ("code", "multilingual")
    return pycountry.languages.get(**{f"alpha_{len(value)}": value}) is not None


def _parts(key: str, value: Any, checks: dict[str, Check], optional: frozenset[str] = frozenset()) -> Iterator[Problem]:
    """What is wrong with a mapping that has these keys, and maybe others."""
    if not isinstance(value, dict):
        yield key, value, "a mapping"
        return
    for name, check in checks.items():
        if name in value:
            yield from check(f"{key}.{name}", value[name])
        elif name not in optional:
            yield f"{key}.{name}", None, "this key"


def _each(checks: dict[str, Check]) -> Check:
    def check(key: str, value: Any) -> Iterator[Problem]:
        if not isinstance(value, list) or not value:
            yield key, value, "a list that is not empty"
            return
        for i, one in enumerate(value):
            yield from _parts(f"{key}[{i}]", one, checks)

    return check


def _of(checks: dict[str, Check]) -> Check:
    return lambda key, value: _parts(key, value, checks)


TEXT = _is(_clean, "a line of text")
NUMBER = _is(_finite, "a finite number")
FRACTION = _is(lambda value: _finite(value, 0, 1), "a number from 0 to 1")
INTERVAL = _is(_interval, "two finite numbers, the lower one first")
NAMED = _is(
    lambda value: isinstance(value, str) and NAME.fullmatch(value) is not None,
    "a name of small letters, digits and . _ -",
)
GGEZ: dict[str, Check] = {
    "artefact": _is(lambda value: value in ("adapter", "merged"), "adapter or merged"),
    "family": NAMED,
    "region": NAMED,
    "alpha": FRACTION,
    "gain": _is(lambda value: _finite(value, -1), "a finite number of at least -1"),
    "gain_ci95": INTERVAL,
    "retention": _is(lambda value: _finite(value, 0), "a finite number of at least 0"),
    "retention_ci95": INTERVAL,
    "grp": FRACTION,
    "synthetic": _is(lambda value: isinstance(value, bool), "true or false"),
    "data_licenses": _some(_clean, "a line of text"),
    "below_gate": _is(lambda value: value is True, "true, or not to be there"),
}
OPTIONAL = frozenset(  # absent without one
    ("gain", "gain_ci95", "retention", "retention_ci95", "grp", "data_licenses", "below_gate")
)


def _ggez(key: str, value: Any) -> Iterator[Problem]:
    yield from _parts(key, value, GGEZ, OPTIONAL)
    for name in value if isinstance(value, dict) else ():
        if name not in GGEZ:
            yield f"{key}.{name}", value[name], f"a known key{did_you_mean(str(name), GGEZ)}"


_LANGUAGE = "a language code of ISO 639-1 or 639-3, in quotes where it is 'no'"
_HUB_IDS = "a model's id on the Hub, namespace/name"
CHECKS: dict[str, Check] = {
    "language": _some(_is_language, _LANGUAGE),
    "license": _known(LICENSES, "one of the Hub's license ids, or other with a license_name"),
    "license_name": TEXT,
    "license_link": TEXT,
    "library_name": TEXT,
    "pipeline_tag": _known(PIPELINE_TAGS, "one of the Hub's pipeline tags"),
    "tags": _tags,
    "base_model": _some(is_hub_id, _HUB_IDS),
    "base_model_relation": _is(lambda value: value in RELATIONS, f"one of {', '.join(RELATIONS)}"),
    "model-index": _each(
        {
            "name": TEXT,
            "results": _each(
                {
                    "task": _of({"type": TEXT}),
                    "dataset": _of({"type": TEXT, "name": TEXT}),
                    "metrics": _each({"type": TEXT, "value": NUMBER}),
                }
            ),
        }
    ),
    "ggez": _ggez,
}
