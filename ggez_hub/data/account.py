"""What was done to the data, in words for cards: sources, filters, translation; and the licenses that go with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ggez_hub import hub
from ggez_hub.registry import load_region
from ggez_hub.schema import Corpus, Filter, Recipe, Region, Translate

ENGLISH = ("en", "eng")


def named(model: str) -> str:
    """What a model is called in public: its id, or the name of its folder, without where that was on this machine."""
    return Path(model).name if not hub.is_shipped(model) and Path(model).is_dir() else model


def title(recipe: Recipe) -> str:
    """What the training data are called."""
    names = [recipe.data.title or " + ".join(_title(*item) for item in recipe.data.corpora.items())]
    return " ".join(names + (["(synthetic)"] if is_synthetic(recipe) else []))


def _title(name: str, corpus: Corpus) -> str:
    if name != "data":
        return name
    return Path(corpus.path).name if corpus.path else corpus.id or corpus.reader


def is_synthetic(recipe: Recipe) -> bool:
    """Whether a program made all of the data."""
    return all(corpus.synthetic for corpus in recipe.data.corpora.values())


def languages(recipe: Recipe, region: Region | None = None) -> list[str]:
    """The languages of the data, as the recipe says; with those that some of it was translated into."""
    from ggez_hub.data import translation as translating

    told: list[str] = []
    for corpus in recipe.data.corpora.values():
        translated = corpus.translate and recipe.translate
        told += (language for language in corpus.languages if not (translated and language in ENGLISH))
        told += translating.languages(translated, region or load_region(recipe.region)) if translated else ()
    return list(dict.fromkeys(told))


def sources(recipe: Recipe, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line for each of several sources; none where there is but one.

    Args:
        recipe: The recipe.
        report: The contents of report.json.
    """
    return [
        {
            "name": name,
            "license": corpus.license or "not stated",
            "languages": ", ".join(corpus.languages),
            "rows": report["sources"][name]["rows"],
            "kept": report["sources"][name]["kept"],
            "marks": ", ".join(_marks(recipe, corpus)),
        }
        for name, corpus in recipe.data.sources.items()
    ]


def _marks(recipe: Recipe, corpus: Corpus) -> list[str]:
    given = {
        "synthetic": corpus.synthetic,
        "general: of any region": not corpus.regional and recipe.filter.region,
        "translated": corpus.translate,
        f"at most {corpus.cap} rows": corpus.cap,
        f"{corpus.share or 0:.3g} of all rows": corpus.share,
    }
    return [mark for mark, holds in given.items() if holds]


def rules(settings: Filter) -> list[str]:
    """The rules by which rows were kept, but for those that every recipe has."""
    found = []
    if isinstance(settings.region, tuple):
        found.append(f"of the region, as told by the first of these that says anything: {', '.join(settings.region)}")
    if settings.min_similarity is not None:
        found.append(
            f"by the picture: at least {settings.min_similarity:g} nearer to prompts of the region than to others, in "
            f"cosine of `{named(settings.embedding or '')}`"
        )
    if settings.min_text > 1:
        found.append(f"at least {settings.min_text} characters of text")
    if settings.max_text is not None:
        found.append(f"at most {settings.max_text} characters of text")
    if settings.licenses:
        found.append(f"under one of the licenses {', '.join(settings.licenses)}")
    if unsafe := settings.unsafe:
        by = f"the column {unsafe.column}" if unsafe.column else f"`{named(unsafe.id or '')}`, class {unsafe.label}"
        found.append(f"unsafe to at most {unsafe.max:g} by {by}")
    if settings.min_side is not None:
        found.append(f"a picture of at least {settings.min_side} pixels on its shorter side")
    if settings.max_aspect is not None:
        found.append(f"a picture at most {settings.max_aspect:g} times as long as wide")
    if settings.min_reward is not None:
        found.append(f"a reward of at least {settings.min_reward:g} on a scale of 1 to 5, {_reward(settings)}")
    if settings.max_hash_distance is not None:
        same = f"perceptual hashes within {settings.max_hash_distance} of 64 bits are the same"
        found.append(f"no picture twice, unless a file comes with another text: {same}")
    if settings.max_cosine is not None:
        same = f"cosine above {settings.max_cosine:g} by `{named(settings.embedding or '')}` is the same"
        found.append(f"no picture twice, unless a file comes with another text: {same}")
    if settings.contamination == "keep":
        found.append("rows that stand in a benchmark were **kept**, so that its results may be too good")
    return found


def _reward(settings: Filter) -> str:
    from ggez_hub.data import rewards

    if settings.reward is None:
        return "as the data give it"
    reward = settings.reward
    known = rewards.MODELS[reward.model]
    weights = f" (`{named(reward.id or known.id or '')}`" if reward.id or known.id else ""
    weights += f" at `{reward.revision}`)" if weights and reward.revision else ")" if weights else ""
    mapped = (
        "" if known.calibrated else "; its scores have another scale and were mapped to this one by their percentile"
    )
    return f"by {known.title}{weights}{mapped}"


def translation(recipe: Recipe, region: Region) -> str:
    """Who translated what into what, under which license; empty where nothing was."""
    from ggez_hub.data import translation as translating

    if (settings := recipe.translate) is None:
        return ""
    names = [name for name, corpus in recipe.data.corpora.items() if corpus.translate]
    of = f" of {', '.join(names)}" if recipe.data.sources else ""
    targets = ", ".join(translating.languages(settings, region))
    licenses_ = translators(recipe)
    by = "; ".join(f"`{model}`, license {' and '.join(given) or 'not stated'}" for model, given in licenses_.items())
    back = settings.min_back
    checked = f" A text translated back agrees with its original by a chrF of at least {back:g}." if back else ""
    strict = any("-nc" in license_ for given in licenses_.values() for license_ in given)
    warning = " What a translator with an -nc license wrote is not for commercial use." if strict else ""
    return f"English text{of} was translated by a machine into {targets}: {by}.{checked}{warning}"


def translators(recipe: Recipe) -> dict[str, list[str]]:
    """The models that translated, by name, and the licenses of what each writes."""
    from ggez_hub.data import translation as translating

    if (settings := recipe.translate) is None:
        return {}
    alone = {name: settings.model_copy(update={"models": {}, "default": name}) for name in _translating(settings)}
    return {named(settings.translators[name].id): translating.licenses(one) for name, one in alone.items()}


def _translating(settings: Translate) -> list[str]:
    """The translators in use."""
    return list(dict.fromkeys([*settings.models.values(), *filter(None, [settings.default])]))


def licenses(recipe: Recipe) -> list[tuple[str, str | None]]:
    """The licenses of all that went into the training rows, each with the recipe's key that states it."""
    keys = {name: f"data.sources.{name}" if recipe.data.sources else "data" for name in recipe.data.corpora}
    found = [(f"{keys[name]}.license", corpus.license) for name, corpus in recipe.data.corpora.items()]
    if settings := recipe.translate:
        given = translators(recipe)
        for name in _translating(settings):
            of_model: list[str | None] = [*given[named(settings.translators[name].id)]]
            found += [(f"translate.translators.{name}.license", license_) for license_ in of_model or [None]]
    return found
