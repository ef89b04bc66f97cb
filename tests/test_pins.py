"""Pins: commits are written into YAML files and nothing else of them changes; what the Hub says otherwise is named."""

import inspect
import shutil
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggez_hub import pins, registry
from ggez_hub.data import readers
from ggez_hub.errors import InputError
from tests.hub_server import HubServer

Ggez = Callable[..., tuple[int, str, str]]
CARD = b"---\nlicense: %s\n---\n"
RECIPE = """\
# What it is for.
title: "Tiny"   # a title
family: embedding
region: sea
base:
  id: org/model  # the global one
  license: mit
data:
  sources:
    captions: {reader: flickr30k, id: 'org/captions', license: mit, cap: 100}
    dishes:
      reader: worldcuisines_train
      id: org/dishes
      options: {kb: org/kb, task: 1}   # with the knowledge base
    drawn: {reader: pocket, options: {train: 2}, synthetic: true}
filter:
  embedding: org/embedder
  min_reward: 3
  reward: {model: unified_reward, id: org/served, endpoint: "http://127.0.0.1:1/v1"}
  unsafe:
    id: "org/unsafe"
translate:
  translators:
    nllb: {id: org/translator, revision: 'OLD', license: cc-by-nc-4.0}
train: {steps: 12}
sweep: {global: [tiny-global], regional: [tiny-regional]}
"""
BENCHMARK = """\
title: Questions
source:
  reader: cvqa
  id: org/questions
  revision: null  # the commit to pin
  columns: {id: ID}
task: question
registered: {dataset: org/questions, task: cvqa}
"""


@pytest.fixture
def hub(data_hub: HubServer) -> HubServer:
    for name in ("model", "embedder", "unsafe"):
        data_hub.add(f"org/{name}", {"README.md": CARD % b"mit", "model.safetensors": b""})
    data_hub.add("org/translator", {"README.md": CARD % b"cc-by-nc-4.0", "model.safetensors": b""})
    for name in ("captions", "dishes", "kb", "questions"):
        data_hub.add(f"org/{name}", {"README.md": CARD % b"mit"}, "datasets")
    return data_hub


def main(hub: HubServer, name: str, kind: str = "datasets") -> str:
    return hub.repos[kind, f"org/{name}"].refs["refs/heads/main"].sha


def test_everything_that_a_recipe_names_is_pinned_and_nothing_else_changes(
    hub: HubServer, tmp_path: Path, ggez: Ggez
) -> None:
    old = hub.repos["models", "org/translator"].refs["refs/heads/main"].sha
    hub.add("org/translator", {"more.txt": b"more"})
    path = tmp_path / "mine.yaml"
    path.write_bytes(RECIPE.replace("OLD", old).encode())
    code, out, err = ggez("pin", "mine.yaml")
    assert (code, err) == (0, "")
    expected = (
        RECIPE.replace("# the global one\n", f"# the global one\n  revision: {main(hub, 'model', 'models')}\n")
        .replace("'org/captions'", f"'org/captions', revision: {main(hub, 'captions')}")
        .replace("id: org/dishes\n", f"id: org/dishes\n      revision: {main(hub, 'dishes')}\n")
        .replace("kb: org/kb", f"kb: org/kb, kb_revision: {main(hub, 'kb')}")
        .replace("org/embedder\n", f"org/embedder\n  embedding_revision: {main(hub, 'embedder', 'models')}\n")
        .replace('"org/unsafe"\n', f'"org/unsafe"\n    revision: {main(hub, "unsafe", "models")}\n')
        .replace("OLD", main(hub, "translator", "models"))
    )
    assert path.read_text() == expected
    assert f"mine.yaml:6  org/model none -> {main(hub, 'model', 'models')}" in out
    assert f"org/translator {old} -> {main(hub, 'translator', 'models')}" in out
    assert "org/served" not in out, "what an endpoint serves is not on the Hub"
    assert ggez("pin", "mine.yaml")[0] == 0
    assert path.read_text() == expected, "pinned again, the file is the same"


def test_a_benchmark_gets_its_commit_in_place_of_the_comment_that_asks_for_it(
    hub: HubServer, tmp_path: Path, ggez: Ggez
) -> None:
    path = tmp_path / "recipes" / "benchmarks" / "asked.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(BENCHMARK)
    shutil.copy(registry.find("regions", "sea"), tmp_path / "recipes" / "sea.yaml")
    code, out, _ = ggez("pin")
    commit = main(hub, "questions")
    assert code == 0
    assert out.count(commit) == 2
    wanted = BENCHMARK.replace("null  # the commit to pin", commit)
    assert path.read_text() == wanted.replace("org/questions, task", f"org/questions, revision: {commit}, task")
    assert ggez("pin", "asked", "--check")[0] == 0


def test_the_judge_of_a_benchmark_is_pinned_beside_it(hub: HubServer, tmp_path: Path, ggez: Ggez) -> None:
    text = "title: Draw\ntask: drawing\njudge: org/model  # a recogniser\nprompt: '{label}'\nsource: {reader: pocket}\n"
    path = tmp_path / "recipes" / "benchmarks" / "drawn.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert ggez("pin", "drawn")[0] == 0
    pin = f"\njudge_revision: {main(hub, 'model', 'models')}\nprompt"
    assert path.read_text() == text.replace("\nprompt", pin)
    assert ggez("pin", "drawn", "--check")[0] == 0


def test_what_has_no_place_for_a_revision_is_listed(hub: HubServer, tmp_path: Path, ggez: Ggez) -> None:
    (tmp_path / "a.yaml").write_text(text := "base: {random: {}, parts: {vae: org/model}}\n")
    assert "org/model none  (base.parts.vae has no place for a revision)" in ggez("pin", "a.yaml")[1]
    assert (tmp_path / "a.yaml").read_text() == text


def test_what_is_shipped_or_in_a_folder_needs_no_pin(hub: HubServer, tmp_path: Path, ggez: Ggez) -> None:
    (tmp_path / "here" / "model").mkdir(parents=True)
    shipped = next(iter(registry.files("recipes")))
    (tmp_path / "a.yaml").write_text("base: {id: here/model}\nfilter: {embedding: ggez-hub/pocket-judge}\n")
    assert ggez("pin", "a.yaml", shipped)[:2] == (0, "")
    assert hub.requests == []


def test_a_commit_of_another_branch_stays_and_one_that_has_gone_does_not(
    hub: HubServer, tmp_path: Path, ggez: Ggez
) -> None:
    repo = hub.repos["models", "org/model"]
    head = repo.refs["refs/heads/main"]
    pull = hub.write(repo, "refs/pr/1", head, {**head.files}, "safetensors").sha
    path = tmp_path / "a.yaml"
    for revision, expected in (("refs/pr/1", pull), (pull, pull), ("f" * 40, head.sha), ("main", head.sha)):
        path.write_text(f"base: {{id: org/model, revision: {revision}}}\n")
        code, out, _ = ggez("pin", "a.yaml")
        assert code == 0
        assert path.read_text() == f"base: {{id: org/model, revision: {expected}}}\n"
        assert (f"not on main, which is at {head.sha}" in out) == (expected == pull)


def test_of_a_recipe_that_extends_another_only_its_own_ids_are_pinned(
    hub: HubServer, tmp_path: Path, ggez: Ggez
) -> None:
    parent = "base: {id: org/model}\ndata: {reader: flickr30k, id: org/captions}\n"
    child = "extends: parent.yaml\nbase: {id: org/unsafe}\n"
    (tmp_path / "parent.yaml").write_text(parent)
    (tmp_path / "child.yaml").write_text(child)
    assert ggez("pin", "child.yaml")[0] == 0
    pinned = child.replace("org/unsafe", f"org/unsafe, revision: {main(hub, 'unsafe', 'models')}")
    assert (tmp_path / "child.yaml").read_text() == pinned
    assert (tmp_path / "parent.yaml").read_text() == parent
    code, _, err = ggez("pin", "child.yaml", "--check")
    assert code == 2
    assert "parent.yaml:2  data.revision: org/captions: no commit is given" in err, "what it inherits is checked"


def test_one_failure_on_the_way_leaves_every_file_as_it_was(hub: HubServer, tmp_path: Path, ggez: Ggez) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(BENCHMARK if name == "a" else "base: {id: org/model}\n")
    hub.fail("GET", "org/model", 503)
    code, out, err = ggez("pin", "a.yaml", "b.yaml")
    assert (code, out) == (4, "")
    assert "org/model: the Hub says 503" in err
    assert (tmp_path / "a.yaml").read_text() == BENCHMARK
    code, _, err = ggez("pin", str(tmp_path / "nothing.yaml"))
    assert code == 2
    assert "no such file" in err


def test_files_of_the_installed_package_are_never_changed(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ggez: Ggez
) -> None:
    package = tmp_path / "site" / "ggez_hub"
    (package / "_data" / "recipes").mkdir(parents=True)
    (package / "_data" / "recipes" / "mine.yaml").write_text("base: {id: org/model}\n")
    monkeypatch.setattr(registry, "__file__", str(package / "registry.py"))
    for names in ((), ("mine",)):
        code, _, err = ggez("pin", *names)
        assert code == 2
        assert "belongs to the installed package" in err
        assert "ggez cp mine mine.yaml" in err
    assert ggez("pin", "--check")[0] == 2, "it may be held against the Hub, and has no pin"
    assert hub.requests


def test_what_the_hub_says_otherwise_is_named_with_its_line(hub: HubServer, tmp_path: Path, ggez: Ggez) -> None:
    hub.repos["datasets", "org/captions"].gated = "auto"
    text = f"""\
base:
  id: org/model
  revision: {"f" * 40}
data:
  sources:
    a: {{reader: flickr30k, id: org/captions, revision: {main(hub, "captions")}, license: cc-by-4.0}}
    b: {{reader: flickr30k, id: org/gone, license: mit}}
    c: {{reader: flickr30k, id: org/kb, revision: {main(hub, "kb")}, license: mit}}
    d: {{reader: flickr30k, id: org/dishes, license: mit}}
"""
    (tmp_path / "a.yaml").write_text(text)
    first = main(hub, "kb")
    newer = hub.add("org/kb", {"more.txt": b"more"}, "datasets")
    code, out, err = ggez("pin", "a.yaml", "--check")
    assert code == 2
    assert [line for line in err.splitlines() if line.startswith("  hint")]
    for wrong in (
        f"a.yaml:3  base.revision: org/model has no revision {'f' * 40}",
        "a.yaml:6  data.sources.a.id: org/captions is declared as cc-by-4.0, on the Hub it is mit",
        "a.yaml:6  data.sources.a.id: org/captions: the Hub asks for access first, gated says otherwise; "
        "data.sources.a.gated: true",
        "a.yaml:7  data.sources.b.id: org/gone: no such repository",
        f"a.yaml:9  data.sources.d.revision: org/dishes: no commit is given; main is at {main(hub, 'dishes')}",
    ):
        assert wrong in err
    assert "org/kb" not in err, "to be behind main is no fault"
    assert f"{first}; main is at {newer}" in out
    assert (tmp_path / "a.yaml").read_text() == text


def test_every_option_of_a_reader_that_has_a_revision_is_pinned() -> None:
    options = {name for reader in readers.READERS.values() for name in inspect.signature(reader).parameters}
    pinned = {slot.pin: slot.key for slot in pins.SLOTS if ".options." in slot.key}
    assert pinned.keys() == {name for name in options if name.endswith("_revision")}


@pytest.mark.parametrize("kind", ["recipes", "benchmarks"])
def test_every_shipped_file_can_be_pinned_in_place(kind: registry.Kind) -> None:
    commit, count = "0123456789" * 4, 0  # digits alone are a number unless quoted
    for path in registry.files(kind).values():
        text = path.read_text()
        value, _ = registry.parse_yaml(text, str(path))
        commits = {thing.key: (thing.pin, commit) for thing in pins.named(value) if thing.pin}
        pinned = pins.edited(text, commits, str(path))
        count += len(commits)
        for line in text.splitlines():
            kept = line.partition("id: ")[0] or line
            assert "revision" in line or kept in pinned, f"{path}: {line}"
        assert pinned.count(commit) >= len(commits)
    assert count > 5 or kind == "recipes"


# ----------------------------------------------------------------------------------------------------------------- text
hashes = st.text("0123456789abcdef", min_size=40, max_size=40) | st.text("0123456789", min_size=40, max_size=40)
words = st.text(string.ascii_letters + " äö日", max_size=8)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, str, str]:
    """A recipe with one source; before, what is put at ``\\0`` to pin it, and after it."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    quote = draw(st.sampled_from(["", "'", '"']))
    indent = " " * draw(st.integers(1, 5))
    comment = draw(st.sampled_from(["", "  # " + draw(words), "   "]))
    name = f"{quote}org/name{quote}"
    rest = [f"license: {draw(st.sampled_from(['mit', '[a, b]', '>-' + end + indent + '    x']))}", "where: {a: [b]}"]
    rest = draw(st.lists(st.sampled_from(rest), unique=True))
    top = f"# {draw(words)}{end}title: {draw(st.sampled_from(['x', '日本', '|' + end + '  id: a/b' + end]))}{end}"
    bottom = draw(st.sampled_from(["", end, f"{end}train: {{id: org/name}}  # {draw(words)}"]))
    if draw(st.booleans()):
        inner = draw(st.permutations([f"id: {name}\0", *(line for line in rest if ">" not in line)]))
        space = draw(st.sampled_from(["", " ", end + indent + "   "]))
        middle = f"data:{end}{indent}{{{space}{(',' + (space or ' ')).join(inner)}{space}}}{comment}"
        return top, middle, bottom
    lines = draw(st.permutations([f"id: {name}{comment}\0", *rest]))
    return top, f"data:{end}" + end.join(indent + line for line in lines), bottom


@given(documents(), hashes, hashes)
def test_pinning_keeps_every_other_byte(document: tuple[str, str, str], first: str, second: str) -> None:
    top, middle, bottom = document
    before, after = (top + middle + bottom).split("\0")
    text = before + after
    keys = ("data", "id"), ("data", "revision")
    pinned = pins.edited(text, {keys[0]: (keys[1], first)}, "a.yaml")
    assert pinned.startswith(before)
    assert pinned.endswith(after)
    assert pinned[len(before) : len(pinned) - len(after)].strip(" ,\r\n").replace('"', "") == f"revision: {first}"
    assert registry.parse_yaml(pinned, "")[0] == {**(old := registry.parse_yaml(text, "")[0])} | {
        "data": old["data"] | {"revision": first}
    }
    assert pins.edited(pinned, {keys[0]: (keys[1], first)}, "a.yaml") == pinned
    moved = pins.edited(pinned, {keys[0]: (keys[1], second)}, "a.yaml")
    assert moved.replace('"', "") == pinned.replace(first, second).replace('"', "")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{id: a/b, license: x}", "{id: a/b, revision: SHA, license: x}"),
        ('{"id": "a/b"}', '{"id": "a/b", "revision": "SHA"}'),
        ("{id: a/b, revision: ''}  # that", "{id: a/b, revision: 'SHA'}  # that"),
        ("{id: a/b, revision: ~ }", "{id: a/b, revision: SHA }"),
        ("\n  id: a/b\n  revision:", "\n  id: a/b\n  revision: SHA"),
        ("\n  id: a/b\n  revision:  # its commit\n", "\n  id: a/b\n  revision: SHA  # its commit\n"),
        ("\n  revision: null  # the commit to pin\n  id: a/b", "\n  revision: SHA\n  id: a/b"),
        ("\n  id: a/b  # of all", "\n  id: a/b  # of all\n  revision: SHA"),
        ("\n    id: a/b\n\n\n    # more\n", "\n    id: a/b\n    revision: SHA\n\n\n    # more\n"),
        ("&x\n  id: a/b\nother: *x\n", None),
        ("\n  ? id\n  : a/b\n", None),
        ("{id: &x a/b, license: *x}", "{id: &x a/b, revision: SHA, license: *x}"),
        ("\n  id: a/b\n  revision: >-\n    abc\n  license: x\n", None),
        ("\n  <<: {id: a/b}\n", None),
    ],
)
def test_every_style_keeps_its_look_or_nothing_is_written(before: str, after: str | None) -> None:
    sha = "0123456789abcdef" * 2 + "89abcdef"
    call = lambda: pins.edited(f"base: {before}", {("base", "id"): (("base", "revision"), sha)}, "a.yaml")  # noqa: E731
    if after is None:
        with pytest.raises(InputError, match=r"a.yaml: a commit cannot be written into it in place: base.revision"):
            call()
    else:
        assert call() == f"base: {after}".replace("SHA", sha)
