"""From what a model gave to what it is worth: right or wrong, a confidence, or unparsed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ggez_hub.data import conversations
from ggez_hub.schema import Benchmark
from ggez_hub.scoring.questions import Question

if TYPE_CHECKING:
    import numpy as np

Answered = dict[str, Any]  # of one benchmark's questions: arrays whose first dimension is the question


def answered(benchmark: Benchmark, asked: Sequence[Question], given: "Sequence[np.ndarray]") -> Answered:
    """Judges the answers to a benchmark's questions.

    Args:
        benchmark: Says how.
        asked: Its questions.
        given: What the model gave to each: scores of the options, float [options]; of a drawing the judge's scores of
            all labels; or a written text, a str array of no dimension.

    Returns:
        ``value``, float32 [questions], 0..1; ``choice``, int32 [questions], the place of the option chosen, -1 where a
        written answer names none; ``text``, what was written; ``features``, the judge's scores, for a distance.
    """
    import numpy as np

    if benchmark.task == "drawing" or benchmark.answer == "option":
        scores = np.stack(list(given)) if _alike(given) else list(given)
        choice = np.array([part.argmax() for part in scores], np.int32)
        found: Answered = {"choice": choice}
        if benchmark.measure == "distance":
            return found | {"value": np.zeros(len(asked), np.float32), "features": np.asarray(scores, np.float32)}
        places = np.array([question.place for question in asked])
        if benchmark.measure == "confidence":
            return found | {"value": _softmax(np.asarray(scores))[np.arange(len(asked)), places]}
        return found | {"value": (choice == places).astype(np.float32)}
    texts = [str(text) for text in given]
    if benchmark.answer == "letter":
        choice = np.array([conversations.letter_of(t, q.options) for t, q in zip(texts, asked, strict=True)], np.int32)
        right = choice == np.array([question.place for question in asked])
    else:
        choice = np.array([0 if text.strip() else -1 for text in texts], np.int32)
        right = np.array([conversations.matches(t, q.answer) for t, q in zip(texts, asked, strict=True)], bool)
    return {"choice": choice, "value": right.astype(np.float32), "text": np.array(texts, np.str_)}


def prediction(question: Question, found: Answered, i: int) -> str:
    """The answer to the i-th question in words; empty where it could not be read."""
    if not question.options:
        return str(found["text"][i])
    choice = int(found["choice"][i])
    return question.options[choice] if choice >= 0 else ""


def unparsed(found: Answered) -> int:
    """How many written answers could not be read. They count as wrong."""
    return int((found["choice"] < 0).sum())


def _alike(given: "Sequence[np.ndarray]") -> bool:
    return len({part.shape for part in given}) == 1


def _softmax(scores: "np.ndarray") -> "np.ndarray":
    import numpy as np

    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: np.ndarray = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
