"""Where a model or data set lies in a cache of huggingface_hub, so that its client finds a twin under the real id."""

import hashlib
import re
from pathlib import Path
from typing import Literal


def place(home: Path, kind: Literal["model", "dataset"], repo_id: str, revision: str | None = None) -> Path:
    """The folder of a repository in a cache, made if missing, with the reference that leads to it.

    Args:
        home: The cache, HF_HUB_CACHE.
        kind: What the repository holds.
        repo_id: Its id, ``namespace/name``.
        revision: The commit, tag or branch that it will be asked for at; None = main.
    """
    commit = revision or ""
    if not re.fullmatch("[0-9a-f]{40}", commit):
        commit = hashlib.sha1(repo_id.encode(), usedforsecurity=False).hexdigest()
    repository = home / f"{kind}s--{repo_id.replace('/', '--')}"
    for name in {"main", revision or "main"} - {commit}:
        reference = repository / "refs" / name
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit, encoding="utf-8")
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    return folder
