"""push: one repository per artefact, everything at its root, in the layout that the libraries load unchanged."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from ggez_hub import families, hub
from ggez_hub.errors import InputError
from ggez_hub.hub import publish
from ggez_hub.hub.publish import Content, sha256
from ggez_hub.runs import Run
from ggez_hub.schema import Recipe

PROCESSOR_FILES = ("*token*", "*processor*", "*.jinja", "vocab*", "merges.txt", "spiece.model")


def layout(recipe: Recipe, run: Run, artefact: str, instead: Mapping[str, str] | None = None) -> dict[str, Content]:
    """The files of a repository, from the folder of a complete run.

    Args:
        recipe: The recipe.
        run: Its run folder, with every stage complete.
        artefact: ``adapter`` or ``merged``.
        instead: Texts that take the place of files: path in the repository -> text.

    Returns:
        Path in the repository -> where the file lies, or what it says.
    """
    files: dict[str, Content] = {}
    if artefact == "adapter":
        base = hub.base_folder(recipe.base, run)
        files |= {p.name: p for pattern in PROCESSOR_FILES for p in sorted(base.glob(pattern)) if p.is_file()}
        folder = run.stage("train") / "adapter"
    else:
        folder = base = run.stage("merge") / "model"
    files |= _under(folder)
    files |= {name: run.stage("sweep") / name for name in ("results.json", "parity.png", "samples.png")}
    files |= _under(run.stage("card") / artefact)
    texts = families.get(recipe.family).repository_files(base, hub.repo_id(recipe, run.folder.name, artefact))
    return files | {name: text.encode() for name, text in (texts | dict(instead or {})).items()}


def _under(folder: Path) -> dict[str, Content]:
    return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}


def changes(
    recipe: Recipe, run: Run, private: bool = False, instead: Mapping[str, Mapping[str, str]] | None = None
) -> list[publish.Change]:
    """What publishing a complete run on the Hub would change, repository by repository; writes nothing.

    Args:
        recipe: The recipe.
        run: Its run folder, with every stage complete.
        private: How repositories that are missing are to be created.
        instead: For an artefact, texts that take the place of files.

    Raises:
        InputError: A repository of that name holds something else.
        HubError: The Hub refused or cannot be reached.
    """
    name = run.folder.name
    return [
        publish.compare(hub.repo_id(recipe, name, a), layout(recipe, run, a, (instead or {}).get(a)), private)
        for a in hub.artefacts(recipe)
    ]


def to_folder(recipe: Recipe, run: Run, target: Path) -> list[tuple[Path, bool]]:
    """Writes the repositories as ``target/<namespace>/<name>/``, each all or nothing.

    Args:
        recipe: The recipe.
        run: Its run folder, with every stage complete.
        target: The folder that stands for the Hub.

    Returns:
        Each repository's folder, and whether anything in it was written; the same run twice writes nothing.

    Raises:
        InputError: A folder of that name holds something else.
    """
    plans = {
        target / hub.repo_id(recipe, run.folder.name, artefact): layout(recipe, run, artefact)
        for artefact in hub.artefacts(recipe)
    }
    for repository in plans:
        if repository.exists() and not (repository / hub.FACTS).is_file() and any(repository.iterdir()):
            raise InputError(
                f"{repository}: holds something else; it is left as it is", "give another --to or --namespace"
            )
    return [(repository, _mirror(files, repository)) for repository, files in plans.items()]


def _mirror(files: Mapping[str, Content], repository: Path) -> bool:
    """Makes a folder hold exactly these files. Returns whether it did not already."""
    there = {p.relative_to(repository).as_posix(): p for p in repository.rglob("*") if p.is_file()}
    if there.keys() == files.keys() and all(sha256(there[name]) == sha256(files[name]) for name in files):
        return False
    partial = repository.with_name(f".{repository.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for name, content in files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                (partial / name).write_bytes(content)
            else:
                shutil.copyfile(content, partial / name)
        shutil.rmtree(repository, ignore_errors=True)
        partial.rename(repository)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return True
