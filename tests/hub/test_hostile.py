"""Repositories that mean harm: one clear error each, nothing executed, nothing written outside the cache."""

import json
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from peft import LoraConfig, get_peft_model
from safetensors.torch import load, save

from ggez_hub import RegionalModel
from ggez_hub.cli import cli
from ggez_hub.errors import GgezError, HubError, InputError
from ggez_hub.families import diffusion, embedding, vlm
from ggez_hub.hub import SHIPPED, search
from ggez_hub.registry import data_root
from ggez_hub.verify import verify
from tests.hub_server import HubServer

BASE = "ggez-hub/pocket-base-embedding"  # shipped: nothing to fetch
ID = "me/evil"
Files = dict[str, bytes]
Change = Any  # of a file: bytes in its place, None = gone, or a mapping of keys that its JSON gets
BENCHMARKS = ("pocket-global-top1", "pocket-global-choice", "pocket-regional-top1", "pocket-regional-choice")
ESCAPE = "\x1b[2J\x1b]0;owned\x07"
DEEP = "[" * 100_000
WEIGHTS = "adapter_model.safetensors"
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(12))
MERGED_LAUGHS = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i + 1}: &a{i + 1} {{<<: [{', '.join([f'*a{i}'] * 10)}]}}\n" for i in range(12)
)


class Payload:
    """What unpickling makes a file of."""

    def __reduce__(self) -> Any:
        return open, ("marker", "w")


PICKLE = pickle.dumps(Payload())
CODE = b"open('marker', 'w')\nclass Model: ...\n"


def measured(alpha: float) -> dict[str, Any]:
    numbers = {name: {"value": 0.5, "ci95": [0.4, 0.6], "n": 10, "metric": "accuracy"} for name in BENCHMARKS}
    return {"alpha": alpha, "global": 0.5, "regional": 0.5, "grp": 0.5, "benchmarks": numbers}


JUDGED = {"alpha": 0.4, "grp": 0.5, "gain": 0.1, "gain_ci95": None, "retention": 1.0, "retention_ci95": None}


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a repository that loads, all of which the cases below change."""
    folder = tmp_path_factory.mktemp("honest")
    config = LoraConfig(r=1, target_modules=embedding.lora_targets())
    model = get_peft_model(embedding.load(SHIPPED / "pocket-base-embedding").model, config)
    model.save_pretrained(folder, save_embedding_layers=False)
    facts = {
        "schema": 1, "artefact": "adapter", "recipe": "evil", "family": "embedding", "region": "sea", "alpha": 0.4,
        "gain": 0.1, "retention": 0.99, "base": {"id": BASE, "revision": None}, "synthetic": True,
    }  # fmt: skip
    results = {"region": "sea", "globalization": {"value": 0.434}, "points": [measured(0.0), measured(0.4)],
               "chosen": JUDGED, "grp_best": JUDGED}  # fmt: skip
    files = {name: (folder / name).read_bytes() for name in ("adapter_config.json", WEIGHTS)} | {
        "ggez.json": json.dumps(facts).encode(),
        "results.json": json.dumps(results).encode(),
        "README.md": f"---\nlicense: mit\ntags: [ggez]\nbase_model: {BASE}\n---\n".encode(),
        "recipe.yaml": (data_root() / "recipes" / "pocket" / "pocket-sea-embedding.yaml").read_bytes(),
    }
    return changed(files, {"adapter_config.json": {"base_model_name_or_path": BASE}})


def changed(files: Files, changes: Mapping[str, Change]) -> Files:
    result = dict(files)
    for name, change in changes.items():
        if callable(change):
            change = change(result.get(name, b""))
        if change is None:
            result.pop(name, None)
        elif isinstance(change, dict):
            result[name] = json.dumps(json.loads(result.get(name, b"{}")) | change).encode()
        else:
            result[name] = change if isinstance(change, bytes) else change.encode()
    return result


@pytest.fixture(autouse=True)
def no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails where anything is asked on stdin or written outside the cache, such as a payload's marker."""
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asks on stdin"))
    yield
    written = {p.relative_to(tmp_path).parts[0] for p in tmp_path.rglob("*")} - {"there", "hub_cache"}
    assert not written
    assert not [*there.iterdir()]
    stray = [p for p in (tmp_path / "hub_cache").rglob("*") if p.suffix in (".bin", ".py", ".pt", ".pkl")]
    assert not stray, "fetched what is never loaded"


def refused(call: Callable[[], object], name: str = ID) -> GgezError:
    """The one error of a call, fit for a terminal."""
    with pytest.raises((InputError, HubError)) as caught:
        call()
    said = str(caught.value)
    assert len(said) < 800, said[:2000]
    assert name in said
    assert all(c.isprintable() or c == "\n" for c in said), repr(said)
    return caught.value


def load_it() -> object:
    return RegionalModel.from_pretrained(ID)


# ------------------------------------------------------------------------------------------------------------ the files
def test_an_honest_repository_loads(hub_server: HubServer, honest: Files) -> None:
    hub_server.add(ID, honest | {f"more/{i}.bin": b"" for i in range(1000)} | {"modeling.py": CODE, "x.bin": PICKLE})
    model = RegionalModel.from_pretrained(ID)
    assert model.alpha == 0.4
    assert search.described(ID)[1].alpha == 0.4
    assert not [r for r in hub_server.requests if r.path.endswith((".bin", ".py"))]


@pytest.mark.parametrize("name", ["../evil.json", "/abs.json", "a/../../evil.json", "a/../../../../x.json"])
def test_names_that_lead_out_of_the_cache_are_refused(hub_server: HubServer, honest: Files, name: str) -> None:
    hub_server.add(ID, honest | {name: b"{}"})
    refused(load_it)
    search.described(ID)  # fetches a few files by their names


@pytest.mark.parametrize("name", ["a\0b.json", "a\nb.json", f"{ESCAPE}.json", "é\u202e.json", "a" * 5000 + ".json"])
def test_names_that_no_terminal_should_see_do_not_reach_it(hub_server: HubServer, honest: Files, name: str) -> None:
    hub_server.add(ID, honest | {name: b"{}"})
    refused(load_it)


def test_a_file_that_is_listed_and_missing_is_one_error(hub_server: HubServer, honest: Files) -> None:
    hub_server.add(ID, honest)
    hub_server.fail("HEAD", "/resolve/.*/ggez.json", status=404, times=10, X_Error_Code="EntryNotFound")
    refused(load_it)


ADAPTER_CASES: dict[str, dict[str, Change]] = {
    # Pickle instead of safetensors.
    "pickled adapter": {WEIGHTS: None, "adapter_model.bin": PICKLE},
    "pickle under a safe name": {WEIGHTS: PICKLE},
    # ggez.json.
    "schema": {"ggez.json": {"schema": 99}},
    "schema of nothing short": {"ggez.json": {"schema": ["x" * 10_000]}},
    "unexpected key": {"ggez.json": {ESCAPE: 1}},
    "many unexpected keys": {"ggez.json": {f"key{i}": 1 for i in range(1000)}},
    "alpha NaN": {"ggez.json": {"alpha": float("nan")}},
    "alpha beyond floats": {"ggez.json": lambda old: old.replace(b"0.4", b"1e400")},
    "alpha a text": {"ggez.json": {"alpha": "0.5"}},
    "alpha 7": {"ggez.json": {"alpha": 7}},
    "alpha of many digits": {"ggez.json": lambda old: old.replace(b"0.4", b"1" * 10_000)},
    "family as a path": {"ggez.json": {"family": "../../evil"}},
    "family os": {"ggez.json": {"family": "os"}},
    "family long": {"ggez.json": {"family": "a" * 100_000}},
    "family base": {"ggez.json": {"family": "base"}},
    "region as a path": {"ggez.json": {"region": "../x"}},
    "no JSON": {"ggez.json": b"{"},
    "a list": {"ggez.json": b"[]"},
    "not UTF-8": {"ggez.json": b"\xff"},
    "20 MB": {"ggez.json": b" " * 20_000_000},
    "deep": {"ggez.json": DEEP},
    "deep inside": {"ggez.json": f'{{"schema": 1, "base": {"[" * 900 + "]" * 900}}}'},
    "duplicate keys": {"ggez.json": lambda old: b'{"alpha": 0.1, ' + old[1:]},
    # The base.
    "base elsewhere by README": {"README.md": "---\nbase_model: me/other\n---\n"},
    "base elsewhere by adapter": {"adapter_config.json": {"base_model_name_or_path": "me/other"}},
    "base no text": {"adapter_config.json": {"base_model_name_or_path": ["x" * 5000]}},
    **{
        f"base {given}": {
            "ggez.json": {"base": {"id": given, "revision": None}},
            "adapter_config.json": {"base_model_name_or_path": given},
            "README.md": "---\nlicense: mit\n---\n",
        }
        for given in (
            "../../etc",
            "/etc",
            ".",
            "..",
            str(SHIPPED),
            "file:///etc/passwd",
            "open_clip:../x/y",
            "",
            "hf-hub:../x",
            "ggez-hub/../pocket-judge",
            "https://example.org/x",
            f"a/{ESCAPE}",
            "a" * 9999,
        )
    },
    **{
        f"revision {given}": {"ggez.json": {"base": {"id": BASE, "revision": given}}}
        for given in ("../../x", "main", "A" * 40, "0" * 39 + "\n", ESCAPE)
    },
    "base of other sizes": {
        "ggez.json": {"base": {"id": "ggez-hub/pocket-base-vlm", "revision": None}},
        "adapter_config.json": {"base_model_name_or_path": "ggez-hub/pocket-base-vlm"},
        "README.md": "---\nlicense: mit\n---\n",
    },
    # adapter_config.json.
    **{
        f"adapter {label}": {"adapter_config.json": change}
        for label, change in {
            "of another method": {"peft_type": "BOFT"},
            "of a method unheard of": {"peft_type": ESCAPE},
            "of rank 10**9": {"r": 10**9},
            "of rank 0": {"r": 0},
            "of rank 1.0": {"r": 1.0},
            "scaled NaN": {"lora_alpha": float("nan")},
            "scaled 1e308": {"lora_alpha": 1e308},
            "scaled beyond floats": {"lora_alpha": 10**4000},
            "scaled in words": {"lora_alpha": "16"},
            "of PiSSA": {"init_lora_weights": "pissa_niter_4"},
            "layers many times": {"layer_replication": [[0, 10**9]]},
            "all modules": {"modules_to_save": ["vision_model", "text_model"]},
            "DoRA": {"use_dora": True},
            "tokens": {"trainable_token_indices": list(range(10_000))},
            "megatron": {"megatron_config": {"tensor_model_parallel_size": 10**9}, "megatron_core": "evil"},
            "megatron core": {"megatron_core": "os"},
            "unknown key": {"run_this": "evil.py"},
            "unknown key, unprintable": {ESCAPE: ESCAPE},
            "backtracking ranks": {"rank_pattern": {"(([a-z._0-9]+)+)+": 4}},
            "backtracking scales": {"alpha_pattern": {"(([a-z._0-9]+)+)+!": 4, "(": 1}},
            "patterns no mapping": {"rank_pattern": ["x"]},
            "targets no pattern": {"target_modules": "("},
            "targets beyond memory": {"target_modules": "(((a{1000}){1000}){1000}){1000}"},
            "targets no text": {"target_modules": 7},
            "no JSON": b"{",
            "a list": b"[]",
            "deep": DEEP,
            "20 MB": b"[" + b" " * 20_000_000 + b"]",
            "duplicate keys": lambda old: b'{"r": 7, ' + old.lstrip()[1:],
            "gone": None,
        }.items()
    },
}


def tensors(**changes: Any) -> Change:
    """Changes in the adapter's tensors; the first one's by name ``first``."""

    def change(old: bytes) -> bytes:
        known = load(old)
        first = next(iter(known))
        for how, value in changes.items():
            if how == "fill":
                known[first] = torch.full_like(known[first], value)
            elif how == "shape":
                known[first] = torch.zeros(value)
            elif how == "name":
                known[value] = known.pop(first)
        return save(known)

    return change


def with_header(**changes: Any) -> Change:
    """Changes in what a safetensors file's header says of its first tensor."""

    def change(old: bytes) -> bytes:
        length = struct.unpack("<Q", old[:8])[0]
        said = json.loads(old[8 : 8 + length])
        name = next(name for name in said if name != "__metadata__")
        said[name] |= changes
        written = json.dumps(said).encode()
        return struct.pack("<Q", len(written)) + written + old[8 + length :]

    return change


def damaged(file: str) -> dict[str, dict[str, Change]]:
    """What may be wrong with a safetensors file."""
    return {
        "NaN": {file: tensors(fill=float("nan"))},
        "infinity": {file: tensors(fill=float("inf"))},
        "wrong shape": {file: tensors(shape=(3, 5))},
        "no dimension": {file: tensors(shape=())},
        "odd name": {file: tensors(name=ESCAPE + "x" * 10_000)},
        "10 GB declared": {file: with_header(data_offsets=[0, 10**10])},
        "places overlap": {file: with_header(data_offsets=[4, 8])},
        "places below zero": {file: with_header(data_offsets=[-8, -4])},
        "no such dtype": {file: with_header(dtype="EVIL" * 1000)},
        "2**80 values": {file: with_header(shape=[2**40, 2**40])},
        "2**80 values without bytes": {file: with_header(shape=[2**40, 2**40], data_offsets=[0, 0])},
        "a million dimensions": {file: with_header(shape=[10**1000] * 5_000)},
        "shape in words": {file: with_header(shape="evil")},
        "header longer than the file": {file: lambda old: struct.pack("<Q", 2**63) + old[8:]},
        "header cut": {file: lambda old: old[:50]},
        "deep header": {file: struct.pack("<Q", len(DEEP)) + DEEP.encode()},
        "empty": {file: b""},
        "eight bytes": {file: bytes(8)},
    }


@pytest.mark.parametrize("changes", [pytest.param(c, id=label) for label, c in ADAPTER_CASES.items()])
def test_an_adapter_that_says_what_it_should_not_is_refused(
    hub_server: HubServer, honest: Files, changes: dict[str, Change]
) -> None:
    hub_server.add(ID, changed(honest, changes))
    refused(load_it)


@pytest.mark.parametrize("key", ["target_modules", "exclude_modules", "rank_pattern", "alpha_pattern"])
def test_patterns_that_would_be_tried_for_years_are_over_at_once(
    hub_server: HubServer, honest: Files, key: str
) -> None:
    endless = "(([a-z._0-9]+)+)+!"
    change = {key: {endless: 3} if key.endswith("pattern") else endless}
    hub_server.add(ID, changed(honest, {"adapter_config.json": change}))
    assert RegionalModel.from_pretrained(ID).alpha == 0.4


@pytest.mark.parametrize(
    ("way", "changes"),
    [
        pytest.param(way, changes, id=f"{way}, {label}")
        for way in ("load", "load merged", "add", "merge")
        for label, changes in damaged(WEIGHTS).items()
        if way in ("load", "merge") or label in ("NaN", "infinity", "wrong shape", "odd name")
    ],
)
def test_an_adapter_with_damaged_tensors_is_refused(
    hub_server: HubServer, honest: Files, changes: dict[str, Change], way: str, tmp_path: Path
) -> None:
    hub_server.add(ID, changed(honest, changes))
    if way == "add":
        hub_server.add("me/good", changed(honest, {"ggez.json": {"region": "ssa"}}))
        model = RegionalModel.from_pretrained("me/good")
        refused(lambda: model.load_adapter(ID))
        assert model.alpha == 0.4
    elif way == "merge":
        arguments = ["merge-checkpoints", BASE, ID, "--alpha", "0.5", "--out", str(tmp_path / "there" / "out")]
        refused(lambda: CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False))
    else:
        refused(lambda: RegionalModel.from_pretrained(ID, merged=way == "load merged"))


# -------------------------------------------------------------------------------------------- said beside weights
YAMLS = {
    "a bomb of aliases": LAUGHS,
    "a bomb of merges": MERGED_LAUGHS,
    "one that contains itself": "a: &a [*a]\n",
    "deep": f"{DEEP}\n",
    "deep by dashes": "- " * 100_000 + "\n",
    "a list": "- a\n",
    "a python object": "a: !!python/object/apply:builtins.open [marker, w]\n",
    "a module": "a: !!python/module:antigravity\n",
    "a number without end": f"a: {'1' * 10_000}\n",
}
CARDS = {label: f"---\n{text}---\n".encode() for label, text in YAMLS.items()} | {
    "20 MB": b"a" * 20_000_000,
    "metadata of 1 MB": b"---\n" + b"a: 1\n" * 200_000 + b"---\n",
    "gone": None,
    "not UTF-8": b"---\na: \xff\n---\n",
    "keys no text": b"---\n1: 2\n[1]: 2\n---\n",
    "model-index of nothing": b"---\nmodel-index: 7\n---\n",
    "model-index of lists": b"---\nmodel-index: [[[]]]\n---\n",
    "odd base": f"---\nbase_model: {json.dumps(ESCAPE)}\n---\n".encode(),
}


@pytest.mark.parametrize("card", [pytest.param(card, id=label) for label, card in CARDS.items()])
def test_a_card_that_is_no_card_is_refused(honest: Files, card: bytes | None) -> None:
    for name, content in changed(honest, {"README.md": card}).items():  # a server would have to read it, too
        (folder := Path("me/evil")).mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    refused(load_it)
    shutil.rmtree("me")


RECIPES: dict[str, Change] = YAMLS | {
    "gone": None,
    "not UTF-8": b"\xff",
    "huge": b"a: 1\n" * 1_000_000,
    "an unexpected key": lambda old: old + f"{json.dumps(ESCAPE)}: 1\n".encode(),
    "unexpected keys": lambda old: old + b"".join(b"k%d: 1\n" % i for i in range(2000)),
    "unknown benchmark": lambda old: old.replace(b"pocket-global-top1", b"evil"),
    "benchmark elsewhere": lambda old: old.replace(b"pocket-global-top1", b"../evil.yaml"),
    "unknown family": lambda old: old.replace(b"family: embedding", b"family: os"),
    "unknown region": lambda old: old.replace(b"region: sea", b"region: ../../x"),
    "sizes beyond memory": lambda old: old + b"  resamples: 1000000000\n  batch_size: 1000000000\n  year: 99999\n",
}  # fmt: skip


@pytest.mark.parametrize("recipe", [pytest.param(recipe, id=label) for label, recipe in RECIPES.items()])
def test_a_recipe_that_asks_for_more_than_measuring_is_refused(
    hub_server: HubServer, honest: Files, recipe: Change
) -> None:
    hub_server.add(ID, changed(honest, {"recipe.yaml": recipe}))
    refused(lambda: verify(ID, subset=2))


@pytest.mark.parametrize("path", ["/etc/passwd", "../../x", "a/../../x"])
def test_a_recipe_chooses_no_file_of_this_machine(
    hub_server: HubServer, honest: Files, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "there" / "home"
    (home / "recipes" / "benchmarks").mkdir(parents=True)
    monkeypatch.chdir(home)
    for name in ("mine", "yours"):
        text = f"title: {name}\nsource: {{reader: parquet}}\ntask: top1\n"
        (home / "recipes" / "benchmarks" / f"{name}.yaml").write_text(text)
    recipe = f"""title: x
family: embedding
region: sea
base: {{id: {BASE}}}
data: {{reader: parquet, path: {path}}}
sweep: {{global: [mine], regional: [yours]}}
"""
    points = [measured(alpha) for alpha in (0.0, 0.4)]
    for point in points:
        point["benchmarks"] = dict.fromkeys(("mine", "yours"), point["benchmarks"][BENCHMARKS[0]])
    hub_server.add(ID, changed(honest, {"recipe.yaml": recipe, "results.json": {"points": points}}))
    assert path in refused(lambda: verify(ID)).message
    shutil.rmtree(home)
    monkeypatch.chdir(tmp_path)


RESULTS: dict[str, Change] = {
    "NaN": lambda old: old.replace(b"0.5", b"NaN"),
    "infinity": lambda old: old.replace(b"0.5", b"1e999"),
    "texts for numbers": lambda old: old.replace(b'"n": 10', b'"n": "many"'),
    "no questions": lambda old: old.replace(b'"n": 10', b'"n": 0'),
    "no benchmarks": {"points": [{k: v for k, v in measured(0.4).items() if k != "benchmarks"}]},
    "odd benchmarks": {"points": [measured(0.4) | {"benchmarks": {ESCAPE: measured(0)["benchmarks"][BENCHMARKS[0]]}}]},
    "no points": {"points": []},
    "millions of points": b'{"points": [' + b'{"alpha": 0},' * 2_000_000 + b"0]}",
    "a million wrong points": b'{"points": [' + b"0," * 200_000 + b"0]}",
    "no JSON": b"NaN",
    "deep": DEEP,
    "gone": None,
}


@pytest.mark.parametrize("results", [pytest.param(results, id=label) for label, results in RESULTS.items()])
def test_results_that_are_none_are_refused(hub_server: HubServer, honest: Files, results: Change) -> None:
    hub_server.add(ID, changed(honest, {"results.json": results}))
    refused(lambda: search.described(ID))
    refused(lambda: verify(ID))


SAID: dict[str, Any] = {
    "artefact": [ESCAPE, "x" * 9999, 7, ["adapter"], {"a": {}}],
    "family": [ESCAPE, "x" * 99_999, 7, {"a": {}}],
    "region": [ESCAPE, "\u202e", "a\nb", None, [], "x" * 99_999],
    "alpha": ["0.4", float("nan"), 10**400, -1, True],
    "gain": ["much", float("inf"), 10**400, [1]],
    "retention": [float("nan"), {}],
    "grp": [10**4000, ""],
    "gain_ci95": [[0.1], [float("nan"), 1], ["a", "b"], 7, [10**400, 10**400], [[], []]],
    "retention_ci95": [{}, [None, None]],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in SAID.items() for value in values])
def test_what_a_card_says_wrongly_is_not_listed(hub_server: HubServer, key: str, value: Any) -> None:
    said = {"tags": ["ggez"], "base_model": [ESCAPE], "ggez": {"region": "sea", key: value}}
    hub_server.add(ID, {"README.md": f"---\n{json.dumps(said)}\n---\n".encode()})
    (row,) = search.published()
    assert (row["id"], row[key], row["base"]) == (ID, None, None)
    shown = CliRunner().invoke(cli, ["hub", "ls"], catch_exceptions=False).stdout
    assert ID in shown
    assert len(shown) < 800
    assert all(c.isprintable() or c == "\n" for c in shown)


@pytest.mark.parametrize(
    "said", ["- a", "ggez: [1]", "ggez: text", "model-index: [[]]", "base_model: {a: b}", "1: 2", "tags: ggez"]
)
def test_a_card_of_another_shape_hides_no_other(hub_server: HubServer, said: str) -> None:
    hub_server.add("me/good", {"README.md": b"---\ntags: [ggez]\nggez: {region: sea}\n---\n"})
    hub_server.add(ID, {"README.md": f"---\ntags: [ggez]\n{said}\n---\n".encode()})
    assert ("me/good", "sea") in [(row["id"], row["region"]) for row in search.published()]


# --------------------------------------------------------------------------------------------------------- whole models
def whole(folder: Path, honest: Files, family: str) -> Files:
    """A merged checkpoint, as a repository."""
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    told = {name: honest[name] for name in ("ggez.json", "README.md", "results.json", "recipe.yaml")}
    return changed(files | told, {"ggez.json": {"artefact": "merged", "family": family}})


@pytest.fixture(scope="session")
def embeds(tiny_base: Path, honest: Files) -> Files:
    return whole(tiny_base, honest, "embedding")


@pytest.fixture(scope="session")
def chats(tmp_path_factory: pytest.TempPathFactory, honest: Files) -> Files:
    vlm.write_tiny(folder := tmp_path_factory.mktemp("vlm") / "base")
    return whole(folder, honest, "vlm")


@pytest.fixture(scope="session")
def draws(tmp_path_factory: pytest.TempPathFactory, honest: Files) -> Files:
    diffusion.write_tiny(folder := tmp_path_factory.mktemp("diffusion") / "base")
    return whole(folder, honest, "diffusion")


MODEL = "model.safetensors"
INDEX = "model.safetensors.index.json"
OWN_CODE: dict[str, Change] = {  # in config.json
    "model_type": "evil",
    "auto_map": {kind: f"modeling.{kind[4:]}" for kind in ("AutoConfig", "AutoModel", "AutoModelForImageTextToText")},
    "trust_remote_code": True,
}
ELSEWHERE = {kind: f"me/other--modeling.{kind[4:]}" for kind in ("AutoConfig", "AutoModel", "AutoProcessor")}
WHOLE_CASES: dict[str, dict[str, Change]] = damaged(MODEL) | {
    "pickle alone": {MODEL: None, "pytorch_model.bin": PICKLE},
    "pickle for open_clip": {MODEL: None, "open_clip_pytorch_model.bin": PICKLE},
    "own code": {"config.json": OWN_CODE, "modeling.py": CODE},
    "code elsewhere": {"config.json": {"model_type": "evil", "auto_map": ELSEWHERE}},
    "class of another kind": {"config.json": {"model_type": "bert", "architectures": ["os.system"]}},
    "own processor": {
        "processor_config.json": {"processor_class": "Evil", "auto_map": {"AutoProcessor": "modeling.Model"}},
        "tokenizer_config.json": {"processor_class": "Evil"},
        "modeling.py": CODE,
    },
    "tokenizer by name": {
        "tokenizer_config.json": {"tokenizer_class": "os.system", "auto_map": {"AutoTokenizer": ["m.A", "m.B"]}},
        "processor_config.json": None,
    },
    "adapter in it": {"adapter_config.json": {"peft_type": "LORA", "base_model_name_or_path": "/etc"}},
    **{
        f"index to {place}": {MODEL: None, INDEX: {"metadata": {}, "weight_map": {"logit_scale": place}}}
        for place in ("../../x.safetensors", "/etc/passwd", "gone.safetensors", "pytorch_model.bin", ESCAPE, ["x"], {})
    },
    "index without a map": {MODEL: None, INDEX: {"weight_map": 7}},
    "deep index": {MODEL: None, INDEX: DEEP},
    "config a list": {"config.json": b"[]"},
    "config deep": {"config.json": DEEP},
    "config gone": {"config.json": None},
    "config of 20 MB": {"config.json": b" " * 20_000_000},
    "sizes in words": {"config.json": {"vision_config": {"hidden_size": ESCAPE}}},
    "sizes below zero": {"config.json": {"vision_config": {"hidden_size": -8, "num_attention_heads": 0}}},
    "sizes beyond memory": {"config.json": {"text_config": {"vocab_size": 2**50}}},
    "tokenizer deep": {"tokenizer.json": DEEP},
    "tokenizer of another kind": {"tokenizer.json": b'{"model": {"type": "Evil"}}'},
    "of another family": {"ggez.json": {"family": "vlm"}},
    "of a drawing family": {"ggez.json": {"family": "diffusion"}},
}  # fmt: skip


@pytest.mark.parametrize("changes", [pytest.param(c, id=label) for label, c in WHOLE_CASES.items()])
def test_a_whole_model_that_is_none_or_brings_code_is_refused(
    hub_server: HubServer, embeds: Files, changes: dict[str, Change]
) -> None:
    hub_server.add(ID, changed(embeds, changes))
    refused(load_it)


def test_safetensors_are_taken_where_pickle_lies_beside(hub_server: HubServer, embeds: Files) -> None:
    pickles = dict.fromkeys(("pytorch_model.bin", "open_clip_pytorch_model.bin", "adapter_model.bin"), PICKLE)
    code = {"auto_map": OWN_CODE["auto_map"], "trust_remote_code": True}  # of a kind of model that transformers has
    hub_server.add(ID, changed(embeds, pickles | {"config.json": code, "modeling.py": CODE}))
    assert RegionalModel.from_pretrained(ID).alpha == 0.4
    assert not [r for r in hub_server.requests if r.path.endswith((".bin", ".py"))]


@pytest.mark.parametrize("changes", [{"config.json": OWN_CODE, "modeling.py": CODE}, {"config.json": DEEP}])
def test_a_chatting_model_that_brings_code_is_refused(
    hub_server: HubServer, chats: Files, changes: dict[str, Change]
) -> None:
    hub_server.add(ID, changed(chats, changes))
    refused(load_it)


TEMPLATES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('touch marker') }}",
    "open": "{{ open('marker', 'w') }}",
    "raise": "{{ raise_exception('" + "x" * 9999 + "\x1b[2J') }}",
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "division": "{{ 1 / 0 }}",
    "syntax": "{% for",
    "recursion": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
}


@pytest.mark.parametrize("template", [pytest.param(text, id=label) for label, text in TEMPLATES.items()])
def test_a_chat_template_stays_in_its_sandbox(hub_server: HubServer, chats: Files, template: str) -> None:
    hub_server.add(ID, changed(chats, {"chat_template.jinja": template}))
    model = RegionalModel.from_pretrained(ID)
    refused(lambda: model.predict([{"prompt": "What?", "options": ["a", "b"]}]), "chat template")


PIPELINES: dict[str, dict[str, Change]] = {
    **{
        f"{part} of {value}": {"model_index.json": {part: value}, "unet/evil.py": CODE}
        for part, value in (
            ("unet", ["evil", "Model"]), ("unet", ["antigravity", "x"]), ("unet", ["os", "system"]),
            ("text_encoder", ["transformers", "AutoModel"]), ("vae", ["diffusers", "DiffusionPipeline"]),
            ("more", ["evil", "Model"]), ("scheduler", ["diffusers", ESCAPE]), ("tokenizer", [7, {}]), ("unet", "evil"),
        )
    },
    "own pipeline": {"model_index.json": {"_class_name": ["pipeline", "Evil"]}, "pipeline.py": CODE},
    "own pipeline by name": {"model_index.json": {"_class_name": "Evil"}},
    "deep": {"model_index.json": DEEP},
    "pickle": {
        "unet/diffusion_pytorch_model.safetensors": None, "unet/diffusion_pytorch_model.bin": PICKLE,
    },
    "damaged": {"vae/diffusion_pytorch_model.safetensors": b""},
    "shards elsewhere": {
        "unet/diffusion_pytorch_model.safetensors.index.json": {"weight_map": {"x": "../../x.safetensors"}}
    },
    "sizes in words": {"unet/config.json": {"block_out_channels": "evil"}},
}  # fmt: skip


@pytest.mark.parametrize("changes", [pytest.param(c, id=label) for label, c in PIPELINES.items()])
def test_a_pipeline_of_other_parts_is_refused(hub_server: HubServer, draws: Files, changes: dict[str, Change]) -> None:
    hub_server.add(ID, changed(draws, changes))
    refused(load_it)
