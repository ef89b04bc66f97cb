"""Loading a published model, and turning its alpha."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import families, hub
from ggez_hub.errors import InputError
from ggez_hub.families.base import Family, Loaded, Query
from ggez_hub.merging import live
from ggez_hub.runs import read_json

if TYPE_CHECKING:
    import numpy as np
    from huggingface_hub import ModelCard


class RegionalModel:
    """A regional model in memory, with a live alpha between the global base (0) and the region (1).

    Attributes:
        model: The PEFT model, pipeline or open_clip model underneath.
        region: Name of the region.
        family: Name of the family.
        card: The model card.
    """

    def __init__(self, loaded: Loaded, facts: Mapping[str, Any], card: "ModelCard", dial: live.Dial | None) -> None:
        self._loaded, self._dial = loaded, dial
        self._family: Family = families.get(facts["family"])
        self._alpha = float(facts["alpha"])
        self.region: str = facts["region"]
        self.family: str = facts["family"]
        self.card = card
        if dial:
            dial(self._alpha)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, alpha: float | None = None, revision: str | None = None, base: str | Path | None = None
    ) -> "RegionalModel":
        """Loads a published adapter on its base, or a merged model. Reads safetensors and JSON only.

        Args:
            name: A Hub id, a folder in the layout of a published repository, or a run folder.
            alpha: Where alpha stands at first, 0..1; None = as the card recommends.
            revision: Commit, tag or branch of the repository.
            base: The base model, if not the one that the adapter names: a Hub id or a folder.

        Raises:
            InputError: No published model there, another base than the adapter's, or damaged files.
            HubError: The Hub refused or cannot be reached.
        """
        import yaml
        from huggingface_hub import ModelCard

        root = hub.fetch(str(name), revision)
        home, weights = root, root
        if not (home / hub.FACTS).is_file() and (root / "card" / "adapter" / hub.FACTS).is_file():
            home, weights = root / "card" / "adapter", root / "train" / "adapter"
        if not (home / hub.FACTS).is_file():
            raise InputError(
                f"{name}: no {hub.FACTS}, so not a model that ggez_hub published", "load it with its own library"
            )
        facts = read_json(home / hub.FACTS)
        schema = facts.get("schema") if isinstance(facts, dict) else None
        if schema != hub.SCHEMA:
            raise InputError(f"{name}: {hub.FACTS} has schema {schema}, expected {hub.SCHEMA}", "update ggez_hub")
        try:
            card = ModelCard.load(home / "README.md")
        except (OSError, ValueError, yaml.YAMLError) as err:
            raise InputError(f"{name}: README.md cannot be read as a model card: {err}") from err
        family = families.get(facts["family"])
        if facts["artefact"] == "merged":
            loaded, dial = family.load(weights), None
        else:
            given = facts["base"]
            folder = hub.fetch(str(base)) if base else hub.fetch(given["id"], given["revision"], near=root)
            loaded = family.load(folder)
            dial = live.attach_adapter(loaded, weights)
        model = cls(loaded, facts, card, dial)
        if alpha is not None:
            model.alpha = alpha
        return model

    @property
    def model(self) -> Any:
        """The model of the library underneath."""
        return self._loaded.model

    @property
    def processor(self) -> Any:
        """What turns pictures and texts into the model's inputs."""
        return self._loaded.processor

    @property
    def alpha(self) -> float:
        """The regional alpha, 0..1. Assign to change it, in place and without reloading."""
        return self._alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise InputError(f"alpha {value}: expected a number from 0 (global base) to 1 (region)")
        if value == self._alpha:
            return
        if self._dial is None:
            raise InputError(
                f"a merged checkpoint stays at the alpha it was merged at, {self._alpha}",
                "load the adapter repository to turn alpha",
            )
        self._dial(value)
        self._alpha = float(value)

    @contextlib.contextmanager
    def at(self, alpha: float) -> Iterator["RegionalModel"]:
        """Stands at another alpha inside a ``with`` block, and goes back at its end."""
        before = self._alpha
        self.alpha = alpha
        try:
            yield self
        finally:
            self.alpha = before

    def predict(
        self, queries: Sequence[Query | Mapping[str, Any]], alphas: Sequence[float] | None = None, batch_size: int = 64
    ) -> "list[np.ndarray]":
        """Scores the options of every query; the highest is the answer.

        Args:
            queries: Pictures with options (Query, or a mapping with its fields).
            alphas: Also at several alphas; None = at the present one.
            batch_size: Pictures or texts at once.

        Returns:
            One float32 array per query: [options], or [alphas, options] if alphas are given.
        """
        import numpy as np

        asked = [query if isinstance(query, Query) else Query(**query) for query in queries]
        if alphas is None:
            return self._family.predict(self._loaded, asked, batch_size)
        by_alpha = []
        for alpha in alphas:
            with self.at(alpha):
                by_alpha.append(self._family.predict(self._loaded, asked, batch_size))
        return [np.stack(scores) for scores in zip(*by_alpha, strict=True)]
