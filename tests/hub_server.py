"""A Hugging Face Hub in memory: answers the real client over HTTP on this machine, and fails on demand.

``python tests/hub_server.py --port 8080`` starts one to try things by hand. It has no xet storage: clients need
``HF_HUB_DISABLE_XET=1`` beside ``HF_ENDPOINT``. What it cannot tell: the real Hub's whole card rules, quotas, limits.
"""

import argparse
import base64
import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatch
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlencode

import yaml

LFS_PATTERNS = ("*.safetensors", "*.bin", "*.parquet", "*.arrow", "*.png", "*.jpg", "*.zip", "*.npz")
LFS_BYTES = 10_000_000
ATTRIBUTES = "".join(f"{p} filter=lfs diff=lfs merge=lfs -text\n" for p in LFS_PATTERNS).encode()
LIBRARIES = {  # the file that tells the library when the card does not
    "adapter_config.json": "peft",
    "model_index.json": "diffusers",
    "open_clip_config.json": "open_clip",
    "modules.json": "sentence-transformers",
    "config.json": "transformers",
}
RELATIONS = ("adapter", "finetune", "merge", "quantized")
COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
SPACE = b"---\ntitle: New\nemoji: \xf0\x9f\x90\xa8\ncolorFrom: red\ncolorTo: blue\nsdk: %s\napp_file: app.py\n---\n"
LISTED = ("id", "modelId", "likes", "downloads", "private", "tags", "pipeline_tag", "library_name", "createdAt", "sdk")
FULL = ("author", "sha", "gated", "disabled", "lastModified", "siblings")


class User(NamedTuple):
    """Whose token it is."""

    name: str
    orgs: tuple[str, ...] = ()
    role: str = "write"  # or "read"


def is_lfs(path: str, size: int) -> bool:
    return size > LFS_BYTES or any(fnmatch(path, pattern) for pattern in LFS_PATTERNS)


class Request(NamedTuple):
    """What came in; status 0 when the connection was closed instead of an answer."""

    method: str
    path: str
    size: int
    status: int


@dataclass(frozen=True)
class File:
    """The content of a path in a commit."""

    content: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def oid(self) -> str:
        """The git hash of the blob; for LFS, of a stand-in for its pointer."""
        blob = self.sha256.encode() if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid

    @property
    def size(self) -> int:
        return len(self.content)


class Commit(NamedTuple):
    """A snapshot of all files."""

    sha: str
    parent: "Commit | None"
    title: str
    message: str
    author: str
    date: str
    files: dict[str, File]

    def log(self) -> "Iterator[Commit]":
        commit: Commit | None = self
        while commit:
            yield commit
            commit = commit.parent


@dataclass
class Repo:
    """A repository; refs are refs/heads/NAME, refs/tags/NAME and refs/pr/NUMBER."""

    kind: str  # models, datasets, spaces
    id: str
    private: bool = False
    gated: str | bool = False
    sdk: str | None = None
    refs: dict[str, Commit] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)  # by sha, also those no ref leads to
    pull_authors: dict[str, str] = field(default_factory=dict)
    granted: set[str] = field(default_factory=set)  # users let in though it is gated

    @property
    def page(self) -> str:
        return f"/{self.id}" if self.kind == "models" else f"/{self.kind}/{self.id}"

    def ref(self, revision: str) -> str | None:
        """The full name of a branch, a tag or a pull request."""
        names = (f"refs/heads/{revision}", f"refs/tags/{revision}", revision)
        return next((name for name in names if name in self.refs), None)

    def commit(self, revision: str = "main") -> Commit | None:
        name = self.ref(revision)
        return self.refs[name] if name else self.commits.get(revision)


class Reply(Exception):
    """An answer, returned or raised."""

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None):
        super().__init__(status, body)
        self.status, self.body, self.headers = status, body, headers or {}


def refusal(status: int, message: str, code: str | None = None, **more: str) -> Reply:
    """An error as the Hub writes it."""
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return Reply(status, {"error": message, **more}, headers)


@dataclass
class Fault:
    """What goes wrong with the next requests of a kind."""

    method: str
    pattern: str
    times: int
    when: str  # "head": body unread; "body": not carried out; "done": carried out, the answer lost
    reply: Reply | None = None  # answered instead of hanging up
    sent: int = 0  # bytes of the answer's body that still get through


@dataclass
class Call:
    """A request on its way through a route."""

    path: str
    query: dict[str, list[str]]
    body: bytes
    headers: Any
    user: User | None
    match: dict[str, str] = field(default_factory=dict)
    repo: Repo = None  # type: ignore[assignment]  # set for routes with an id
    commit: Commit = None  # type: ignore[assignment]  # set for routes with a revision

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def flag(self, name: str) -> bool:
        return self.query.get(name, ["false"])[0].lower() in ("1", "true")

    def names(self, name: str) -> list[str]:
        return [part for value in self.query.get(name, []) for part in value.split(",") if part]


Route = Callable[["HubServer", Call], Any]
ROUTES: list[tuple[str, re.Pattern[str], bool, Route]] = []
REPO = r"/api/(?P<kind>models|datasets|spaces)/(?P<id>[^/]+(?:/[^/]+)?)"
PAGE = r"/(?:(?P<kind>datasets|spaces)/)?(?P<id>[^/]+(?:/[^/]+)?)"
REVISION = r"/(?P<rev>[^/]+)"  # quoted, so it holds no slash


def route(method: str, pattern: str, write: bool = False) -> Callable[[Route], Route]:
    """Registers the function that answers; ``write`` asks for a token, and for the right to change the repository."""

    def register(function: Route) -> Route:
        ROUTES.append((method, re.compile(pattern), write, function))
        return function

    return register


def front_matter(text: str) -> Any:
    found = re.match(r"\s*---[ \t]*\r?\n(.*?)^---[ \t]*$", text, re.DOTALL | re.MULTILINE)
    return yaml.safe_load(found[1]) if found else None


def strings(value: Any) -> list[str]:
    """A string or a list of strings as a list; anything else is empty."""
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, str)]


def dig(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def card_errors(text: str, kind: str = "models") -> Iterator[str]:
    """What is wrong with a card's metadata, as far as we know the Hub's rules."""
    try:
        card = front_matter(text)
    except yaml.YAMLError as err:
        yield f"YAML metadata: {err}"
        return
    if card is None:
        return
    if not isinstance(card, dict):
        yield "YAML metadata must be a mapping"
        return
    if kind == "spaces":
        yield from space_errors(card)
    for key in ("pipeline_tag", "library_name", "license", "license_name", "license_link"):
        if not isinstance(card.get(key, ""), str):
            yield f'"{key}" must be a string'
    if isinstance(card.get("license"), str) and not re.fullmatch(r"[a-z0-9.+-]+", card["license"]):
        yield f'"license" must be one of the known identifiers, not "{card["license"]}"'
    for key in ("tags", "datasets", "base_model", "language"):
        value = card.get(key, [])
        value = [value] if isinstance(value, str) and key != "tags" else value  # these may be a lone string
        if not isinstance(value, list) or strings(value) != value:
            yield f'"{key}" must be an array of strings'
    for name in strings(card.get("base_model")):
        if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
            yield f'"base_model" with value "{name}" is not valid. Use a model id of the Hub'
    if card.get("base_model_relation", "merge") not in RELATIONS:
        yield f'"base_model_relation" must be one of {", ".join(RELATIONS)}'
    index = card.get("model-index", [])
    if not isinstance(index, list):
        yield '"model-index" must be an array'
        return
    for i, model in enumerate(index):
        if not isinstance(dig(model, "name"), str):
            yield f'"model-index[{i}].name" is required'
        if not isinstance(dig(model, "results"), list):
            yield f'"model-index[{i}].results" must be an array'
            continue
        for j, result in enumerate(model["results"]):
            at = f"model-index[{i}].results[{j}]"
            for keys in (("task", "type"), ("dataset", "type"), ("dataset", "name")):
                if not isinstance(dig(result, *keys), str):
                    yield f'"{at}.{".".join(keys)}" is required'
            metrics = dig(result, "metrics")
            if not isinstance(metrics, list) or not metrics:
                yield f'"{at}.metrics" must be an array'
            elif any(not isinstance(dig(m, "type"), str) or dig(m, "value") is None for m in metrics):
                yield f'"{at}.metrics" need a type and a value'


def space_errors(card: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the keys that only Spaces have."""
    for key in ("colorFrom", "colorTo"):
        if card.get(key, "red") not in COLORS:
            yield f'"{key}" must be one of {", ".join(COLORS)}'
    for key in ("title", "emoji", "sdk", "sdk_version", "python_version", "app_file", "startup_duration_timeout"):
        if not isinstance(card.get(key, ""), str):
            yield f'"{key}" must be a string'
    if len(str(card.get("short_description", ""))) > 60:
        yield '"short_description" length must be less than or equal to 60 characters long'
    for key in ("models", "datasets", "preload_from_hub"):
        value = card.get(key, [])
        if not isinstance(value, list) or strings(value) != value:
            yield f'"{key}" must be an array of strings'


def card_of(commit: Commit) -> dict[str, Any]:
    with suppress(yaml.YAMLError, UnicodeDecodeError, KeyError):
        card = front_matter(commit.files["README.md"].content.decode())
        return card if isinstance(card, dict) else {}
    return {}


def describe(repo: Repo, commit: Commit, blobs: bool = False) -> dict[str, Any]:
    """All that is said of a repository at a commit."""
    card, files = card_of(commit), commit.files
    library = card.get("library_name") or next((name for file, name in LIBRARIES.items() if file in files), None)
    bases = strings(card.get("base_model"))
    relation = card.get("base_model_relation") or (
        "merge" if len(bases) > 1 else "adapter" if "adapter_config.json" in files else "finetune"
    )
    tags = [
        *strings(library),
        *(["safetensors"] if any(path.endswith(".safetensors") for path in files) else []),
        *strings(card.get("pipeline_tag")),
        *strings(card.get("tags")),
        *strings(card.get("language")),
        *(f"dataset:{name}" for name in strings(card.get("datasets"))),
        *(f"base_model:{name}" for name in bases),
        *(f"base_model:{relation}:{name}" for name in bases),
        *(f"license:{name}" for name in strings(card.get("license"))),
        *(["model-index"] if "model-index" in card else []),
        "region:us",
    ]
    siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(files)]
    for sibling in siblings if blobs else []:
        file = files[sibling["rfilename"]]
        sibling |= {"size": file.size, "blobId": file.oid}
        if file.lfs:
            sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": 134}
    state = {"private": repo.private, "gated": repo.gated, "disabled": False, "likes": 0, "downloads": 0}
    dates = {"createdAt": next(iter(repo.commits.values())).date, "lastModified": commit.date}
    known = {key: card.get(key) for key in ("pipeline_tag", "model-index")} | {"library_name": library}
    return {
        **{"id": repo.id, "modelId": repo.id, "author": repo.id.split("/")[0], "sha": commit.sha, "sdk": repo.sdk},
        **{"tags": list(dict.fromkeys(tags)), "cardData": card, "siblings": siblings},
        **{**state, **dates, **known},
    }


def tree_entries(commit: Commit, expand: bool) -> dict[str, dict[str, Any]]:
    """Every file and directory by its path."""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in sorted(commit.files.items()):
        parents = path.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            folder = "/".join(parents[:depth])
            oid = hashlib.sha1(folder.encode()).hexdigest()
            entries.setdefault(folder, {"type": "directory", "oid": oid, "size": 0, "path": folder})
        entries[path] = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
        if file.lfs:
            entries[path]["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
        if expand:
            same = [c for c in commit.log() if c.files.get(path) == file]
            entries[path]["lastCommit"] = {"id": same[-1].sha, "title": same[-1].title, "date": same[-1].date}
    return entries


class HubServer:
    """The server; its state is plain attributes, so that tests may look at them and change them.

    Attributes:
        url: What ``HF_ENDPOINT`` or ``endpoint=`` takes.
        requests: All that came in, oldest first.
        repos: By kind ("models", "datasets", "spaces") and id.
        lfs: Uploaded large files by SHA-256.
        users: By token.
        collections: By slug.
        page_size: Entries in one page of a listing.
    """

    def __init__(self, port: int = 0):
        self.requests: list[Request] = []
        self.repos: dict[tuple[str, str], Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.users = {"hf_ggez": User("ggez-hub", ("sea-lab",)), "hf_other": User("someone")}
        self.collections: dict[str, dict[str, Any]] = {}
        self.page_size = 1000
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.connections: set[socket.socket] = set()
        self._ticks = 0
        self._http = ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        # A client keeps connections open; left alone they would lead to this server after its successor has started.
        with self.lock:
            for connection in self.connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    # What tests do directly.

    def fail(self, method: str, pattern: str, status: int = 503, times: int = 1, **headers: str) -> None:
        """The next requests whose path with query matches are refused; ``X_Error_Code="GatedRepo"`` sets a header."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        reply = Reply(status, {"error": f"{status} on demand"}, given)
        self.faults.append(Fault(method, pattern, times, "body", reply))

    def drop(self, method: str, pattern: str, when: str = "body", sent: int = 0, times: int = 1) -> None:
        """The next requests that match end in a closed connection.

        Args:
            method: HTTP method.
            pattern: Regular expression, searched in the path with its query.
            when: "head" before the body is read, "body" after, "done" when the request has been carried out.
            sent: With "done": the head and this many bytes of the answer get through.
            times: How many requests.
        """
        self.faults.append(Fault(method, pattern, times, when, None, sent))

    def add(self, repo_id: str, files: dict[str, bytes], kind: str = "models", title: str = "Add", **state: Any) -> str:
        """Puts files on main, past all checks, and returns the commit; makes the repository when there is none.

        ``state`` sets attributes of the repository: ``private=True``, ``gated="auto"``.
        """
        with self.lock:
            repo = self.repos.get((kind, repo_id)) or self.create(kind, repo_id)
            vars(repo).update(state)
            new = {path: File(content, is_lfs(path, len(content))) for path, content in files.items()}
            self.lfs.update({file.sha256: file.content for file in new.values() if file.lfs})
            head = repo.refs["refs/heads/main"]
            return self.write(repo, "refs/heads/main", head, {**head.files, **new}, title).sha

    def files(self, repo_id: str, revision: str = "main", kind: str = "models") -> dict[str, bytes]:
        """The content of a repository."""
        commit = self.repos[kind, repo_id].commit(revision)
        assert commit, f"{repo_id} has no revision {revision}"
        return {path: file.content for path, file in commit.files.items()}

    # What both the tests and the routes need.

    def now(self) -> str:
        """A clock that ticks when it is asked, so that order never hangs on the machine's speed."""
        self._ticks += 1
        return (datetime(2026, 1, 1) + timedelta(seconds=self._ticks)).strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def create(self, kind: str, repo_id: str, sdk: str | None = None) -> Repo:
        repo = self.repos[kind, repo_id] = Repo(kind, repo_id, sdk=sdk)
        files = {".gitattributes": File(ATTRIBUTES)} | ({"README.md": File(SPACE % sdk.encode())} if sdk else {})
        self.write(repo, "refs/heads/main", None, files, "initial commit")
        return repo

    def write(self, repo: Repo, ref: str, parent: Commit | None, files: dict[str, File], *said: str) -> Commit:
        """Makes a commit; ``said`` is its title, message and author, each of which may lack."""
        title, message, author = (*said, *("", "", "ggez-hub")[len(said) :])
        date = self.now()
        oids = sorted(
            (path, file.oid) for path, file in files.items()
        )  # clients cache by sha: no two contents share one
        sha = hashlib.sha1(repr((parent and parent.sha, oids, said, date)).encode()).hexdigest()
        repo.refs[ref] = repo.commits[sha] = Commit(sha, parent, title, message, author, date, files)
        return repo.commits[sha]

    def may_write(self, user: User | None, namespace: str) -> bool:
        return user is not None and user.role == "write" and namespace in (user.name, *user.orgs)

    def find(self, user: User | None, kind: str, repo_id: str) -> Repo:
        """The repository, if this user may know of it."""
        repo = self.repos.get((kind, repo_id))
        if repo is None or (repo.private and (not user or repo_id.split("/")[0] not in (user.name, *user.orgs))):
            raise refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        return repo

    def page(self, call: Call, items: list[Any]) -> Reply:
        start = int(call.query.get("cursor", ["0"])[0])
        end = start + min(int(call.query.get("limit", [str(self.page_size)])[0]), self.page_size)
        query = urlencode({**call.query, "cursor": [str(end)]}, doseq=True)
        link = {"Link": f'<{self.url}{call.path}?{query}>; rel="next"'} if end < len(items) else {}
        return Reply(200, items[start:end], link)

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Reply:
        """Finds the route and checks who asks."""
        path, _, query = target.partition("?")
        try:
            token = (headers.get("Authorization") or "").removeprefix("Bearer ").strip()
            if token and token not in self.users:
                raise refusal(401, "Invalid credentials in Authorization header")
            call = Call(path, parse_qs(query), body, headers, self.users.get(token))
            for verb, pattern, write, function in ROUTES:
                if verb == method.replace("HEAD", "GET") and (found := pattern.fullmatch(path)):
                    self.prepare(call, {k: unquote(v) for k, v in found.groupdict().items() if v is not None}, write)
                    result = function(self, call)
                    return result if isinstance(result, Reply) else Reply(200, result)
            return refusal(404, f"Nothing at {path}")
        except Reply as reply:
            return reply
        except (KeyError, ValueError, TypeError) as err:  # a body that is not what the route expects
            return refusal(400, f"Bad request: {err!r}")

    def prepare(self, call: Call, match: dict[str, str], write: bool) -> None:
        call.match = match
        if write and not call.user:
            raise refusal(401, "Invalid username or password.")
        if "id" not in match:
            return
        call.repo = self.find(call.user, match.get("kind", "models"), match["id"])
        if write and not self.may_write(call.user, match["id"].split("/")[0]):
            raise refusal(403, f"You don't have the rights to change {match['id']}")
        if "rev" in match:
            commit = call.repo.commit(match["rev"])
            if commit is None:
                raise refusal(404, f"Invalid rev id: {match['rev']}", "RevisionNotFound")
            call.commit = commit


@route("GET", "/api/whoami-v2", write=True)
def whoami(hub: HubServer, call: Call) -> Any:
    name, orgs, role = call.user or User("")
    members = [{"type": "org", "name": org, "fullname": org, "roleInOrg": role} for org in orgs]
    auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
    return {"type": "user", "id": name, "name": name, "fullname": name, "orgs": members, "auth": auth}


def named(hub: HubServer, call: Call) -> tuple[str, str, dict[str, Any]]:
    """Kind and id of the repository that the body names, in a namespace the user may write to."""
    body = call.json()
    namespace = body.get("organization") or (call.user.name if call.user else "")
    if not hub.may_write(call.user, namespace):
        raise refusal(403, f"You don't have the rights to create or delete a repository under {namespace}")
    return f"{body.get('type') or 'model'}s", f"{namespace}/{body['name']}", body


@route("POST", "/api/repos/create", write=True)
def create_repo(hub: HubServer, call: Call) -> Any:
    kind, repo_id, body = named(hub, call)
    if kind == "spaces" and body.get("sdk") not in ("gradio", "docker", "static"):
        raise refusal(400, "Invalid sdk")
    if (kind, repo_id) in hub.repos:
        url = hub.url + hub.repos[kind, repo_id].page
        raise refusal(409, f"You already created this {kind[:-1]} repo: {repo_id}", url=url)
    repo = hub.create(kind, repo_id, body.get("sdk"))
    repo.private = body.get("visibility") == "private" or bool(body.get("private"))
    return {"url": hub.url + repo.page, "name": repo_id, "id": repo_id}


@route("DELETE", "/api/repos/delete", write=True)
def delete_repo(hub: HubServer, call: Call) -> Any:
    kind, repo_id, _ = named(hub, call)
    hub.find(call.user, kind, repo_id)
    del hub.repos[kind, repo_id]
    return {}


@route("POST", "/api/validate-yaml")
def validate_yaml(hub: HubServer, call: Call) -> Any:
    content, kind = call.json()["content"], f"{call.json().get('repoType') or 'model'}s"
    errors = list(card_errors(content, kind))
    status = 400 if errors else 200
    if "text/plain" in (call.headers.get("Accept") or ""):
        return Reply(status, "\n".join(errors))
    empty = [] if errors or front_matter(content) else ["empty or missing yaml metadata in repo card"]
    said = {"errors": errors, "warnings": empty}
    return Reply(status, {kind: [{"message": line} for line in lines] for kind, lines in said.items()})


@route("POST", REPO + "/preupload" + REVISION)
def preupload(hub: HubServer, call: Call) -> Any:
    may_commit(hub, call)
    answers = []
    for file in call.json()["files"]:
        there = call.commit.files.get(file["path"])
        mode = "lfs" if is_lfs(file["path"], file["size"]) else "regular"
        known = {"oid": there.etag} if there else {}
        answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **known})
    return {"files": answers}


@route("POST", PAGE + r"\.git/info/lfs/objects/batch")
def lfs_batch(hub: HubServer, call: Call) -> Any:
    if not call.user or call.user.role != "write":  # anyone may need it for a pull request
        raise refusal(403 if call.user else 401, "This token may not upload")
    verify = call.path.replace("/objects/batch", "/verify")
    objects = [{"oid": o["oid"], "size": o["size"]} for o in call.json()["objects"]]
    for item in objects:
        if item["oid"] not in hub.lfs:
            put = {"href": f"{hub.url}/lfs/{item['oid']}", "header": {}}
            item["actions"] = {"upload": put, "verify": {"href": hub.url + verify, "header": {}}}
    return {"transfer": "basic", "objects": objects}


@route("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})")
def lfs_put(hub: HubServer, call: Call) -> Any:
    oid = call.match["oid"]
    if hashlib.sha256(call.body).hexdigest() != oid:
        raise refusal(400, "The content does not have the promised SHA-256")
    hub.lfs[oid] = call.body
    return Reply(200, {}, {"ETag": f'"{oid}"'})


@route("POST", PAGE + r"\.git/info/lfs/verify")
def lfs_verify(hub: HubServer, call: Call) -> Any:
    wanted = call.json()
    if len(hub.lfs.get(wanted["oid"], b"")) != wanted["size"]:
        raise refusal(404, "Object not found")
    return {}


def may_commit(hub: HubServer, call: Call) -> User:
    """Members may change branches; others their own pull requests, and open new ones."""
    if not call.user:
        raise refusal(401, "Invalid username or password.")
    pull = call.flag("create_pr") or call.repo.pull_authors.get(call.match["rev"]) == call.user.name
    if call.user.role != "write" or not (pull or hub.may_write(call.user, call.repo.id.split("/")[0])):
        raise refusal(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
    return call.user


@route("POST", REPO + "/commit" + REVISION)
def commit(hub: HubServer, call: Call) -> Any:
    user, repo, parent = may_commit(hub, call), call.repo, call.commit
    ref = repo.ref(call.match["rev"])
    if not call.flag("create_pr") and (ref is None or ref.startswith("refs/tags/")):
        raise refusal(400, "Commits go onto a branch or a pull request")
    files, header = dict(parent.files), {}
    for line in call.body.splitlines():
        key, value = (item := json.loads(line))["key"], item["value"]
        path = value.get("path", "")
        if key == "header":
            header = value
        elif not path or path.startswith("/") or ".." in path.split("/"):
            raise refusal(400, f"Invalid path: {path!r}")
        elif key == "file":
            files[path] = File(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in hub.lfs:
                raise refusal(400, f"{path}: LFS object {value['oid']} was never uploaded")
            files[path] = File(hub.lfs[value["oid"]], lfs=True)
        elif key in ("deletedFile", "deletedFolder"):
            prefix = path.rstrip("/") + "/"
            gone = [p for p in files if (p == path if key == "deletedFile" else p.startswith(prefix))]
            if not gone:
                raise refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            for name in gone:
                del files[name]
    if header.get("parentCommit", parent.sha) != parent.sha:
        raise refusal(412, "A commit has happened since. Please refresh and try again.")
    if "README.md" in files and (errors := list(card_errors(files["README.md"].content.decode(), repo.kind))):
        raise refusal(400, "; ".join(errors))
    answer: dict[str, Any] = {"success": True}
    if call.flag("create_pr"):
        number = len(repo.pull_authors) + 1
        ref = f"refs/pr/{number}"
        repo.pull_authors[ref] = user.name
        answer["pullRequestUrl"] = f"{hub.url}{repo.page}/discussions/{number}"
    assert ref
    new = hub.write(repo, ref, parent, files, header["summary"], header.get("description", ""), user.name)
    return {**answer, "commitOid": new.sha, "commitUrl": f"{hub.url}{repo.page}/commit/{new.sha}"}


@route("GET", "/api/(?P<kind>models|datasets|spaces)")
def list_repos(hub: HubServer, call: Call) -> Any:
    wanted = {*call.names("filter"), *call.names("pipeline_tag")}
    keys = (*LISTED, *(FULL if call.flag("full") else ()), *(["cardData"] if call.flag("cardData") else []))
    expand = call.names("expand")
    found = []
    for (kind, repo_id), repo in hub.repos.items():
        with suppress(Reply):
            hub.find(call.user, kind, repo_id)  # not those of others that are private
            info = describe(repo, repo.refs["refs/heads/main"])
            author, search = call.query.get("author", [info["author"]])[0], call.query.get("search", [""])[0]
            if (
                kind == call.match["kind"]
                and author == info["author"]
                and wanted <= set(info["tags"])
                and search.lower() in repo_id.lower()
            ):
                found.append(info)
    sort = call.query.get("sort", ["lastModified"])[0]
    found.sort(key=lambda info: info.get(sort) or "", reverse=True)
    keys = ("id", *expand) if expand else keys
    return hub.page(call, [{key: info[key] for key in keys if key in info} for info in found])


@route("GET", REPO)
@route("GET", REPO + "/revision" + REVISION)
def repo_info(hub: HubServer, call: Call) -> Any:
    at = call.commit or call.repo.refs["refs/heads/main"]
    info, expand = describe(call.repo, at, call.flag("blobs")), call.names("expand")
    return {key: info.get(key) for key in ("id", *expand)} if expand else info


@route("GET", REPO + "/tree" + REVISION + "(?:/(?P<path>.+))?")
def tree(hub: HubServer, call: Call) -> Any:
    prefix = call.match["path"].rstrip("/") + "/" if "path" in call.match else ""
    below = [e for e in tree_entries(call.commit, call.flag("expand")).values() if e["path"].startswith(prefix)]
    if prefix and not below:
        raise refusal(404, f"{call.match['path']} does not exist", "EntryNotFound")
    if not call.flag("recursive"):
        below = [entry for entry in below if "/" not in entry["path"][len(prefix) :]]
    return hub.page(call, below)


@route("POST", REPO + "/paths-info" + REVISION)
def paths_info(hub: HubServer, call: Call) -> Any:
    form = parse_qs(call.body.decode())
    entries = tree_entries(call.commit, form.get("expand", ["false"])[0].lower() == "true")
    return [entries[path] for path in form.get("paths", []) if path in entries]


@route("GET", REPO + "/refs")
def refs(hub: HubServer, call: Call) -> Any:
    found: dict[str, list[dict[str, str]]] = {"heads": [], "tags": [], "pr": []}
    for ref, at in call.repo.refs.items():
        _, group, name = ref.split("/", 2)
        found[group].append({"name": name, "ref": ref, "targetCommit": at.sha})
    return {"branches": found["heads"], "tags": found["tags"], "converts": [], "pullRequests": found["pr"]}


@route("GET", REPO + "/commits" + REVISION)
def commits(hub: HubServer, call: Call) -> Any:
    items = [
        {"id": c.sha, "title": c.title, "message": c.message, "date": c.date, "authors": [{"user": c.author}]}
        for c in call.commit.log()
    ]
    return hub.page(call, items)


def new_ref(call: Call, ref: str, at: Commit | None) -> Any:
    if ref in call.repo.refs:
        raise refusal(409, f"Reference {ref} already exists")
    if at is None:
        raise refusal(404, "Invalid rev id", "RevisionNotFound")
    call.repo.refs[ref] = at
    return {}


@route("POST", REPO + "/branch/(?P<name>[^/]+)", write=True)
def create_branch(hub: HubServer, call: Call) -> Any:
    start = call.json().get("startingPoint", "main")
    return new_ref(call, f"refs/heads/{call.match['name']}", call.repo.commit(start))


@route("POST", REPO + "/tag" + REVISION, write=True)
def create_tag(hub: HubServer, call: Call) -> Any:
    return new_ref(call, f"refs/tags/{call.json()['tag']}", call.commit)


@route("DELETE", REPO + "/(?P<group>branch|tag)/(?P<name>[^/]+)", write=True)
def delete_ref(hub: HubServer, call: Call) -> Any:
    group = {"branch": "heads", "tag": "tags"}[call.match["group"]]
    if (group, call.match["name"]) == ("heads", "main"):
        raise refusal(403, "The main branch cannot be deleted")
    if not call.repo.refs.pop(f"refs/{group}/{call.match['name']}", None):
        raise refusal(404, f"No such {call.match['group']}", "RevisionNotFound")
    return {}


@route("PUT", REPO + "/settings", write=True)
def settings(hub: HubServer, call: Call) -> Any:
    body, repo = call.json(), call.repo
    repo.gated = body.get("gated", repo.gated)
    repo.private = body["visibility"] == "private" if "visibility" in body else body.get("private", repo.private)
    return {"private": repo.private, "gated": repo.gated}


@route("GET", PAGE + "/resolve" + REVISION + "/(?P<path>.+)")
def resolve(hub: HubServer, call: Call) -> Any:
    repo, path = call.repo, call.match["path"]
    names = (call.user.name, *call.user.orgs) if call.user else ()
    if repo.gated and repo.id.split("/")[0] not in names and not repo.granted.intersection(names):
        raise refusal(403 if call.user else 401, f"Access to {repo.id} is restricted", "GatedRepo")
    headers = {"X-Repo-Commit": call.commit.sha, "Accept-Ranges": "bytes"}
    file = call.commit.files.get(path)
    if file is None:
        missing = refusal(404, "Entry not found", "EntryNotFound")
        missing.headers.update(headers)  # by this a client remembers that the file is absent from that commit
        raise missing
    headers["ETag"] = f'"{file.etag}"'
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("Range") or "")
    if not asked:
        return Reply(200, file.content, headers)
    start, end = int(asked[1]), min(int(asked[2] or file.size), file.size - 1)
    if start > end:
        raise Reply(416, {"error": "Range not satisfiable"}, {"Content-Range": f"bytes */{file.size}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{file.size}"
    return Reply(206, file.content[start : end + 1], headers)


@route("POST", "/api/collections", write=True)
def create_collection(hub: HubServer, call: Call) -> Any:
    body = call.json()
    title, namespace = body["title"], body["namespace"]
    if not hub.may_write(call.user, namespace):
        raise refusal(403, f"You don't have the rights to create a collection under {namespace}")
    for slug, other in hub.collections.items():
        if (other["title"], other["owner"]["name"]) == (title, namespace):
            raise refusal(409, "A collection with this title already exists", slug=slug)
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    slug = f"{namespace}/{words}-{hashlib.sha1(title.encode()).hexdigest()[:24]}"
    owner = {"name": namespace, "type": "user"}
    about = {"title": title, "description": body.get("description"), "private": body.get("private", False)}
    look = {"theme": "orange", "upvotes": 0, "lastUpdated": hub.now()}
    hub.collections[slug] = {"slug": slug, "owner": owner, "items": [], **about, **look}
    return {**hub.collections[slug], "position": 0}


def collection_of(hub: HubServer, call: Call, write: bool = False) -> dict[str, Any]:
    collection = hub.collections.get(call.match["slug"])
    owner = call.match["slug"].split("/")[0]
    if collection is None or (collection["private"] and (not call.user or owner not in (call.user[0], *call.user[1]))):
        raise refusal(404, "Collection not found")
    if write and not hub.may_write(call.user, owner):
        raise refusal(403, f"You don't have the rights to change {call.match['slug']}")
    return collection


@route("GET", "/api/collections")
def list_collections(hub: HubServer, call: Call) -> Any:
    owners = call.names("owner")
    found = [c for c in hub.collections.values() if not c["private"] and (not owners or c["owner"]["name"] in owners)]
    return hub.page(call, [{**c, "items": c["items"][:4]} for c in found])  # the Hub lists no more than four


@route("GET", "/api/collections/(?P<slug>[^/]+/[^/]+)")
def get_collection(hub: HubServer, call: Call) -> Any:
    return {**collection_of(hub, call), "position": 0}


@route("POST", "/api/collections/(?P<slug>[^/]+/[^/]+)/items", write=True)
def add_collection_item(hub: HubServer, call: Call) -> Any:
    collection, body = collection_of(hub, call, write=True), call.json()
    item = {"id": body["item"]["id"], "type": body["item"]["type"]}
    if item["type"] in ("model", "dataset", "space"):
        hub.find(call.user, f"{item['type']}s", item["id"])
    if any((i["id"], i["type"]) == (item["id"], item["type"]) for i in collection["items"]):
        raise refusal(409, "The item is already in this collection")
    position = len(collection["items"])
    note = {"note": {"text": body["note"]}} if "note" in body else {}
    collection["items"].append({"_id": f"{position:024x}", "position": position, **item, **note})
    return {**collection, "position": 0}


class Handler(BaseHTTPRequestHandler):
    """Reads a request, asks the hub for the answer, and lets happen what a test has ordered."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    disable_nagle_algorithm = True
    hub: HubServer

    def setup(self) -> None:
        super().setup()
        with self.hub.lock:
            self.hub.connections.add(self.connection)

    def finish(self) -> None:
        with self.hub.lock:
            self.hub.connections.discard(self.connection)
        with suppress(OSError):  # the other side is gone
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def serve(self) -> None:
        hub = self.hub
        with hub.lock:
            matching = (f for f in hub.faults if f.method == self.command and re.search(f.pattern, self.path))
            fault = next(matching, None)
            if fault:
                fault.times -= 1
                hub.faults = [f for f in hub.faults if f.times > 0]
        body = b"" if fault and fault.when == "head" else self.read_body()
        with hub.lock:
            if fault and fault.when != "done":
                reply = fault.reply
            else:
                answer = hub.answer(self.command, self.path, self.headers, body)
                reply = None if fault and not fault.sent else answer
            hub.requests.append(Request(self.command, self.path, len(body), reply.status if reply else 0))
        if reply:
            self.send(reply, fault.sent if fault and fault.sent else None)
        else:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve  # noqa: N815  # names given by the base class

    def send(self, reply: Reply, limit: int | None) -> None:
        content, kind = reply.body, "application/octet-stream"
        if isinstance(content, str):
            content, kind = content.encode(), "text/plain; charset=utf-8"
        elif not isinstance(content, bytes):
            content, kind = json.dumps(content, default=str).encode(), "application/json; charset=utf-8"
        self.send_response(reply.status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **reply.headers}.items():
            self.send_header(name, value.replace("\n", " ").encode("ascii", "replace").decode())
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:limit])
        if limit is not None:
            self.close_connection = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    with HubServer(parser.parse_args().port) as hub:
        tokens = "".join(f"{token} is {user.name}, in {user.orgs}\n" for token, user in hub.users.items())
        sys.stdout.write(f"{tokens}HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1 HF_TOKEN=hf_ggez ggez push ...\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
