"""The Hub that the tests use behaves as the real client expects, and goes wrong as it is told to."""

import hashlib
import warnings
from pathlib import Path

import pytest
from huggingface_hub import (
    _CACHED_NO_EXIST,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    hf_hub_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub_server import HubServer

CARD = """\
---
license: apache-2.0
library_name: peft
pipeline_tag: zero-shot-image-classification
base_model: ggez-hub/base
base_model_relation: adapter
language: [en, id]
tags: [ggez, region-sea]
model-index:
- name: x
  results:
  - task: {type: zero-shot-image-classification}
    dataset: {name: Atlas, type: atlas}
    metrics: [{type: accuracy, value: 0.5}]
---
# Card
"""


@pytest.fixture
def server(hub_server: HubServer) -> HubServer:
    return hub_server


@pytest.fixture
def api(server: HubServer) -> HfApi:
    return HfApi(endpoint=server.url, token="hf_ggez")


@pytest.fixture
def other(server: HubServer) -> HfApi:
    return HfApi(endpoint=server.url, token="hf_other")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a push uploads: a card, a small file, two large ones, one of them in a folder."""
    folder = tmp_path / "upload"
    (folder / "unet").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"a" * 1000)
    (folder / "unet" / "model.safetensors").write_bytes(b"b" * 2000)
    return folder


def uploaded(server: HubServer) -> int:
    """How many large files came in, and were answered."""
    return sum(r.method == "PUT" and r.path.startswith("/lfs/") and r.status == 200 for r in server.requests)


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_whoami_names_user_and_organisations(server: HubServer, api: HfApi) -> None:
    assert api.whoami()["name"] == "ggez-hub"
    assert [org["name"] for org in api.whoami()["orgs"]] == ["sea-lab"]
    with pytest.raises(HfHubHTTPError) as error:
        HfApi(endpoint=server.url, token="hf_wrong").whoami()
    assert status(error) == 401


def test_a_folder_goes_up_and_comes_down_at_the_pinned_commit(
    server: HubServer, api: HfApi, folder: Path, tmp_path: Path
) -> None:
    url = api.create_repo("sea-lab/x")
    assert (url.repo_id, server.files("sea-lab/x").keys()) == ("sea-lab/x", {".gitattributes"})
    first = api.upload_folder(repo_id="sea-lab/x", folder_path=folder)
    (folder / "config.json").write_text('{"later": 1}')
    second = api.upload_folder(repo_id="sea-lab/x", folder_path=folder, commit_message="later")
    assert uploaded(server) == 2
    got = Path(api.snapshot_download("sea-lab/x", revision=first.oid, cache_dir=tmp_path / "cache"))
    assert (got / "config.json").read_text() == "{}"
    assert (got / "unet" / "model.safetensors").read_bytes() == b"b" * 2000
    assert [c.commit_id for c in api.list_repo_commits("sea-lab/x")][:2] == [second.oid, first.oid]
    assert server.files("sea-lab/x")["config.json"] == b'{"later": 1}'


def test_a_second_push_of_the_same_folder_uploads_nothing(server: HubServer, api: HfApi, folder: Path) -> None:
    api.create_repo("ggez-hub/x")
    first = api.upload_folder(repo_id="ggez-hub/x", folder_path=folder)
    before = len(server.requests)
    assert api.upload_folder(repo_id="ggez-hub/x", folder_path=folder).oid == first.oid
    again = server.requests[before:]
    assert not [r for r in again if r.method == "PUT" or "/commit/" in r.path or r.size > 10_000]


def test_deleting_and_moving_on_from_a_stale_parent(server: HubServer, api: HfApi) -> None:
    old = server.add("ggez-hub/x", {"a.txt": b"1", "sub/b.txt": b"2"})
    deletions = [CommitOperationDelete("a.txt"), CommitOperationDelete("sub/")]
    api.create_commit("ggez-hub/x", deletions, commit_message="less", parent_commit=old)
    assert list(server.files("ggez-hub/x")) == [".gitattributes"]
    with pytest.raises(HfHubHTTPError) as error:
        api.create_commit("ggez-hub/x", [CommitOperationAdd("a.txt", b"3")], commit_message="stale", parent_commit=old)
    assert status(error) == 412
    with pytest.raises(EntryNotFoundError):
        api.create_commit("ggez-hub/x", [CommitOperationDelete("none.txt")], commit_message="no such file")


def test_creating_what_exists_or_is_not_ours(api: HfApi, other: HfApi, server: HubServer) -> None:
    api.create_repo("ggez-hub/x", private=True)
    assert api.create_repo("ggez-hub/x", exist_ok=True).repo_id == "ggez-hub/x"
    for client, repo, expected in ((api, "ggez-hub/x", 409), (other, "ggez-hub/y", 403)):
        with pytest.raises(HfHubHTTPError) as error:
            client.create_repo(repo)
        assert status(error) == expected
    with pytest.raises(HfHubHTTPError) as error:
        HfApi(endpoint=server.url, token=False).create_repo("ggez-hub/y")
    assert status(error) == 401
    api.delete_repo("ggez-hub/x")
    assert not api.repo_exists("ggez-hub/x")


def test_strangers_do_not_see_private_and_may_not_write(server: HubServer, api: HfApi, other: HfApi) -> None:
    server.add("ggez-hub/secret", {"a.txt": b"1"}, private=True)
    server.add("ggez-hub/open", {"a.txt": b"1"})
    for client, expected in ((other, 404), (HfApi(endpoint=server.url, token=False), 401)):
        with pytest.raises(RepositoryNotFoundError) as error:
            client.model_info("ggez-hub/secret")
        assert status(error) == expected
    assert [m.id for m in other.list_models()] == ["ggez-hub/open"]
    assert [m.id for m in api.list_models(author="ggez-hub")] == ["ggez-hub/open", "ggez-hub/secret"]
    with pytest.raises(HfHubHTTPError) as error:
        other.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id="ggez-hub/open")
    assert status(error) == 403
    api.update_repo_settings("ggez-hub/secret", private=False)
    assert other.model_info("ggez-hub/secret").private is False


def test_gated_files_are_for_those_let_in(server: HubServer, other: HfApi, tmp_path: Path) -> None:
    server.add("sea-lab/gated", {"a.txt": b"1"}, gated="manual")
    assert other.model_info("sea-lab/gated").gated == "manual"
    with pytest.raises(GatedRepoError) as error:
        other.hf_hub_download("sea-lab/gated", "a.txt", cache_dir=tmp_path)
    assert status(error) == 403
    server.repos["models", "sea-lab/gated"].granted.add("someone")
    assert Path(other.hf_hub_download("sea-lab/gated", "a.txt", cache_dir=tmp_path)).read_bytes() == b"1"


def test_a_pull_request_leaves_main_alone(server: HubServer, other: HfApi, tmp_path: Path) -> None:
    head = server.add("ggez-hub/x", {"a.txt": b"1"})
    pull = other.create_commit(
        "ggez-hub/x", [CommitOperationAdd("w.safetensors", b"2")], commit_message="offer", create_pr=True
    )
    assert (pull.pr_num, pull.pr_revision) == (1, "refs/pr/1")
    other.upload_file(path_or_fileobj=b"3", path_in_repo="b.txt", repo_id="ggez-hub/x", revision="refs/pr/1")
    assert other.model_info("ggez-hub/x").sha == head
    assert {"w.safetensors", "b.txt"} <= server.files("ggez-hub/x", "refs/pr/1").keys()
    assert len(other.list_repo_refs("ggez-hub/x", include_pull_requests=True).pull_requests or []) == 1
    got = hf_hub_download(
        "ggez-hub/x", "b.txt", revision="refs/pr/1", endpoint=server.url, cache_dir=tmp_path, token="hf_other"
    )
    assert Path(got).read_bytes() == b"3"


def test_branches_and_tags_point_at_commits(server: HubServer, api: HfApi) -> None:
    old = server.add("ggez-hub/x", {"a.txt": b"1"})
    api.create_tag("ggez-hub/x", tag="v1.0", tag_message="first")
    new = server.add("ggez-hub/x", {"a.txt": b"2"})
    api.create_branch("ggez-hub/x", branch="feature/y", revision="v1.0")
    assert [api.model_info("ggez-hub/x", revision=r).sha for r in ("v1.0", "feature/y", "main")] == [old, old, new]
    with pytest.raises(HfHubHTTPError) as error:
        api.create_tag("ggez-hub/x", tag="v1.0")
    assert status(error) == 409
    api.create_tag("ggez-hub/x", tag="v1.0", exist_ok=True)
    api.delete_tag("ggez-hub/x", tag="v1.0")
    api.delete_branch("ggez-hub/x", branch="feature/y")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("ggez-hub/x", revision="v1.0")


def test_a_card_becomes_tags_that_a_listing_filters_by(server: HubServer, api: HfApi) -> None:
    for number in range(5):
        server.add(f"sea-lab/m{number}", {"README.md": CARD.encode(), "adapter_config.json": b"{}"})
    server.add("ggez-hub/plain", {"config.json": b"{}"})
    info = api.model_info("sea-lab/m0", files_metadata=True)
    wanted = {"peft", "region-sea", "id", "license:apache-2.0", "base_model:adapter:ggez-hub/base", "region:us"}
    assert wanted <= set(info.tags or [])
    assert info.card_data
    assert info.card_data.eval_results
    assert {s.rfilename: s.size for s in info.siblings or []}["README.md"] == len(CARD)
    server.page_size = 2
    found = [m.id for m in api.list_models(filter=["region-sea", "base_model:adapter:ggez-hub/base"])]
    assert found == [f"sea-lab/m{number}" for number in (4, 3, 2, 1, 0)]
    assert [m.id for m in api.list_models(search="PLAIN")] == ["ggez-hub/plain"]
    assert [m.id for m in api.list_models(author="ggez-hub", full=True)] == ["ggez-hub/plain"]
    assert len(list(api.list_models(author="sea-lab", limit=3))) == 3
    assert not list(api.list_models(filter=["region-sea", "region-africa"]))
    (expanded,) = api.list_models(search="m1", expand=["cardData", "sha"])
    assert (expanded.sha, expanded.tags) == (api.model_info("sea-lab/m1").sha, None)
    assert len(list(api.list_repo_tree("sea-lab/m0"))) == 3  # over two pages


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("license: [1]", "license"),
        ("license: Apache 2.0", "license"),
        ("tags: one", "tags"),
        ("base_model: ../../base", "base_model"),
        ("- a list", "mapping"),
        ("a: [", "YAML"),
        ("model-index: [{name: x, results: [{task: {type: t}}]}]", "dataset.name"),
    ],
)
def test_a_bad_card_is_refused_before_anything_goes_up(server: HubServer, api: HfApi, front: str, said: str) -> None:
    api.create_repo("ggez-hub/x")
    with pytest.raises(ValueError, match=said):
        api.upload_file(path_or_fileobj=f"---\n{front}\n---\n".encode(), path_in_repo="README.md", repo_id="ggez-hub/x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        api.upload_file(path_or_fileobj=CARD.encode(), path_in_repo="README.md", repo_id="ggez-hub/x")


def test_a_collection_is_made_once_and_holds_each_item_once(server: HubServer, api: HfApi, other: HfApi) -> None:
    server.add("sea-lab/x", {})
    for _ in range(2):
        slug = api.create_collection("SEA & more", namespace="sea-lab", exists_ok=True).slug
        collection = api.add_collection_item(slug, "sea-lab/x", "model", exists_ok=True)
    with pytest.raises(HfHubHTTPError) as error:
        api.create_collection("SEA & more", namespace="sea-lab")
    assert status(error) == 409
    assert [item.item_id for item in collection.items] == ["sea-lab/x"]
    assert [c.slug for c in other.list_collections(owner="sea-lab")] == [slug]
    assert other.get_collection(slug).title == "SEA & more"
    for expected, client in ((409, api), (403, other)):
        with pytest.raises(HfHubHTTPError) as error:
            client.add_collection_item(slug, "sea-lab/x", "model")
        assert status(error) == expected


def test_an_interrupted_push_continues_with_what_lacks(server: HubServer, api: HfApi) -> None:
    def push() -> None:
        operations = [CommitOperationAdd(f"{i}.safetensors", b"%d" % i) for i in range(3)]
        api.create_commit("ggez-hub/x", operations, commit_message="push", num_threads=1)

    api.create_repo("ggez-hub/x")
    server.fail("PUT", f"/lfs/{hashlib.sha256(b'1').hexdigest()}", status=403)
    with pytest.raises(RuntimeError) as error:
        push()
    assert isinstance(error.value.__cause__, HfHubHTTPError)
    assert (0 < uploaded(server) < 3, len(server.files("ggez-hub/x"))) == (True, 1)
    push()
    assert (uploaded(server), len(server.files("ggez-hub/x"))) == (3, 4)


@pytest.mark.parametrize("when", ["head", "body", "done"])
def test_a_connection_lost_while_uploading_is_tried_again(
    server: HubServer, api: HfApi, folder: Path, when: str
) -> None:
    api.create_repo("ggez-hub/x")
    (folder / "model.safetensors").write_bytes(b"a" * 3_000_000)
    server.drop("PUT", "/lfs/", when=when)
    api.upload_folder(repo_id="ggez-hub/x", folder_path=folder)
    (dropped,) = [r for r in server.requests if r.method == "PUT" and r.status == 0]
    assert (dropped.size == 0) == (when == "head")
    assert len(server.files("ggez-hub/x")["model.safetensors"]) == 3_000_000


def test_a_commit_can_be_made_though_its_answer_is_lost(server: HubServer, api: HfApi, folder: Path) -> None:
    api.create_repo("ggez-hub/x")
    server.drop("POST", "/commit/", when="done")
    with pytest.raises(Exception, match="disconnected"):
        api.upload_folder(repo_id="ggez-hub/x", folder_path=folder)
    assert "README.md" in server.files("ggez-hub/x")
    before = len(api.list_repo_commits("ggez-hub/x"))
    api.upload_folder(repo_id="ggez-hub/x", folder_path=folder)
    assert len(api.list_repo_commits("ggez-hub/x")) == before == 2


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry_After": "0"}), (503, {}), (500, {})])
def test_passing_trouble_is_tried_again(
    server: HubServer, api: HfApi, folder: Path, status: int, headers: dict[str, str]
) -> None:
    api.create_repo("ggez-hub/x")
    server.fail("PUT", "/lfs/", status=status, times=2, **headers)
    server.fail("POST", "/preupload/", status=status, **headers)
    api.upload_folder(repo_id="ggez-hub/x", folder_path=folder)
    assert [r.status for r in server.requests].count(status) == 3


def test_a_broken_download_continues_where_it_stopped(
    server: HubServer, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # what came in part of a chunk is asked for again
    content = bytes(range(256)) * 4000
    server.add("ggez-hub/x", {"w.safetensors": content})
    server.drop("GET", "w.safetensors", when="done", sent=100_000)
    assert Path(api.hf_hub_download("ggez-hub/x", "w.safetensors", cache_dir=tmp_path)).read_bytes() == content
    assert [r.status for r in server.requests if r.method == "GET" and "resolve" in r.path] == [200, 206]


def test_what_a_client_would_never_send_can_be_put_there(server: HubServer, api: HfApi, tmp_path: Path) -> None:
    server.add("ggez-hub/evil", {"../evil.json": b"{}"})
    with pytest.raises(ValueError, match="evil"):
        api.snapshot_download("ggez-hub/evil", cache_dir=tmp_path / "cache")
    assert not list(tmp_path.rglob("evil.json"))


def test_a_server_on_the_same_port_starts_empty(server: HubServer, api: HfApi) -> None:
    server.add("ggez-hub/x", {})
    assert api.repo_exists("ggez-hub/x")
    server.__exit__()
    with HubServer(port=int(server.url.rsplit(":")[-1])):
        assert not api.repo_exists("ggez-hub/x")


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_datasets_and_spaces_go_up_and_down_too(
    server: HubServer, api: HfApi, folder: Path, tmp_path: Path, kind: str
) -> None:
    made = api.create_repo("sea-lab/x", repo_type=kind, space_sdk="gradio" if kind == "space" else None)
    api.upload_folder(repo_id="sea-lab/x", folder_path=folder, repo_type=kind)
    assert (made.repo_type, api.repo_exists("sea-lab/x")) == (kind, False)
    got = Path(api.snapshot_download("sea-lab/x", repo_type=kind, cache_dir=tmp_path / "cache"))
    assert (got / "model.safetensors").read_bytes() == b"a" * 1000
    assert api.repo_info("sea-lab/x", repo_type=kind).author == "sea-lab"


def test_a_missing_file_is_remembered_as_missing_from_that_commit(
    server: HubServer, api: HfApi, tmp_path: Path
) -> None:
    server.add("ggez-hub/x", {"a.txt": b"1"})
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("ggez-hub/x", "b.txt", cache_dir=tmp_path)
    assert try_to_load_from_cache("ggez-hub/x", "b.txt", cache_dir=tmp_path) is _CACHED_NO_EXIST
