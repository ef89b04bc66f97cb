"""push: one repository per artefact, everything at its root, in the layout that the libraries load unchanged."""

import shutil
from pathlib import Path

from ggez_hub import hub
from ggez_hub.errors import InputError
from ggez_hub.runs import Run, file_hash
from ggez_hub.schema import Recipe

PROCESSOR_FILES = ("*token*", "*processor*", "*.jinja", "vocab*", "merges.txt", "spiece.model")


def layout(recipe: Recipe, run: Run, artefact: str) -> dict[str, Path]:
    """The files of a repository: path in it -> where it lies in the folder of a complete run."""
    files: dict[str, Path] = {}
    if artefact == "adapter":
        base = hub.base_folder(recipe.base, run)
        files |= {p.name: p for pattern in PROCESSOR_FILES for p in sorted(base.glob(pattern)) if p.is_file()}
        folder = run.stage("train") / "adapter"
    else:
        folder = run.stage("merge") / "model"
    files |= {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    files |= {name: run.stage("sweep") / name for name in ("results.json", "parity.png", "samples.png")}
    return files | {p.name: p for p in sorted((run.stage("card") / artefact).iterdir())}


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


def _mirror(files: dict[str, Path], repository: Path) -> bool:
    """Makes a folder hold exactly these files. Returns whether it did not already."""
    there = {p.relative_to(repository).as_posix(): p for p in repository.rglob("*") if p.is_file()}
    if there.keys() == files.keys() and all(file_hash(there[name]) == file_hash(files[name]) for name in files):
        return False
    partial = repository.with_name(f".{repository.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for name, file in files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, partial / name)
        shutil.rmtree(repository, ignore_errors=True)
        partial.rename(repository)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return True
