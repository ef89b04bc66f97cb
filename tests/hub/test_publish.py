"""Publishing over HTTP with the real client: one commit per repository, never twice, never on top of others."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi

from ggez_hub import gate, load_recipe
from ggez_hub.errors import GgezError, HubError, InputError
from ggez_hub.hub import publish
from ggez_hub.hub.publish import Content
from ggez_hub.runs import Run
from ggez_hub.stages import push as stage
from tests.hub_server import HubServer

NAME = "ggez-hub/tiny-lora"
CARD = "---\nlicense: apache-2.0\nlibrary_name: peft\ntags: [ggez]\n---\n\n# Tiny\n"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Content]:
    """What a small adapter repository holds: weights and a picture (large files on the Hub), a card, facts."""
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights" * 100)
    (tmp_path / "parity.png").write_bytes(b"picture")
    return {
        "adapter_model.safetensors": tmp_path / "adapter_model.safetensors",
        "parity.png": tmp_path / "parity.png",
        "README.md": CARD.encode(),
        "ggez.json": b"{}",
        ".eval_results/b.yaml": b"[]\n",
    }


def push(files: dict[str, Content], repo_id: str = NAME, **options: Any) -> str:
    """Publishes one repository; returns the address of the commit, or nothing."""
    return "".join(publish.publish([publish.compare(repo_id, files)], "a run", **options))


def put(change: publish.Change) -> None:
    list(publish.publish([change], "a run"))


def written(server: HubServer, method: str = "") -> list[str]:
    """Requests that send something, without the questions that the client asks by POST."""
    asks = ("/preupload/", "/validate-yaml", "/paths-info/", "/objects/batch")
    return [
        r.path for r in server.requests if r.method in ("POST", "PUT", "DELETE")
        and method in r.method and not any(ask in r.path for ask in asks)
    ]  # fmt: skip


def commits(server: HubServer, repo_id: str = NAME) -> int:
    return len(list(server.repos["models", repo_id].refs["refs/heads/main"].log()))


# ------------------------------------------------------------------------------------------------------------- the plan
def test_plan_reads_and_writes_nothing(hub_server: HubServer, files: dict[str, Content]) -> None:
    change = publish.compare(NAME, files, private=True)
    assert (change.parent, change.private, change.is_done) == (None, True, False)
    assert set(change.uploads) == set(files)
    assert not written(hub_server)
    assert not hub_server.repos


def test_plan_tells_new_changed_and_stale_files_apart(hub_server: HubServer, files: dict[str, Content]) -> None:
    push(files)
    hub_server.add(NAME, {"notes.txt": b"by hand", "model.safetensors.index.json": b"{}"})
    del files["adapter_model.safetensors"]
    files |= {"ggez.json": b"[]", "model-00001.safetensors": b"new", "parity.png": b"other!!"}
    change = publish.compare(NAME, files)
    assert change.added == ("model-00001.safetensors",)
    assert set(change.changed) == {"ggez.json", "parity.png"}, "of equal size: one by its git hash, one by its SHA-256"
    assert change.removed == ("adapter_model.safetensors", "model.safetensors.index.json")
    put(change)
    there = hub_server.files(NAME)
    assert there.keys() == files.keys() | {".gitattributes", "notes.txt"}, "what others put there stays"
    assert there["parity.png"] == b"other!!"


def test_repository_of_somebody_else_is_left_alone(hub_server: HubServer, files: dict[str, Content]) -> None:
    sha = hub_server.add(NAME, {"model.safetensors": b"theirs", "README.md": b"# Theirs"})
    with pytest.raises(InputError, match=r"ggez-hub/tiny-lora: .*did not write"):
        publish.compare(NAME, files)
    assert hub_server.repos["models", NAME].refs["refs/heads/main"].sha == sha


def test_an_empty_repository_made_beforehand_is_filled(hub_server: HubServer, files: dict[str, Content]) -> None:
    HfApi().create_repo(NAME, private=True)
    change = publish.compare(NAME, files)
    assert change.private, "as it is, whatever was asked for"
    put(change)
    assert hub_server.files(NAME).keys() == files.keys() | {".gitattributes"}


# ----------------------------------------------------------------------------------------------------------- publishing
def test_everything_arrives_in_one_commit(hub_server: HubServer, files: dict[str, Content]) -> None:
    url = push(files)
    there = hub_server.files(NAME)
    for path, content in files.items():
        assert there[path] == (content if isinstance(content, bytes) else content.read_bytes())
    assert commits(hub_server) == 2  # the Hub's own first one, and ours
    assert url.endswith(hub_server.repos["models", NAME].refs["refs/heads/main"].sha)


def test_the_same_twice_uploads_nothing(hub_server: HubServer, files: dict[str, Content]) -> None:
    push(files)
    hub_server.requests.clear()
    assert publish.compare(NAME, files).is_done
    assert not written(hub_server)


def test_a_card_that_the_hub_refuses_leaves_no_empty_repository(
    hub_server: HubServer, files: dict[str, Content]
) -> None:
    files["README.md"] = b"---\nlicense: [1, 2]\n---\n"
    with pytest.raises(GgezError, match=NAME):
        push(files)
    assert not hub_server.repos


def test_interrupted_upload_goes_on_with_what_is_missing(hub_server: HubServer, files: dict[str, Content]) -> None:
    hub_server.fail("POST", "/commit/", status=500, times=20)
    with pytest.raises(HubError, match="500"):
        push(files)
    assert len(written(hub_server, "PUT")) == 2
    hub_server.faults.clear()
    hub_server.requests.clear()
    push(files)
    assert not written(hub_server, "PUT"), "weights and picture were there already"
    assert hub_server.files(NAME).keys() == files.keys() | {".gitattributes"}
    assert commits(hub_server) == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/models/"),
        ("POST", "/repos/create"),
        ("POST", "/preupload/"),
        ("POST", "/objects/batch"),
        ("PUT", ""),
        ("POST", "/commit/"),
    ],
)
@pytest.mark.parametrize("status", [429, 503, None], ids=["rate limit", "busy", "dropped"])
def test_a_busy_hub_is_asked_again(
    method: str, path: str, status: int | None, hub_server: HubServer, files: dict[str, Content]
) -> None:
    if status:
        hub_server.fail(method, path, status=status, times=2, Retry_After="0")
    else:
        hub_server.drop(method, path, times=2)
    push(files)
    assert hub_server.files(NAME).keys() == files.keys() | {".gitattributes"}
    assert commits(hub_server) == 2


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub_server: HubServer, files: dict[str, Content]) -> None:
    hub_server.drop("POST", "/commit/", when="done")
    url = push(files)
    assert commits(hub_server) == 2
    assert url.endswith(hub_server.repos["models", NAME].refs["refs/heads/main"].sha)


def test_nothing_is_put_on_top_of_what_somebody_else_wrote_meanwhile(
    hub_server: HubServer, files: dict[str, Content]
) -> None:
    push(files)
    files["ggez.json"] = b"{2}"
    change = publish.compare(NAME, files)
    theirs = hub_server.add(NAME, {"ggez.json": b"theirs"})
    with pytest.raises(HubError, match="412") as caught:
        put(change)
    assert "meanwhile" in str(caught.value.hint)
    assert hub_server.repos["models", NAME].refs["refs/heads/main"].sha == theirs
    push(files)
    assert hub_server.files(NAME)["ggez.json"] == b"{2}"


def test_what_came_into_a_new_repository_meanwhile_is_not_overwritten(
    hub_server: HubServer, files: dict[str, Content]
) -> None:
    change = publish.compare(NAME, files)
    theirs = hub_server.add(NAME, {"README.md": CARD.encode() + b"theirs", "ggez.json": b"theirs"})
    with pytest.raises(HubError, match="somebody else has filled it meanwhile"):
        put(change)
    assert hub_server.repos["models", NAME].refs["refs/heads/main"].sha == theirs


def test_a_lost_answer_to_a_commit_that_removes_a_file_is_no_error(
    hub_server: HubServer, files: dict[str, Content]
) -> None:
    push(files | {"old.safetensors": b"old"})
    hub_server.drop("POST", "/commit/", when="done")
    push(files)
    assert "old.safetensors" not in hub_server.files(NAME)
    assert commits(hub_server) == 3


def test_the_hub_says_how_long_to_wait(
    hub_server: HubServer, files: dict[str, Content], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(publish, "time", SimpleNamespace(sleep=waits.append))
    monkeypatch.setattr(publish, "WAITS", (1.0, 2.0))
    hub_server.fail("POST", "/repos/create", status=429, Retry_After="7")
    hub_server.fail("POST", "/commit/", status=503)
    push(files)
    assert waits == [7.0, 1.0]


@pytest.mark.parametrize(
    ("token", "repo_id", "status"),
    [("hf_wrong", NAME, "401"), ("hf_other", NAME, "403"), ("hf_ggez", "strangers/x", "403")],
    ids=["wrong token", "token of somebody else", "namespace of somebody else"],
)
def test_who_may_not_write_is_told_so_and_no_token_is_shown(
    token: str,
    repo_id: str,
    status: str,
    hub_server: HubServer,
    files: dict[str, Content],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError, match=status) as caught:
        push(files, repo_id)
    assert caught.value.exit_code == 4
    assert "hf auth" in str(caught.value)
    assert token not in str(caught.value)
    assert not hub_server.repos


def test_without_a_token_one_is_asked_for(
    hub_server: HubServer, files: dict[str, Content], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="hf auth login"):
        push(files)


def test_organisations_get_repositories_of_their_members(hub_server: HubServer, files: dict[str, Content]) -> None:
    push(files, "sea-lab/tiny-lora")
    assert ("models", "sea-lab/tiny-lora") in hub_server.repos


def test_private_repositories_are_private_from_the_start(
    hub_server: HubServer, files: dict[str, Content], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(publish.compare(NAME, files, private=True))
    assert hub_server.repos["models", NAME].private
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(HubError):
        push(files)


def test_pull_request_changes_nothing_itself(
    hub_server: HubServer, files: dict[str, Content], monkeypatch: pytest.MonkeyPatch
) -> None:
    push(files)
    before = hub_server.files(NAME)
    files["ggez.json"] = b"{3}"
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    url = push(files, pull_request=True)
    assert "/discussions/1" in url
    assert hub_server.files(NAME) == before
    assert hub_server.files(NAME, "refs/pr/1")["ggez.json"] == b"{3}"
    assert push(files, pull_request=True) == url, "the same is not proposed twice"
    assert "/discussions/2" in push(files | {"ggez.json": b"{4}"}, pull_request=True)


def test_pull_requests_to_several_repositories_are_opened_all_or_none(
    hub_server: HubServer, files: dict[str, Content]
) -> None:
    push(files)
    files["ggez.json"] = b"{3}"
    changes = [publish.compare(name, files) for name in (NAME, "ggez-hub/not-there")]
    with pytest.raises(InputError, match="ggez-hub/not-there: is not there"):
        list(publish.publish(changes, "a run", pull_request=True))
    assert not hub_server.repos["models", NAME].pull_authors


def test_a_pull_request_that_fails_is_not_tried_again(hub_server: HubServer, files: dict[str, Content]) -> None:
    push(files)
    hub_server.drop("POST", "/commit/", when="done")
    with pytest.raises(HubError):
        push(files | {"ggez.json": b"{3}"}, pull_request=True)
    assert len(hub_server.repos["models", NAME].pull_authors) == 1


def test_public_repositories_do_not_become_private_or_the_other_way_round(
    hub_server: HubServer, files: dict[str, Content]
) -> None:
    push(files)
    with pytest.raises(InputError, match="is public already"):
        publish.compare(NAME, files, private=True)
    put(publish.compare("ggez-hub/secret", files, private=True))
    assert publish.compare("ggez-hub/secret", files).private


# ---------------------------------------------------------------------------------------------------- tags, collections
def test_tag_names_what_was_published_and_never_moves(hub_server: HubServer, files: dict[str, Content]) -> None:
    push(files, tag="v1")
    first = hub_server.repos["models", NAME].refs["refs/heads/main"].sha
    push(files, tag="v1")
    assert hub_server.repos["models", NAME].refs["refs/tags/v1"].sha == first
    with pytest.raises(InputError, match="tag 'v1' is on commit"):
        push(files | {"ggez.json": b"{4}"}, tag="v1")
    assert hub_server.repos["models", NAME].refs["refs/heads/main"].sha == first, "told before anything is uploaded"
    push(files, tag="v2")
    assert hub_server.repos["models", NAME].refs["refs/tags/v2"].sha == first


@pytest.mark.parametrize("tag", ["a b", "../z", "", "x" * 101])
def test_odd_tags_are_refused_before_anything_is_uploaded(
    hub_server: HubServer, files: dict[str, Content], tag: str
) -> None:
    with pytest.raises(InputError, match="--tag"):
        push(files, tag=tag)
    assert not hub_server.repos


def test_collection_groups_repositories_once(hub_server: HubServer, files: dict[str, Content]) -> None:
    names = [NAME, "ggez-hub/tiny"]
    for name in names:
        push(files, name)
    urls = {publish.collect("Tiny models, " * 9, names, private=True) for _ in range(2)}
    assert len(urls) == 1
    (slug,) = hub_server.collections
    collection = HfApi().get_collection(slug)
    assert (collection.private, len(collection.title) < 60) == (True, True)
    assert [item.item_id for item in collection.items] == names


# --------------------------------------------------------------------------------------------------------- command line
@pytest.fixture
def ggez(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    from ggez_hub.cli import _guarded, cli

    def call(*arguments: str) -> tuple[int, str, str]:
        code = _guarded(lambda: cli.main(arguments, standalone_mode=False))
        return code, *capsys.readouterr()

    return call


@pytest.mark.slow
def test_push_show_ls_and_verify_from_the_command_line(
    hub_server: HubServer, project: Path, ggez: Callable[..., tuple[int, str, str]]
) -> None:
    base = {path.name: path.read_bytes() for path in (project / "base").iterdir()}
    sha = hub_server.add("ggez-hub/tiny-base", base)
    overrides = ("base.id=ggez-hub/tiny-base", f"base.revision={sha}", "data.license=mit")
    assert ggez("run", "tiny", *overrides)[0] == 0
    code, _, err = ggez("push", "tiny", *overrides, "--to", "hf")
    assert code == 5, "twelve steps teach nothing"
    assert "push.min_gain" in err
    assert "base" not in err, "the base is on the Hub, and pinned"

    code, plan, err = ggez("push", "tiny", *overrides, "--to", "hf", "--below-gate", "--private")
    assert code == 0
    assert "ggez-hub/tiny-lora (private, new repository)" in plan
    assert "+ adapter_model.safetensors" in plan
    assert "--yes" in err
    assert ("models", NAME) not in hub_server.repos

    code, out, err = ggez("push", "tiny", *overrides, "--to", "hf", "--below-gate", "--yes", "--tag", "v1")
    assert code == 0, err
    adapter, merged = hub_server.files(NAME), hub_server.files("ggez-hub/tiny")
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "results.json", "recipe.yaml"} <= set(
        adapter
    )
    assert {"config.json", "model.safetensors", "results.json", "ggez.json", "parity.png"} <= set(merged)
    assert json.loads(adapter["ggez.json"])["gate"]
    assert "below the gate" in ggez("hub", "ls")[1]
    for card in (adapter["README.md"], merged["README.md"]):
        assert b"below the gate" in card.lower()
        assert b"push.min_gain" in card
    assert "refs/tags/v1" in hub_server.repos["models", NAME].refs

    hub_server.requests.clear()
    code, plan, err = ggez("push", "tiny", *overrides, "--to", "hf", "--below-gate", "--yes", "--tag", "v1")
    assert (code, plan.count("unchanged"), "uploading" in err) == (0, 2, False)
    assert not written(hub_server, "PUT")
    assert not any("/commit/" in path for path in written(hub_server))

    code, listing, _ = ggez("hub", "ls", "--region", "sea", "--family", "embedding", "--base", "ggez-hub/tiny-base")
    assert code == 0
    assert NAME in listing
    assert ggez("hub", "ls", "--region", "mena")[1] == ""

    code, shown, _ = ggez("hub", "show", NAME)
    assert code == 0
    assert sha in shown, "the commit of the base"

    code, out, err = ggez("verify", NAME, "--all")
    assert code == 0, out + err
    assert "DOES NOT HOLD" not in out

    results = json.loads(adapter["results.json"])
    for point in results["points"]:
        for measured in point["benchmarks"].values():
            measured |= {"value": 0.999, "ci95": [0.998, 1.0]}
    hub_server.add(NAME, {"results.json": json.dumps(results).encode()})
    code, out, err = ggez("verify", NAME)
    assert code == 5
    assert "DOES NOT HOLD" in out


def test_text_written_on_the_hub_is_not_lost(
    hub_server: HubServer, project: Path, tiny_run: Run, ggez: Callable[..., tuple[int, str, str]]
) -> None:
    recipe = load_recipe("tiny", {"base.id": "ggez-hub/pocket-base-embedding"})
    changes = stage.changes(recipe, tiny_run)
    list(publish.publish(changes, "a run"))
    card = hub_server.files(NAME)["README.md"].decode()
    hub_server.add(NAME, {"README.md": card.replace("<!-- /hand", "Ask the elders.\n<!-- /hand").encode()})
    with pytest.raises(InputError, match="written by hand"):
        gate.keep_hand_written(stage.changes(recipe, tiny_run))
    hub_server.add(NAME, {"README.md": card.replace("# Tiny", "# Other").encode()})
    gate.keep_hand_written(stage.changes(recipe, tiny_run))


@pytest.mark.parametrize("namespace", ["../x", "a b", "x/y", "", "-x", "a--b"])
def test_namespace_is_one_that_the_hub_can_have(
    project: Path, namespace: str, ggez: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = ggez("push", "tiny", "--to", "folder", "--namespace", namespace)
    assert code == 2
    assert "push.namespace" in err


def test_a_base_of_this_machine_is_never_published(
    hub_server: HubServer, tiny_run: Run, ggez: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = ggez("push", "tiny", "--to", "hf", "--below-gate", "--yes")
    assert code == 2
    assert "is a folder of this machine" in err
    assert not hub_server.repos


@pytest.mark.parametrize("option", [("--private",), ("--tag", "v1")])
def test_pull_requests_take_no_other_option(
    tiny_run: Run, option: tuple[str, ...], ggez: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = ggez("push", "tiny", "--to", "hf", "--pr", *option)
    assert code == 2
    assert "--pr" in err


def test_options_of_the_hub_need_it(project: Path, ggez: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = ggez("push", "tiny", "--to", "folder", "--private")
    assert code == 2
    assert "--private goes with --to hf" in err


def test_yes_is_welcome_where_it_is_not_needed(tiny_run: Run, ggez: Callable[..., tuple[int, str, str]]) -> None:
    assert ggez("push", "tiny", "--to", "folder", "--yes")[0] == 0
