"""Where models come from, and what they are called, without a network."""

from pathlib import Path
from urllib.parse import unquote

import pytest

from ggez_hub import hub
from ggez_hub.errors import HubError, InputError
from ggez_hub.hub import datasets
from ggez_hub.recipes import load_recipe
from ggez_hub.runs import Run
from ggez_hub.schema import Base
from tests.hub_server import HubServer


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


# ---------------------------------------------------------------------------------------------------------------- fetch
def test_shipped_models_are_taken_from_the_package_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub.shipped()
    for name in hub.shipped():
        folder(tmp_path / "ggez-hub" / name)  # one who wants to slip something in
        folder(tmp_path / "near" / "ggez-hub" / name)
        found = hub.fetch(f"ggez-hub/{name}", near=tmp_path / "near" / "me" / "lora")
        assert found == hub.SHIPPED / name
        assert list(found.rglob("*.safetensors"))


def test_shipped_models_hold_no_pickle_and_no_code() -> None:
    for name in hub.shipped():
        assert not [path for path in (hub.SHIPPED / name).rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".py")]


def test_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = folder(tmp_path / "some" / "model")
    monkeypatch.chdir(tmp_path)
    assert hub.fetch(str(model)) == model
    assert hub.fetch("some/model").resolve() == model
    assert hub.fetch("../" + tmp_path.name + "/some").resolve() == model.parent


def test_repositories_are_found_beside_another_in_a_folder_that_stands_for_the_hub(tmp_path: Path) -> None:
    base, adapter = folder(tmp_path / "them" / "base"), folder(tmp_path / "me" / "lora")
    assert hub.fetch("them/base", near=adapter) == base


def test_base_made_by_a_recipe_is_found_beside_the_run_that_needs_it(tmp_path: Path) -> None:
    base, run = folder(tmp_path / "runs" / "omniglot-base" / "merge" / "model"), folder(tmp_path / "runs" / "mine")
    assert hub.fetch("ggez-hub/omniglot-base", near=run) == base


@pytest.mark.parametrize(
    "name", ["../x", "./x", "~/x", "/abs/missing", "a/b/c", "x", "a/", "/b", "a//b", "a b/c", "a/..", "a/b--c", "ä/b"]
)
def test_names_that_are_neither_folder_nor_id_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="not a Hub id") as caught:
        hub.fetch(name)
    assert caught.value.message.startswith(f"{name}: ")


@pytest.mark.parametrize("revision", [None, "main", "0" * 40])
def test_offline_without_a_copy_names_the_repository(revision: str | None) -> None:
    with pytest.raises(HubError, match="nobody-at-all/nothing-here") as caught:
        hub.fetch("nobody-at-all/nothing-here", revision)
    assert caught.value.exit_code == 4
    assert caught.value.hint


# ---------------------------------------------------------------------------------------------------------------- names
def test_base_of_a_recipe_is_a_folder_the_output_of_another_or_made_by_training(tmp_path: Path) -> None:
    run = Run(tmp_path / "runs" / "mine")
    model = folder(tmp_path / "model")
    assert hub.base_folder(Base(id=str(model)), run) == model
    assert hub.base_folder(Base(random={"layers": 1}), run) == run.folder / "train" / "base"
    with pytest.raises(InputError, match="omniglot-base") as caught:
        hub.base_folder(Base(recipe="omniglot-base"), run)
    assert caught.value.hint == f"ggez run omniglot-base --out {tmp_path / 'runs'}"
    made = Run(tmp_path / "runs" / "omniglot-base")
    made.write("merge", {}, lambda stage: folder(stage / "model") and None)
    assert hub.base_folder(Base(recipe="omniglot-base"), run) == made.folder / "merge" / "model"


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (Base(id="google/siglip2"), "google/siglip2"),
        (Base(recipe="omniglot-base"), "ggez-hub/omniglot-base"),
        (Base(random={}), "random weights"),
    ],
)
def test_bases_are_called_by_their_hub_id(base: Base, name: str) -> None:
    assert hub.base_name(base) == name


@pytest.mark.parametrize(
    ("method", "repositories"), [("lora", ["me/sea-lora", "me/sea"]), ("full", ["me/sea"])], ids=["lora", "full"]
)
def test_every_artefact_has_a_repository_of_its_own(method: str, repositories: list[str]) -> None:
    recipe = load_recipe("omniglot-sea", {"train.method": method, "push.namespace": "me"})
    assert [hub.repo_id(recipe, "sea", artefact) for artefact in hub.artefacts(recipe)] == repositories
    assert hub.repo_id(load_recipe("omniglot-sea"), "sea", "merged") == "ggez-hub/sea"


# -------------------------------------------------------------------------------------------------------------- the Hub
def test_without_a_network_a_data_set_stands_where_its_copy_does(
    data_hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_hub.add("someone/rows", {"rows.jsonl": b"{}"}, kind="datasets")
    commit = datasets.resolve("someone/rows", None)
    folder = datasets.fetch("someone/rows", None, ["*"])
    assert hub.commit_of(folder) == commit
    data_hub.add("someone/rows", {"rows.jsonl": b"{1}"}, kind="datasets")
    assert datasets.resolve("someone/rows", None) != commit, "the newest, which is not fetched yet"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert datasets.resolve("someone/rows", None) == commit
    assert datasets.fetch("someone/rows", None, ["*"]) == folder
    with pytest.raises(HubError, match="someone/others: the Hub cannot be reached, and there is no local copy"):
        datasets.resolve("someone/others", None)


def test_looking_at_a_newer_commit_does_not_take_the_older_model_from_the_cache(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.add("someone/model", {"ggez.json": b"{1}", "model.safetensors": b"weights"})
    whole = hub.fetch("someone/model")
    hub_server.add("someone/model", {"ggez.json": b"{2}"})
    assert (hub.fetch("someone/model", only=("ggez.json",)) / "ggez.json").read_bytes() == b"{2}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub.fetch("someone/model") == whole
    assert (whole / "model.safetensors").is_file()


def test_pickles_and_code_are_not_even_fetched(hub_server: HubServer) -> None:
    files = {"a.safetensors": b"1", "unet/b.safetensors": b"2", "config.json": b"{}", "pytorch_model.bin": b"3"}
    hub_server.add("someone/model", files | {"modeling.py": b"4", "adapter_model.pt": b"5"})
    folder = hub.fetch("someone/model")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {"a.safetensors", "unet/b.safetensors", "config.json"}
    assert hub.commit_of(folder) == hub_server.repos["models", "someone/model"].refs["refs/heads/main"].sha


def rest(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


PIPELINE = [
    "model_index.json", "README.md", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors.index.json", "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model-00002-of-00002.safetensors", "vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors",
    "tokenizer/vocab.json", "tokenizer/merges.txt",
]  # fmt: skip
AGAIN = [
    "sd_xl_base_1.0.safetensors", "sd_xl_base_1.0_0.9vae.safetensors", "an-offset-lora.safetensors",
    "whole-00001-of-00001.safetensors", "whole.safetensors.index.json", "[a]*.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors",
    "text_encoder/model.fp16.safetensors", "text_encoder/model.fp16-00001-of-00002.safetensors",
    "text_encoder/model-00001-of-00002.fp16.safetensors", "text_encoder/model.safetensors.index.fp16.json",
]  # fmt: skip
CLIP = ["open_clip_config.json", "open_clip_model.safetensors", "config.json", "tokenizer.json", "vocab.json"]
MODEL = ["config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json", "tokenizer.model"]


@pytest.mark.parametrize(
    ("once", "again"),
    [
        (PIPELINE, AGAIN),
        (
            CLIP,
            ["model-00001-of-00001.safetensors", "model.safetensors.index.json", "open_clip_model.fp16.safetensors"],
        ),
        (["open_clip_config.json", "model.safetensors", "config.json"], []),
        (MODEL, ["model.fp16-00001-of-00001.safetensors", "model.safetensors.index.fp16.json"]),
        (["config.json", "model.fp16.safetensors"], []),
        (["adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors", "ggez.json"], []),
    ],
    ids=["pipeline", "open_clip", "open_clip for transformers alone", "shards", "half precision alone", "adapter"],
)
def test_what_a_repository_holds_twice_is_fetched_once_and_loads_without_a_network(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch, once: list[str], again: list[str]
) -> None:
    hub_server.add("someone/model", {file: file.encode() for file in once + again})
    found = hub.fetch("someone/model")
    assert rest(found) == set(once)
    asked = [request.path.partition("/resolve/")[2] for request in hub_server.requests]
    assert not [path for path in asked if unquote(path.partition("/")[2]) in again]
    about = [request.path for request in hub_server.requests if request.path.startswith("/api/")]
    assert len(about) == 2, "its commit with its files, and their hashes"
    hub_server.requests.clear()
    assert hub.fetch("someone/model", hub.commit_of(found)) == found
    assert len(hub_server.requests) == 1
    hub_server.fail("GET", "/api/", 503, times=2)
    assert hub.fetch("someone/model") == hub.fetch("someone/model", "main") == found, "the Hub is down"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub.fetch("someone/model") == hub.fetch("someone/model", hub.commit_of(found)) == found
    (found / next(file for file in once if file.endswith(".safetensors"))).unlink()
    with pytest.raises(HubError, match="someone/model: the Hub cannot be reached, and there is no local copy"):
        hub.fetch("someone/model")


def test_patterns_of_a_caller_hold_for_copies_too(hub_server: HubServer) -> None:
    hub_server.add("someone/model", dict.fromkeys(PIPELINE + AGAIN, b"{}"))
    found = hub.fetch("someone/model", only=("sd_xl_base_1.0.safetensors", "*.fp16.safetensors"))
    assert rest(found) == {file for file in PIPELINE + AGAIN if ".fp16.safe" in file or file == AGAIN[0]}


def test_without_the_hub_a_tag_that_was_fetched_leads_to_its_copy(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub_server.add("someone/model", {"model.safetensors": b"1"})
    refs = hub_server.repos["models", "someone/model"].refs
    refs["refs/tags/v1"] = refs["refs/heads/main"]
    hub_server.add("someone/model", {"model.safetensors": b"2"})
    assert hub.commit_of(found := hub.fetch("someone/model", "v1")) == sha
    hub_server.__exit__()
    assert hub.fetch("someone/model", "v1") == found
    with pytest.raises(HubError, match="no local copy"):
        hub.fetch("someone/model")


@pytest.mark.parametrize(
    "name", ["hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip:ViT-B-32/laion2b_s34b_b79k"]
)
def test_names_of_open_clip_lead_to_the_hub(hub_server: HubServer, name: str) -> None:
    repo_id = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    sha = hub_server.add(repo_id, {"open_clip_config.json": b"{}"})
    assert hub.commit_of(hub.fetch(name)) == sha
    assert hub.base_name(Base(id=name)) == repo_id
