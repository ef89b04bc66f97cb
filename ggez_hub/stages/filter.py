"""filter: from corpora to the rows that train the model (paper, section 4.1).

Rows are *examined* one by one, in parallel, in units that are kept as they are done; then those that train are *chosen*
by what needs all of them to be known (rewards by percentile, duplicates, the mix); then what is chosen is *written*.
"""

import functools
import hashlib
import itertools
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ggez_hub import hub, metadata
from ggez_hub.data import account, engines, examples, images, readers, report
from ggez_hub.data.choosing import Verdict, choose
from ggez_hub.data.engines import Step, Work
from ggez_hub.data.parts import Parts, Unit, decided, packed, unpacked
from ggez_hub.errors import InputError
from ggez_hub.registry import card_template, load_region
from ggez_hub.runs import Run, fingerprint, versions, write_text
from ggez_hub.schema import Benchmark, Corpus, Recipe, Region, Translate

if TYPE_CHECKING:
    import pyarrow as pa

    from ggez_hub.data.filters import Rule

NEEDS: tuple[str, ...] = ()
RESUMABLE = True
UNIT_ROWS = 512  # with their pictures in memory at once
UNIT_BYTES = 2**26
EXCERPT = 120  # characters
COUNTRIES = 12  # that a message names at most
TEMPLATE = "dataset.md.j2"
TRANSLATIONS = ".translations.sqlite"  # in the run folder; what is there is not translated again
LATER = ("title", "languages", "synthetic", "share", "cap")  # of a corpus: what examining its rows does not ask for


def inputs(recipe: Recipe, run: Run) -> dict[str, Any]:
    """What the stage depends on."""
    region = load_region(recipe.region)
    made = recipe.section("region", "data", "filter") | {
        "countries": list(region.countries) if recipe.filter.region else [],
        "languages": list(region.languages) if recipe.filter.region not in (False, True) or recipe.translate else [],
        "files": {name: readers.fingerprint(corpus) for name, corpus in recipe.data.corpora.items()},
    }
    if models := _models(recipe):
        made["models"] = models
    if any(corpus.share or corpus.cap for corpus in recipe.data.corpora.values()):
        made |= recipe.section("seed")
    if recipe.translate:
        made |= recipe.section("translate")
    if recipe.filter.contamination != "keep":
        benchmarks = _benchmarks(recipe)
        made["benchmarks"] = {name: _asked(benchmark) for name, benchmark in benchmarks.items()}
        made["benchmark_files"] = {
            name: readers.fingerprint(benchmark.source, recipe.data.path) for name, benchmark in benchmarks.items()
        }
    return made


def _models(recipe: Recipe) -> dict[str, str]:
    """Of the models that run here: the commits of those on the Hub, and hashes of the others."""
    from ggez_hub.data.rewards import MODELS

    settings, wanted = recipe.filter, list[tuple[str | None, str | None]]()  # names and revisions
    wanted.append((settings.embedding, settings.embedding_revision))
    if settings.unsafe:
        wanted.append((settings.unsafe.id, settings.unsafe.revision))
    if (reward := settings.reward) and not reward.endpoint:
        wanted.append((reward.id or MODELS[reward.model].id, reward.revision))
    translators = recipe.translate.translators.values() if recipe.translate else ()
    wanted += [(translator.id, translator.revision) for translator in translators if not translator.endpoint]
    # A small file alone: which commit it is of tells the rest, which is fetched when it is needed.
    found = {name: hub.fetch(name, revision, only=("config.json",)) for name, revision in wanted if name}
    return {name: hub.commit_of(folder) or fingerprint(folder) for name, folder in found.items()}


def _benchmarks(recipe: Recipe) -> dict[str, Benchmark]:
    from ggez_hub.recipes import load_benchmark

    return {name: load_benchmark(name) for name in recipe.sweep.benchmarks}


def _asked(benchmark: Benchmark) -> dict[str, Any]:
    """What of a benchmark says which rows it has."""
    return benchmark.model_dump(mode="json", include={"source", "rows", "region_by", "test", "selection", "task"})


def run(recipe: Recipe, run: Run, folder: Path) -> None:
    """Writes examples.parquet (a file, or a folder of shards), decisions.parquet, report.json and README.md.

    Raises:
        InputError: Nothing is left, too many pictures are broken, or rows stand in a benchmark as well.
        WorkerLost: A worker was killed.
    """
    if (folder / "README.md").is_file():
        return  # killed when all was done
    region, made = load_region(recipe.region), inputs(recipe, run)
    parts = Parts(folder.with_name(f"{folder.name}.parts") / _examined_by(made))
    units = functools.partial(_units, recipe, UNIT_ROWS)
    for name, corpus in recipe.data.corpora.items():  # data that cannot be read are told before the work begins
        next(readers.read(corpus, section=_section(recipe, name)), None)
    given = _given(recipe, region, parts.folder)
    steps = [
        Step(_examiner, given),
        *([Step(_examiner, given._replace(models=True), True)] if _asks_models(recipe) else []),
    ]
    _work("filter", recipe.engine, units, steps, parts)
    if not parts.done():
        raise InputError("no row is left of 0: the data hold none", "see data.path, data.where and data.options")
    verdict = choose(recipe, parts)
    found = examples.write_decisions(recipe, parts, verdict, folder)
    _check(recipe, found, folder)
    translated = None
    if recipe.translate:
        translated = Parts(parts.folder.with_name(f"{_hash(made)}.translated"))
        _translate(recipe, region, run, parts, verdict, translated)
        verdict = _with_translations(parts, verdict, translated)
        found = examples.write_decisions(recipe, parts, verdict, folder)
        _check(recipe, found, folder)
    examples.write_examples(parts, verdict, folder, translated)
    shards = (folder / "examples.parquet").is_dir()
    write_text(folder / "README.md", card(recipe, run, region, found, shards))
    shutil.rmtree(parts.folder.parent)


def _work(what: str, engine: str, units: Any, steps: list[Step], parts: Parts) -> None:
    """Takes units through the steps; each is kept as soon as it is done, and is not done again."""
    from tqdm import tqdm

    parts.folder.mkdir(parents=True, exist_ok=True)
    done = parts.done()
    try:
        with tqdm(desc=what, unit=" rows", initial=parts.count(), unit_scale=True) as progress:
            for unit in engines.run(engine, functools.partial(units, done=frozenset(done)), steps):
                parts.keep(unit)
                progress.update(unpacked(unit.decisions)[0].num_rows)
    except BaseException as err:
        rows = parts.count()
        kept = f"{rows} rows are done and kept in {parts.folder}; the same command goes on from there"
        if isinstance(err, engines.WorkerLost):
            raise InputError(f"{err.message}; {kept}", err.hint) from err
        if rows:
            tqdm.write(f"{what}: {kept}", sys.stderr)
        raise


# ------------------------------------------------------------------------------------------------------------- examine
class Given(NamedTuple):
    """What a worker is given."""

    recipe: Recipe
    region: Region
    roots: Mapping[str, Path | None]  # of each source: what its pictures' paths are relative to
    benchmarks: Path | None  # index of what stands in benchmarks
    models: bool = False  # whether to apply the rules that need a model, or the others


def _given(recipe: Recipe, region: Region, folder: Path) -> Given:
    from ggez_hub.data import contamination

    roots = {}
    for name, corpus in recipe.data.corpora.items():
        place = readers.place(corpus, section=_section(recipe, name)) if readers.needs_path(corpus.reader) else None
        roots[name] = readers.root(place)
    index = None
    if recipe.filter.contamination != "keep":
        from ggez_hub.scoring.questions import on_side

        index = folder / "index"
        if not index.is_dir():
            on = functools.partial(on_side, region=region)
            found = contamination.index(_benchmarks(recipe), on, recipe.data.path)
            folder.mkdir(parents=True, exist_ok=True)
            temporary = index.with_name("index.partial")
            shutil.rmtree(temporary, ignore_errors=True)
            found.save(temporary)
            temporary.rename(index)
    return Given(recipe, region, roots, index)


def _section(recipe: Recipe, name: str) -> str:
    """Where a source stands in the recipe."""
    return f"data.sources.{name}" if recipe.data.sources else "data"


def _examined_by(made: Mapping[str, Any]) -> str:
    """A name for parts, from all that examining depends on: what is chosen afterwards can change without it."""
    data = json.loads(json.dumps(made["data"]))
    for corpus in (data, *data["sources"].values()):
        for key in LATER:
            corpus.pop(key, None)
    rules = made["filter"] | {"max_broken": None, "max_hash_distance": None}
    rules |= {"contamination": rules["contamination"] != "keep", "max_cosine": rules["max_cosine"] is not None}
    told = {key: value for key, value in made.items() if key not in ("seed", "translate")}
    return _hash(told | {"data": data, "filter": rules, "versions": versions()})


def _hash(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _units(recipe: Recipe, rows: int, *, done: frozenset[int]) -> Iterator[Unit]:
    """What the sources hold, but for units that are done."""
    numbers = itertools.count()
    for name, corpus in recipe.data.corpora.items():
        first = 0
        for batches in _grouped(readers.read(corpus, section=_section(recipe, name)), rows):
            number = next(numbers)
            if number not in done:
                batches = [_named(batch, name, corpus, recipe) for batch in batches]
                yield Unit(number, packed(batches), packed([_undecided(name, first, batches)]))
            first += sum(batch.num_rows for batch in batches)


def _grouped(batches: "Iterable[pa.RecordBatch]", rows: int) -> "Iterator[list[pa.RecordBatch]]":
    """Batches that are examined together: of one schema, and no more than fit."""
    group: list[pa.RecordBatch] = []
    count = size = 0
    for batch in batches:
        count, size = count + batch.num_rows, size + batch.nbytes
        if group and (count > rows or size > UNIT_BYTES or batch.schema != group[0].schema):
            yield group
            group, count, size = [], batch.num_rows, batch.nbytes
        group.append(batch)
    if group:
        yield group


def _named(batch: "pa.RecordBatch", name: str, corpus: Corpus, recipe: Recipe) -> "pa.RecordBatch":
    """Rows with what they do not say themselves: of several sources theirs, and its license where one is asked for."""
    import pyarrow.compute as pc

    missing = {"source": name if recipe.data.sources else None, "license": corpus.license}
    if not recipe.filter.licenses:
        del missing["license"]
    for field, value in missing.items():
        if value is not None and batch.column(field).null_count:
            place = batch.schema.get_field_index(field)
            batch = batch.set_column(place, batch.schema.field(place), pc.fill_null(batch.column(field), value))
    return batch


def _undecided(name: str, first: int, batches: "list[pa.RecordBatch]") -> "pa.RecordBatch":
    """The decisions on rows before any is made."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def column(field: str) -> pa.Array:
        return pa.concat_arrays([batch.column(field) for batch in batches])

    rows = pa.array(range(first, first + sum(batch.num_rows for batch in batches)), pa.int64())
    none = pa.nulls(len(rows), pa.string())
    named = {field: column(field) for field in ("id", "country", "language")}
    return pa.RecordBatch.from_pydict(
        {"source": pa.repeat(name, len(rows)), "row": rows}
        | named
        | {"rule": none, "why": none, "text": pc.utf8_slice_codeunits(column("text"), 0, EXCERPT)}
    )


def _examiner(given: Given) -> Work:
    """A worker's work: applies the rules to a unit."""
    once = functools.cache(lambda load, *asked: load(*asked))  # of several sources, a model is loaded for all
    rules = functools.partial(_model_rules, once) if given.models else _rules
    own = functools.cache(functools.partial(rules, given))

    def work(unit: Unit) -> Unit:
        (decisions,) = unpacked(unit.decisions)
        rows, decisions = _apply(own(decisions["source"][0].as_py()), unpacked(unit.rows), decisions)
        return Unit(unit.number, packed(rows), packed([decisions]))

    return work


def _apply(
    rules: "Mapping[str, Rule]", batches: "list[pa.RecordBatch]", decisions: "pa.RecordBatch"
) -> "tuple[list[pa.RecordBatch], pa.RecordBatch]":
    """The rows that all rules keep, in the same batches, and what each of the others was dropped by."""
    import numpy as np

    rule, why = (np.array(decisions[name].to_pylist(), object) for name in ("rule", "why"))
    alive, kept = np.flatnonzero(rule == None), []  # noqa: E711 -- row by row
    for batch in batches:
        places, alive = alive[: batch.num_rows], alive[batch.num_rows :]
        for name, check in rules.items():
            outcome = check(batch)
            stays = outcome.kept.to_numpy(zero_copy_only=False)
            said = np.array(outcome.why.to_pylist(), object)
            first = stays & (why[places] != None)  # noqa: E711 -- of what is kept, what spoke for it first
            why[places] = np.where(first, why[places], said)
            for place in places[~stays]:
                rule[place] = "unscored" if name == "reward" and (why[place] or "").startswith("unscored") else name
            batch, places = outcome.batch.filter(outcome.kept), places[stays]
            if not len(places):
                break
        else:
            kept.append(batch)
    return kept, decided(decisions, {"rule": rule, "why": why})


def _rules(given: Given, name: str) -> "dict[str, Rule]":
    """The rules for a source that need no model, in the order in which they are applied, by their names."""
    from ggez_hub.data import contamination, filters, regions

    settings, corpus = given.recipe.filter, given.recipe.data.corpora[name]
    evidence = settings.region if isinstance(settings.region, tuple) else ("country",)
    found: dict[str, Rule] = {}
    if settings.region and corpus.regional and evidence != ("image",):
        found["region"] = regions.in_region(given.region, evidence)
    found["text"] = filters.has_text(settings.min_text, settings.max_text)
    if settings.licenses:
        found["license"] = filters.licensed(settings.licenses)
    if settings.unsafe and settings.unsafe.column:
        found["unsafe"] = filters.safe(settings.unsafe.column, settings.unsafe.max)
    found["broken conversation"] = filters.whole_conversation()
    if settings.min_reward is not None and settings.reward is None:
        found["reward"] = filters.rewarded(settings.min_reward)
    found["broken picture"] = filters.pictures(given.roots[name])
    if settings.min_side or settings.max_aspect:
        found["size"] = filters.sized(settings.min_side, settings.max_aspect)
    if given.benchmarks:
        found["contamination"] = _marked(contamination.uncontaminated(contamination.Index.load(given.benchmarks)))
    return found


def _asks_models(recipe: Recipe) -> bool:
    settings = recipe.filter
    return bool(settings.embedding or settings.reward or (settings.unsafe and settings.unsafe.id))


def _model_rules(once: Callable[..., Any], given: Given, name: str) -> "dict[str, Rule]":
    """The same for those that need one."""
    from ggez_hub import families
    from ggez_hub.data import regions, rewards, safety, similarity

    settings, corpus = given.recipe.filter, given.recipe.data.corpora[name]
    evidence = settings.region if isinstance(settings.region, tuple) else ()
    found: dict[str, Rule] = {}
    if settings.embedding:
        embed = once(families.embedder, settings.embedding, settings.embedding_revision)
        if corpus.regional and "image" in evidence and settings.min_similarity is not None:
            found["region by image"] = regions.undecided(
                similarity.by_image(embed, given.region, settings.min_similarity)
            )
    if settings.unsafe and settings.unsafe.id:
        found["unsafe"] = once(safety.unsafe_picture, settings.unsafe)
    if settings.reward:
        found["reward"] = rewards.scored(once(rewards.scorer, settings.reward, families), settings.min_reward)
    if settings.embedding and settings.max_cosine is not None:
        found["embedding"] = similarity.embedded(embed)
    return found


def _marked(rule: "Rule") -> "Rule":
    """A rule that drops nothing, but says in `_contamination` what it would have been for."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from ggez_hub.data.filters import Outcome

    def mark(batch: pa.RecordBatch) -> Outcome:
        outcome = rule(batch)
        hits = pc.if_else(outcome.kept, pa.scalar(None, pa.string()), pc.fill_null(outcome.why, ""))
        every, nothing = pa.array([True] * len(hits)), pa.nulls(len(hits), pa.string())
        return Outcome(outcome.batch.append_column("_contamination", hits), every, nothing)

    return mark


# --------------------------------------------------------------------------------------------------------------- write
def _check(recipe: Recipe, found: Mapping[str, Any], folder: Path) -> None:
    """Raises InputError where nothing may be trained on what is left."""
    dropped, settings = found["dropped"], recipe.filter
    where = f"{folder / 'report.json'} and decisions.parquet beside it say which"
    before = {"region", "text", "license", *({"reward"} if settings.reward is None else ())}
    before |= {"unsafe"} if settings.unsafe and settings.unsafe.column else set()
    candidates = found["rows"] - sum(count for rule, count in dropped.items() if rule in before)
    for what in ("picture", "conversation"):
        bad = dropped.get(f"broken {what}", 0)
        if candidates and bad > settings.max_broken * candidates:
            several, samples = len(recipe.data.corpora) > 1, found["samples"][f"broken {what}"]
            shown = "; ".join(f"{report.row_name(row, several)}: {row['why']}" for row in samples[:3])
            mend = "mend the data, or allow more with filter.max_broken="
            if bad == candidates and all(row["why"] == images.NONE for row in samples):
                mend = "text alone trains nothing here; ggez_hub.data.filter_region filters such data"
            raise InputError(f"{bad} of {candidates} {what}s are broken, such as {shown}", f"{mend}; {where}")
    if settings.contamination == "refuse" and dropped.get("contamination"):
        row = found["samples"]["contamination"][0]
        raise InputError(
            f"{dropped['contamination']} of {found['rows']} rows stand in a benchmark that measures the model, such as "
            f"{report.row_name(row, len(recipe.data.corpora) > 1)}: {row['why']}",
            f"{where}; train without them: filter.contamination=drop; with them: filter.contamination=keep",
        )
    if not found["kept"]:
        mix = found["mix"] or {}
        for name, corpus in recipe.data.corpora.items():
            if corpus.share and not mix[name]["left"] and any(each["left"] for each in mix.values()):
                raise InputError(
                    f"source {name!r}: no row of it is left, so it cannot have a share of {corpus.share:g}",
                    f"{where}; mend it, or take it and its share out of data.sources",
                )
        reasons = ", ".join(f"{rule}: {count}" for rule, count in dropped.items() if count)
        if dropped.get("region"):
            countries = ", ".join(list(found["countries"]["before"])[:COUNTRIES])
            where = f"region {recipe.region!r} against the countries in the data: {countries}; {where}"
        raise InputError(f"no row is left of {found['rows']}; dropped by {reasons}", where)


# ----------------------------------------------------------------------------------------------------------- translate
class Translating(NamedTuple):
    """What a worker is given that translates."""

    settings: Translate
    region: Region
    cache: Path


def _translate(recipe: Recipe, region: Region, run: Run, parts: Parts, verdict: Verdict, translated: Parts) -> None:
    """Translates the rows that are left of sources that are to be; what is done is kept."""
    assert recipe.translate  # noqa: S101 -- for the type checker
    local = any(translator.endpoint is None for translator in recipe.translate.translators.values())
    given = Translating(recipe.translate, region, (run.folder / TRANSLATIONS).absolute())
    wanted = [name for name, corpus in recipe.data.corpora.items() if corpus.translate]
    units = functools.partial(_to_translate, parts, verdict, wanted)
    _work("translate", recipe.engine, units, [Step(_translator, given, local)], translated)


def _to_translate(parts: Parts, verdict: Verdict, sources: list[str], *, done: frozenset[int]) -> Iterator[Unit]:
    import pyarrow as pa

    for number in parts.done():
        decisions = parts.decisions(number)
        if number in done or decisions["source"][0].as_py() not in sources:
            continue
        if rows := list(examples.left(parts, verdict, number)):
            count = sum(batch.num_rows for batch in rows)
            nothing = pa.RecordBatch.from_pydict(
                {name: pa.nulls(count, pa.string()) for name in ("rule", "why", "into")}
            )
            yield Unit(number, packed(rows), packed([nothing]))


def _translator(given: Translating) -> Work:
    """A worker's work: translates a unit. Its decisions are on the rows that it was given."""
    import pyarrow as pa

    from ggez_hub.data import translation

    def work(unit: Unit) -> Unit:
        rows, rule, why, into, failed = [], [], [], [], []
        for batch in unpacked(unit.rows):
            made = translation.translated(batch, given.settings, given.region, given.cache)
            there: dict[int, list[str]] = {}  # of each row: the languages that it is in now
            for origin, language in zip(made.origin, made.batch["language"].to_pylist(), strict=True):
                there.setdefault(origin, []).append(language)
            problems: dict[int, list[translation.Problem]] = {}
            for problem in made.problems:
                problems.setdefault(problem.row, []).append(problem)
            for place, name in enumerate(batch["language"].to_pylist()):
                now, wrong = there.get(place, []), problems.get(place, [])
                rule.append(None if now else "translation")
                into.append("|".join(now) if now and now != [name] else None)
                why.append("; ".join(f"{p.language}: {p.reason}{p.detail and f' ({p.detail})'}" for p in wrong) or None)
                failed.append([f"{p.language}: {p.reason}" for p in wrong])
            if made.batch.num_rows:
                rows.append(made.batch)
        columns = {"rule": rule, "why": why, "into": into}
        arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
        arrays["failed"] = pa.array(failed, pa.list_(pa.string()))
        return Unit(unit.number, packed(rows), packed([pa.RecordBatch.from_pydict(arrays)]))

    return work


def _with_translations(parts: Parts, verdict: Verdict, translated: Parts) -> Verdict:
    """The verdict once translations are known."""
    import numpy as np

    columns = {name: getattr(verdict, name).copy() for name in ("rule", "why", "into")}
    problems: Counter[str] = Counter()
    for number in translated.done():
        decisions = translated.decisions(number)
        rows = parts.decisions(number)["rule"].null_count
        first = verdict.first[number]
        places = first + np.flatnonzero(verdict.rule[first : first + rows] == None)  # noqa: E711 -- row by row
        for name, values in columns.items():
            values[places] = decisions[name].to_pylist()
        problems.update(itertools.chain.from_iterable(decisions["failed"].to_pylist()))
    return replace(verdict, **columns, problems=problems)


# ---------------------------------------------------------------------------------------------------------------- card
def card(recipe: Recipe, run: Run, region: Region, found: Mapping[str, Any], shards: bool = False) -> str:
    """The dataset card of the examples: metadata, then the rendered template.

    Args:
        recipe: The recipe.
        run: Its run folder.
        region: Its region.
        found: The contents of report.json.
        shards: Whether the examples are a folder.
    """
    from huggingface_hub import DatasetCardData

    licenses = sorted({license_ for _, license_ in account.licenses(recipe) if license_})
    known = [license_ for license_ in licenses if license_ in metadata.LICENSES]
    name, synthetic = run.folder.name, account.is_synthetic(recipe)
    one = "unknown" if not licenses else known[0] if licenses == known[:1] else "other"
    data = DatasetCardData(
        license=one,
        license_name="several" if one == "other" else None,
        language=account.languages(recipe, region),
        pretty_name=f"{account.title(recipe)}, filtered to {region.title}",
        size_categories=[_size(sum(found["languages"]["after"].values()))],
        tags=["ggez", f"ggez-region:{recipe.region}", *(["synthetic"] if synthetic else [])],
        configs=[{"config_name": "default", "data_files": f"examples.parquet{'/*' if shards else ''}"}],
    )
    text = card_template(TEMPLATE).render(
        title=account.title(recipe),
        recipe_name=name,
        region=region,
        synthetic=synthetic,
        drawn=[name for name, corpus in recipe.data.corpora.items() if corpus.synthetic],
        sources=account.sources(recipe, found),
        licenses=licenses,
        rules=account.rules(recipe.filter),
        translation=account.translation(recipe, region),
        found=found,
    )
    text = f"---\n{data.to_yaml()}\n---\n\n{text}"
    if problems := metadata.problems(text):
        raise InputError("\n".join(f"dataset card: {line}" for line in problems), "mend data in the recipe")
    return text


def _size(rows: int) -> str:
    """A number of rows in the Hub's words."""
    names = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
    return next((name for i, name in enumerate(names) if rows < 10 ** (i + 3)), "n>1B")
