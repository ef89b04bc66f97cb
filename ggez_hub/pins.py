"""Pins: the commits at which recipes and benchmarks take what they name from the Hub, filled in and held against it."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from ggez_hub import hub, registry
from ggez_hub.errors import HubError, InputError
from ggez_hub.hub.names import hub_id
from ggez_hub.metadata import is_hub_id
from ggez_hub.registry import Key, Place
from ggez_hub.runs import write_text

Kind = Literal["model", "dataset"]
TIMEOUT = 20.0  # seconds that a question to the Hub may take
COMMIT = re.compile("[0-9a-f]{40}")
STOCK = re.compile(r"[ \t]+# the commit to pin[ \t]*(?=[\r\n]|\Z)")  # says what a pin replaces, so it goes with it
BY_HAND = "write it by hand; ggez pin --check tells whether it is right"


class Slot(NamedTuple):
    """Where a recipe or benchmark names something on the Hub."""

    key: str  # of the id; * is any
    kind: Kind
    pin: str | None = "revision"  # the key beside it with the commit; None = there is no place for one
    gated: bool = False  # whether `gated` stands beside it


SLOTS = (
    Slot("base.id", "model", gated=True),
    Slot("base.parts.*", "model", None),
    Slot("data.id", "dataset", gated=True),
    Slot("data.options.kb", "dataset", "kb_revision"),
    Slot("data.sources.*.id", "dataset", gated=True),
    Slot("data.sources.*.options.kb", "dataset", "kb_revision"),
    Slot("filter.embedding", "model", "embedding_revision"),
    Slot("filter.unsafe.id", "model"),
    Slot("filter.reward.id", "model"),
    Slot("translate.translators.*.id", "model"),
    Slot("source.id", "dataset", gated=True),
    Slot("source.options.kb", "dataset", "kb_revision"),
    Slot("judge", "model", "judge_revision"),
    Slot("registered.dataset", "dataset"),
)


@dataclass(frozen=True)
class Named:
    """Something on the Hub that a recipe or benchmark names.

    Attributes:
        key: Of its id.
        id: As it is written there.
        repo: The repository.
        kind: Of it.
        pin: The key of its commit; None = there is no place for one.
        revision: What stands there.
        license: What is declared; None = nothing.
        gated: The same; None = it cannot be declared here.
    """

    key: Key
    id: str
    repo: str
    kind: Kind
    pin: Key | None
    revision: str | None = None
    license: str | None = None
    gated: bool | None = None


@dataclass(frozen=True)
class Repository:
    """What the Hub says of a repository.

    Attributes:
        commit: The one that was asked for.
        licenses: As the Hub names them; empty = none is stated.
        gated: Whether it asks for access first.
        files: Their paths.
    """

    commit: str
    licenses: tuple[str, ...]
    gated: bool
    files: tuple[str, ...]


@dataclass(frozen=True)
class Checked:
    """Something that was held against the Hub.

    Attributes:
        key: What named it: a dotted key.
        id: Of it.
        what: Was checked: exists, pin, revision, license, gated, ...
        ok: None = it could not be told, or is no fault.
        said: The outcome; of what is wrong with its file and line in front.
        hint: The next step.
    """

    key: str
    id: str
    what: str
    ok: bool | None
    said: str
    hint: str | None = None


@dataclass(frozen=True)
class Pinned:
    """What became of a pin.

    Attributes:
        place: Of the id: file and line.
        id: What is pinned.
        old: The revision before; None = none.
        new: The one now.
        note: Why it is what it is, where that is not plain.
    """

    place: str
    id: str
    old: str | None
    new: str | None
    note: str = ""

    def __str__(self) -> str:
        change = f"{self.old or 'none'} -> {self.new or 'none'}" if self.old != self.new else f"{self.new or 'none'}"
        return f"{self.place}  {self.id} {change}{self.note and f'  ({self.note})'}"


# -------------------------------------------------------------------------------------------------------- what is named
def named(value: Any) -> Iterator[Named]:
    """What a recipe or benchmark names on the Hub: not what is shipped, in a folder, or behind an endpoint.

    Args:
        value: The plain data of a file, or of a whole recipe.

    Raises:
        InputError: An ``open_clip:`` name that open_clip does not know.
        DependencyError: Such a name without open_clip.
    """
    for slot in SLOTS:
        for key, section in _sections(value, tuple(slot.key.split("."))):
            name = section[str(key[-1])]
            if not isinstance(name, str) or section.get("endpoint") or Path(name).is_dir():
                continue
            if not is_hub_id(repo := hub_id(name)) or hub.is_shipped(repo):
                continue
            told: dict[str, Any] = {}
            if slot.key.endswith("id"):
                told["license"] = section.get("license")
            if slot.gated:
                told["gated"] = section.get("gated", False)
            pin = (*key[:-1], slot.pin) if slot.pin else None
            yield Named(key, name, repo, slot.kind, pin, section.get(slot.pin) if slot.pin else None, **told)


def _sections(value: Any, pattern: Sequence[str], key: Key = ()) -> Iterator[tuple[Key, Mapping[str, Any]]]:
    """The whole key of everything that a pattern of keys leads to, and the mapping that it stands in."""
    if not isinstance(value, Mapping):
        return
    for part in list(value) if pattern[0] == "*" else [part for part in pattern[:1] if part in value]:
        if len(pattern) == 1:
            yield (*key, part), value
        else:
            yield from _sections(value[part], pattern[1:], (*key, part))


def ask(kind: Kind, repo: str, revision: str | None = None) -> Repository:
    """What the Hub says of a repository; asked once, with a limit of time.

    Raises:
        HubError: It refused, or cannot be reached.
    """
    from huggingface_hub import HfApi

    with hub.talking(repo):
        told = HfApi().model_info if kind == "model" else HfApi().dataset_info
        info = told(repo, revision=revision, timeout=TIMEOUT)
    licenses = [tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")]
    if called := info.card_data and info.card_data.get("license_name"):  # of `license: other`
        licenses.append(str(called))
    files = tuple(sorted(file.rfilename for file in info.siblings or ()))
    return Repository(str(info.sha), tuple(licenses), bool(info.gated), files)


def examine(
    thing: Named, place: Place, asking: Callable[..., Repository] = ask, within: str = ""
) -> tuple[list[Checked], Repository | None]:
    """Holds what is said of a repository against the Hub: that it and its revision exist, its license, its gating.

    Args:
        thing: What is named.
        place: Names the place of a key.
        asking: `ask`, or something that remembers what was asked.
        within: Stands in front of keys.

    Returns:
        The findings, and the repository at its revision; None where there is no such.

    Raises:
        HubError: The Hub refused, or cannot be reached.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    found: list[Checked] = []
    missing = (RepositoryNotFoundError, RevisionNotFoundError)

    def add(what: str, ok: bool | None, said: str, hint: str | None = None, key: Key = thing.key) -> None:
        said = said if ok else f"{place(key)}  {registry.dotted(key)}: {said}"
        found.append(Checked(within + registry.dotted(key), thing.id, what, ok, said, hint))

    def there(revision: str | None) -> Repository | HubError:
        try:
            return asking(thing.kind, thing.repo, revision)
        except HubError as err:
            if not isinstance(err.__cause__, missing) or isinstance(err.__cause__, GatedRepoError):
                raise
            return err

    main = there(None)
    if isinstance(main, HubError):
        add("exists", False, main.message, main.hint)
        return found, None
    add("exists", True, f"the Hub has it, main at {main.commit}")
    at = main
    if thing.pin is None:
        add("pin", None, f"{thing.id} has no place for a revision here, so its newest files are taken")
    elif not thing.revision or not COMMIT.fullmatch(thing.revision):
        said = f"{thing.revision} is no commit" if thing.revision else "no commit is given"
        add("pin", None, f"{thing.id}: {said}; main is at {main.commit}", "ggez pin FILE fills it in", thing.pin)
    if thing.pin and thing.revision:
        pinned = there(thing.revision)
        if isinstance(pinned, HubError):
            hint = f"ggez pin FILE takes main's, {main.commit}"
            add("revision", False, f"{thing.id} has no revision {thing.revision}", hint, thing.pin)
            return found, None
        at = pinned
        add("revision", True, f"{at.commit}{'' if at.commit == main.commit else f'; main is at {main.commit}'}")
    if thing.license:
        same = thing.license.lower() in at.licenses
        said = f"{thing.id} is declared as {thing.license}, on the Hub it is {' or '.join(at.licenses)}"
        if not at.licenses:
            add("license", None, f"{thing.id} is declared as {thing.license}, the Hub states none", "read its card")
        else:
            add("license", same, thing.license if same else said, None if same else "read its card, then change one")
    if thing.gated is not None:
        same = thing.gated == at.gated
        asks = f"{thing.id}: the Hub {'asks for access first' if at.gated else 'gives it to everybody'}"
        mend = f"{registry.dotted((*thing.key[:-1], 'gated'))}: {str(at.gated).lower()}"
        told = str(at.gated).lower() if same else f"{asks}, gated says otherwise"
        add("gated", same, told, None if same else mend)
    return found, at


# ---------------------------------------------------------------------------------------------------------------- files
def files(names: Sequence[str], write: bool) -> list[Path]:
    """The YAML files of recipes and benchmarks, given by name or path; none given = all of the `recipes` folder.

    Args:
        names: Names or paths.
        write: Whether they are to be changed.

    Raises:
        ConfigError: No such thing.
        InputError: To be changed, but part of the installed package.
    """
    if names:
        found = [_file(name) for name in names]
    else:
        folder = Path("recipes") if Path("recipes").is_dir() else registry.data_root() / "recipes"
        found = [path for path in sorted(folder.rglob("*.yaml")) if registry.kind_of(path) != "regions"]
    inside = Path(registry.__file__).parent.resolve()
    for path in found if write else ():
        if path.resolve().is_relative_to(inside):
            hint = f"ggez cp {path.stem} {path.name}, then ggez pin {path.name}"
            raise InputError(f"{path}: belongs to the installed package, which is not changed", hint)
    return found


def _file(name: str) -> Path:
    kind: registry.Kind = "benchmarks" if name in registry.files("benchmarks") else "recipes"
    return registry.find("recipes" if name in registry.files("recipes") else kind, name)


def check(paths: Sequence[Path]) -> list[Checked]:
    """Holds pins, licenses and gating of YAML files against the Hub.

    Raises:
        ConfigError: A file that is not YAML.
        HubError: The Hub refused, or cannot be reached.
    """
    asked = functools.cache(ask)
    found = []
    for path in paths:
        value, place = registry.parse_file(path, extends=registry.kind_of(path) == "recipes")
        for thing in named(value):
            found += examine(thing, place, asked)[0]
    return found


def pin(paths: Sequence[Path]) -> list[Pinned]:
    """Gives what YAML files name the commit that main has now, in place; nothing else of a file changes.

    A pin that stands on another branch, such as ``refs/convert/parquet``, stays; the name of one becomes its commit.
    Of a recipe that extends another only its own ids are pinned, not those that it inherits.

    Raises:
        ConfigError: A file that is not YAML.
        InputError: A file that cannot be edited as text; none is written then.
        HubError: The Hub refused, or cannot be reached; none is written then.
    """
    asked = functools.cache(ask)
    found: list[Pinned] = []
    texts: dict[Path, str] = {}
    for path in paths:
        text = path.read_bytes().decode("utf-8")  # with its line ends
        value, lines = registry.parse_yaml(text, str(path))
        commits: dict[Key, tuple[Key, str]] = {}
        for thing in named(value):
            new, note = _wanted(thing, asked)
            found.append(Pinned(f"{path}:{lines.get(thing.key, 1)}", thing.id, thing.revision, new, note))
            if thing.pin and new and new != thing.revision:
                commits[thing.key] = thing.pin, new
        if commits:
            texts[path] = edited(text, commits, str(path))
    for path, text in texts.items():
        write_text(path.resolve(), text)
    return found


def _wanted(thing: Named, asked: Callable[..., Repository]) -> tuple[str | None, str]:
    """The commit that something is to be pinned at, and a word on it."""
    if thing.pin is None:
        return None, f"{registry.dotted(thing.key)} has no place for a revision"
    main: str = asked(thing.kind, thing.repo).commit
    old = thing.revision
    if not old or old in (main, "main"):
        return main, ""
    if COMMIT.fullmatch(old) and _on_main(thing, old):
        return main, ""
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        commit: str = asked(thing.kind, thing.repo, old).commit
    except HubError as err:
        if not isinstance(err.__cause__, RevisionNotFoundError):
            raise
        return main, "the old one has gone"
    return commit, f"not on main, which is at {main}"


def _on_main(thing: Named, commit: str) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError

    try:
        with hub.talking(thing.repo):
            return commit in {each.commit_id for each in HfApi().list_repo_commits(thing.repo, repo_type=thing.kind)}
    except HubError as err:
        if not isinstance(err.__cause__, GatedRepoError):
            raise
        return True  # its history is not told: most are


# ----------------------------------------------------------------------------------------------------------------- text
def edited(text: str, commits: Mapping[Key, tuple[Key, str]], where: str) -> str:
    """YAML with commits in it, every other byte as it was.

    Args:
        text: The whole file.
        commits: By the key of an id, the key beside it and the commit that is to stand there.
        where: The file, for messages.

    Raises:
        InputError: What this would lead to is not the same file with these commits.
    """
    value, lines = registry.parse_yaml(text, where)
    wanted = functools.reduce(lambda found, to: _with(found, *to), commits.values(), value)
    try:
        root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
        splices = {_splice(text, root, key, pin[-1], commit) for key, (pin, commit) in commits.items()}
        for start, end, new in sorted(splices, reverse=True):
            text = text[:start] + new + text[end:]
        same = registry.parse_yaml(text, where)[0] == wanted
    except (yaml.YAMLError, InputError, LookupError):
        same = False
    if not same:
        places = ", ".join(f"{registry.dotted(pin)} (line {lines.get(key, 1)})" for key, (pin, _) in commits.items())
        raise InputError(f"{where}: a commit cannot be written into it in place: {places}", BY_HAND)
    return text


def _with(value: Any, key: Key, new: str) -> Any:
    """A copy of nested mappings with one value in it; what an anchor has in two places changes in one."""
    return {**value, key[0]: _with(value.get(key[0]), key[1:], new)} if key else new


def _splice(text: str, root: Any, key: Key, pin: str | int, commit: str) -> tuple[int, int, str]:
    """What part of a text is to be replaced by what, so that `pin` beside a key is a commit."""
    section = root
    for part in key[:-1]:
        section = _pairs(section)[part][1]
    pairs = _pairs(section)
    plain = commit if isinstance(registry.parse_yaml(commit, "")[0], str) else f'"{commit}"'  # digits would be a number
    if pin in pairs:
        given = pairs[pin][1]
        start, end = given.start_mark.index, given.end_mark.index
        quote = given.style if given.style in ("'", '"') else ""
        new = f"{quote}{commit}{quote}" if quote else plain if start < end else f" {plain}"
        stock = STOCK.match(text, end)
        return start, stock.end() if stock else end, new
    name, given = pairs[key[-1]]
    end = given.end_mark.index
    quote = name.style or ""
    if section.flow_style:
        return end, end, f", {quote}{pin}{quote}: {f'{quote}{commit}{quote}' if quote else plain}"
    line = re.compile(r"[^\r\n]*(\r\n|\r|\n|\Z)").match(text, end)
    assert line  # noqa: S101 -- for the type checker; it matches everything
    newline = line[1] or ("\r\n" if "\r\n" in text else "\n")
    new = f"{newline}{' ' * name.start_mark.column}{quote}{pin}{quote}: {plain}"
    return line.start(1), line.start(1), new


def _pairs(node: yaml.Node) -> dict[Any, tuple[yaml.ScalarNode, Any]]:
    """The keys of a mapping by name, each with its value."""
    if not isinstance(node, yaml.MappingNode):
        raise LookupError(node.tag)
    return {name.value: (name, value) for name, value in node.value if isinstance(name, yaml.ScalarNode)}
