"""What a family of models has to offer. A family is a module with these names; nothing inherits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

Row = dict[str, Any]  # one row of examples.parquet: image (bytes), text, label, ...


@dataclass
class Loaded:
    """A model in memory with what it needs to read its inputs."""

    model: Any
    processor: Any
    folder: Path


@dataclass(frozen=True)
class Query:
    """One thing to ask a model: a picture (a path, encoded bytes or a PIL image) and texts it may be matched with."""

    image: "str | Path | bytes | Image"
    options: Sequence[str]


class Family(Protocol):
    """The names every family module has."""

    LIBRARY_NAME: str  # of a merged repository on the Hub
    PIPELINE_TAG: str
    TAGS: tuple[str, ...]
    LOSSES: tuple[str, ...]  # what train.loss may say

    def load(self, folder: Path) -> Loaded:
        """Loads a base model from a local folder (safetensors only, no remote code), in evaluation mode."""

    def write_tiny(self, folder: Path, texts: Sequence[str] = (), seed: int = 0, **sizes: int) -> None:
        """Writes a base with random weights of real classes; `texts` make its vocabulary, `sizes` its shape."""

    def lora_targets(self) -> str:
        """A regular expression that fully matches the names of the modules that get a LoRA."""

    def losses(
        self, loaded: Loaded, rows: Sequence[Row], micro_batch_size: int, loss: str | None = None
    ) -> "Iterator[torch.Tensor]":
        """Yields terms that sum to the mean loss over `rows`, each holding `micro_batch_size` rows at most."""

    def predict(self, loaded: Loaded, queries: Sequence[Query], batch_size: int, copies: int = 1) -> "list[np.ndarray]":
        """A score for every option of every query, float32 [copies, options]; the highest is the answer.

        A batch holds every input `copies` times, block after block: each block may run at an alpha of its own.
        """

    def usage(self, repo_id: str, base: str, revision: str | None) -> dict[str, str]:
        """Snippets for the card: how to load the `adapter` and the `merged` repository with the plain library."""
