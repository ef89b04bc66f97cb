"""Finding published models: the Hub's own search by our tags, and what their cards say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ggez_hub import hub, metadata
from ggez_hub.schema import Facts, Results


def published(region: str | None = None, family: str | None = None, base: str | None = None) -> list[dict[str, Any]]:
    """Published adapters and merged checkpoints, newest first.

    Args:
        region: Of this region alone.
        family: Of this family alone.
        base: Made from this base, a Hub id.

    Returns:
        One mapping for each: id, commit, updated, base, and what its card says of itself (the keys of metadata.GGEZ);
        what a card does not say, or says wrongly, is None.

    Raises:
        HubError: The Hub refused or cannot be reached.
    """
    from huggingface_hub import HfApi

    tags = ["ggez"]
    tags += [f"ggez-region:{region}"] if region else []
    tags += [f"ggez-family:{family}"] if family else []
    tags += [f"base_model:{base}"] if base else []
    wanted: list[Any] = ["cardData", "sha", "lastModified"]
    with hub.talking("search"):
        return [_row(info) for info in HfApi().list_models(filter=tags, sort="last_modified", expand=wanted)]


def _row(info: Any) -> dict[str, Any]:
    data = info.card_data.to_dict() if info.card_data else {}
    said, base = data.get("ggez"), data.get("base_model")
    own: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
    base = base[0] if isinstance(base, list) and base else base
    return {
        "id": info.id,
        "commit": info.sha,
        "updated": info.last_modified.date().isoformat() if info.last_modified else None,
        "base": base if metadata.is_hub_id(base) else None,
    } | {key: own[key] if key in own and not any(check(key, own[key])) and not _long(own[key]) else None
         for key, check in metadata.GGEZ.items()}  # fmt: skip


def _long(value: Any) -> bool:
    """Whether a stranger's text would spoil a table."""
    return isinstance(value, str) and len(value) > 60


def described(name: str, revision: str | None = None) -> tuple[Path, Facts, Results]:
    """What a published model says of itself, without its weights.

    Args:
        name: A Hub id, or a folder in the layout of a published repository.
        revision: Commit, tag or branch.

    Returns:
        The folder of its small files, ggez.json and results.json.

    Raises:
        InputError: Not a model that ggez_hub published.
        HubError: The Hub refused or cannot be reached.
    """
    with hub.naming(name):
        folder = hub.fetch(name, revision, only=(hub.FACTS, "results.json", "recipe.yaml"))
        return folder, hub.read(folder, hub.FACTS, Facts, name), hub.read(folder, "results.json", Results, name)
