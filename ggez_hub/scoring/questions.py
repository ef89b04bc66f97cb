"""From a benchmark to questions: what a model is asked, and what would be right."""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.data import conversations, images, readers
from ggez_hub.errors import InputError
from ggez_hub.families.base import DEFAULT_PROMPT, Query
from ggez_hub.schema import Benchmark, Region

if TYPE_CHECKING:
    import pyarrow as pa

OPTIONS = 4  # of a multiple choice question
LETTER_TOKENS = 8  # room for "Answer: B."
LOOKS = 8  # pictures of a label whose mean tells which labels look alike


@dataclass(frozen=True)
class Question:
    """What a model is asked, and how its answer is judged."""

    id: str
    query: Query
    options: tuple[str, ...]  # what the answer is one of; empty for an open question
    answer: str  # the right one; of an open question all that are right, with "|" between
    country: str
    category: str
    kind: str
    picture: bytes  # a real one: what is asked about, or how a drawing would look

    @property
    def place(self) -> int:
        """The place of the right option."""
        return self.options.index(self.answer)


def questions(benchmark: Benchmark, region: Region, data_path: str | None = None) -> dict[str, list[Question]]:
    """The questions of a benchmark, ``{"test": [...], "selection": [...]}``.

    Options come from the row (`question`) or from the labels of the whole source: all of them (`top1`, `drawing`), or
    the right one and the three most like it (`choice`): of the same category, nearest in mean picture. Random options
    would be too easy to tell apart.

    Args:
        benchmark: What to ask.
        region: Decides which rows are regional.
        data_path: The file of a source that names none.

    Raises:
        InputError: No test question is left.
    """
    import pyarrow as pa

    batches = list(readers.read(benchmark.source, data_path))
    table = pa.concat_batches(batches) if batches else None
    root = Path(path).parent if (path := benchmark.source.path or data_path) else None
    result: dict[str, list[Question]] = {}
    if table is not None:
        labels = {
            label: category or ""
            for label, category in zip(*(table[n].to_pylist() for n in ("label", "category")), strict=True)
        }
        near = _near(table, labels, root) if benchmark.task == "choice" else {}
        for split, where in (("test", benchmark.test), ("selection", benchmark.selection)):
            if split == "selection" and not where:
                continue
            rows = _side(readers.select(table, where), benchmark, region).to_pylist()
            result[split] = [_question(row, benchmark, tuple(labels), near, root) for row in rows]
        decided = {question.id for question in result.get("selection", ())}
        result["test"] = [question for question in result["test"] if question.id not in decided]
    if not result.get("test"):
        raise InputError(
            f"benchmark {benchmark.title!r} has no test question for region {region.title!r}",
            "its `rows`, `test` and the countries in the data decide which there are",
        )
    return result


def _side(batch: "pa.RecordBatch", benchmark: Benchmark, region: Region) -> "pa.RecordBatch":
    import pyarrow as pa
    import pyarrow.compute as pc

    if benchmark.rows == "all":
        return batch
    inside = pc.fill_null(pc.is_in(batch.column("country"), value_set=pa.array(region.countries)), False)
    return batch.filter(inside if benchmark.rows == "region" else pc.invert(inside))


def _question(
    row: Mapping[str, Any],
    benchmark: Benchmark,
    labels: tuple[str, ...],
    near: Mapping[str, Sequence[str]],
    root: Path | None,
) -> Question:
    label, category = row["label"], row["category"] or ""
    try:
        image = images.fetch(row["image"], root)
        images.decode(image)
    except images.BrokenImage as err:
        raise InputError(
            f"question {row['id'] or label!r}: its picture {err.message}", "mend or remove the row"
        ) from err
    name = row["id"] or hashlib.sha256(image).hexdigest()[:16]  # data without ids: a picture is known by its contents
    options, answer, prompt = labels, label, benchmark.prompt
    if benchmark.task == "choice":
        shuffled = sorted((label, *near[label]), key=lambda option: zlib.crc32(f"{name}/{option}".encode()))
        options = tuple(shuffled)
    elif benchmark.task == "question":
        options, answer, prompt = tuple(row["options"] or ()), row["answer"], row["question"]
        _check_question(name, benchmark, options, answer, prompt)
    if benchmark.task == "drawing":
        query = Query(prompt=(prompt or "").replace("{label}", label), seed=zlib.crc32(name.encode()))
    elif benchmark.answer == "letter":
        listed = conversations.lettered(prompt or DEFAULT_PROMPT, options)
        query = Query(image, (), listed, max_new_tokens=LETTER_TOKENS)
    elif benchmark.answer == "open":
        query, options = Query(image, (), prompt or DEFAULT_PROMPT), ()
    else:
        query = Query(image, options, prompt)
    return Question(name, query, options, answer, row["country"] or "", category, row["kind"] or "", image)


def _check_question(name: str, benchmark: Benchmark, options: Sequence[str], answer: Any, prompt: Any) -> None:
    """Raises InputError for a row that asks nothing, or whose answer is none of its options."""
    problem = None
    if not prompt:
        problem = "no question"
    elif not answer:
        problem = "no answer"
    elif benchmark.answer != "open" and answer not in options:
        problem = f"its answer {answer!r} is none of its options {list(options)}"
    elif len(set(options)) != len(options):
        problem = f"an option stands there twice: {list(options)}"
    if problem:
        raise InputError(f"question {name!r} of {benchmark.title!r}: {problem}", "mend or remove the row")


def _place(picture: tuple[str, Mapping[str, Any] | None]) -> tuple[str, bytes]:
    image = picture[1] or {}
    return image.get("path") or "", image.get("bytes") or b""


def _near(table: "pa.RecordBatch", labels: Mapping[str, str], root: Path | None) -> dict[str, list[str]]:
    """The labels most like each label: its own category first, then by distance of mean pictures."""
    import numpy as np

    looks: dict[str, list[np.ndarray]] = {label: [] for label in labels}
    pictures = zip(table["label"].to_pylist(), table["image"].to_pylist(), strict=True)
    for label, image in sorted(pictures, key=_place):  # whatever the order of the rows
        if len(looks[label]) < LOOKS:
            small = images.decode(images.fetch(image, root)).resize((24, 24))
            looks[label].append(np.asarray(small, np.float32))
    names = list(labels)
    means = np.stack([np.mean(looks[name], axis=0).ravel() for name in names])
    result = {}
    for i, name in enumerate(names):
        distance = np.linalg.norm(means - means[i], axis=1)
        order = sorted((labels[other] != labels[name], distance[j], other) for j, other in enumerate(names) if j != i)
        result[name] = [other for _, _, other in order[: OPTIONS - 1]]
    return result
