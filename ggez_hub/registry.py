"""Name <-> file. What is in the folder is what is registered: no table to keep.

Every file is read through the same strict code, whoever asks (validate, show, run), and all its problems are reported
at once with file and line.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from ggez_hub.errors import ConfigError, did_you_mean
from ggez_hub.schema import Benchmark, Recipe, Region

if TYPE_CHECKING:
    from jinja2 import Template

Kind = Literal["recipes", "regions", "benchmarks", "families"]
KINDS: tuple[Kind, ...] = ("recipes", "regions", "benchmarks", "families")
SCHEMAS: dict[str, type[BaseModel]] = {"recipes": Recipe, "regions": Region, "benchmarks": Benchmark}
M = TypeVar("M", bound=BaseModel)
MAX_DEPTH = 50  # of a YAML file; one that contains itself, by an anchor, has no end
MAX_NODES = 100_000  # ... whose anchors are written out
MAX_BYTES = 1_000_000
MAX_PROBLEMS = 1000  # of a file, that are told one by one
MAX_PARENTS = 5  # of a recipe that extends another, which extends another
EXTENDS = "extends"  # the key under which a recipe names another, to say only what differs from it
Key = tuple[str | int, ...]  # a path into a YAML file
Lines = Mapping[Key, tuple[Path, int]]  # the file and line that gave each key
Place = Callable[[Key], str]  # where a key was given, for people: file:line or argument


def data_root() -> Path:
    """Folder that holds recipes/, cards/ and spaces/: inside the wheel, or the checkout of an editable install."""
    packaged = Path(__file__).parent / "_data"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent


def card_template(name: str, **functions: Callable[..., str]) -> "Template":
    """A template of a card, in cards/: Markdown, not HTML, so that nothing is escaped.

    Args:
        name: The file.
        functions: What it may call.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(data_root() / "cards")
    environment = Environment(loader=loader, undefined=StrictUndefined, autoescape=False)
    return environment.get_template(name, globals=functions)


def files(kind: Kind) -> dict[str, Path]:
    """Names of a kind and the file behind each, sorted by name.

    A folder `recipes` in the current directory adds to the shipped ones; of equal names its file is taken.
    """
    found: list[Path] = []
    if kind == "families":
        found += [p for p in (Path(__file__).parent / "families").glob("[a-z]*.py") if p.stem != "base"]
    else:
        for root in (data_root() / "recipes", Path("recipes")):
            found += [
                p for p in root.rglob("*.yaml") if (p.parent.name if p.parent.name in SCHEMAS else "recipes") == kind
            ]
    return {p.stem: p for p in sorted(found, key=lambda p: (p.stem, not p.is_absolute()))}


def kind_of(path: str | Path) -> Kind:
    """The kind of a YAML file: told by the folder it lies in, or else by its keys."""
    path = Path(path)
    if path.parent.name in ("regions", "benchmarks"):
        return cast(Kind, path.parent.name)
    try:
        keys = set(parse_yaml(path.read_text(encoding="utf-8"), str(path))[0] or ())
    except (OSError, UnicodeDecodeError, ConfigError, TypeError):
        return "recipes"
    if EXTENDS in keys:
        return "recipes"
    scores = {kind: len(keys & schema.model_fields.keys()) for kind, schema in SCHEMAS.items()}
    return cast(Kind, max(scores, key=lambda kind: (scores[kind], kind == "recipes")))


def find(kind: Kind, name: str) -> Path:
    """The file of a name or path.

    Raises:
        ConfigError: Nothing of that name, with the nearest name.
    """
    known = files(kind)
    if name in known:
        return known[name]
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ConfigError([f"{name}: no such file"], "ggez ls " + kind)
    raise ConfigError([f"unknown {one(kind)} {name!r}{did_you_mean(name, known)}"], f"ggez ls {kind}")


def one(kind: Kind) -> str:
    """One of a kind: ``recipe``, ``family``."""
    return "family" if kind == "families" else kind[:-1]


# ----------------------------------------------------------------------------------------------------------------- YAML
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as people write it: `2e-3` is a number, `no` and `NO` (Norway) are strings, a repeated key is an error."""


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that _Loader would take for something else."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":bool", ":float", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$"), list("-+.0123456789")
)
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("map", "seq", "str", "int", "float", "bool", "null")
}
_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def to_yaml(value: Any) -> str:
    """Plain data as YAML that parse_yaml reads back unchanged."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _walk(node: yaml.Node, key: Key = ()) -> Iterator[tuple[Key, int, str | None]]:
    """Yields (key, line, problem) for every node of a composed document."""
    if len(key) > MAX_DEPTH:
        raise RecursionError
    yield key, node.start_mark.line + 1, None
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            line = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode):
                raise ValueError(f"line {line}: a key that is a list or a mapping")
            if name.value in seen:
                yield (*key, name.value), line, "key given twice"
            seen.add(name.value)
            for inner, inner_line, problem in _walk(value, (*key, name.value)):
                yield inner, line if inner == (*key, name.value) else inner_line, problem
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield from _walk(value, (*key, i))


def parse_yaml(text: str, where: str) -> tuple[Any, dict[Key, int]]:
    """Parses YAML and remembers the line of every key.

    Raises:
        ConfigError: Not YAML, or keys given twice.
    """
    try:
        depth = 0  # first, since composing goes down as deep as the text does, in C
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise RecursionError
        loader = _Loader(text)
        node = loader.get_single_node()
        walked = list(itertools.islice(_walk(node), MAX_NODES)) if node else []
        if len(walked) == MAX_NODES:
            raise ConfigError([f"{where}  not valid YAML: more than {MAX_NODES} values"])
        value = loader.construct_document(node) if node else None
    except RecursionError as err:
        raise ConfigError([f"{where}  not valid YAML: nested too deeply, or in itself"]) from err
    except (yaml.YAMLError, ValueError, LookupError) as err:  # the last two for numbers such as `0x_` and `!!int ""`
        mark = getattr(err, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError([f"{where}{line}  not valid YAML: {getattr(err, 'problem', None) or err}"]) from err
    lines: dict[Key, int] = {}
    problems = []
    for key, number, problem in walked:
        lines.setdefault(key, number)
        if problem:
            problems.append(f"{where}:{number}  {dotted(key)}: {problem}")
    if problems:
        raise ConfigError(problems)
    return value, lines


def dotted(key: Sequence[str | int]) -> str:
    """A key as people write it: ``sweep.alphas.0``."""
    return ".".join(str(part) for part in key)


# ----------------------------------------------------------------------------------------------------------- validation
def _model_at(model: type[BaseModel], key: Sequence[str | int]) -> type[BaseModel] | None:
    """The schema class that describes the mapping at a key, to offer the nearest of its field names."""
    current: Any = model
    named = False  # whether the next part is a name that the user gave
    for part in key:
        if named:
            named = False
            continue
        if not (isinstance(current, type) and issubclass(current, BaseModel)) or isinstance(part, int):
            return None
        fields = {f.alias or name: f for name, f in current.model_fields.items()}
        if part not in fields:
            return None
        annotation = fields[part].annotation
        named = get_origin(annotation) is dict
        current = next((a for a in (annotation, *getattr(annotation, "__args__", ())) if isinstance(a, type)
                        and issubclass(a, BaseModel)), annotation)  # fmt: skip
    return current if not named and isinstance(current, type) and issubclass(current, BaseModel) else None


def check(model: type[M], value: Any, place: Place) -> M:
    """Validates plain data; all problems in one ConfigError, each with the place that ``place(key)`` names."""
    if not isinstance(value, dict):
        raise ConfigError([f"{place(())}  expected a mapping of keys, got {type(value).__name__}"])
    try:
        # Through JSON: lists become tuples while numbers and strings stay strictly apart.
        return model.model_validate_json(json.dumps(value, default=str))
    except ValidationError as err:
        if err.error_count() > MAX_PROBLEMS:
            raise ConfigError([f"{place(())}  {err.error_count()} problems"]) from err
        problems = []
        for error in err.errors():
            key: Key = (*error["loc"], *getattr(error.get("ctx", {}).get("error"), "key", ()))  # of a schema.Misfit
            message = error["msg"].removeprefix("Value error, ")
            if error["type"] == "extra_forbidden":
                owner = _model_at(model, key[:-1])
                known = [f.alias or name for name, f in owner.model_fields.items()] if owner else []
                message = "unknown key" + did_you_mean(str(key[-1]), known)
            elif error["type"] == "missing":
                message = "is missing"
            elif error["type"].endswith("_type") and key and key[-1] in ("str", "int", "float", "bool"):
                key = key[:-1]  # one error for each type that it might be
                message = "expected text, a number, true or false"
            problems.append(f"{place(key)}  {dotted(key)}: {message}" if key else f"{place(key)}  {message}")
        raise ConfigError(by_line(problems)) from err


def by_line(problems: Iterable[str]) -> list[str]:
    """Problems without repetition, in the order of the file."""
    numbers = re.compile(r"(\d+)")
    return sorted(set(problems), key=lambda p: [int(n) if n.isdigit() else n for n in numbers.split(p)])


def read(model: type[M], path: Path, overrides: Mapping[str, Any] | None = None) -> M:
    """Reads one file into its schema, a recipe with those that it extends.

    Raises:
        ConfigError: Every problem, each at its line.
    """
    value, place = parse_file(path, overrides, extends=model is Recipe)
    return check(model, value, place)


def parse_file(path: Path, overrides: Mapping[str, Any] | None = None, extends: bool = False) -> tuple[Any, Place]:
    """A file's plain data with the overrides in it, and what names the place of a key.

    Args:
        path: The file.
        overrides: Values that win over the file.
        extends: Whether it may name a recipe that it extends: never a file that a stranger published, for that name
            may be a path on this machine.

    Raises:
        ConfigError: The file, or one that it extends, cannot be read, is not YAML or gives keys twice.
    """
    value, lines = extended(path)[:2] if extends else _parsed(path)
    given: dict[Key, Any] = {tuple(name.split(".")): new for name, new in (overrides or {}).items()}
    if isinstance(value, dict):
        for key, new in given.items():
            for other in _others(key[:-1], {key[-1]: new}) if extends else ():
                if (*key[:-1], other) not in given:
                    value = _without(value, (*key[:-1], other))
            value = _put(value, key, new)

    def place(key: Key) -> str:
        for over in given:
            if key[: len(over)] == over:
                return f"argument {dotted(over)}"
        inside = [f" and argument {dotted(over)}" for over in given if key and over[: len(key)] == key]
        while key not in lines and key:
            key = key[:-1]
        file, line = lines.get(key, (path, 1))
        return f"{file}:{line}{''.join(inside)}"

    return value, place


def _parsed(path: Path) -> tuple[Any, Lines]:
    """A file's plain data, and the place of every key in it. Raises ConfigError, as parse_file does."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ConfigError([f"{path}: {size} bytes, expected {MAX_BYTES} at most"])
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError([f"{path}: cannot be read as UTF-8 text: {err}"]) from err
    value, lines = parse_yaml(text, str(path))
    return value, {key: (path, line) for key, line in lines.items()}


def _put(value: Any, key: Key, new: Any) -> Any:
    """A copy of nested mappings with one value replaced."""
    if not key:
        return new
    inner = value if isinstance(value, dict) else {}
    return {**inner, key[0]: _put(inner.get(cast(str, key[0])), key[1:], new)}


def _without(value: Any, key: Key) -> Any:
    """A copy of nested mappings with one value less, if it is there."""
    if not isinstance(value, dict) or key[0] not in value:
        return value
    if len(key) == 1:
        return {name: inner for name, inner in value.items() if name != key[0]}
    return value | {key[0]: _without(value[key[0]], key[1:])}


# ------------------------------------------------------------------------------------------------------------ extending
def extended(path: Path) -> tuple[Any, Lines, tuple[Path, ...]]:
    """A recipe's plain data with what it inherits, the place of every key, and the files: its own, its parent's, ...

    Mappings are merged and all else is replaced, but for what the schema says of NAMED_BY and ONE_OF.

    Raises:
        ConfigError: A file cannot be read or is none, extends itself in a circle, or through more than MAX_PARENTS.
    """
    chain = [_parsed(path)]
    files = [path]
    while isinstance(value := chain[-1][0], dict) and EXTENDS in value:
        files.append(_parent(value.pop(EXTENDS), f"{files[-1]}:{chain[-1][1][EXTENDS,][1]}  {EXTENDS}", files))
        chain.append(_parsed(files[-1]))
        if not isinstance(chain[-1][0], dict):
            raise ConfigError([f"{files[-1]}:1  expected a mapping of keys, since {files[-2]} extends it"])
    value, lines = chain.pop()
    for ours, our_lines in reversed(chain):
        gone: set[Key] = set()
        value = _merged(value, ours, gone)
        kept = {key: at for key, at in lines.items() if not any(key[: i + 1] in gone for i in range(len(key)))}
        lines = kept | our_lines
    return value, lines, tuple(files)


def _parent(name: Any, place: str, files: Sequence[Path]) -> Path:
    """The file that the last of these files extends. Raises ConfigError where it cannot be."""
    is_path = isinstance(name, str) and name.endswith((".yaml", ".yml"))
    if is_path and data_root() / "recipes" in files[-1].absolute().parents:  # where a pull request may come from anyone
        raise ConfigError([f"{place}: a shipped recipe extends another by its name, not by a path"])
    if not isinstance(name, str):
        raise ConfigError([f"{place}: expected the name or the path of a recipe"])
    try:
        beside = files[-1].parent / name
        parent = beside if is_path and beside.is_file() else find("recipes", name)
    except (ConfigError, OSError) as err:
        problem = err.problems[0] if isinstance(err, ConfigError) else str(err)
        raise ConfigError([f"{place}: {problem}"], "ggez ls recipes") from err
    if parent.resolve() in [file.resolve() for file in files]:
        circle = " -> ".join(str(file) for file in (*files, parent))
        raise ConfigError([f"{place}: leads back to where it came from: {circle}"])
    if len(files) > MAX_PARENTS:
        raise ConfigError([f"{place}: more than {MAX_PARENTS} recipes above {files[0]}"])
    return parent


def _merged(inherited: Mapping[str, Any], ours: Mapping[str, Any], gone: set[Key], key: Key = ()) -> dict[str, Any]:
    """A mapping over the one that it inherits; adds to `gone` the keys whose inherited value is no part of it."""
    named_by = getattr(_model_at(Recipe, key), "NAMED_BY", ())
    anew = any(name in ours and not _same_thing(ours[name], inherited.get(name)) for name in named_by)
    left = {} if anew else {name: inherited[name] for name in inherited.keys() - _others(key, ours)}
    merged = {
        name: _merged(left[name], value, gone, (*key, name))
        for name, value in ours.items()
        if isinstance(value, dict) and isinstance(left.get(name), dict)
    }
    gone.update((*key, name) for name in inherited if name not in left or (name in ours and name not in merged))
    return {name: left[name] for name in inherited if name in left} | dict(ours) | merged


def _same_thing(ours: Any, inherited: Any) -> bool:
    return ours == inherited or (isinstance(ours, dict) and isinstance(inherited, dict))


def _others(key: Key, ours: Mapping[Any, Any]) -> set[str]:
    """What a mapping of a recipe takes the place of, of those keys of which only one is given."""
    one_of = getattr(_model_at(Recipe, key), "ONE_OF", ())
    return set(one_of) - ours.keys() if any(ours.get(name) is not None for name in one_of) else set()


# ------------------------------------------------------------------------------------------------------------ arguments
def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """Turns ``train.steps=50`` arguments into keys and values (values are YAML).

    Raises:
        ConfigError: Arguments without ``=``, or values that are not YAML.
    """
    result: dict[str, Any] = {}
    problems: list[str] = []
    for argument in arguments:
        name, sign, text = argument.partition("=")
        if not sign or not name:
            problems.append(f"argument {argument!r}: expected key=value, such as train.steps=50")
            continue
        try:
            result[name] = parse_yaml(text, f"argument {name}")[0]
        except ConfigError as err:
            problems.extend(err.problems)
    if problems:
        raise ConfigError(problems)
    return result


def load_list(model: type[M], path: Path) -> tuple[M, ...]:
    """Loads a YAML file that holds a list of the same thing. Raises ConfigError with every problem in it."""
    value, lines = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    items: list[M] = []
    problems: list[str] = []
    for i, item in enumerate(value):

        def place(key: Key, i: int = i) -> str:
            while (i, *key) not in lines and key:
                key = key[:-1]
            return f"{path}:{lines[(i, *key)]}"

        try:
            items.append(check(model, item, place))
        except ConfigError as err:
            problems.extend(err.problems)
    if problems:
        raise ConfigError(problems)
    return tuple(items)


def load_region(name: str) -> Region:
    """Loads a region by name or path. Raises ConfigError with every problem in the file."""
    return read(Region, find("regions", name))
