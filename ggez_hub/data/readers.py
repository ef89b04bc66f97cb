"""Corpus readers: each turns a source into Arrow batches of rows. A new corpus is one function here.

A row has the fields of row_schema; a reader may leave any of them out and add others, which `where` can select on.
Pictures are references until a row is kept: {bytes, path}, as in the `datasets` library, see ggez_hub.data.images.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.data import benchmarks, conversations, corpora, folders, tables
from ggez_hub.data.codes import ALIASES as ALIASES
from ggez_hub.data.codes import iso3 as iso3
from ggez_hub.data.codes import iso639 as iso639
from ggez_hub.errors import ConfigError, HubError, InputError, did_you_mean
from ggez_hub.schema import HubSource

if TYPE_CHECKING:
    import pyarrow as pa

FIELDS = (
    "id", "image", "text", "messages", "label", "category", "country", "language", "source", "license", "reward",
    "question", "options", "answer", "kind",
)  # fmt: skip
FURTHER = ("prompt_type",)  # fields that questions alone may have: in which of several ways they ask


@cache
def row_schema() -> "pa.Schema":
    """The Arrow schema of a row.

    `country` is ISO3; `label` names what a picture shows; `reward` is a quality 1..5. `messages` is a conversation
    about the picture, `<image>` in a user's message where it stands. Of a question, `options` are what it lists,
    `answer` is one of them or, for an open question, all that are right, with "|" between; `kind` is what it asks for.
    A row of several countries has "|" between them.
    """
    import pyarrow as pa

    return pa.schema(list((dict.fromkeys(FIELDS, pa.string()) | tables.nested()).items()))


# -------------------------------------------------------------------------------------------------------------- readers
def pocket(
    *,
    train: int = 0,
    selection: int = 0,
    test: int = 0,
    judge: int = 0,
    held_back: int | None = None,
    calm: bool = False,
) -> Iterator["pa.RecordBatch"]:
    """The drawn concepts of the pocket atlas. Synthetic.

    Args:
        train: Training pictures of each concept.
        selection: Pictures of each concept on which alpha is chosen.
        test: Test pictures of each concept.
        judge: Pictures of each concept that train a recogniser, and nothing else. No two splits share a seed.
        held_back: Training pictures of each concept outside the common core; None = as many as `train`.
        calm: On a light ground with nothing else, for models that learn to draw.
    """
    import pyarrow as pa

    from ggez_hub.pocket import atlas

    for concept in atlas.concepts():
        rows = []
        counts = {
            "train": train if concept.core or held_back is None else held_back,
            "selection": selection,
            "test": test,
            "judge": judge,
        }
        for split, count in counts.items():
            for i in range(count):
                path = atlas.picture_path(concept, split, i, calm)
                rows.append(
                    {
                        "id": path,
                        "image": {"bytes": None, "path": path},
                        "text": atlas.caption(concept, i),
                        "label": concept.name,
                        "category": concept.category,
                        "country": concept.country,
                        "language": "en",
                        "source": "pocket atlas (synthetic)",
                        "license": "apache-2.0",
                        "split": split,
                        "core": concept.core,
                    }
                )
        if rows:
            yield pa.RecordBatch.from_pylist(rows)


def pocket_questions(
    *, train: int = 0, selection: int = 0, test: int = 0, held_back: int | None = None, answers: str = "plain"
) -> Iterator["pa.RecordBatch"]:
    """The pictures of `pocket`, each with a question about it and a conversation that answers it. Synthetic.

    Captions tell more than those of `pocket`: a fact, too.

    Args:
        train: Training pictures of each concept.
        selection: Pictures of each concept on which alpha is chosen.
        test: Test pictures of each concept.
        held_back: Training pictures of each concept outside the common core; None = as many as `train`.
        answers: In words, by letter, or yes and no (`plain`); or all as those of CultureVerse, which say what is shown,
            weigh the options and end with a letter (`reasoned`): rows are then as `cultureverse` gives them.
    """
    import pyarrow as pa

    from ggez_hub.pocket import questions

    benchmarks.one_of("answers", answers, ("plain", "reasoned"))
    for batch in pocket(train=train, selection=selection, test=test, held_back=held_back):
        rows = []
        for row in batch.to_pylist():
            seed = int(row["id"].rpartition("/")[2])
            if answers == "reasoned":
                rows.append(row | {"text": questions.caption(row["label"], seed)} | _reasoned(row, seed))
                continue
            asked = questions.ask(row["label"], seed)
            user, assistant = {
                "open": (asked.question, asked.answer),
                "letter": (
                    conversations.lettered(asked.question, asked.options),
                    conversations.LETTERS[asked.options.index(asked.answer)],
                ),
                "whether": (asked.whether, "yes" if asked.agrees else "no"),
            }[asked.form]
            messages = [
                {"role": "user", "content": conversations.IMAGE + user},
                {"role": "assistant", "content": assistant},
            ]
            question = {"question": asked.question, "options": asked.options, "answer": asked.answer}
            told = {"text": questions.caption(row["label"], seed), "kind": asked.kind, "messages": messages}
            rows.append(row | question | told)
        yield pa.RecordBatch.from_pylist(rows)


def _reasoned(row: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """What CultureVerse's readers make of a drawing of the atlas."""
    from ggez_hub.pocket import questions

    record = questions.record(row["label"], seed, row["split"]) | {"id": row["id"], "image": row["id"]}
    asked = benchmarks.culture_question(row["id"], record, "given", {})
    messages = [
        {"role": "user", "content": conversations.IMAGE + asked["question"]},
        {"role": "assistant", "content": record["explanation"]},
    ]
    return asked | {"messages": messages}


def parquet(path: str, *, pictures: bool = True) -> Iterator["pa.RecordBatch"]:
    """A parquet file, or a folder of them, read in batches; without `pictures` no column that holds such."""
    import pyarrow as pa

    for file in _parquet_files(path):
        try:
            yield from tables.parquet_batches(file, pictures)
        except (pa.ArrowInvalid, OSError) as err:  # OSError: damaged pages behind a sound end of the file
            raise InputError(
                f"{file}: not a readable parquet file: {err}", "check that the download is complete"
            ) from err


def _parquet_files(path: str) -> list[Path]:
    if Path(path).is_file():  # whatever it is called
        return [Path(path)]
    return tables.files(path, (".parquet",))


READERS: dict[str, Callable[..., Iterator["pa.RecordBatch"]]] = {
    "pocket": pocket,
    "pocket_questions": pocket_questions,
    "parquet": parquet,
    **benchmarks.READERS,
    **corpora.READERS,
    **folders.READERS,
}
# What is fetched of a data set on the Hub.
PATTERNS = benchmarks.PATTERNS | corpora.PATTERNS | folders.PATTERNS
STRICT = frozenset({"parquet", *benchmarks.READERS})  # readers of which a value of the wrong type is an error, not null


# -------------------------------------------------------------------------------------------------------------- reading
def check(reader: str, options: Mapping[str, Any], place: str) -> None:
    """Raises ConfigError if there is no such reader or it does not take these options."""
    if reader not in READERS:
        raise ConfigError([f"{place}  reader: unknown reader {reader!r}{did_you_mean(reader, READERS)}"])
    set_here = ("path", "pictures", "name", "revision")  # by `read`
    known = [name for name in inspect.signature(READERS[reader]).parameters if name not in set_here]
    wrong = [name for name in options if name not in known]
    if wrong:
        raise ConfigError([f"{place}  options.{name}: unknown option{did_you_mean(name, known)}" for name in wrong])


def needs_path(reader: str) -> bool:
    """Whether a reader reads from a file or folder."""
    return "path" in inspect.signature(READERS[reader]).parameters


def place(source: HubSource, path: str | None = None, section: str = "source") -> Path:
    """The file or folder that a source is read from: its own, its data set on the Hub, or the one given here.

    Args:
        source: What to read, with a reader that needs a path.
        path: Used where the source itself names neither.
        section: Where the source stands in its YAML file, for messages.

    Raises:
        InputError: There is none of the three.
        HubError: The Hub refused or cannot be reached.
    """
    from ggez_hub.hub import datasets

    if source.path:
        return Path(source.path)
    if source.id:
        try:
            return datasets.fetch(source.id, source.revision, patterns(source))
        except HubError as err:
            raise HubError(err.message, f"{err.hint}; a copy on this machine: {section}.path=FOLDER") from err
    if path:
        return Path(path)
    raise InputError(f"reader {source.reader!r} needs a file or folder", f"add {section}.path=FILE to the command")


def patterns(source: HubSource) -> list[str]:
    """What is fetched from the Hub: ``{option}`` in a pattern stands for each of the values that the option lists."""
    found = []
    for pattern in PATTERNS.get(source.reader, ("*",)):
        listed = {name: str(source.options.get(name, "*")).split("|") for name in re.findall(r"{(\w+)}", pattern)}
        found += [pattern.format(**dict(zip(listed, values, strict=True))) for values in product(*listed.values())]
    return found


def root(place: Path | None) -> Path | None:
    """The folder that pictures named in data are relative to: that of the file, or the folder of files itself."""
    return place if place is None or place.is_dir() else place.parent


def read(
    source: HubSource, path: str | None = None, pictures: bool = True, section: str = "source"
) -> Iterator["pa.RecordBatch"]:
    """Reads a source as batches in the row schema, further columns behind it; countries become ISO3.

    Args:
        source: What to read.
        path: Used where the source itself names none.
        pictures: Whether pictures are wanted; a reader that can do without leaves them unread where they are not.
        section: Where the source stands in its YAML file, for messages.

    Raises:
        InputError: No path, a column that is not there, a wrong type, or a file that is not what the reader expects.
    """
    options, known = dict(source.options), inspect.signature(READERS[source.reader]).parameters
    needed = () if source.reader in benchmarks.READERS else ("image", "text") if pictures else ("text",)
    if "path" in known:
        options["path"] = str(place(source, path, section))
    if "name" in known:  # streamed from the Hub
        if not (name := source.path or source.id or path):
            raise InputError(f"reader {source.reader!r} needs a data set", f"add {section}.id=NAMESPACE/NAME")
        options |= {"name": name} | ({"revision": source.revision} if source.revision and not source.path else {})
    if "pictures" in known:
        options["pictures"] = pictures
    columns = (
        source.columns if pictures else {field: name for field, name in source.columns.items() if field != "image"}
    )
    where = str(options.get("path") or options.get("name") or source.reader)
    for batch in READERS[source.reader](**options):
        if source.reader not in benchmarks.READERS:
            batch = tables.cleaned(batch)
        batch = _in_schema(batch, columns, where, needed, section, source.reader in STRICT)
        batch = select(batch, source.where)
        if batch.num_rows:
            yield batch


def fingerprint(source: HubSource, path: str | None = None) -> dict[str, str]:
    """Hashes of the files that a source reads, for the manifests; of a data set on the Hub its commit."""
    from ggez_hub.hub import datasets
    from ggez_hub.pocket import atlas
    from ggez_hub.runs import fingerprint as hashed

    if not needs_path(source.reader) and source.reader not in folders.READERS:
        return {"atlas": hashed(atlas.FOLDER)}
    if source.id and not source.path:
        return {source.id: datasets.resolve(source.id, source.revision)}
    place = source.path or path
    return {str(place): hashed(Path(place))} if place and Path(place).exists() else {}


def column(batch: "pa.RecordBatch", field: str) -> "pa.Array":
    """A column of a batch, or an InputError that offers the nearest name."""
    if field not in batch.schema.names:
        raise InputError(f"no column {field!r} in the data{did_you_mean(field, batch.schema.names)}")
    return batch.column(field)


def select(batch: "pa.RecordBatch", where: Mapping[str, tuple[Any, ...]]) -> "pa.RecordBatch":
    """The rows whose fields have one of the given values, or of lists one that is in them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    for field, values in where.items():
        given = column(batch, field)
        listed = pa.types.is_list(given.type) or pa.types.is_large_list(given.type)
        each = pc.list_flatten(given) if listed else given
        hits = pc.is_in(each, value_set=_values(field, each.type, values))
        if listed:
            kept = np.zeros(batch.num_rows, bool)
            kept[pc.list_parent_indices(given).filter(hits)] = True
            hits = pa.array(kept)
        batch = batch.filter(hits)
    return batch


def _values(field: str, kind: "pa.DataType", values: tuple[Any, ...]) -> "pa.Array":
    import pyarrow as pa

    try:
        if pa.types.is_integer(kind) and any(isinstance(value, float) and not value.is_integer() for value in values):
            raise pa.ArrowInvalid("Arrow would cut off what is behind the point")
        return pa.array(values, type=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as err:
        hint = f"put quotes around them: where.{field}={list(map(str, values))}" if pa.types.is_string(kind) else None
        raise InputError(f"where.{field}: {list(values)} do not fit the column, which is {kind}", hint) from err


def _in_schema(
    batch: "pa.RecordBatch", columns: Mapping[str, str], where: str, needed: tuple[str, ...], section: str, strict: bool
) -> "pa.RecordBatch":
    import pyarrow as pa

    given = {  # categories, as pandas writes them, become plain strings
        name: values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
        for name, values in zip(batch.schema.names, batch.columns, strict=True)
    }
    named = dict(given)
    for field, theirs in columns.items():
        found = _part(given, theirs)
        if found is None:
            raise InputError(
                f"{where}: no column {theirs!r} (wanted as {field!r}){did_you_mean(theirs, batch.schema.names)}",
                f"set {section}.columns.{field}= to the right one",
            )
        named[field] = found
    for field in needed:
        if field not in named and not (field == "text" and "messages" in named):
            raise InputError(
                f"{where}: no column {field!r}; the file has: {', '.join(batch.schema.names)}",
                f"name the right one with {section}.columns.{field}=COLUMN",
            )
    arrays: dict[str, pa.Array] = {}
    for field in row_schema():
        values = named.pop(field.name, None)
        if field.name == "label" and values is None:
            values = arrays["text"]
        if values is None:
            values = pa.nulls(batch.num_rows, field.type)
        try:
            arrays[field.name] = tables.cast(values, field.type, strict)
        except pa.ArrowException as err:
            raise InputError(f"{where}: column {field.name!r} is {values.type}, expected {field.type}") from err
    arrays["country"] = _iso3(arrays["country"])
    return pa.RecordBatch.from_pydict(arrays | named)


def _part(given: Mapping[str, "pa.Array"], name: str) -> "pa.Array | None":
    """A column, or a field of one: ``meta.caption``."""
    import pyarrow as pa

    if name in given:
        return given[name]
    outer, _, inner = name.partition(".")
    if not inner or outer not in given or not pa.types.is_struct(given[outer].type):
        return None
    names = [field.name for field in given[outer].type]
    return _part(dict(zip(names, given[outer].flatten(), strict=True)), inner)


def _iso3(countries: "pa.Array") -> "pa.Array":
    """Countries in any usual spelling, several with "|" between, as ISO3 codes; what is no country stays as it is."""
    import pyarrow as pa

    codes = countries.dictionary_encode()
    each = [[iso3(name) or name.strip() for name in names.split("|")] for names in codes.dictionary.to_pylist()]
    return pa.array(["|".join(dict.fromkeys(names)) for names in each], pa.string()).take(codes.indices)
