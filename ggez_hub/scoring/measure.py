"""Asking a model the questions of several benchmarks: equal ones once, drawings through their judge."""

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ggez_hub import families, hub
from ggez_hub.families.base import Loaded, Query
from ggez_hub.schema import Benchmark
from ggez_hub.scoring.questions import Question
from ggez_hub.scoring.statistics import Answers

if TYPE_CHECKING:
    import numpy as np

Parts = Mapping[Any, Sequence[Question]]  # questions by whatever names a benchmark or a part of one
Predict = Callable[[list[Query]], "list[np.ndarray]"]
Judge = tuple[str, str | None]  # an embedding model, and its revision
Wanted = tuple[Judge | None, Query, tuple[str, ...]]  # a judge if any, the query, and the labels that the judge knows


@functools.lru_cache(maxsize=1)  # all benchmarks of a recipe have the same one, as a rule
def judge(name: str, revision: str | None) -> Loaded:
    """The embedding model that names drawings."""
    return families.get("embedding").load(hub.fetch(name, revision))


def given(parts: Parts, benchmarks: Mapping[Any, Benchmark], predict: Predict, size: int) -> "dict[Any, list[Any]]":
    """What a model gives to every question.

    Args:
        parts: The questions.
        benchmarks: The benchmark of each part.
        predict: Answers queries, one array for each: scores of its options, a text, or a drawing.
        size: Drawings held in memory at once, and pictures that the judge sees at once.

    Returns:
        For each part one array per question: scores of the options (of a drawing the judge's, of all labels), float
        [options]; or a written text, a str array of no dimension.
    """
    places = {part: [_wanted(benchmarks[part], question) for question in asked] for part, asked in parts.items()}
    wanted: dict[Judge | None, dict[Wanted, None]] = defaultdict(dict)  # by judge, each once
    for part in places.values():
        for one in part:
            wanted[one[0]][one] = None
    found: dict[Wanted, np.ndarray] = {}
    for judging, ones in wanted.items():
        every = list(ones)
        if judging is None:
            found |= zip(every, predict([query for _, query, _ in every]), strict=True)
            continue
        for start in range(0, len(every), size):  # pictures are judged and let go
            some = every[start : start + size]
            drawn = predict([query for _, query, _ in some])
            named = [Query(_picture(pixels), labels) for (_, _, labels), pixels in zip(some, drawn, strict=True)]
            judged = families.get("embedding").predict(judge(*judging), named, size)
            found |= {one: scores[0] for one, scores in zip(some, judged, strict=True)}
    return {part: [found[one] for one in ones_of] for part, ones_of in places.items()}


def answers(name: str, asked: Sequence[Question], values: "Sequence[np.ndarray]") -> Answers:
    """What a benchmark's questions were answered with, for statistics.

    Args:
        name: Of the benchmark.
        asked: Its questions.
        values: How good each answer is, 0..1: of every alpha one array [questions].
    """
    import numpy as np

    levels = list(zip(*(question.groups for question in asked), strict=True))
    cells = np.stack([np.unique(level, return_inverse=True)[1] for level in levels]) if levels else None
    # Every benchmark numbers its own rows, but questions of one picture have one id, which makes them one cluster.
    clusters = [question.cluster for question in asked]
    return Answers(name, clusters, np.stack(list(values)).astype(np.float64), cells)


def _wanted(benchmark: Benchmark, question: Question) -> Wanted:
    if benchmark.judge is None:
        return None, question.query, ()
    return (benchmark.judge, benchmark.judge_revision), question.query, question.options


def _picture(pixels: "np.ndarray") -> Any:
    from PIL import Image

    return Image.fromarray(pixels)
