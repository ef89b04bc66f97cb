"""What is published loads by its id over HTTP, unchanged, with plain libraries and with ours, and computes the same."""

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from huggingface_hub import constants, snapshot_download

import libraries
from ggez_hub import RegionalModel, hub, registry
from ggez_hub.errors import GgezError, HubError, InputError
from ggez_hub.hub import search
from libraries import Ids, Repositories, Way, ids, scores
from tests.hub_server import HubServer

FAMILIES = sorted(registry.files("families"))
WAYS = [way for family in FAMILIES for way in libraries.ways(family)]
FEW = "embedding"  # stands for all where the family makes no difference


@pytest.fixture(autouse=True)
def safe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No pickle is read, and nothing but this machine is asked."""
    asked, unpickled = set(), []
    look_up = socket.getaddrinfo

    def noted(host: Any, *args: Any, **kwargs: Any) -> Any:
        asked.add(host)
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", noted)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: unpickled.append(args))
    yield
    assert asked <= {"127.0.0.1"}
    assert unpickled == []


@pytest.fixture
def at(commits: dict[str, str], request: pytest.FixtureRequest) -> Ids:
    """A family's repositories on the Hub."""
    family = getattr(request, "param", FEW)
    return ids(family, commits[ids(family).base])


every_family = pytest.mark.parametrize("at", FAMILIES, indirect=True)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


def changed(files: dict[str, bytes], factor: float) -> dict[str, bytes]:
    """The weights among them, all multiplied."""
    found = {path: safetensors.torch.load(data) for path, data in files.items() if path.endswith(".safetensors")}
    return {
        path: safetensors.torch.save({name: tensor * factor for name, tensor in state.items()}, {"format": "pt"})
        for path, state in found.items()
    }


# ------------------------------------------------------------------------------------------------------ plain libraries
@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[pytest.mark.slow] * (way.family == "diffusion")) for way in WAYS], ids=str
)
def test_plain_library_computes_what_we_do(way: Way, commits: dict[str, str]) -> None:
    compared = libraries.compare(way, ids(way.family, commits[ids(way.family).base]))
    assert compared.difference <= (3e-5 if way.family == "vlm" else 1e-5)  # a sum over tokens rounds more
    assert compared.effect > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_both_repositories_of_every_family_are_loaded(family: str) -> None:
    assert {way.artefact for way in libraries.ways(family)} == {"adapter", "merged"}


def test_nothing_that_is_published_is_pickle_or_code(made: Repositories) -> None:
    kinds = {Path(path).suffix for files in made.values() for path in files}
    assert kinds <= {".safetensors", ".json", ".yaml", ".md", ".png", ".jinja", ".txt"}


def test_all_that_is_published_is_fetched(made: Repositories, commits: dict[str, str]) -> None:
    for name, files in made.items():
        folder = hub.fetch(name)
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert there == {path for path in files if not path.endswith((".png", ".gitattributes"))}


# ---------------------------------------------------------------------------------------------------------------- alpha
@every_family
def test_adapter_stands_at_the_recommended_alpha_of_the_commit_it_came_from(at: Ids, commits: dict[str, str]) -> None:
    model = RegionalModel.from_pretrained(at.adapter)
    assert (model.alpha, model.revision) == (libraries.ALPHA, commits[at.adapter])
    recommended = scores(model)
    model.alpha = 1.0
    regional = scores(model)
    model.alpha = 0.0
    base = scores(model)
    assert min(apart(recommended, base), apart(recommended, regional)) > 0.01
    same(recommended, scores(RegionalModel.from_pretrained(at.adapter, alpha=libraries.ALPHA)))
    same(regional, scores(RegionalModel.from_pretrained(at.adapter, alpha=1.0, merged=True)))


@every_family
def test_merged_model_equals_the_adapter_at_its_alpha(at: Ids, commits: dict[str, str]) -> None:
    merged = RegionalModel.from_pretrained(at.merged)
    assert (merged.alpha, merged.revision) == (libraries.ALPHA, commits[at.merged])
    same(scores(merged), scores(RegionalModel.from_pretrained(at.adapter)))


@pytest.mark.parametrize("at", ["diffusion"], indirect=True)
def test_diffusers_turns_alpha_as_we_do(at: Ids) -> None:
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(at.base, revision=at.revision, use_safetensors=True)
    pipe.load_lora_weights(at.adapter, adapter_name="regional")
    for alpha in (0.0, libraries.ALPHA):
        pipe.set_adapters("regional", alpha)
        same(libraries.drawing(pipe), scores(RegionalModel.from_pretrained(at.adapter, alpha=alpha)))


# ------------------------------------------------------------------------------------------------------------ revisions
@every_family
def test_base_is_that_of_the_training_though_it_has_moved_on(
    at: Ids, made: Repositories, hub_server: HubServer
) -> None:
    expected = scores(RegionalModel.from_pretrained(at.adapter))
    hub_server.add(at.base, changed(made[at.base], 0.5))
    same(scores(RegionalModel.from_pretrained(at.adapter)), expected)
    assert apart(scores(RegionalModel.from_pretrained(at.adapter, base=at.base)), expected) > 0.01


@pytest.mark.parametrize(("at", "auto", "view"), [
    ("embedding", "AutoModel", libraries.siglip_scores),
    ("vlm", "AutoModelForImageTextToText", libraries.chat_scores),
], indirect=["at"])  # fmt: skip
def test_transformers_takes_both_commits(
    at: Ids, auto: str, view: Callable[..., np.ndarray], made: Repositories, commits: dict[str, str],
    hub_server: HubServer,
) -> None:  # fmt: skip
    import transformers

    expected = scores(RegionalModel.from_pretrained(at.adapter, alpha=1.0))
    for repo_id in (at.base, at.adapter):
        hub_server.add(repo_id, changed(made[repo_id], 0.5))
    pinned = {"revision": at.revision, "adapter_kwargs": {"revision": commits[at.adapter]}}
    model = getattr(transformers, auto).from_pretrained(at.adapter, **pinned)
    same(view(model, transformers.AutoProcessor.from_pretrained(at.adapter)), expected)


def test_revision_is_that_of_the_adapter(
    at: Ids, made: Repositories, commits: dict[str, str], hub_server: HubServer
) -> None:
    expected = scores(RegionalModel.from_pretrained(at.adapter))
    newer = hub_server.add(at.adapter, changed(made[at.adapter], 2))
    model = RegionalModel.from_pretrained(at.adapter)
    assert model.revision == newer
    assert apart(scores(model), expected) > 0.01
    pinned = RegionalModel.from_pretrained(at.adapter, revision=commits[at.adapter])
    assert pinned.revision == commits[at.adapter]
    same(scores(pinned), expected)


# ------------------------------------------------------------------------------------------------------ without the Hub
@every_family
def test_what_was_loaded_once_needs_no_hub(at: Ids, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    names = (at.adapter, at.merged)
    expected = [scores(RegionalModel.from_pretrained(name)) for name in names]
    hub_server.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name, output in zip(names, expected, strict=True):
        same(scores(RegionalModel.from_pretrained(name)), output)
    assert hub_server.requests == []


def test_what_was_loaded_once_loads_when_the_hub_is_down(at: Ids, hub_server: HubServer) -> None:
    expected = scores(RegionalModel.from_pretrained(at.adapter))
    hub_server.__exit__()
    same(scores(RegionalModel.from_pretrained(at.adapter)), expected)


@every_family
def test_copy_in_a_folder_loads_too(at: Ids, tmp_path: Path) -> None:
    for name in (at.adapter, at.merged):
        copy = snapshot_download(name, local_dir=tmp_path / name)
        model = RegionalModel.from_pretrained(copy)
        assert model.revision is None
        same(scores(model), scores(RegionalModel.from_pretrained(name)))


# --------------------------------------------------------------------------------------------------------------- pickle
def test_pickle_and_code_beside_the_weights_are_not_even_fetched(at: Ids, hub_server: HubServer) -> None:
    expected = scores(RegionalModel.from_pretrained(at.adapter))
    for repo_id in (at.base, at.adapter):
        bad = dict.fromkeys(("adapter_model.bin", "pytorch_model.bin", "modeling.py", "weights.pkl"), b"\x80\x04.")
        hub_server.add(repo_id, bad)
    hub_server.requests.clear()
    same(scores(RegionalModel.from_pretrained(at.adapter)), expected)
    assert hub_server.requests
    assert not [request for request in hub_server.requests if request.path.endswith((".bin", ".py", ".pkl"))]


def test_adapter_of_pickle_alone_is_refused(at: Ids, made: Repositories, hub_server: HubServer) -> None:
    files = dict(made[at.adapter])
    files["adapter_model.bin"] = files.pop("adapter_model.safetensors")
    hub_server.add("someone/pickled", files)
    assert "adapter_model.safetensors" in refused(InputError, "someone/pickled", "never loaded")


# --------------------------------------------------------------------------------------------------------------- errors
def refused(kind: type[GgezError], name: str, expected: str, **kwargs: Any) -> str:
    """The message of the error that loading ends in: of this very class; it or its hint says what is expected."""
    with pytest.raises(GgezError, match=expected) as caught:
        RegionalModel.from_pretrained(name, **kwargs)
    assert type(caught.value) is kind
    return caught.value.message


@pytest.mark.parametrize(("other", "expected"), [
    ("someone/tiny-vlm-base", "does not embed images and texts"),
    ("someone/tiny-diffusion-base", "cannot be loaded as an embedding model"),
    ("ggez-hub/pocket-base-embedding", "does not fit the base"),
])  # fmt: skip
def test_another_base_is_refused_by_name(at: Ids, other: str, expected: str) -> None:
    assert other.partition("/")[2] in refused(InputError, at.adapter, expected, base=other)


@pytest.mark.parametrize(("artefact", "file"), [
    ("adapter", "ggez.json"), ("adapter", "README.md"), ("adapter", "adapter_config.json"),
    ("adapter", "adapter_model.safetensors"), ("merged", "ggez.json"), ("merged", "config.json"),
    ("merged", "model.safetensors"),
])  # fmt: skip
def test_missing_file_is_named(at: Ids, made: Repositories, artefact: str, file: str, hub_server: HubServer) -> None:
    files = made[getattr(at, artefact)]
    hub_server.add("someone/broken", {path: content for path, content in files.items() if path != file})
    assert "someone/broken" in refused(InputError, "someone/broken", file.replace(".", r"\."))


@pytest.mark.parametrize(("state", "expected"), [
    ({"gated": "auto"}, "access is restricted"),
    ({"private": True}, "no such repository, or it is private"),
])  # fmt: skip
@pytest.mark.parametrize("where", ["base", "adapter"])
def test_repository_that_is_closed_is_named(
    at: Ids, where: str, state: dict[str, Any], expected: str, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    repo_id = getattr(at, where)
    vars(hub_server.repos["models", repo_id]).update(state)
    if repo_id.startswith("someone/"):
        monkeypatch.setenv("HF_TOKEN", "hf_ggez")
    refused(HubError, at.adapter, f"{repo_id}: {expected}")


def test_repository_or_revision_that_is_not_there_is_named(at: Ids, hub_server: HubServer) -> None:
    assert refused(HubError, "someone/nothing", "no such repository").startswith("someone/nothing: ")
    for revision in ("v9", "0" * 40):
        refused(HubError, at.adapter, f"{at.adapter}: has no such revision", revision=revision)
    base = hub_server.repos["models", at.base]
    base.refs["refs/heads/main"] = base.commits[next(iter(base.commits))]  # history was rewritten
    del base.commits[str(at.revision)]
    refused(HubError, at.adapter, f"{at.base}: has no such revision")


def test_neither_network_nor_copy_is_one_error(at: Ids, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_server.__exit__()
    refused(HubError, at.adapter, f"{at.adapter}: the Hub cannot be reached, and there is no local copy")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(HubError, at.adapter, f"{at.adapter}: the Hub cannot be reached, and there is no local copy")


def test_what_was_only_looked_at_is_no_copy(at: Ids, monkeypatch: pytest.MonkeyPatch) -> None:
    search.described(at.adapter)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(HubError, at.adapter, "no local copy")


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "/model.safetensors"])
def test_connection_that_breaks_midway_is_taken_up_again(at: Ids, file: str, hub_server: HubServer) -> None:
    expected = scores(RegionalModel.from_pretrained(at.adapter))
    shutil.rmtree(constants.HF_HUB_CACHE)
    hub_server.drop("GET", f"/resolve/.*{file}", when="done", sent=1000)
    same(scores(RegionalModel.from_pretrained(at.adapter)), expected)
    assert hub_server.faults == []


@pytest.mark.parametrize("sent", [0, 1000])
def test_connection_that_always_breaks_is_one_error(at: Ids, sent: int, hub_server: HubServer) -> None:
    hub_server.drop("GET", "/resolve/.*adapter_model", when="done", sent=sent, times=1000)
    refused(HubError, at.adapter, f"{at.adapter}: the Hub cannot be reached")
    hub_server.faults.clear()
    assert RegionalModel.from_pretrained(at.adapter).revision, "half a file was taken for a whole one"


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_refusal_gives_its_status(at: Ids, status: int, hub_server: HubServer) -> None:
    hub_server.fail("GET", "/resolve/.*adapter_model", status, times=1000)
    refused(HubError, at.adapter, f"{at.adapter}: the Hub says {status}")
