"""The one place that knows where models come from and what they are called: shipped, in a folder, or on the Hub."""

import os
from pathlib import Path

from ggez_hub.errors import HubError, InputError
from ggez_hub.runs import Run, fingerprint
from ggez_hub.schema import Base, Recipe

SHIPPED = Path(__file__).parent / "pocket" / "models"  # folders named like the repositories of the namespace below
NAMESPACE = "ggez-hub"
FACTS = "ggez.json"  # our own facts at the root of a published repository
SCHEMA = 1  # of that file
SAFE_FILES = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.txt",
    "*.md",
    "*.yaml",
    "*.model",
    "*.spm",
    "*.tiktoken",
    "*.bpe",
)  # no pickle, no code


def fetch(name: str, revision: str | None = None, near: Path | None = None) -> Path:
    """The local folder of a model: shipped with the package, on this machine, or fetched from the Hub.

    Args:
        name: ``ggez-hub/pocket-...`` (shipped, never looked up elsewhere), a folder, or a Hub id.
        revision: Commit, tag or branch on the Hub.
        near: A repository in a folder of the Hub's layout (NAMESPACE/NAME); others beside it are found there.

    Raises:
        InputError: No such thing.
        HubError: The Hub refused or cannot be reached.
    """
    stem = name.partition("/")[2]
    if is_shipped(name):
        return SHIPPED / stem
    for folder in (Path(name), *([near.parent.parent / name, near.parent / stem / "merge" / "model"] if near else [])):
        if folder.is_dir():
            return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise InputError(f"{name}: no such folder, and not a Hub id (namespace/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(SAFE_FILES)))
    except HFValidationError as err:
        raise InputError(f"{name}: no such folder, and not a Hub id (namespace/name)") from err
    except GatedRepoError as err:
        raise HubError(f"{name}: access is restricted", "ask for access on its page, then `hf auth login`") from err
    except RepositoryNotFoundError as err:
        raise HubError(f"{name}: no such repository, or it is private", "check the name, or `hf auth login`") from err
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as err:
        raise HubError(f"{name}: the Hub cannot be reached, and there is no local copy", "check the network") from err


def shipped() -> list[str]:
    """Names of the models that travel in the package."""
    return sorted(p.name for p in SHIPPED.iterdir()) if SHIPPED.is_dir() else []


def is_shipped(name: str) -> bool:
    """Whether a model travels in the package, given its id."""
    namespace, _, stem = name.partition("/")
    return namespace == NAMESPACE and stem in shipped()


def base_folder(base: Base, run: Run) -> Path:
    """The local folder of a recipe's base model.

    Raises:
        InputError: The recipe that makes it has not been run yet.
    """
    if base.id:
        return fetch(base.id, base.revision)
    if base.recipe:
        made = Run(run.out / base.recipe)
        if made.manifest("merge") is None:
            raise InputError(
                f"the base is the output of recipe {base.recipe!r}, which is not in {run.out}{os.sep}",
                f"ggez run {base.recipe} --out {run.out}",
            )
        return made.stage("merge") / "model"
    return run.stage("train") / "base"


def base_files(base: Base, run: Run) -> dict[str, str]:
    """What a stage that reads the base depends on; a random start is made by the run itself."""
    return {} if base.random is not None else {"base_files": fingerprint(base_folder(base, run))}


def base_name(base: Base) -> str:
    """What a base is called on cards and in adapter_config.json: a Hub id."""
    if base.random is not None:
        return "random weights"
    return base.id or f"{NAMESPACE}/{base.recipe}"


def artefacts(recipe: Recipe) -> tuple[str, ...]:
    """What a recipe publishes: full training makes no adapter."""
    return ("adapter", "merged") if recipe.train.method == "lora" else ("merged",)


def repo_id(recipe: Recipe, name: str, artefact: str) -> str:
    """The repository of an artefact: ``<namespace>/<recipe>``, with ``-lora`` for the adapter."""
    return f"{recipe.push.namespace}/{name}{'-lora' if artefact == 'adapter' else ''}"
