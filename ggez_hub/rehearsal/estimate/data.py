"""How much data a recipe trains on and asks, and how long its rows are: of what corpora.yaml knows of data sets."""

import math
from collections.abc import Mapping

from ggez_hub.rehearsal.bases import Architecture
from ggez_hub.rehearsal.estimate.assumptions import DataSet, Text, corpora
from ggez_hub.rehearsal.estimate.counting import Shape
from ggez_hub.rehearsal.estimate.models import picture_tokens
from ggez_hub.rehearsal.estimate.results import Number
from ggez_hub.schema import Benchmark, Pretrain, Recipe, Source, Train


def lengths(recipe: Recipe, architecture: Architecture) -> tuple[Shape, Shape, dict[str, Number]]:
    """The longest and the usual row, and both in words."""
    picture = picture_tokens(architecture)
    if not picture:
        return Shape(), Shape(), {}
    sources = list(recipe.data.corpora.values())
    known = [_texts(source) for source in sources]
    most = picture + max(text.longest for text in known)
    limit = recipe.train.max_length
    total = min(most, limit or most)
    prompt = min(max(text.prompt for text in known), total - picture - 1)
    usual = Shape(
        picture,
        min(round(sum(text.prompt for text in known) / len(known)), prompt),
        min(round(sum(text.answer for text in known) / len(known)), total - picture - prompt),
    )
    readers = ", ".join(dict.fromkeys(source.reader for source in sources))
    said = f"{picture} of the picture (mm_tokens_per_image) + text of {readers}, an assumption of corpora.yaml"
    return (
        Shape(picture, prompt, total - picture - prompt),
        usual,
        {
            "longest": Number(total, "tokens", f"train.max_length {limit}" if limit and limit <= most else said),
            "usual": Number(picture + usual.prompt + usual.answer, "tokens", said),
        },
    )


# ------------------------------------------------------------------------------------------------------------ data sets
def known(source: Source) -> DataSet | None:
    """What is known of a data set, in the variant that the options of its source choose."""
    fits = [
        one
        for one in corpora().sets
        if one.id == getattr(source, "id", None)
        and all(str(source.options.get(key)) == wanted for key, wanted in one.when.items())
    ]
    return max(fits, key=lambda one: len(one.when), default=None)


def _wanted(source: Source, found: DataSet) -> list[str]:
    """The parts of a data set that a source names; none where it takes all."""
    if found.parts is None:
        return []
    named = source.options.get(found.parts.by)
    return (
        str(named).split("|") if named is not None else [str(value) for value in source.where.get(found.parts.by, ())]
    )


def _of_parts(source: Source, found: DataSet, whole: float | None) -> tuple[float | None, str]:
    """The share of a number that falls to the parts a source names, and how that comes about."""
    parts, wanted = found.parts, _wanted(source, found)
    if whole is None or parts is None or not wanted:
        return whole, ""
    if any("*" in name for name in wanted):
        return None, f"; how many of them {parts.by} {'|'.join(wanted)} means is not known"
    count = min(len(wanted), parts.count)
    return whole * count / parts.count, f"; {count} of {parts.count} by {parts.by}, as if all were alike (assumption)"


def _also_chosen(source: Source, found: DataSet | None) -> bool:
    """Whether `where` drops rows of which nobody knows how many."""
    return bool(set(source.where) - ({found.parts.by} if found and found.parts else set()))


def rows_of(source: Source) -> Number:
    """How many rows a source gives, before any filter."""
    name, found = source_name(source), known(source)
    if found is None or found.rows is None:
        return Number(None, "rows", f"{name}: {found.source if found else 'nothing is known of it'}")
    wanted = _wanted(source, found)
    said = found.parts.rows if found.parts else {}
    whole, how = _of_parts(source, found, found.rows)
    if whole is not None and any(part in said for part in wanted):
        average = whole / len(wanted)
        whole = sum(said.get(part, average) for part in wanted)
        how += f"; but {', '.join(f'{part} {said[part]:,}' for part in wanted if part in said)}"
    return Number(None if whole is None else round(whole), "rows", f"{name}: {found.source}{how}")


def source_name(source: Source) -> str:
    """What a source is called."""
    return getattr(source, "id", None) or source.path or source.reader


def bytes_of(source: Source) -> float | None:
    """What fetching a source takes; None = not known."""
    found = known(source)
    if found is None or found.bytes is None:
        return None
    if found.parts is None or found.parts.by not in source.options:  # what `where` drops is fetched before
        return found.bytes
    part, _ = _of_parts(source, found, found.bytes - found.parts.common)
    return None if part is None else found.parts.common + part


def questions(recipe: Recipe, benchmark: Benchmark) -> Number:
    """How many questions a benchmark has, of its rows that are asked."""
    found = known(benchmark.source)
    if found is None or found.questions is None:
        return Number(None, "questions", f"{source_name(benchmark.source)}: nothing is known of it")
    regional = found.regions.get(recipe.region)
    if benchmark.rows == "all" or regional is None:
        whole, how = _of_parts(benchmark.source, found, found.questions)
        apart = benchmark.rows == "all" and not _also_chosen(benchmark.source, found)
        most = "" if apart else "; at most, as how many of them are asked is not known"
        return Number(None if whole is None else round(whole), "questions", f"{found.source}{how}{most}")
    return Number(regional if benchmark.rows == "region" else found.questions - regional, "questions", found.source)


# ----------------------------------------------------------------------------------------------------------------- rows
def rows(recipe: Recipe) -> dict[str, Number]:
    """Rows of each source that train, at most; and of all."""
    found = {}
    for name, source in recipe.data.corpora.items():
        given = rows_of(source)
        number, how = given.value, given.how
        copies = recipe.translate.copies if source.translate and recipe.translate else 1
        if number is not None and copies > 1:
            number, how = number * copies, f"{how}; x {copies} languages"
        if source.cap is not None:
            number, how = min(number or source.cap, source.cap), f"cap {source.cap}, of {how}"
        regional = source.regional and recipe.filter.region is not False
        filtered = regional or _also_chosen(source, known(source)) or recipe.filter.min_reward is not None
        found[name] = Number(number, "rows", how + ("; at most: the filter drops some" if filtered and number else ""))
    values = [number.value for number in found.values()]
    whole = None if None in values else sum(value or 0 for value in values)
    if whole is not None and any(source.share for source in recipe.data.corpora.values()):
        shares = [(n.value or 0) / (recipe.data.corpora[name].share or 1) for name, n in found.items()]
        return found | {"all": Number(int(min(shares)), "rows", "the scarcest source's rows / its share")}
    if len(found) == 1:
        return {"all": next(iter(found.values()))}
    return found | {"all": Number(whole, "rows", "the sum" if whole is not None else "of some sources not known")}


def _texts(source: Source) -> Text:
    return corpora().texts.get(source.reader, corpora().texts["default"])


def eligible(recipe: Recipe, found: Mapping[str, Number], field: str) -> Number:
    """Rows that a phase learns from, which have what its loss asks for; `found`: what `rows` gives."""
    sources = recipe.data.corpora
    able = [name for name in sources if field not in ("text", "messages") or field in _given(sources[name])]
    if len(able) == len(sources) or not able or found["all"].value is None:
        return found["all"]
    parts = {name: found["all"].value * (sources[name].share or 0) or found[name].value or 0 for name in able}
    return Number(round(sum(parts.values())), "rows", f"those with {field}: of {', '.join(able)}")


def _given(source: Source) -> set[str]:
    return {*_texts(source).gives, *source.columns}


def steps(settings: Train | Pretrain, rows: Number, batch: int) -> Number:
    """Of a phase."""
    epochs = settings.epochs
    if epochs is None:
        return Number(settings.steps, "steps", "as the recipe says")
    if rows.value is None:
        return Number(None, "steps", f"{epochs:g} epochs x rows / {batch}, and the rows are not known")
    return Number(
        math.ceil(epochs * rows.value / batch), "steps", f"{epochs:g} epochs x {rows.value:,.0f} rows at most / {batch}"
    )
