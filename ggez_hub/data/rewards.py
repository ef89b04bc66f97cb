"""Reward models: how good a picture and its text are to learn from (paper, sections 4.1 and 5.1).

A row in MODELS says how a model is loaded, what it reads and on which scale it answers. Where that is not 1 to 5, its
scores become 1 to 5 by their percentile among all rows (`calibrated`). The paper's own protocol finds these models in
agreement with people less often than a coin (table 7), so a reward is weak evidence: look at what was dropped.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from ggez_hub.data import image_reward, images
from ggez_hub.data.conversations import IMAGE
from ggez_hub.data.filters import Outcome, Rule
from ggez_hub.data.similarity import Embedder, embedded_pictures
from ggez_hub.endpoint import Answer, Ask, Endpoint
from ggez_hub.errors import ConfigError, HubError, InputError, did_you_mean
from ggez_hub.schema import Reward

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

RAW = "_raw_reward"  # float64: a score on the model's own scale
CHUNK = 128  # rows that are asked together
MAX_TEXT = 20_000  # characters that a model which writes is asked about
MAX_TOKENS = 1024  # of its answer, which lists the elements of the caption before it scores
PATIENCE = 64  # questions in a row that an endpoint may leave without an answer

# In the layout that UnifiedReward was trained with, in our own words.
CAPTION = """\
You see a picture and the text caption that goes with it. Judge the picture by two criteria:
1. Fit with the caption: do the objects in the picture, how they relate, and their attributes agree with the caption?
2. Quality of the picture: is it clear and rich in detail, are its colors right, is it good to look at?
List the key elements of the caption as 'element (type): value', where value is 1 if the picture shows the element and \
0 if it does not. Then give a score from 1 to 5 after 'Final Score:'.
Your task is as follows:
Text Caption: [{caption}]"""
THREE = """\
You see a picture and the text caption that goes with it. Judge the picture in relation to the caption:
1. Score each word of the caption; the worse the picture shows it, the higher. [No_mistakes] stands for the whole \
caption: the more of it is shown, the higher. Write them as
   Word-wise Scores: [["word1", score1], ..., ["wordN", scoreN], ["[No_mistakes]", scoreM]]
2. Then score the whole picture, each from 1 to 5, in three lines:
Alignment Score (1-5): how well what it shows agrees with the caption
Coherence Score (1-5): how free it is of errors and of distorted objects
Style Score (1-5): how good it looks, whatever the caption says
Your task is as follows:
Text Caption: [{caption}]"""
CONVERSATION = """\
You see a picture, and a question about it with a response. Judge the response by five criteria:
1. Objects: does it describe those in the picture rightly, and name none that are not there?
2. Relations: does it say rightly how they stand to each other?
3. Attributes: does it say rightly what they are like?
4. Helpfulness: does it do what was asked, and help to understand the picture?
5. Ethics: is it fair to people and communities, harmless, and does it keep what is private?
Judge by all five together, not by a single one. Explain in a few lines, then give a score from 0 to 100 after \
'Final Score:'.
Your task is as follows:
{turns}"""


class Seen(NamedTuple):
    """What a model sees of a row."""

    picture: bytes
    caption: str
    turns: tuple[tuple[str, str], ...]  # of its conversation: question and answer


class Score(NamedTuple):
    """What a model says of a row."""

    value: float | None
    problem: str = ""  # why there is none


class Models(Protocol):
    """What loads models: the module ggez_hub.families, which data cannot import and stages can."""

    def embedder(self, name: str, revision: str | None = None) -> Embedder:
        """See ggez_hub.families.embedder."""

    def writer(self, name: str, revision: str | None = None) -> Callable[[Sequence[tuple[bytes, str]], int], list[str]]:
        """See ggez_hub.families.writer."""


Asker = Callable[[Sequence[Seen]], list[Score]]


@dataclass(frozen=True)
class Model:
    """A reward model.

    Attributes:
        title: What it is called.
        load: Makes a function that scores rows.
        reads: Of a row with a conversation: that, or its caption all the same (and what is answered, without one).
        calibrated: Whether it answers on a scale of 1 to 5.
        id: Its weights on the Hub; None = they have to be given.
        license: Of these, as the Hub names it; None = not known.
        served: What an endpoint calls it by default; None = it writes nothing, so there is none for it.
        prompt: What a model that writes is asked of a caption.
        hint: Where the weights come from, where not from `id`.
        synthetic: Whether its scores say nothing of quality.
    """

    title: str
    load: "Callable[[Model, Reward, Models], Asker]"
    reads: Literal["caption", "conversation"]
    calibrated: bool
    id: str | None = None
    license: str | None = None
    served: str | None = None
    prompt: str = ""
    hint: str | None = None
    synthetic: bool = False


@dataclass(frozen=True)
class Scorer:
    """A loaded reward model."""

    model: Model
    ask: Asker


# ---------------------------------------------------------------------------------------------------- models that write
def _writing(model: Model, settings: Reward, models: Models) -> Asker:
    """One that says its score in words: behind an endpoint, or a vision-language model in this process."""
    if settings.endpoint:
        return _Asking(Endpoint(settings.endpoint, settings.id or model.served or "", workers=16), model)
    write = models.writer(settings.id or model.id or "", settings.revision)

    def score(rows: Sequence[Seen]) -> list[Score]:
        answers = write([(row.picture, _prompt(model, row)) for row in rows], MAX_TOKENS)
        return [_said(answer, row) for answer, row in zip(answers, rows, strict=True)]

    return score


@dataclass
class _Asking:
    """Asks an endpoint, and gives up one that answers nothing at all."""

    endpoint: Endpoint
    model: Model
    silent: int = 0  # questions since the last answer

    def __call__(self, rows: Sequence[Seen]) -> list[Score]:
        broken = [_broken(row.picture) for row in rows]
        answers = iter(
            self.endpoint.ask(
                [
                    Ask(_prompt(self.model, row), functools.partial(images.decode, row.picture), MAX_TOKENS)
                    for row, problem in zip(rows, broken, strict=True)
                    if not problem
                ]
            )
        )
        return [
            Score(None, problem) if problem else self._heard(next(answers), row)
            for row, problem in zip(rows, broken, strict=True)
        ]

    def _heard(self, answer: Answer, row: Seen) -> Score:
        # What it says of one picture or text, such as that it is too long, is an answer.
        gone = answer.problem and not re.match(r"the server says 4(?!29)", answer.problem)
        self.silent = self.silent + 1 if gone else 0
        if self.silent >= PATIENCE:
            raise HubError(
                f"{self.endpoint.url}, model {self.endpoint.model!r}: no answer to the last {self.silent} questions: "
                f"{answer.problem}",
                "start the server again; the same command goes on with what is not finished",
            )
        return Score(None, answer.problem) if answer.problem else _said(answer.text, row)


def _broken(picture: bytes) -> str:
    """Why a picture cannot be decoded; empty for one that can."""
    try:
        images.decode(picture)
    except images.BrokenImage as err:
        return err.message
    return ""


def _prompt(model: Model, row: Seen) -> str:
    """What a model is asked of a row."""
    if not row.turns:
        return model.prompt.format(caption=row.caption)
    turns = (f"Question: [{question}]\nResponse: [{answer}]" for question, answer in row.turns)
    return CONVERSATION.format(turns="\n".join(turns))


def _said(text: str, row: Seen) -> Score:
    """The score in an answer about a row, 1 to 5.

    Conversations are scored from 0 to 100, and twenty points are one of five, so that 60 is the 3 that the paper keeps;
    what is below 20 is 1.
    """
    if not row.turns:
        return score_in(text)
    found = score_in(text, 0, 100)
    return found if found.value is None else Score(max(1.0, found.value / 20))


_NUMBER = re.compile(
    r"""[\s*_`"'(\[<]*(?P<number>[-+]?[0-9]+(?:\.[0-9]+)?)(?![\w%]|[.,][0-9])[*_`"')\]>]*"""
    r"(?:\s*(?:/|out\ of)\s*(?P<of>[0-9]+(?:\.0+)?)(?!\w))?"
    r"(?P<more>[^\S\n]*(?:[-–—~/,±]|to|or|and)[^\S\n]*[0-9])?"  # a list may follow on the next line
)
_NAMES = ("Final Score", "Alignment Score", "Coherence Score", "Style Score")


def score_in(text: str, least: float = 1, most: float = 5) -> Score:
    """The score that a text gives after its last "Final Score:", or the mean of UnifiedReward 2.0's three scores.

    Nothing is guessed: a range, a number on another scale, or one out of the scale is no score.

    Args:
        text: What a model wrote.
        least: The lowest score.
        most: The highest.
    """
    after = {
        name: text[found[-1].end() :]
        for name in _NAMES
        if (
            found := [
                *re.finditer(rf"(?<![^\W_]){name}(?:\s{{0,9}}\(1\s?[-–]\s?5\))?[*_\s]{{0,9}}[:：]", text, re.IGNORECASE)
            ]
        )
    }
    names = _NAMES[:1] if _NAMES[0] in after else _NAMES[1:]
    if missing := [name for name in names if name not in after]:
        return Score(None, f"no {_NAMES[0] if len(missing) == len(names) else missing[0]} in {_short(text)}")
    values = []
    for name in names:
        number, said = _NUMBER.match(after[name]), f"{name}: {_short(after[name])}"
        if number is None:
            return Score(None, f"no number after {said}")
        if number["more"]:
            return Score(None, f"more than one number after {said}")
        value = float(number["number"])
        if not least <= value <= most or (number["of"] and float(number["of"]) != most):
            return Score(None, f"{said} is not from {least:g} to {most:g}")
        values.append(value)
    return Score(sum(values) / len(values))


def _short(text: str) -> str:
    """The start of a text, fit for a report."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:200]).split())
    return repr(line if len(line) <= 40 else f"{line[:40]} ...")


# --------------------------------------------------------------------------------------------------------- other models
def _matching(model: Model, settings: Reward, models: Models) -> Asker:
    """The cosine of picture and text, as an embedding model has them."""
    embed = models.embedder(settings.id or model.id or "", settings.revision)

    def score(rows: Sequence[Seen]) -> list[Score]:
        pictures = embedded_pictures(embed, [row.picture for row in rows])
        texts = embed.texts([row.caption for row in rows])
        return [
            Score(None, "the picture cannot be read") if picture is None else Score(float(picture @ text))
            for picture, text in zip(pictures, texts, strict=True)
        ]

    return score


def _image_reward(model: Model, settings: Reward, models: Models) -> Asker:
    score = image_reward.load(settings.id or model.id or "", settings.revision)
    return lambda rows: [Score(value) for value in score([(row.picture, row.caption) for row in rows])]


def _stand_in(model: Model, settings: Reward, models: Models) -> Asker:
    return lambda rows: [Score(_properties(row)) for row in rows]


def _properties(row: Seen) -> float:
    """1 to 5: two points for contrast in the picture, two for different words in the text. Synthetic."""
    import numpy as np

    words = " ".join([row.caption, *(answer for _, answer in row.turns)]).casefold().split()
    gray = np.asarray(images.decode(row.picture).convert("L").resize((16, 16)), np.float64)
    return 1 + 2 * min(1.0, float(gray.std()) / 64) + 2 * min(1.0, len(set(words)) / 12)


_CONVERT = "python scripts/convert_weights.py {0} {1} FOLDER makes safetensors of {1}; then filter.reward.id=FOLDER"
MODELS: Mapping[str, Model] = {
    "unified-reward": Model(
        "UnifiedReward", _writing, "conversation", True, "CodeGoat24/UnifiedReward-qwen-7b", None,
        "UnifiedReward", CAPTION,
    ),
    "unified-reward-2": Model(
        "UnifiedReward 2.0", _writing, "conversation", True, "CodeGoat24/UnifiedReward-2.0-qwen-7b", None,
        "UnifiedReward", THREE,
    ),
    "hpsv2": Model(
        "HPSv2", _matching, "caption", False, license="apache-2.0",
        hint=_CONVERT.format("hpsv2", "HPS_v2.1_compressed.pt"),
    ),
    "image-reward": Model(
        "ImageReward", _image_reward, "caption", False, license="apache-2.0",
        hint=_CONVERT.format("image-reward", "ImageReward.pt"),
    ),
    "clip": Model("CLIP similarity", _matching, "caption", False, "google/siglip2-base-patch16-224", "apache-2.0"),
    "stand-in": Model("stand-in (synthetic)", _stand_in, "conversation", True, synthetic=True),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- the rule
def check(settings: Reward, place: str) -> None:
    """Raises ConfigError for a model that is not known, has no weights to load, or has no endpoint.

    Args:
        settings: What a recipe says.
        place: Where it says it, for messages.
    """
    model = MODELS.get(settings.model)
    if model is None:
        raise ConfigError(
            [f"{place}  reward.model: unknown model {settings.model!r}{did_you_mean(settings.model, MODELS)}"]
        )
    if settings.endpoint and model.served is None:
        raise ConfigError(
            [f"{place}  reward.endpoint: {settings.model} gives its scores in no words, so no endpoint serves it"],
            "remove the endpoint, and it runs in this process",
        )
    if not (settings.id or model.id or settings.endpoint or model.synthetic):
        raise ConfigError(
            [f"{place}  reward.id: {model.title} is published as a pickle (.pt), which is never loaded"], model.hint
        )


def scorer(settings: Reward, models: Models) -> Scorer:
    """Loads a reward model, on the GPU where there is one.

        score = rewards.scorer(recipe.filter.reward, families)

    Args:
        settings: Which, and where it is.
        models: The module ggez_hub.families.

    Raises:
        InputError: No such model, or its files are not what it is made of.
        HubError: The Hub refused or cannot be reached.
        DependencyError: A library is not installed.
    """
    check(settings, "filter")
    model = MODELS[settings.model]
    try:
        return Scorer(model, model.load(model, settings, models))
    except InputError as err:
        err.hint = err.hint or model.hint
        raise


def scored(score: Scorer, minimum: float | None = None) -> Rule:
    """Asks a model for every row, and drops rows without a score; their `why` begins with "unscored: ".

    A model whose scale is 1 to 5 (``score.model.calibrated``) fills `reward`, and rows below `minimum` are dropped.
    Another fills `_raw_reward`, to be `calibrated` once all rows have one.

    Args:
        score: The model.
        minimum: None = rows of any score are kept; of no use to a model of another scale.

    Raises (the rule):
        HubError: An endpoint does not know the key or the model, or answers nothing any more.
    """

    def rule(batch: "pa.RecordBatch") -> Outcome:
        import numpy as np
        import pyarrow as pa

        found = _asked(score, batch)
        values = np.array([math.nan if each.value is None else each.value for each in found])
        limit = -math.inf if minimum is None or not score.model.calibrated else minimum
        if score.model.calibrated:
            values = values.astype(np.float32)  # as `reward` is kept; the limit is compared as one, too
            column = pa.array(values, from_pandas=True)  # NaN is null
            place = batch.schema.get_field_index("reward")
            batch = batch.set_column(place, "reward", column) if place >= 0 else batch.append_column("reward", column)
        else:
            batch = batch.append_column(RAW, pa.array(values, from_pandas=True))
        kept = values >= limit  # NaN is not
        why = [
            f"unscored: {each.problem}"
            if each.value is None
            else f"reward {each.value:.4g}"
            if good
            else f"reward {each.value:.4g} < {minimum:g}"
            for each, good in zip(found, kept, strict=True)
        ]
        return Outcome(batch, pa.array(kept), pa.array(why, pa.string()))

    return rule


def _asked(score: Scorer, batch: "pa.RecordBatch") -> list[Score]:
    """The score of every row; what has no picture or text is not asked."""
    found = []
    for start in range(0, batch.num_rows, CHUNK):
        part = [*_seen(score.model, batch.slice(start, CHUNK))]
        answers = iter(_answers(score.ask, [row for row in part if isinstance(row, Seen)]))
        for row in part:
            each = next(answers) if isinstance(row, Seen) else Score(None, row)
            number = each.value is None or math.isfinite(each.value)
            found.append(each if number else Score(None, f"the model's score is {each.value}"))
    return found


def _answers(ask: Asker, rows: Sequence[Seen]) -> list[Score]:
    """The scores of rows; one that the model cannot read leaves the others theirs."""
    try:
        return ask(rows) if rows else []
    except InputError as err:
        half = len(rows) // 2
        return [*_answers(ask, rows[:half]), *_answers(ask, rows[half:])] if half else [Score(None, err.message)]


def _seen(model: Model, batch: "pa.RecordBatch") -> Iterator[Seen | str]:
    """Of every row what the model sees, or why it sees nothing."""
    conversations = batch.column("messages") if "messages" in batch.schema.names else [None] * batch.num_rows
    for image, text, messages in zip(batch.column("image"), batch.column("text"), conversations, strict=True):
        turns = _turns(messages.as_py() if messages is not None else None)
        caption = _plain(text.as_py())
        if model.reads == "conversation" and turns:
            caption = ""
        else:
            caption, turns = caption or " ".join(answer for _, answer in turns), ()
        length = len(caption) + sum(len(question) + len(answer) for question, answer in turns)
        if not length:
            yield "no text"
        elif model.served and length > MAX_TEXT:
            yield f"a text of {length} characters, more than {MAX_TEXT}"
        else:
            try:
                yield Seen(images.fetch(image.as_py()), caption, turns)
            except images.BrokenImage as err:
                yield err.message


def _turns(messages: Sequence[Mapping[str, Any]] | None) -> tuple[tuple[str, str], ...]:
    """A conversation as questions and answers."""
    told = (turn for turn in messages or () if turn and turn["role"] in ("user", "assistant"))
    said = [(turn["role"], _plain(turn["content"])) for turn in told]
    return tuple(
        (question, answer)
        for (asks, question), (answers, answer) in itertools.pairwise(said)
        if (asks, answers) == ("user", "assistant") and answer
    )


def _plain(text: str | None) -> str:
    return (text or "").replace(IMAGE, " ").strip()


# ---------------------------------------------------------------------------------------------------------- calibration
def calibrated(raw: "np.ndarray") -> "np.ndarray":
    """Scores of any scale as 1 to 5 by their percentile among each other.

    The lowest is 1, the highest 5, the middle 3; equal scores come out equal, and the order stays. So a limit of 3
    keeps the better half of the rows, whatever these are worth.

    Args:
        raw: Scores, [rows]; NaN is none, and stays.

    Returns:
        float64 [rows].
    """
    import numpy as np

    found, there = np.full(len(raw), np.nan), ~np.isnan(raw)
    _, place, count = np.unique(raw[there], return_inverse=True, return_counts=True)
    ranks = np.cumsum(count) - (count + 1) / 2  # from 0, the mean of those that are equal
    last = there.sum() - 1
    found[there] = 1 + 4 * ranks[place] / last if last > 0 else 3.0
    return found
