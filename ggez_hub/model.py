"""Loading a published model, and turning its alpha."""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import device, families, hub, registry
from ggez_hub.errors import InputError, did_you_mean
from ggez_hub.families.base import Family, Loaded, Query
from ggez_hub.merging import live
from ggez_hub.merging.adapters import read_config
from ggez_hub.merging.tensors import check_whole
from ggez_hub.method import check_fraction
from ggez_hub.schema import Facts
from ggez_hub.scoring.curve import Curve, fit

if TYPE_CHECKING:
    import numpy as np
    from huggingface_hub import ModelCard

Alpha = float | Mapping[str, float]  # one for all, or one per region


class RegionalModel:
    """A regional model in memory, with a live alpha between the global base (0) and the region (1).

    Attributes:
        model: The PEFT model, pipeline or open_clip model underneath.
        region: Name of the region.
        family: Name of the family.
        revision: The commit that was loaded; None of a folder.
        card: The model card.
    """

    def __init__(self, loaded: Loaded, published: "_Published") -> None:
        """Made by from_pretrained: a model that stands where it was published, without adapters yet."""
        self._loaded = loaded
        self._family: Family = families.get(published.facts.family)
        self._alphas: dict[str, float] = {published.facts.region: published.facts.alpha}
        self._base = published.facts.base
        self._adapters: dict[str, Path] = {}
        self._dials: dict[str, live.Dial] = {}  # of adapters beside the weights
        self._merged: live.Dial | None = None  # of adapters merged into them: one for all
        self._takes_blocks = False  # several alphas in one batch
        self._lock = threading.RLock()  # for a model whose weights change with alpha
        self.region = published.facts.region
        self.family = published.facts.family
        self.revision = hub.commit_of(published.root)
        self.card = published.card

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        alpha: float | None = None,
        revision: str | None = None,
        base: str | Path | None = None,
        merged: bool = False,
    ) -> "RegionalModel":
        """Loads a published adapter on its base, or a merged model. Reads safetensors and JSON only.

        Args:
            name: A Hub id, a folder in the layout of a published repository, or a run folder.
            alpha: Where alpha stands at first, 0..1; None = as the card recommends.
            revision: Commit, tag or branch of the repository.
            base: The base model, if not the one that the adapter names: a Hub id or a folder.
            merged: Hold the adapter merged into the weights. The model runs at full speed; a turn of alpha costs a
                pass over the weights that change, and a copy of these stays in memory.

        Raises:
            InputError: No published model there, another base than the adapter's, or damaged files.
            HubError: The Hub refused or cannot be reached.
        """
        with hub.naming(str(name)):
            published = _published(name, revision)
            family = families.get(published.facts.family)
            if published.facts.artefact == "merged":
                check_whole(published.weights)
                model = cls(family.load(published.weights), published)
                live.check_finite(model._loaded.model.named_parameters(), published.weights)
                if alpha is not None:
                    model.alpha = alpha
            else:
                given = published.facts.base
                folder = hub.fetch(str(base)) if base else hub.fetch(given.id, given.revision, near=published.root)
                check_whole(folder)
                model = cls(family.load(folder), published)
                model._add(published, alpha, merged)
        return model

    def load_adapter(self, name: str | Path, alpha: float | None = None, revision: str | None = None) -> None:
        """Adds another region's adapter of the same base; from then on `alpha` is a mapping of regions to numbers.

        The model is the exact sum of its adapters' deltas, each at its own alpha.

        Args:
            name: A Hub id, a folder in the layout of a published repository, or a run folder.
            alpha: Where its alpha stands at first, 0..1; None = as its card recommends.
            revision: Commit, tag or branch of the repository.

        Raises:
            InputError: Not an adapter, or one of another base, or of a region that is there already.
            HubError: The Hub refused or cannot be reached.
        """
        with hub.naming(str(name)):
            published = _published(name, revision)
            region, facts = published.facts.region, published.facts
            if not self._adapters or facts.artefact != "adapter":
                raise InputError(f"{name}: expected an adapter, on a model that has one")
            if (facts.family, facts.base) != (self.family, self._base):
                raise InputError(f"{name}: made for {facts.base}, this model is {self._base}")
            if region in self._adapters:
                raise InputError(f"{name}: an adapter of region {region!r} is loaded already")
            with self._lock:
                self._add(published, alpha, self._merged is not None)

    def _add(self, published: "_Published", alpha: float | None, merged: bool) -> None:
        region = published.facts.region
        start = {region: float(published.facts.alpha if alpha is None else alpha)}
        _check(start)
        if merged:
            adapters = [*self._adapters.values(), published.weights]
            if self._merged:
                self._merged(*[0.0] * len(self._adapters))  # the base's weights, which all of them start from
            try:
                self._merged = live.merge_in_place(self._loaded.model, adapters)
            except BaseException:
                self._turn(self._alphas)
                raise
        else:
            self._loaded.model, self._dials[region] = live.attach_adapter(
                self._loaded.model, published.weights, _adapter_name(region)
            )
            self._takes_blocks = live.takes_blocks(self._loaded.model)
        self._adapters[region] = published.weights
        self._set(self._alphas | start)

    @property
    def model(self) -> Any:
        """The model of the library underneath; of a family that draws, the pipeline."""
        return self._loaded.pipeline or self._loaded.model

    @property
    def processor(self) -> Any:
        """What turns pictures and texts into the model's inputs."""
        return self._loaded.processor

    @property
    def alpha(self) -> float | dict[str, float]:
        """The regional alpha, 0..1; of a model with several adapters a mapping of regions to these.

        Assign to change it, in place and without reloading.
        """
        return dict(self._alphas) if len(self._alphas) > 1 else self._alphas[self.region]

    @alpha.setter
    def alpha(self, value: Alpha) -> None:
        self._set(self._complete(value))

    def _complete(self, value: Alpha) -> dict[str, float]:
        """An alpha as it may be given, as a number per region."""
        if isinstance(value, Mapping):
            if value.keys() != self._alphas.keys():
                raise InputError(
                    f"alpha for {', '.join(value) or 'nothing'}: expected one for {', '.join(self._alphas)}"
                )
            alphas = {region: float(value[region]) for region in self._alphas}
        elif len(self._alphas) > 1:
            example = ", ".join(f"{region!r}: {value}" for region in self._alphas)
            raise InputError(f"alpha {value}: this model has an alpha for each region", f"give {{{example}}}")
        else:
            alphas = {self.region: float(value)}
        _check(alphas)
        if not self._adapters and alphas != self._alphas:
            raise InputError(
                f"a merged checkpoint stays at the alpha it was merged at, {self.alpha}",
                "load the adapter repository to turn alpha",
            )
        return alphas

    def _set(self, alphas: dict[str, float]) -> None:
        with self._lock:
            self._turn(alphas)
            self._alphas = alphas

    def _turn(self, alphas: dict[str, float]) -> None:
        """Turns the weights, for a moment or for good; `alpha` stays what the user set."""
        for region, dial in self._dials.items():
            dial(alphas[region])
        if self._merged:
            self._merged(*alphas.values())

    @contextlib.contextmanager
    def at(self, alpha: Alpha) -> Iterator["RegionalModel"]:
        """Stands at another alpha inside a ``with`` block, and goes back at its end."""
        before = self._alphas
        self.alpha = alpha
        try:
            yield self
        finally:
            self._set(self._alphas | before)  # a region may have come meanwhile

    def predict(
        self,
        queries: Sequence[Query | Mapping[str, Any]],
        alphas: Sequence[Alpha] | None = None,
        batch_size: int = 64,
    ) -> "list[np.ndarray]":
        """Answers every query: scores its options, or, without options, writes or draws what its prompt asks for.

        With adapters beside the weights every query runs at all alphas in one batch, which changes nothing that other
        threads see; neither do they change anything here. A model with merged weights, or with adapters on embedding
        tables, takes one pass per alpha, and other threads wait for it.

        Args:
            queries: Query, or a mapping with its fields.
            alphas: Also at several alphas; None = at the present one.
            batch_size: Pictures or texts at once.

        Returns:
            One array per query. Scores, of which the highest is the answer: float32 [options]. A text: a str array of
            no dimension. A drawing: uint8 [height, width, 3]. If alphas are given, a dimension for them comes first.
        """
        import numpy as np

        asked = [query if isinstance(query, Query) else Query(**query) for query in queries]
        wanted = [self._alphas] if alphas is None else [self._complete(alpha) for alpha in alphas]
        if not wanted:
            raise InputError("alphas: expected one at least")
        if self._takes_blocks:
            by_adapter = {_adapter_name(region): [a[region] for a in wanted] for region in self._dials}
            with live.blocks(by_adapter), device.enough_memory("batch_size", batch_size):
                scores = self._family.predict(self._loaded, asked, batch_size, len(wanted))
        else:
            passes = []
            with self._lock:
                try:
                    for each in wanted:
                        if wanted != [self._alphas]:
                            self._turn(each)
                        passes.append(self._family.predict(self._loaded, asked, batch_size))
                finally:
                    if wanted != [self._alphas]:
                        self._turn(self._alphas)
            scores = [np.concatenate(parts) for parts in zip(*passes, strict=True)]
        return scores if alphas is not None else [found[0] for found in scores]

    def curve(self, queries: Sequence[Query | Mapping[str, Any]], batch_size: int = 64) -> Curve:
        """Scores as a continuous function of alpha, from 5 to 11 passes; it says how far it can be relied on.

        Args:
            queries: As for predict, with options.
            batch_size: Pictures or texts at once.

        Returns:
            The curve; where its `reliable` is False, use predict.
        """
        return fit(lambda alphas: self.predict(queries, alphas, batch_size))


@dataclass(frozen=True)
class _Published:
    """A repository that ggez_hub has written."""

    root: Path
    weights: Path
    facts: Facts
    card: "ModelCard"


def _published(name: str | Path, revision: str | None) -> _Published:
    root = hub.fetch(str(name), revision)
    home, weights = root, root
    if not (home / hub.FACTS).is_file() and (root / "card" / "adapter" / hub.FACTS).is_file():
        home, weights = root / "card" / "adapter", root / "train" / "adapter"
    facts = hub.read(home, hub.FACTS, Facts, str(name))
    if facts.family not in registry.files("families"):
        raise InputError(
            f"{name}: of family {facts.family!r}{did_you_mean(facts.family, registry.files('families'))}",
            "update ggez_hub",
        )
    card = hub.read_card(home, str(name))
    _check_base(str(name), facts, card, weights)
    return _Published(root, weights, facts, card)


def _check_base(name: str, facts: Facts, card: "ModelCard", weights: Path) -> None:
    """Raises InputError where a repository names one base to us and another to other libraries or to readers."""
    config = weights / "adapter_config.json"
    others = {"README.md": card.data.get("base_model")}
    if config.is_file():
        others["adapter_config.json"] = read_config(weights).get("base_model_name_or_path")
    for file, other in others.items():
        if other and other != facts.base.id:
            raise InputError(f"{name}: {hub.FACTS} names the base {facts.base.id}, {file} names {other}",
                             "ask its publisher which one is right")  # fmt: skip


def _adapter_name(region: str) -> str:
    """What PEFT calls a region's adapter; dots would part a module's name."""
    return f"ggez_{region.replace('.', '_')}"


def _check(alphas: Mapping[str, float]) -> None:
    for region, alpha in alphas.items():
        check_fraction(f"alpha of {region}", alpha, "0 is the global base, 1 the regional model")
