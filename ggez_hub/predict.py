"""Asking a model the questions of a benchmark, and writing its answers as a file that `ggez score` reads."""

import functools
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ggez_hub import device, families, hub
from ggez_hub.data import conversations, images, readers
from ggez_hub.endpoint import Answer, Ask, Endpoint
from ggez_hub.errors import HubError, InputError
from ggez_hub.families.base import DEFAULT_PROMPT, Family, Loaded, Query, chunks
from ggez_hub.merging import live
from ggez_hub.merging.tensors import check_whole
from ggez_hub.model import Alpha, RegionalModel
from ggez_hub.recipes import can_answer
from ggez_hub.registry import load_region
from ggez_hub.runs import fingerprint, flat, versions, write_json, write_text
from ggez_hub.schema import Benchmark, Facts
from ggez_hub.scoring import items, measure
from ggez_hub.scoring.questions import LETTER_TOKENS, Question, questions

Model = RegionalModel | tuple[Family, Loaded] | Endpoint
Row = dict[str, str]  # of a prediction file
Key = tuple[str, ...]  # the fields of a row that name its question
CHUNK = 64  # questions that are asked, and then kept, together
SHOWN = 10  # of questions without an answer


def load(name: str) -> tuple[Model, dict[str, Any]]:
    """Loads what can be asked: what ggez_hub has published, or a model of transformers, open_clip or diffusers.

    Args:
        name: A Hub id, or a folder: of a published repository, of a run, or of a model.

    Returns:
        The model, and what tells it from others: ``name``, ``family``, ``revision`` (of the Hub) or ``files`` (a hash).

    Raises:
        InputError: No such model, or of a kind that is not known.
        HubError: The Hub refused or cannot be reached.
    """
    with hub.naming(name):
        folder = hub.fetch(name)
        commit = hub.commit_of(folder)
        adapter = folder / "train" / "adapter"
        facts: dict[str, Any] = {"name": name, "revision": commit}
        if commit is None:
            facts["files"] = fingerprint(adapter if adapter.is_dir() else folder)
        homes = [place for place in (folder, folder / "card" / "adapter") if (place / hub.FACTS).is_file()]
        if homes:
            model = RegionalModel.from_pretrained(name, revision=commit)
            facts |= {"family": model.family, "region": model.region}
            published = hub.read(homes[0], hub.FACTS, Facts, name)
            if published.artefact == "adapter":
                base = hub.fetch(published.base.id, published.base.revision, near=folder)
                facts["base"] = hub.commit_of(base) or fingerprint(base)
            return model, facts
        check_whole(folder)
        kind = family_of(folder)
        family = families.get(kind)
        loaded = family.load(folder)
        live.check_finite(loaded.model.named_parameters(), folder)
        return (family, loaded), facts | {"family": kind}


def family_of(folder: Path) -> str:
    """The family that loads a model, told by its files.

    Raises:
        InputError: None does.
    """
    from transformers.models.auto import modeling_auto

    config = hub.read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    config = config if isinstance(config, dict) else {}
    if any((folder / weights).is_file() for weights in hub.OPEN_CLIP) or (
        not config and (folder / "open_clip_config.json").is_file()
    ):
        return "open_clip"
    if (folder / "model_index.json").is_file():
        return "diffusion"
    kind, named = config.get("model_type"), config.get("architectures")
    classes = {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()
    known = {
        "embedding": modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        "vlm": modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    }
    for family, models in known.items():
        if classes & set(models.values()) or (not classes and kind in models):
            return family
    what = ", ".join(sorted(classes)) or kind or "no config.json, open_clip_config.json or model_index.json"
    raise InputError(
        f"{folder}: {what}: no kind of model that is known here",
        "expected one that matches pictures with texts (SigLIP, CLIP, open_clip), or answers questions about them",
    )


def asked(
    name: str,
    benchmark: Benchmark,
    region: str | None = None,
    limit: int | None = None,
    broken: list[str] | None = None,
) -> list[Question]:
    """The test questions of a benchmark; also those whose right answer is not known.

    Args:
        name: What the benchmark is called.
        benchmark: What to ask.
        region: Where the benchmark asks for rows of the region, or of others: which one; None = Southeast Asia.
        limit: The first so many.
        broken: Takes what is wrong with questions whose picture cannot be had, and leaves them out; None = an error.

    Raises:
        InputError: There is none, one has no picture, or two have the same name.
    """
    place = load_region(region or items.DEFAULT_REGION)
    found = questions(benchmark, place, unscorable=True, limit=limit, broken=broken)["test"]
    keys = [question.key for question in found]
    if len(set(keys)) < len(keys):
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise InputError(
            f"benchmark {name}: two questions with {', '.join(benchmark.key)} {' / '.join(twice)}",
            "add to its `key` the field that tells them apart",
        )
    return found


def answers(benchmark: Benchmark, asked: Sequence[Question], model: Model, alpha: Alpha | None = None) -> list[Answer]:
    """What a model answers to questions: the likeliest option in words, or what it wrote.

    An endpoint gives no likelihoods: where a benchmark wants the likeliest option, it is asked for the letter.

    Args:
        benchmark: Where they are from.
        asked: The questions.
        model: A regional model, a family and a model of it, or an endpoint.
        alpha: Of a regional model; None = where it stands.

    Raises:
        InputError: The model cannot answer such questions.
        HubError: An endpoint refuses.
    """
    import numpy as np

    _check(benchmark, model, alpha)
    if isinstance(model, Endpoint):
        return model.ask([_ask(question) for question in asked])

    def predict(queries: list[Query]) -> list[Any]:
        if isinstance(model, RegionalModel):
            return [found[0] for found in model.predict(queries, [model.alpha if alpha is None else alpha], CHUNK)]
        with device.enough_memory("batch", CHUNK):
            return [found[0] for found in model[0].predict(model[1], queries, CHUNK)]

    given = measure.given({"": asked}, {"": benchmark}, predict, CHUNK)[""]
    for question, each in zip(asked, given, strict=True):
        if each.dtype.kind == "f" and not np.isfinite(each).all():
            raise InputError(f"question {question.id!r}: the model's scores of its options are no numbers")
    return [
        Answer(str(each) if each.dtype.kind == "U" else question.options[int(each.argmax())])
        for question, each in zip(asked, given, strict=True)
    ]


def _check(benchmark: Benchmark, model: Model, alpha: Alpha | None) -> None:
    """Raises InputError for questions that the model cannot be asked, or an alpha that it does not have."""
    if alpha is not None and not isinstance(model, RegionalModel):
        raise InputError(f"alpha {alpha}: only a published adapter has one", "leave it out")
    if isinstance(model, Endpoint):
        able, hint = benchmark.task != "drawing", "a diffusion model draws"
    else:
        family = families.get(model.family) if isinstance(model, RegionalModel) else model[0]
        able, hint = can_answer(family, benchmark), "a vision-language model answers questions, a diffusion model draws"
        if benchmark.task in family.TASKS:
            hint = "add answer=option to the command, and it is asked for the likeliest option"
    if not able:
        raise InputError(
            f"benchmark {benchmark.title!r} is of task {benchmark.task}, answered by {benchmark.answer}, "
            "which this model cannot do",
            hint,
        )


def _ask(question: Question) -> Ask:
    query, prompt = question.query, question.query.prompt or DEFAULT_PROMPT
    text = conversations.lettered(prompt, query.options) if query.options else prompt
    return Ask(
        text.replace(conversations.IMAGE, "").strip(),
        functools.partial(images.decode, question.picture),
        LETTER_TOKENS if query.options else query.max_new_tokens,
        query.seed,
    )


def _row(name: str, benchmark: Benchmark, question: Question, answer: Answer, model: Model) -> Row:
    """A line of the file: what a letter stands for is the prediction, and what was written stands beside it."""
    row = {"model": name, **dict(zip(benchmark.key, question.key, strict=True))}
    if isinstance(model, Endpoint) and question.query.options:
        place = conversations.letter_of(answer.text, question.query.options)
        words = question.query.options[place] if place >= 0 else ""
        return row | {"prediction": words, "written": answer.text}
    return row | {"prediction": answer.text}


# ------------------------------------------------------------------------------------------------------------ the file
def write(
    out: Path,
    name: str,
    benchmark: Benchmark,
    model: Model,
    facts: Mapping[str, Any],
    alpha: float | None = None,
    region: str | None = None,
    limit: int | None = None,
) -> int:
    """Asks a benchmark's questions and writes a prediction file, and beside it what it was made from (`out`.json).

    Answers are kept as they come, in a hidden file beside it: whatever ends the work early, the next call asks only
    what is missing, and ends in the same bytes. `out` itself is there only when it is complete. Questions whose picture
    cannot be had are left out; how many is said, and stands in `out`.json.

    Args:
        out: The file (JSON Lines): model, the benchmark's key fields, prediction.
        name: What the benchmark is called.
        benchmark: What to ask.
        model: What to ask it of.
        facts: What tells the model from others; its ``name`` stands in every line.
        alpha: Of a regional model; None = where it stands.
        region: Where the benchmark asks for rows of the region, or of others: which one; None = Southeast Asia.
        limit: Only the first so many questions.

    Returns:
        How many questions were asked now.

    Raises:
        InputError: `out` or answers kept for it were made with other settings; or the model cannot answer.
        HubError: An endpoint left questions without an answer; the others are kept.
    """
    from filelock import FileLock, Timeout
    from tqdm import tqdm

    if out.suffix != ".jsonl":
        raise InputError(f"{out}: expected a name that ends in .jsonl", f"--out {out.with_suffix('.jsonl')}")
    _check(benchmark, model, alpha)
    broken: list[str] = []
    every = asked(name, benchmark, region, limit, broken)
    if broken:  # addresses on the web die
        more = f", and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        tqdm.write(f"left out, {len(broken)} in all: {'; '.join(broken[:SHOWN])}{more}", file=sys.stderr)
    whole = _facts(name, benchmark, model, facts, every, alpha, region, limit)
    whole["questions"]["without_picture"] = len(broken)
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = out.with_name(f".{out.name}.lock")
    try:
        with FileLock(lock, timeout=0):
            try:
                return _write(out, benchmark, model, every, whole, alpha)
            finally:
                lock.unlink(missing_ok=True)
    except Timeout as err:
        raise InputError(f"{out}: another ggez is writing it", "wait for it, or give another --out") from err


def _write(
    out: Path, benchmark: Benchmark, model: Model, every: Sequence[Question], whole: dict[str, Any], alpha: float | None
) -> int:
    from tqdm import tqdm

    beside, kept = out.with_name(f"{out.name}.json"), out.with_name(f".{out.stem}.partial.jsonl")
    for path in (out, kept):
        if path.exists():
            _check_same(path, hub.read_json(beside) if beside.is_file() else None, whole)
    if out.exists():
        return 0
    done, problems, called = _kept(kept, benchmark), dict[Key, str](), _called(whole["model"])
    before = len(done)
    # A model of our own is asked whole chunks again: what stands beside a question can change a last digit.
    todo = [question for question in every if question.key not in done] if isinstance(model, Endpoint) else every
    with tqdm(total=len(every), initial=before, unit=" question") as progress:
        for chunk in chunks(todo, CHUNK):
            if all(question.key in done for question in chunk):
                continue
            found = list(zip(chunk, answers(benchmark, chunk, model, alpha), strict=True))
            problems |= {question.key: answer.problem for question, answer in found if answer.problem}
            new = {
                question.key: _row(called, benchmark, question, answer, model)
                for question, answer in found
                if not answer.problem and question.key not in done
            }
            if not new:  # the endpoint is down: the others would only wait as long
                break
            write_json(beside, whole)  # before any answer: what they were made from
            with kept.open("a", encoding="utf-8") as file:
                file.write(_lines(new.values()))
            done |= new
            progress.update(len(new))
    if problems:
        raise _unanswered(model, kept, problems, len(every) - len(done))
    write_text(out, _lines(done[question.key] for question in every))
    kept.unlink()
    return len(done) - before


def _called(model: Mapping[str, Any]) -> str:
    """What the lines of the file call a model; a regional one is another model at every alpha."""
    alpha = model.get("alpha")
    if isinstance(alpha, Mapping):
        alpha = ",".join(f"{region}:{value:g}" for region, value in alpha.items())
    elif alpha is not None:
        alpha = f"{alpha:g}"
    return str(model["name"]) + (f" alpha={alpha}" if alpha else "")


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _facts(
    name: str,
    benchmark: Benchmark,
    model: Model,
    facts: Mapping[str, Any],
    every: Sequence[Question],
    alpha: float | None,
    region: str | None,
    limit: int | None,
) -> dict[str, Any]:
    """All that decides the answers: for those who trace a number, and to keep answers of different kinds apart."""
    told = dict(facts)
    if isinstance(model, RegionalModel):
        told["alpha"] = model.alpha if alpha is None else alpha
    hashed = hashlib.sha256()
    for question in every:
        query = question.query
        words = (question.key, query.options, query.prompt, query.template, query.seed)
        hashed.update(hashlib.sha256(question.picture).digest() + repr((*words, query.max_new_tokens)).encode())
    letters = isinstance(model, Endpoint) and benchmark.answer == "option"
    return {
        "benchmark": {"name": name, **benchmark.model_dump(mode="json")},
        "region": (region or items.DEFAULT_REGION) if benchmark.rows != "all" else None,
        "limit": limit,
        "questions": {"n": len(every), "sha256": hashed.hexdigest(), "revision": _revision(benchmark)},
        "model": told,
        "asked_for": "letter" if letters else benchmark.answer,
        "versions": versions(),
    }


def _revision(benchmark: Benchmark) -> str | None:
    """The commit of questions that came from the Hub."""
    source = benchmark.source
    return hub.commit_of(readers.place(source)) if readers.needs_path(source.reader) else None


def _kept(path: Path, benchmark: Benchmark) -> dict[Key, Row]:
    """The answers that an earlier call kept; a last line that was cut off is removed."""
    text = path.read_bytes() if path.is_file() else b""
    whole = text[: text.rfind(b"\n") + 1]
    try:
        rows = [json.loads(line) for line in whole.splitlines()]
        found = {tuple(row[field] for field in benchmark.key): row for row in rows}
    except (ValueError, LookupError, TypeError) as err:
        raise InputError(f"{path}: cannot be read: {err}", "remove it") from err
    if whole != text:
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return found


def _check_same(path: Path, before: Any, now: Mapping[str, Any]) -> None:
    """Raises InputError that names what differs."""
    hint = f"give another --out, or remove {path}"
    if not isinstance(before, dict):
        raise InputError(f"{path}: exists already", hint)
    old, new = flat(before), flat(json.loads(json.dumps(now)))
    changed = [f"{key}: {old.get(key)} -> {new.get(key)}" for key in old | new if old.get(key) != new.get(key)]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(f"{path}: was begun with other settings: {', '.join(changed[:3])}{more}", hint)


def _unanswered(model: Model, kept: Path, problems: Mapping[Key, str], missing: int) -> HubError:
    where = f"{model.url}, model {model.model!r}: " if isinstance(model, Endpoint) else ""
    shown = [f"  {' / '.join(key)}: {problem}" for key, problem in list(problems.items())[:SHOWN]]
    saved = f"; ggez score --predictions {kept} --allow-missing takes those that are there" if kept.is_file() else ""
    return HubError(
        f"{where}{missing} questions have no answer yet\n" + "\n".join(shown),
        f"the same command asks only for what is missing{saved}",
    )
