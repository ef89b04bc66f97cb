"""Dataset repositories: folders of files that are fetched from the Hub, and files that are committed there."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ggez_hub import hub
from ggez_hub.errors import InputError
from ggez_hub.hub import publish
from ggez_hub.hub.publish import Content
from ggez_hub.metadata import is_hub_id


def fetch(name: str, revision: str | None, only: Sequence[str]) -> Path:
    """The local folder of a dataset: on this machine, or fetched from the Hub.

    Args:
        name: A folder, or a Hub id.
        revision: Commit, tag or branch on the Hub.
        only: Patterns of the files that are fetched.

    Raises:
        InputError: No such thing.
        HubError: The Hub refused or cannot be reached.
    """
    if Path(name).is_dir():
        return Path(name)
    if not is_hub_id(name):
        raise InputError(f"{name}: no such folder, and not a Hub id (namespace/name)")
    from huggingface_hub import snapshot_download

    with hub.talking(name):
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=list(only)))


def resolve(name: str, revision: str | None) -> str:
    """The commit that a revision of a dataset stands at: of a whole commit hash that hash, unasked.

    Without a network it is that of the local copy.

    Raises:
        HubError: The Hub refused, or cannot be reached and there is no local copy.
    """
    if revision and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    from httpx2 import TransportError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    api = HfApi()
    with hub.talking(name):
        with contextlib.suppress(OfflineModeIsEnabled, TransportError):
            # Not resolve_revision, which would lead the cache to a commit whose files are not in it yet.
            return str(api.dataset_info(name, revision=revision).sha)
        found = api.resolve_revision(name, repo_type="dataset", revision=revision, local_files_only=True)
        return found.resolved


def commit(name: str, files: Mapping[str, Content], once: Mapping[str, Content], message: str) -> str | None:
    """Uploads what has changed as one commit; a repository that is missing is made, a private one.

    Args:
        name: The repository, a Hub id.
        files: Path in it -> content.
        once: The same, of files that stay as they are where they are there already.
        message: Of the commit.

    Returns:
        The address of the commit; None where nothing has changed.

    Raises:
        InputError: Not a Hub id.
        HubError: The Hub refused or cannot be reached.
    """
    if not is_hub_id(name):
        raise InputError(f"{name[:100]}: not a Hub id (namespace/name)")
    change = publish.compare(name, {**files, **once}, kind="dataset")
    wanted = {path: content for path, content in change.files.items() if path not in once or path in change.added}
    change = replace(
        change,
        files=wanted,
        changed=tuple(path for path in change.changed if path in wanted),
        private=change.private or change.parent is None,
    )
    return next(publish.publish([change], message), None)
