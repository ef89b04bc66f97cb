"""What is really there: with a network, all that a recipe names is held against the Hub before any of it is fetched.

Of data sets some rows are read by ranges of their files and written into a temporary folder under the same names, where
the real reader reads them: it knows best which columns it misses.
"""

import contextlib
import csv
import functools
import io
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from multiprocessing import TimeoutError as TooLong
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from ggez_hub import hub, pins, registry
from ggez_hub.data import archives, folders, readers
from ggez_hub.data.rewards import MODELS
from ggez_hub.endpoint import Ask, Endpoint
from ggez_hub.errors import GgezError, HubError, InputError
from ggez_hub.pins import Checked, Named, Repository
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import Key, Place
from ggez_hub.schema import HubSource, Recipe

TIMEOUT = 10.0  # seconds that an answer may take
KNOCK = 3.0  # ... that the Hub may take to say that it is there
PATIENCE = 60.0  # ... that the reader `hub` has for its first rows
ROWS = 16  # of each file
HEAD = 2**21  # bytes of a file of texts
TABLE = 2**23  # bytes of a file of columns at most
AHEAD = 2**18  # ... that are read at once
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
TEXTS = (".csv", ".tsv", ".json", ".jsonl")
COLUMNS = (".parquet", ".arrow")
BETWEEN = re.compile(r"[,\s]*")  # the values of a JSON list


class Unread(Exception):
    """Some rows of a file could not be had cheaply; no fault of the recipe."""


def check(recipe: Recipe, place: Place, addresses: bool = True) -> list[Checked]:
    """Holds all that a recipe and its benchmarks name against the Hub: ids, revisions, licenses, gating, columns.

    Never raises for what it finds, nor for a missing network, of which one `Checked` tells.

    Args:
        recipe: The recipe.
        place: Names the place of a key of it.
        addresses: Whether the servers that it names may be asked as well; of a stranger's recipe they had better not.
    """
    from httpx2 import TransportError

    value = recipe.model_dump(mode="json", by_alias=True)
    named: list[tuple[Named, Place, str]] = [(thing, place, "") for thing in (*pins.named(value), *_published(recipe))]
    sources: dict[tuple[str, Key], tuple[HubSource, Place]] = {
        ("", ("data", "sources", name) if recipe.data.sources else ("data",)): (corpus, place)
        for name, corpus in recipe.data.corpora.items()
    }
    for name in recipe.sweep.benchmarks:
        benchmark = load_benchmark(name)
        _, there = registry.parse_file(registry.find("benchmarks", name))
        prefix = f"benchmarks.{name}."
        named += [(thing, there, prefix) for thing in pins.named(benchmark.model_dump(mode="json", by_alias=True))]
        sources[prefix, ("source",)] = benchmark.source, there
    servers = _servers(recipe)
    if not named and not servers:
        return []
    if reason := _unreachable():
        hint = "with a network, rehearse once more"
        return [Checked("", "", "network", None, f"nothing was held against the Hub: {reason}", hint)]
    found = list(_endpoints(servers, place)) if addresses else []
    asked = functools.cache(pins.ask)
    for thing, there, prefix in named:
        try:
            told, repository = pins.examine(thing, there, asked, prefix)
            found += told
            if repository and thing.kind == "model":
                found += _weights(recipe, thing, repository, there, prefix)
            source, _ = sources.get((prefix, thing.key[:-1]), (None, None))
            if repository and source and thing.key[-1] == "id" and not source.path:
                found.append(_columns(source, repository, thing, there, prefix))
        except GgezError as err:
            said = f"{there(thing.key)}  {registry.dotted(thing.key)}: {err.message}"
            gone = isinstance(err.__cause__, TransportError)  # not once more for each of the rest
            said += "; the rest was not asked for" * gone
            found.append(Checked(prefix + registry.dotted(thing.key), thing.id, "asked", None, said, err.hint))
            if gone:
                break
    return found


def _published(recipe: Recipe) -> Iterator[Named]:
    """The weights of a reward model that a recipe calls by its short name."""
    reward = recipe.filter.reward
    known = MODELS.get(reward.model) if reward and not reward.id and not reward.endpoint else None
    if reward and known and known.id:
        pin = ("filter", "reward", "revision") if reward.revision else None
        yield Named(
            ("filter", "reward", "model"),
            known.id,
            known.id,
            "model",
            pin,
            reward.revision,
            reward.license or known.license,
        )


def _unreachable() -> str:
    """Why the Hub cannot be reached; empty if it can."""
    from httpx2 import HTTPError
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import OfflineModeIsEnabled

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=KNOCK)
    except OfflineModeIsEnabled:
        return "the client is offline"
    except HTTPError as err:
        return f"{constants.ENDPOINT} cannot be reached ({err})"
    return ""


# --------------------------------------------------------------------------------------------------------------- models
def _weights(recipe: Recipe, thing: Named, repository: Repository, place: Place, prefix: str) -> Iterator[Checked]:
    """Whether a model is safetensors, and, where a family loads it, of an architecture that it knows."""
    key = prefix + registry.dotted(thing.key)
    where = f"{place(thing.key)}  {registry.dotted(thing.key)}: {thing.id}"
    if any(file.endswith(".safetensors") for file in repository.files):
        yield Checked(key, thing.id, "weights", True, "safetensors")
    else:
        pickles = [file for file in repository.files if file.endswith(PICKLES)]
        has = f"has its weights as pickles alone ({pickles[0]})" if pickles else "has no weights"
        hint = "pickles are never loaded: name a revision or a copy with safetensors"
        yield Checked(key, thing.id, "weights", False, f"{where} {has}", hint)
    family = recipe.family if thing.key == ("base", "id") else "embedding"
    if thing.key not in (("base", "id"), ("filter", "embedding"), ("judge",)):
        return
    from ggez_hub.rehearsal import bases

    try:
        known = bases.find(thing.id, family, repository.commit, online=True)
    except HubError as err:
        yield Checked(key, thing.id, "architecture", None, f"{where}: {err.message}", err.hint)
    except InputError as err:
        yield Checked(key, thing.id, "architecture", False, f"{where}: {err.message}", err.hint)
    else:
        said = f"{known.class_name}, which family {known.family} loads"
        if known.family == family:
            yield Checked(key, thing.id, "architecture", True, said)
        else:
            hint = f"name a model of family {family}"
            yield Checked(key, thing.id, "architecture", False, f"{where} is a {said}, not {family}", hint)


def _servers(recipe: Recipe) -> dict[Key, tuple[str, str]]:
    """The servers that a recipe names, with the model of each, by their keys."""
    asked: dict[Key, tuple[str, str]] = {}
    reward = recipe.filter.reward
    if reward and reward.endpoint:
        known = MODELS.get(reward.model)
        asked["filter", "reward", "endpoint"] = reward.endpoint, reward.id or (known and known.served) or ""
    for name, translator in (recipe.translate.translators if recipe.translate else {}).items():
        if translator.endpoint:
            asked["translate", "translators", name, "endpoint"] = translator.endpoint, translator.id
    return asked


def _endpoints(servers: Mapping[Key, tuple[str, str]], place: Place) -> Iterator[Checked]:
    """Whether servers answer, with their models."""
    for key, (url, model) in servers.items():
        hint: str | None = "start it before the run"
        try:
            answer = Endpoint(url, model, timeout=TIMEOUT, retries=0, workers=1).ask([Ask("Say yes.", max_tokens=1)])[0]
            problem = answer.problem
        except GgezError as err:
            problem, hint = err.message, err.hint
        called = registry.dotted(key)
        if problem:  # no fault of the recipe: it has to run by then
            said = f"{place(key)}  {called}: {url}, model {model!r}: {problem}"
            yield Checked(called, model, "endpoint", None, said, hint)
        else:
            yield Checked(called, model, "endpoint", True, f"{url} answers")


# ----------------------------------------------------------------------------------------------------------------- data
def _columns(source: HubSource, repository: Repository, thing: Named, place: Place, prefix: str) -> Checked:
    """Whether the reader of a source finds what it reads in the first rows of its files."""
    section = registry.dotted(thing.key[:-1])
    key = f"{prefix}{section}"
    where = f"{place(thing.key[:-1])}  {section}: "

    def told(ok: bool | None, said: str, hint: str | None = None) -> Checked:
        return Checked(key, thing.id, "columns", ok, said if ok else where + said, hint)

    try:
        if source.reader == "hub":
            columns = _streamed(source, section)
            return told(True, f"{source.reader} reads them: {', '.join(columns)}")
        if not readers.needs_path(source.reader):
            return told(None, f"{source.reader} reads nothing from the Hub")
        with tempfile.TemporaryDirectory(prefix="ggez-") as folder:
            return _sampled(source, repository, thing, section, Path(folder), told)
    except Unread as err:
        return told(None, f"{thing.id}: {err}", "its columns show when it is fetched")
    except TooLong:
        return told(
            None, f"{thing.id}: no row of it within {PATIENCE:g} seconds", "its columns show when it is fetched"
        )
    except HubError as err:
        return told(None, err.message, err.hint)
    except InputError as err:
        return told(False, err.message, err.hint)


def _sampled(
    source: HubSource, repository: Repository, thing: Named, section: str, folder: Path, told: Callable[..., Checked]
) -> Checked:
    """Reads the first rows of a data set's files with its reader."""
    patterns = readers.patterns(source)  # what would be fetched
    chosen: list[str] = []
    for pattern in patterns:
        matching = [file for file in repository.files if fnmatchcase(file, pattern)]
        tables = [file for file in matching if file.endswith((*TEXTS, *COLUMNS))]
        chosen += [file for file in tables[:1] if file not in chosen]
        if not matching and _is_asked_for(source, pattern):
            return told(False, f"{thing.id} has no file {pattern}", f"it has: {_listed(repository.files)}")
    if not chosen:
        packed = [file for file in repository.files if file.endswith(archives.SUFFIXES)]
        if packed and source.reader in folders.READERS:
            raise Unread(f"its rows are in archives ({packed[0]}), of which no part is fetched")
        hint = f"it has: {_listed(repository.files)}"
        return told(False, f"{thing.id} has no file that {source.reader} reads: {', '.join(patterns)}", hint)
    held = folder / "data"
    columns: dict[str, None] = {}
    for file in chosen:
        columns |= dict.fromkeys(_head(thing.repo, repository.commit, file, held))
    options = dict(source.options)
    if isinstance(kb := options.get("kb"), str) and not Path(kb).exists():
        options["kb"] = str(_knowledge(kb, options.get("kb_revision"), folder / "kb"))
    sample = source.model_copy(update={"path": str(held), "options": options})
    whole = all(file.endswith(COLUMNS) for file in chosen)  # then its pictures are a column, of which the rest is there
    has = f"it has: {', '.join(columns)}"
    try:
        for _ in readers.read(sample, pictures=whole, section=section):
            pass
    except InputError as err:
        said, hint = (_called(text, folder, thing.id, kb) for text in (err.message, err.hint or ""))
        hint = hint if hint.startswith("it has: ") or not hint else f"{hint}; {has}"
        return told(False, said, hint or has)
    return told(True, f"{source.reader} reads {', '.join(chosen)}, which have {', '.join(columns)}")


def _is_asked_for(source: HubSource, pattern: str) -> bool:
    """Whether a pattern of files comes from an option, so that the recipe means just these."""
    return any(
        str(value) not in ("", "*") and part in pattern
        for name, value in source.options.items()
        for part in str(value).split("|")
        if any(f"{{{name}}}" in raw for raw in readers.PATTERNS.get(source.reader, ()))
    )


def _listed(files: Sequence[str]) -> str:
    return ", ".join(files[:20]) + (", ..." if len(files) > 20 else "")


def _called(text: str, folder: Path, name: str, kb: Any) -> str:
    """A message of files in the temporary folder as one of the files on the Hub."""
    return text.replace(f"{folder / 'data'}", name).replace(f"{folder / 'kb'}", str(kb))


def _knowledge(name: str, revision: Any, folder: Path) -> Path:
    """Some rows of a knowledge base: a CSV where there is one, which is what is read without pictures, else parquet."""
    found = pins.ask("dataset", name, revision)
    for suffix in (".csv", ".parquet"):
        for file in [file for file in found.files if file.endswith(suffix)][:1]:
            _head(name, found.commit, file, folder)
            return folder
    raise InputError(f"{name} has neither a CSV nor a parquet file", f"it has: {_listed(found.files)}")


def _streamed(source: HubSource, section: str) -> list[str]:
    """The columns of the first rows that the reader `hub` gives; it has a limit of time, as its library tries long."""

    def first() -> list[str]:
        for batch in readers.read(source, pictures=False, section=section):
            return list(batch.schema.names)
        raise InputError(f"{source.id}: no row of it is kept", f"check {section}.where and {section}.options.split")

    with ThreadPool(1) as pool:
        return pool.apply_async(first).get(PATIENCE)


# ---------------------------------------------------------------------------------------------------------------- heads
def _head(repo: str, commit: str, file: str, folder: Path) -> list[str]:
    """Writes the first rows of a file of a data set below a folder, under its name; returns its columns.

    Raises:
        InputError: It is not what its name says.
        HubError: The Hub refused, or cannot be reached.
        Unread: More would have to be read than is right.
    """
    path = folder / file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{repo}: has a file named {file!r}", "tell its publisher, or the Hub")
    path.parent.mkdir(parents=True, exist_ok=True)
    remote = _Ranges(repo, commit, file)
    try:
        if file.endswith(".parquet"):
            return _parquet(remote, path)
        if file.endswith(".arrow"):
            return _arrow(remote, path)
        return _texts(remote.head(HEAD), remote.size > HEAD, path)
    except (GgezError, Unread):
        raise
    except hub.UNREADABLE as err:
        raise InputError(f"{repo}: {file} cannot be read: {err}", "tell its publisher") from err


class _Ranges(io.RawIOBase):
    """A file on the Hub, of which only those bytes are fetched that are read."""

    def __init__(self, repo: str, commit: str, file: str) -> None:
        from huggingface_hub import hf_hub_url

        super().__init__()
        self._name = f"{repo}/{file}"
        self._url = hf_hub_url(repo, file, repo_type="dataset", revision=commit)
        self._at = self._spent = self.size = 0
        self._start, self._held = 0, self._fetch(0, AHEAD)

    def _fetch(self, start: int, count: int) -> bytes:
        from huggingface_hub import get_session, get_token, hf_raise_for_status

        self._spent += count
        if self._spent > TABLE:
            raise Unread(f"the first rows of {self._name} take more than {TABLE} bytes")
        headers = {"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
        if token := get_token():
            headers["Authorization"] = f"Bearer {token}"
        until, held = time.monotonic() + TIMEOUT, bytearray()
        with (
            hub.talking(self._name),
            get_session().stream("GET", self._url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response,
        ):
            if response.status_code == 416:  # an empty file
                return b""
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            told = response.headers.get("Content-Range", "").rpartition("/")[2]
            self.size = int(told) if told.isdigit() else int(response.headers.get("Content-Length", 0))
            if start and response.status_code != 206:
                raise Unread(f"no part of {self._name} can be fetched")
            for part in response.iter_bytes():
                held += part
                if len(held) >= count:
                    break
                if time.monotonic() > until:
                    raise ConnectionError(f"{count} bytes took more than {TIMEOUT:g} seconds")
        return bytes(held[:count])

    def head(self, count: int) -> bytes:
        """The first bytes."""
        rest = min(count, self.size) - len(self._held)
        return self._held + (self._fetch(len(self._held), rest) if rest > 0 else b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def read(self, count: int = -1) -> bytes:
        end = self.size if count is None or count < 0 else min(self._at + count, self.size)
        if not self._start <= self._at <= end <= self._start + len(self._held):
            length = min(max(end - self._at, AHEAD), self.size - self._at)
            self._start, self._held = self._at, self._fetch(self._at, length) if length > 0 else b""
        found = self._held[self._at - self._start : end - self._start]
        self._at = end
        return found


def _parquet(remote: _Ranges, path: Path) -> list[str]:
    """The first rows of the first row group, without the bytes of pictures."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(remote, pre_buffer=False, buffer_size=AHEAD) as reader:
        schema = reader.schema_arrow
        pictured = {
            field.name
            for field in schema
            if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
        }
        names = [name for name in schema.names if name not in pictured]
        groups = [0] if reader.num_row_groups else []
        batch = next(reader.iter_batches(ROWS, row_groups=groups, columns=names), None) if groups and names else None
    count = batch.num_rows if batch is not None else 0
    arrays: Mapping[str, pa.Array] = dict(zip(names, batch.columns, strict=True)) if batch is not None else {}
    table = pa.table([arrays.get(f.name, pa.nulls(count, f.type)) for f in schema], schema=schema)
    pq.write_table(table, path)
    return list(schema.names)


def _arrow(remote: _Ranges, path: Path) -> list[str]:
    """The first rows of the first batch of a stream."""
    import pyarrow as pa

    with pa.ipc.open_stream(remote) as reader:
        batch = next(iter(reader), None)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, reader.schema) as writer:
            if batch is not None:
                writer.write_batch(batch.slice(0, ROWS))
        return list(reader.schema.names)


def _texts(data: bytes, cut: bool, path: Path) -> list[str]:
    """The first rows of a file of texts, of which the end may be cut off in the middle of one."""
    text = data.decode("utf-8-sig", "ignore" if cut else "replace")
    rows: list[Any] = []
    names: list[str] = []
    if path.suffix in (".csv", ".tsv"):
        delimiter = "\t" if path.suffix == ".tsv" else ","
        with contextlib.suppress(csv.Error):
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
                rows.append(row)
                if len(rows) > ROWS + 1:
                    break
        rows = rows[: ROWS + 1] if not cut or len(rows) > ROWS + 1 else rows[:-1]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows(rows)
        names, *rows = rows or [[]]
    elif path.suffix == ".json" and text.lstrip()[:1] == "[":
        decode, at = json.JSONDecoder().raw_decode, text.index("[") + 1
        with contextlib.suppress(ValueError):  # the one that is cut off
            while len(rows) < ROWS:
                row, at = decode(text, BETWEEN.match(text, at).end())  # type: ignore[union-attr]  # it matches anything
                rows.append(row)
        path.write_text(json.dumps(rows), encoding="utf-8")
        names = list(rows[0]) if rows and isinstance(rows[0], dict) else []
    else:
        lines = text.split("\n")  # not splitlines, which finds ends inside texts
        rows = [line for line in (lines[:-1] if cut else lines) if line.strip()][:ROWS]
        path.write_text("\n".join(rows), encoding="utf-8")
        with contextlib.suppress(ValueError, TypeError):
            names = list(json.loads(rows[0]) if rows else ())
    if cut and not rows:
        raise Unread(f"the first row of {path.name} takes more than {HEAD} bytes")
    return names
