"""Publishing a Space with the real client: what it holds runs by itself, in one commit, never on top of others."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ggez_hub import hub, metadata, spaces
from ggez_hub.cli import _guarded, cli
from ggez_hub.errors import HubError
from ggez_hub.hub import publish
from ggez_hub.spaces import push
from tests.hub_server import HubServer
from tests.spaces.conftest import Served

Ggez = Callable[..., tuple[int, str, str]]
APPS = spaces.names()
NAME = "ggez-hub/ggez-parity"
ADAPTER = "sea-lab/tiny-lora"
BASE = "sea-lab/tiny-base"
PARITY = ("space", "parity", "--push")


@pytest.fixture
def ggez(capsys: pytest.CaptureFixture[str]) -> Ggez:
    """Runs a command; returns exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = _guarded(lambda: cli.main(arguments, standalone_mode=False))
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def adapter() -> dict[str, bytes]:
    """A published adapter: one that travels with the playground."""
    folder = spaces.folder("playground") / "models" / "ggez-hub" / "pocket-sea-embedding-lora"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def on_base(adapter: dict[str, bytes], base: str, revision: str | None) -> dict[str, bytes]:
    """The same adapter, made from another base."""
    facts = json.loads(adapter[hub.FACTS]) | {"base": {"id": base, "revision": revision}}
    return adapter | {hub.FACTS: json.dumps(facts).encode()}


def folder_of(place: Path, files: dict[str, bytes]) -> Path:
    place.mkdir(parents=True)
    for name, content in files.items():
        (place / name).write_bytes(content)
    return place


def there(server: HubServer, repo_id: str = NAME) -> dict[str, bytes]:
    return server.files(repo_id, kind="spaces")


def commits(server: HubServer, repo_id: str = NAME) -> list[str]:
    return [commit.sha for commit in server.repos["spaces", repo_id].refs["refs/heads/main"].log()]


def written(server: HubServer) -> list[str]:
    """Requests that change something."""
    asks = ("/preupload/", "/validate-yaml", "/paths-info/", "/objects/batch")
    return [
        request.path
        for request in server.requests
        if request.method in ("POST", "PUT", "DELETE") and not any(ask in request.path for ask in asks)
    ]


def front_matter(server: HubServer, repo_id: str) -> dict[str, object]:
    return metadata.read(there(server, repo_id)["README.md"].decode())


# ----------------------------------------------------------------------------------------------------------- publishing
def test_plan_touches_nothing(hub_server: HubServer, ggez: Ggez) -> None:
    code, plan, err = ggez(*PARITY)
    assert code == 0, err
    assert f"space {NAME} (public, new repository)" in plan
    assert "+ app.py" in plan
    assert "add --yes" in err
    assert not hub_server.repos
    assert not written(hub_server)


def test_yes_makes_a_gradio_space_in_one_commit_and_the_same_twice_nothing(hub_server: HubServer, ggez: Ggez) -> None:
    code, out, err = ggez(*PARITY, "--yes")
    assert code == 0, err
    assert out.rstrip().endswith(f"/spaces/{NAME}")
    assert "next: " in err
    assert hub_server.repos["spaces", NAME].sdk == "gradio"
    assert len(commits(hub_server)) == 2  # the Hub's own first one, and ours
    files = there(hub_server)
    assert {"app.py", "README.md", "requirements.txt", "ggez_hub/__init__.py"} <= files.keys()
    assert files.keys() - {".gitattributes"} == push.files("parity").keys()

    hub_server.requests.clear()
    code, out, _ = ggez(*PARITY, "--yes")
    assert code == 0
    assert "unchanged" in out
    assert not written(hub_server)


def test_the_space_is_of_the_given_namespace_or_of_who_is_logged_in(hub_server: HubServer, ggez: Ggez) -> None:
    assert ggez(*PARITY, "--namespace", "sea-lab", "--yes")[0] == 0
    assert hub_server.repos.keys() == {("spaces", "sea-lab/ggez-parity")}
    code, _, err = ggez(*PARITY, "--namespace", "strangers", "--yes")
    assert code == 4
    assert "403" in err


@pytest.mark.parametrize("namespace", ["../x", "a b", "x/y", "-x", "a--b", "x\ny"])
def test_namespace_is_one_that_the_hub_can_have(hub_server: HubServer, ggez: Ggez, namespace: str) -> None:
    code, _, err = ggez(*PARITY, "--namespace", namespace, "--yes")
    assert code == 2
    assert "--namespace" in err
    assert not hub_server.requests


def test_without_a_token_one_is_asked_for(hub_server: HubServer, ggez: Ggez, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = ggez(*PARITY)
    assert code == 4
    assert "hf auth login" in err


def test_a_space_of_somebody_else_is_left_alone(hub_server: HubServer, ggez: Ggez) -> None:
    HfApi().create_repo(NAME, repo_type="space", space_sdk="gradio")
    sha = hub_server.add(NAME, {"app.py": b"print('theirs')"}, "spaces")
    code, _, err = ggez(*PARITY, "--yes")
    assert code == 2
    assert "did not write" in err
    assert "--namespace" in err
    assert commits(hub_server)[0] == sha


def test_an_empty_space_made_beforehand_is_filled(hub_server: HubServer, ggez: Ggez) -> None:
    HfApi().create_repo(NAME, repo_type="space", space_sdk="gradio", private=True)
    code, out, err = ggez(*PARITY, "--yes")
    assert code == 0, err
    assert "private, on commit" in out
    assert "app.py" in there(hub_server)


def test_nothing_is_put_on_top_of_what_somebody_else_wrote_meanwhile(hub_server: HubServer) -> None:
    change = push.change("parity")
    HfApi().create_repo(NAME, repo_type="space", space_sdk="gradio")
    sha = hub_server.add(NAME, {"app.py": b"theirs", "ggez_hub/__init__.py": b""}, "spaces")
    with pytest.raises(HubError, match="somebody else has filled it meanwhile"):
        list(publish.publish([change], "first"))
    assert commits(hub_server)[0] == sha

    change = push.change("parity")
    sha = hub_server.add(NAME, {"app.py": b"theirs again"}, "spaces")
    with pytest.raises(HubError, match="412"):
        list(publish.publish([change], "second"))
    assert commits(hub_server)[0] == sha


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub_server: HubServer, ggez: Ggez) -> None:
    hub_server.drop("POST", "/commit/", when="done")
    code, _, err = ggez(*PARITY, "--yes")
    assert code == 0, err
    assert f"/spaces/{NAME}/commit/{commits(hub_server)[0]}" in err
    assert len(commits(hub_server)) == 2


def test_parts_of_an_older_version_go_and_what_others_put_there_stays(hub_server: HubServer, ggez: Ggez) -> None:
    ggez(*PARITY, "--yes")
    stale = {"ggez_hub/old.py": b"1", "models/a/b/ggez.json": b"{}", "repos.txt": b"a/b@0\n"}
    kept = {"notes.md": b"by hand", "packages.txt": b"git\n"}
    hub_server.add(NAME, stale | kept, "spaces")
    code, plan, _ = ggez(*PARITY)
    assert code == 0
    assert all(f"  - {path}" in plan for path in stale)
    before = len(commits(hub_server))
    assert ggez(*PARITY, "--yes")[0] == 0
    assert not stale.keys() & there(hub_server).keys()
    assert kept.items() <= there(hub_server).items()
    assert len(commits(hub_server)) == before + 1


def test_text_written_on_the_hub_is_not_lost(hub_server: HubServer, ggez: Ggez) -> None:
    ggez(*PARITY, "--yes")
    readme = there(hub_server)["README.md"].decode()
    theirs = readme.replace("<!-- /hand", "Ask the elders.\n<!-- /hand").replace("# Parity", "# Other")
    hub_server.add(NAME, {"README.md": theirs.encode()}, "spaces")
    assert ggez(*PARITY, "--yes")[0] == 0
    now = there(hub_server)["README.md"].decode()
    assert "Ask the elders.\n" in now
    assert "# Parity" in now
    assert "unchanged" in ggez(*PARITY)[1]


# -------------------------------------------------------------------------------------------------------- what it shows
def test_what_it_shows_is_pinned_listed_and_fetched_as_it_is_built(
    hub_server: HubServer, ggez: Ggez, adapter: dict[str, bytes]
) -> None:
    base = hub_server.add(BASE, {"config.json": b"{}", "model.safetensors": b"weights", "model.bin": b"pickle"})
    hub_server.add(BASE, {"config.json": b"another"})
    commit = hub_server.add(ADAPTER, on_base(adapter, BASE, base))
    hub_server.add(ADAPTER, {"README.md": b"later"})
    code, _, err = ggez("space", "playground", "--push", "--yes", "--repo", f"{ADAPTER}@{commit}")
    assert code == 0, err
    space = "ggez-hub/ggez-playground"
    assert there(hub_server, space)["repos.txt"].decode() == f"{ADAPTER}@{commit}\n"
    data = front_matter(hub_server, space)
    assert data["models"] == [ADAPTER, BASE]
    own, of_base = (line.split(" ") for line in data["preload_from_hub"])  # type: ignore[attr-defined]
    assert (own[0], own[2]) == (ADAPTER, commit)
    assert {"adapter_model.safetensors", "ggez.json"} <= set(own[1].split(","))
    assert of_base == [BASE, "config.json,model.safetensors", base]


def test_what_is_not_pinned_is_shown_at_the_commit_of_now(
    hub_server: HubServer, ggez: Ggez, adapter: dict[str, bytes]
) -> None:
    commits_ = [hub_server.add(f"sea-lab/x{i}", adapter) for i in range(2)]
    code, _, err = ggez(*PARITY, "--yes", "--repo", "sea-lab/x1", "--repo", "sea-lab/x0", "--repo", "sea-lab/x1")
    assert code == 0, err
    lines = there(hub_server)["repos.txt"].decode().splitlines()
    assert lines == [f"sea-lab/x1@{commits_[1]}", f"sea-lab/x0@{commits_[0]}"]
    data = front_matter(hub_server, NAME)
    assert data["models"] == ["sea-lab/x1", "sea-lab/x0"], "the base travels with the package"
    assert "preload_from_hub" not in data, "the page of results loads no model"


def test_what_only_some_may_fetch_is_not_fetched_as_the_space_is_built(
    hub_server: HubServer, ggez: Ggez, adapter: dict[str, bytes]
) -> None:
    base = hub_server.add(BASE, {"model.safetensors": b"weights"}, gated="manual")
    hub_server.add(ADAPTER, on_base(adapter, BASE, base), private=True)
    code, _, err = ggez("space", "playground", "--push", "--yes", "--repo", ADAPTER)
    assert code == 0, err
    assert "preload_from_hub" not in front_matter(hub_server, "ggez-hub/ggez-playground")
    assert "HF_TOKEN" in err


def test_odd_names_of_files_cannot_change_what_is_fetched(
    hub_server: HubServer, ggez: Ggez, adapter: dict[str, bytes]
) -> None:
    odd = ["a b.json", "a,b.json", "a\nb: [c].json", "x' \".json", "é.json", "#.json", "model.bin"]
    commit = hub_server.add(ADAPTER, adapter)
    repo = hub_server.repos["models", ADAPTER]
    repo.commits[commit].files.update(dict.fromkeys(odd, repo.commits[commit].files["recipe.yaml"]))
    listed = push._preload(push._info(ADAPTER, commit))
    assert listed
    assert listed.split(" ")[1].split(",") == sorted(adapter), "exactly the names without their own syntax"


@pytest.mark.parametrize("repo", ["a/b/c", "../x", "a b/c", "x", "a/b\n- c/d", "{a}/b", "a/b@no such revision", "@"])
def test_hostile_ids_end_in_one_message_before_anything_is_uploaded(
    hub_server: HubServer, ggez: Ggez, repo: str
) -> None:
    for app in APPS:
        code, _, err = ggez("space", app, "--push", "--yes", "--repo", repo)
        assert code in (2, 4), err
        assert err.startswith("error: ")
    assert not hub_server.repos


def test_facts_that_name_a_hostile_base_are_refused(
    hub_server: HubServer, ggez: Ggez, adapter: dict[str, bytes]
) -> None:
    hub_server.add(ADAPTER, on_base(adapter, "x: [y]\n- z/../../etc", None))
    code, _, err = ggez("space", "playground", "--push", "--yes", "--repo", ADAPTER)
    assert code == 2
    assert "not a Hub id" in err
    assert not [kind for kind, _ in hub_server.repos if kind == "spaces"]


def test_what_ggez_hub_did_not_publish_is_not_shown(hub_server: HubServer, ggez: Ggez) -> None:
    hub_server.add(BASE, {"config.json": b"{}"})
    code, _, err = ggez("space", "playground", "--push", "--yes", "--repo", BASE)
    assert code == 2
    assert "no ggez.json" in err
    assert ("spaces", "ggez-hub/ggez-playground") not in hub_server.repos


def test_a_folder_is_copied_into_the_space(
    hub_server: HubServer, ggez: Ggez, adapter: dict[str, bytes], tmp_path: Path
) -> None:
    place = folder_of(tmp_path / "out" / "my-lab" / "mine-lora", adapter | {"evil.bin": b"pickle", ".env": b"HF_TOKEN"})
    (place / "leak.json").symlink_to(__file__)
    code, _, err = ggez("space", "playground", "--push", "--yes", "--repo", str(place))
    assert code == 0, err
    files = there(hub_server, "ggez-hub/ggez-playground")
    assert files["repos.txt"] == b"my-lab/mine-lora\n"
    copied = {path.name for path in map(Path, files) if path.parent == Path("models/my-lab/mine-lora")}
    assert copied == adapter.keys()


def test_a_copy_that_has_the_name_of_a_shipped_adapter_gets_none_of_its_answers(tmp_path: Path) -> None:
    name = "ggez-hub/pocket-sea-vlm-lora"
    own = tmp_path / name
    shutil.copytree(spaces.folder("playground") / "models" / name, own)
    (own / "README.md").write_text("mine", encoding="utf-8")
    files = push.files("playground", [str(own)])
    assert files[f"models/{name}/README.md"] == own / "README.md"
    asked = [Path(file).read_text(encoding="utf-8") for path, file in files.items()
             if path.startswith("examples/") and path.endswith(".json")]  # fmt: skip
    assert asked
    assert not [text for text in asked if name in text]


def test_the_playground_shows_no_merged_model_since_its_alpha_cannot_move(
    hub_server: HubServer, ggez: Ggez, adapter: dict[str, bytes], tmp_path: Path
) -> None:
    facts = json.loads(adapter[hub.FACTS]) | {"artefact": "merged"}
    merged = adapter | {hub.FACTS: json.dumps(facts).encode()}
    hub_server.add(ADAPTER, merged)
    for repo in (ADAPTER, str(folder_of(tmp_path / "my-lab" / "mine", merged))):
        code, _, err = ggez("space", "playground", "--push", "--yes", "--repo", repo)
        assert code == 2
        assert "give the adapter's repository" in err
    assert ggez(*PARITY, "--repo", ADAPTER)[0] == 0, "its results can be compared all the same"


def test_a_folder_whose_base_nobody_can_fetch_is_refused(
    hub_server: HubServer, ggez: Ggez, adapter: dict[str, bytes], tmp_path: Path
) -> None:
    place = folder_of(tmp_path / "my-lab" / "mine-lora", on_base(adapter, BASE, None))
    command = ("space", "playground", "--push", "--yes", "--repo", str(place))
    code, _, err = ggez(*command)
    assert code == 2
    assert f"its base {BASE} is not on the Hub" in err
    assert not hub_server.repos
    hub_server.add(BASE, {"config.json": b"{}"})
    assert ggez(*command)[0] == 0
    assert front_matter(hub_server, "ggez-hub/ggez-playground")["models"] == [BASE]


def test_a_folder_in_another_layout_is_refused_with_what_writes_it(
    hub_server: HubServer, ggez: Ggez, tmp_path: Path
) -> None:
    place = folder_of(tmp_path / "my-lab" / "mine", {"config.json": b"{}"})
    code, _, err = ggez("space", "playground", "--push", "--repo", str(place))
    assert code == 2
    assert "ggez push RECIPE --to DIR" in err


@pytest.mark.parametrize("app", APPS)
def test_a_folder_has_no_revision(
    app: str, hub_server: HubServer, ggez: Ggez, adapter: dict[str, bytes], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    folder_of(Path("my-lab/mine"), adapter)
    code, _, err = ggez("space", app, "--push", "--yes", "--repo", "my-lab/mine@main")
    assert code == 2
    assert "has no revisions" in err
    assert not hub_server.repos


def test_annotate_shows_datasets_at_their_commit(hub_server: HubServer, ggez: Ggez, tmp_path: Path) -> None:
    items = spaces.folder("annotate") / "items"
    files = {path.relative_to(items).as_posix(): path.read_bytes() for path in items.rglob("*") if path.is_file()}
    commit = hub_server.add("sea-lab/items", files, "datasets")
    command = ("space", "annotate", "--push", "--yes", "--repo")
    code, _, err = ggez(*command, "sea-lab/items")
    assert code == 0, err
    assert "GGEZ_ADMIN_KEY" in err
    space = "ggez-hub/ggez-annotate"
    assert there(hub_server, space)["repos.txt"].decode() == f"sea-lab/items@{commit}\n"
    data = front_matter(hub_server, space)
    assert data["datasets"] == ["sea-lab/items"]
    assert data["hf_oauth"] is True
    assert "models" not in data
    assert "--repo-type dataset" in ggez(*command, str(tmp_path))[2]
    assert ggez(*command, "sea-lab/no-such-thing")[0] == 4
    hub_server.add("sea-lab/items", {"items.jsonl": b'{"id": 1}\n'}, "datasets")
    code, _, err = ggez(*command, "sea-lab/items")
    assert code == 2, "what cannot be rated is not published"
    assert "sea-lab/items" in err
    assert "candidates" in err


# -------------------------------------------------------------------------------------------------------- what it holds
@pytest.mark.parametrize("app", APPS)
def test_everything_shipped_is_published(app: str) -> None:
    folder = spaces.folder(app)
    shipped = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    wanted = {p.as_posix() for p in shipped if not {"__pycache__", "ratings"} & set(p.parts) and p.name[0] != "."}
    package = Path(hub.__file__).parents[1]
    code = {f"ggez_hub/{p.relative_to(package).as_posix()}" for p in package.rglob("*") if p.is_file()}
    wanted |= {path for path in code if "/__pycache__/" not in path and "/_data/" not in path}
    found = push.files(app)
    assert sorted(wanted - found.keys()) == []
    assert not [path for path in found if "__pycache__" in path or "_data/spaces" in path]
    assert {"ggez_hub/_data/recipes/regions/sea.yaml", "ggez_hub/_data/cards/model.md.j2"} <= found.keys()


@pytest.mark.parametrize("app", APPS)
def test_front_matter_is_what_the_hub_takes(app: str) -> None:
    found = push.files(app)
    text = publish._data(found["README.md"]).decode()
    data, shipped = metadata.read(text), metadata.read((spaces.folder(app) / "README.md").read_text(encoding="utf-8"))
    assert metadata.problems(text) == []
    assert shipped.items() <= data.items()
    assert 0 < len(data["short_description"]) <= 60
    colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {data["colorFrom"], data["colorTo"]} <= colors
    assert not data["emoji"].isascii()
    assert (data["sdk"], data["app_file"], data["pinned"]) == ("gradio", "app.py", False)
    assert data["app_file"] in found
    assert "ggez" in data["tags"]
    assert data["suggested_hardware"] == "cpu-basic"
    assert isinstance(data["python_version"], str)
    pinned = {Requirement(line).name: line for line in publish._data(found["requirements.txt"]).decode().split()}
    assert pinned["gradio"].endswith(f"=={data['sdk_version']}")
    assert yaml.safe_load(metadata.split(text)[0]) == data, "the Hub's parser and ours read the same"


@pytest.mark.parametrize("app", APPS)
def test_requirements_pin_everything_that_the_package_needs(app: str) -> None:
    lines = [Requirement(line) for line in push.requirements(app).splitlines()]
    assert [str(line) for line in lines if [each.operator for each in line.specifier] != ["=="]] == []
    assert [str(line) for line in lines if "+" in str(line.specifier)] == []
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = ("spaces", "diffusion", "open_clip") if app == "playground" else ("spaces",)
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    pinned = {canonicalize_name(line.name): next(iter(line.specifier)).version for line in lines}
    assert pinned.keys() == {canonicalize_name(Requirement(line).name) for line in wanted}, "is the package installed?"
    assert [
        line for line in wanted if pinned[canonicalize_name(Requirement(line).name)] not in Requirement(line).specifier
    ] == []
    assert Version("2.8") <= Version(pinned["torch"]) < Version("2.12"), "what ZeroGPU has"


def test_secrets_ratings_caches_and_what_links_lead_to_stay_here(hub_server: HubServer, tmp_path: Path) -> None:
    place = tmp_path / "installed"  # as a wheel lays it out
    for path, content in push.files("annotate").items():
        target = place / (path if path.startswith("ggez_hub/") else f"ggez_hub/_data/spaces/annotate/{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(publish._data(content))
    app = place / "ggez_hub" / "_data" / "spaces" / "annotate"
    secret = tmp_path / "secret.json"
    secret.write_text("hf_secret")
    secrets = (
        "ratings/anna.jsonl", ".env", ".git/config", ".token.json", "token", "token.txt", "ratings.db", "key.pem",
        "__pycache__/app.json", "items/.hidden.png", "items/ratings/anna.jsonl", "model.bin",
    )  # fmt: skip
    for name in secrets:
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text("hf_secret")
    (app / "linked.json").symlink_to(secret)
    (app / "folder").symlink_to(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "ggez_hub", "space", "annotate", "--push", "--yes"],
        cwd=place, env=os.environ | {"HF_HUB_OFFLINE": "0"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = there(hub_server, "ggez-hub/ggez-annotate")
    assert "app.py" in files
    assert [path for path, content in files.items() if b"hf_secret" in content] == []
    assert not [path for path in files if "secret" in path or path.startswith(("ratings", "folder", "linked"))]
    assert files.keys() - {".gitattributes"} == push.files("annotate").keys()


@pytest.mark.slow
@pytest.mark.parametrize("app", APPS)
def test_what_is_published_runs_by_itself(app: str, tmp_path: Path) -> None:
    place = tmp_path / "space"
    for path, content in push.files(app).items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(publish._data(content))
    code = "import ggez_hub.registry as r; print(r.__file__); print(r.data_root())"
    asked = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True)
    own = place / "ggez_hub"
    assert [Path(line) for line in asked.stdout.splitlines()] == [own / "registry.py", own / "_data"]

    # Its own code answers: the page has a title that no other copy of the package gives it.
    page = own / "spaces" / "page.py"
    page.write_text(
        page.read_text(encoding="utf-8").replace("title=title", "title='The copy: ' + title"), encoding="utf-8"
    )
    served = Served("-u", "app.py", cwd=place, GRADIO_TEMP_DIR=str(tmp_path / "gradio"))
    try:
        import httpx2

        answer = httpx2.get(served.url)
    finally:
        served.kill()
    assert answer.status_code == 200
    assert "The copy: " in answer.text


def test_an_unknown_app_is_told_apart(ggez: Ggez) -> None:
    code, _, err = ggez("space", "playgruond", "--push")
    assert code == 2
    assert "did you mean 'playground'?" in err


def test_nothing_is_written_here(
    hub_server: HubServer, ggez: Ggez, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    assert ggez(*PARITY, "--yes")[0] == 0
    assert list(work.iterdir()) == []
