"""Kinds of models, one module each. A new family is a new module here; the folder is the registry."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ggez_hub.families.base import Family, Query

if TYPE_CHECKING:
    from ggez_hub.data.similarity import Embedder

WRITTEN = 16  # answers that a model writes at once


def get(name: str) -> Family:
    """The module of a family by its name."""
    from ggez_hub import registry

    registry.find("families", name)
    return cast(Family, importlib.import_module(f"ggez_hub.families.{name}"))


def embedder(name: str, revision: str | None = None) -> "Embedder":
    """Loads what puts pictures and texts into one space: a model of transformers (SigLIP, CLIP) or of open_clip.

    In float32 everywhere, as thresholds on what it says must not depend on the machine.

    Args:
        name: A folder or a Hub id.
        revision: On the Hub.

    Raises:
        InputError: No such model, or its files are damaged.
        HubError: The Hub refused or cannot be reached.
    """
    import torch

    from ggez_hub.hub import OPEN_CLIP
    from ggez_hub.merging.live import check_finite

    folder = _fetched(name, revision)
    family: Any = get("open_clip" if any((folder / file).is_file() for file in OPEN_CLIP) else "embedding")
    loaded = family.load(folder, dtype=torch.float32)
    check_finite(loaded.model.named_parameters(), folder)
    return cast("Embedder", family.embedder(loaded))


def writer(name: str, revision: str | None = None) -> Callable[[Sequence[tuple[bytes, str]], int], list[str]]:
    """Loads a vision-language model of transformers as a function that answers questions about encoded pictures.

    It takes (picture, question) pairs and a number of tokens, and gives the answers, written greedily.

    Args:
        name: A folder or a Hub id.
        revision: On the Hub.

    Raises:
        InputError: No such model, or its files are damaged. Of the function: a picture or question it cannot read.
        HubError: The Hub refused or cannot be reached.
    """
    from ggez_hub.device import enough_memory

    vlm = get("vlm")
    loaded = vlm.load(_fetched(name, revision))

    def write(asked: Sequence[tuple[bytes, str]], max_new_tokens: int) -> list[str]:
        queries = [Query(image, prompt=prompt, max_new_tokens=max_new_tokens) for image, prompt in asked]
        with enough_memory("batch", WRITTEN):
            return [str(answer[0]) for answer in vlm.predict(loaded, queries, WRITTEN)]

    return write


def _fetched(name: str, revision: str | None) -> Path:
    """The folder of a model, from which no library would go on to another place."""
    from ggez_hub import hub
    from ggez_hub.merging.tensors import check_whole

    with hub.naming(name):
        folder = hub.fetch(name, revision)
        check_whole(folder)
        return folder
