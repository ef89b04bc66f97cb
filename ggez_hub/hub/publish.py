"""Publishing repositories: what would change there, then one commit each, then the collection that groups them."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from ggez_hub import hub
from ggez_hub.errors import HubError, InputError
from ggez_hub.runs import file_hash

Content = Path | bytes  # of a file: where it lies, or what it says
Kind = Literal["model", "dataset", "space"]  # of a repository
MARKS: dict[Kind, str] = {"model": hub.FACTS, "space": "ggez_hub/__init__.py"}  # what our own ones hold
WEIGHTS = (".safetensors", ".safetensors.index.json")  # stale ones would be loaded with the new ones
PARTS = ("ggez_hub/", "models/", "repos.txt")  # of a Space, that a later version may no longer have
MAX_TITLE = 59  # characters, of a collection
LOOKED_AT = 5  # pull requests, the last ones
RETRIED = (408, 425, 429, 500, 502, 503, 504)
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt, where the Hub does not say how long
Found = TypeVar("Found")


@dataclass(frozen=True)
class Change:
    """What publishing would do to a repository.

    Attributes:
        repo_id: The repository.
        files: All that it is to hold: path in it -> content.
        parent: The commit that this was compared with; None where there is no such repository yet.
        private: Whether the repository is, or is to be, private.
        added: Paths to upload that are not there.
        changed: Paths to upload that hold something else there.
        removed: Paths there that belong to none of the files: weights, and of a Space its parts.
        kind: What kind of repository it is.
    """

    repo_id: str
    files: Mapping[str, Content]
    parent: str | None
    private: bool
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    kind: Kind = "model"

    @property
    def uploads(self) -> tuple[str, ...]:
        """Paths to upload."""
        return self.added + self.changed

    @property
    def is_done(self) -> bool:
        """Whether the repository is there and as it should be."""
        return self.parent is not None and not (self.uploads or self.removed)

    @property
    def page(self) -> str:
        """Where it is on the Hub."""
        return self.repo_id if self.kind == "model" else f"{self.kind}s/{self.repo_id}"


def size(content: Content) -> int:
    """Bytes of a file."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def sha256(content: Content) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else file_hash(content)


def compare(
    repo_id: str,
    files: Mapping[str, Content],
    private: bool = False,
    revision: str | None = None,
    kind: Kind = "model",
) -> Change:
    """What publishing these files would change; reads from the Hub, writes nothing.

    Args:
        repo_id: The repository; need not exist.
        files: Path in it -> content.
        private: How it is to be created.
        revision: To compare with something else than what is on `main`.
        kind: What kind of repository it is.

    Raises:
        InputError: There is a repository of that name that ggez_hub did not write, or that is public and should not be.
        HubError: The Hub refused or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    api = HfApi()
    with hub.talking(repo_id):
        try:
            info = retried(api.repo_info, repo_id, revision=revision, repo_type=kind)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return Change(repo_id, files, None, private, tuple(files), (), (), kind)
        # Which the client itself retries.
        tree = list(api.list_repo_tree(repo_id, recursive=True, revision=info.sha, repo_type=kind))
    there = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    if kind in MARKS and MARKS[kind] not in there and there.keys() - {".gitattributes", "README.md"}:
        raise InputError(
            f"{repo_id}: holds something that ggez_hub did not write; it is left as it is",
            "give another --namespace" + (", or another name to the recipe" if kind == "model" else ""),
        )
    if private and not info.private:
        raise InputError(f"{repo_id}: is public already", "make it private in its settings, or push without --private")
    return Change(
        repo_id,
        files,
        info.sha,
        bool(info.private),
        tuple(path for path in files if path not in there),
        tuple(path for path in files if path in there and not _same(files[path], there[path])),
        tuple(sorted(path for path in there.keys() - files.keys() if _is_stale(path, kind))),
        kind,
    )


def _is_stale(path: str, kind: Kind) -> bool:
    """Whether a file that is no longer published would do harm."""
    return path.startswith(PARTS) if kind == "space" else path.endswith(WEIGHTS)


def _same(content: Content, there: Any) -> bool:
    """Whether a file has the contents that the Hub's listing gives the hash of."""
    if size(content) != there.size:
        return False
    if there.lfs:
        return bool(sha256(content) == there.lfs.sha256)
    data = _data(content)
    return bool(hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == there.blob_id)


def check(changes: Sequence[Change], pull_request: bool = False, tag: str | None = None) -> None:
    """Looks for what would stop `publish` half-way; reads from the Hub, writes nothing.

    Raises:
        InputError: The Hub finds a card invalid, there is no repository to propose anything to, or the tag is taken.
        HubError: The Hub refused or cannot be reached.
    """
    from huggingface_hub import ModelCard

    if tag is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", tag):
        raise InputError(f"--tag {tag!r}: expected letters, digits and . _ -")
    for change in changes:
        if pull_request and change.parent is None:
            raise InputError(f"{change.repo_id}: is not there, so nobody can be asked to take this", "leave out --pr")
        tagged = _tagged(change, tag) if tag and change.parent else None
        if tagged and not (change.is_done and tagged == change.parent):
            raise InputError(f"{change.repo_id}: tag {tag!r} is on commit {tagged}", "give another --tag")
        if "README.md" in change.uploads:
            with hub.talking(change.repo_id):
                retried(ModelCard(_data(change.files["README.md"]).decode()).validate, repo_type=change.kind)


def publish(
    changes: Sequence[Change], message: str, pull_request: bool = False, tag: str | None = None
) -> Iterator[str]:
    """Uploads what has changed, as one commit per repository, on the parent that it was compared with.

    A repository is created if it is missing. An upload that was interrupted goes on with what is not there yet.

    Args:
        changes: What to do.
        message: Of the commits.
        pull_request: Propose the commits instead of making them; what is proposed already is not proposed again.
        tag: A name for what is in the repositories then.

    Yields:
        The address of each commit or pull request, as soon as it is made.

    Raises:
        InputError: As `check`, which comes first; nothing has been changed then.
        HubError: The Hub refused or cannot be reached, or somebody else changed a repository meanwhile.
    """
    from huggingface_hub import HfApi

    check(changes, pull_request, tag)
    for change in changes:
        with hub.talking(change.repo_id):
            commit = change.parent
            if not change.is_done:
                url, commit = _proposed(change, message) if pull_request else _committed(change, message)
                yield url
            if tag:  # which is new, or there on this very commit
                retried(
                    HfApi().create_tag, change.repo_id, tag=tag, revision=commit, exist_ok=True, repo_type=change.kind
                )


def _committed(change: Change, message: str) -> tuple[str, str]:
    """Makes the commit. Returns its address and its hash."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api, repo_id, parent = HfApi(), change.repo_id, change.parent
    if parent is None:
        sdk = "gradio" if change.kind == "space" else None
        retried(api.create_repo, repo_id, private=change.private, exist_ok=True, repo_type=change.kind, space_sdk=sdk)
        now = compare(repo_id, change.files, kind=change.kind)
        written = {"README.md"} if sdk else set()  # by the Hub itself, into a new Space
        if change.files.keys() - now.added - written:
            raise HubError(f"{repo_id}: somebody else has filled it meanwhile", "look at it, then push again")
        parent = now.parent
    try:
        made = retried(_commit, change, message, parent)
    except HfHubHTTPError as err:
        # Ours may have arrived and its answer been lost on the way: then its parent, or a file to remove, has gone.
        if err.response.status_code not in (404, 412):
            raise
        now = compare(repo_id, change.files, kind=change.kind)
        if not now.is_done:
            raise
        return f"{api.endpoint}/{change.page}/commit/{now.parent}", str(now.parent)
    return made.commit_url, made.oid


def _proposed(change: Change, message: str) -> tuple[str, str | None]:
    """Opens a pull request, if none of the last ones proposes the same. Returns its address."""
    from huggingface_hub import HfApi

    api = HfApi()
    refs = retried(api.list_repo_refs, change.repo_id, repo_type=change.kind, include_pull_requests=True).pull_requests
    for ref in sorted(refs or [], key=lambda ref: int(ref.name), reverse=True)[:LOOKED_AT]:
        if compare(change.repo_id, change.files, revision=ref.ref, kind=change.kind).is_done:
            return f"{api.endpoint}/{change.page}/discussions/{ref.name}", None
    made = _unwrapped(_commit, change, message, change.parent, pull_request=True)  # once: two would be made
    return str(made.pr_url), None


def _commit(change: Change, message: str, parent: str | None, pull_request: bool = False) -> Any:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    # Made anew for every attempt: the client marks operations that it has sent.
    operations: list[Any] = [CommitOperationAdd(path, _given(change.files[path])) for path in change.uploads]
    operations += [CommitOperationDelete(path) for path in change.removed]
    return HfApi().create_commit(
        change.repo_id,
        operations,
        commit_message=message,
        parent_commit=parent,
        create_pr=pull_request,
        repo_type=change.kind,
    )


def _tagged(change: Change, name: str) -> str | None:
    """The commit that has a tag."""
    from huggingface_hub import HfApi

    with hub.talking(change.repo_id):
        tags = retried(HfApi().list_repo_refs, change.repo_id, repo_type=change.kind).tags
    return next((ref.target_commit for ref in tags if ref.name == name), None)


def text(change: Change, path: str) -> str:
    """What a file of a repository says on the Hub, at the commit that it was compared with."""
    from huggingface_hub import hf_hub_download

    with hub.talking(change.repo_id):
        found = hf_hub_download(change.repo_id, path, revision=change.parent, repo_type=change.kind)
        return Path(found).read_text(encoding="utf-8")


def collect(title: str, repo_ids: Sequence[str], private: bool = False) -> str:
    """Puts repositories of one namespace into a collection of this title, which is made if it is missing.

    Returns:
        The address of the collection.

    Raises:
        HubError: The Hub refused or cannot be reached.
    """
    from huggingface_hub import HfApi

    api, namespace = HfApi(), repo_ids[0].partition("/")[0]
    with hub.talking(f"collection {title!r}"):
        made = retried(api.create_collection, title[:MAX_TITLE], namespace=namespace, private=private, exists_ok=True)
        for repo_id in repo_ids:
            retried(api.add_collection_item, made.slug, repo_id, "model", exists_ok=True)
    return str(made.url)


def _data(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _given(content: Content) -> bytes | str:
    return content if isinstance(content, bytes) else str(content)


def retried(call: Callable[..., Found], *args: Any, **kwargs: Any) -> Found:
    """Calls again, after a while, where the Hub is busy or the connection breaks. Only for what may be done twice."""
    from httpx2 import TransportError
    from huggingface_hub.errors import HfHubHTTPError

    for wait in WAITS:
        try:
            return _unwrapped(call, *args, **kwargs)
        except HfHubHTTPError as err:
            if err.response.status_code not in RETRIED:
                raise
            asked = err.response.headers.get("Retry-After", "")
            time.sleep(min(float(asked), 60) if asked.isdecimal() else wait)
        except TransportError:
            time.sleep(wait)
    return _unwrapped(call, *args, **kwargs)


def _unwrapped(call: Callable[..., Found], *args: Any, **kwargs: Any) -> Found:
    """Calls, and tells an upload that failed in one of the client's threads by what it failed for."""
    from httpx2 import HTTPError

    try:
        return call(*args, **kwargs)
    except RuntimeError as err:
        if isinstance(err.__cause__, HTTPError):
            raise err.__cause__ from None
        raise
