"""Gradio apps, called Spaces: a folder with app.py, a README, and what the app shows; locally or on Hugging Face."""

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ggez_hub import registry
from ggez_hub.errors import DependencyError, InputError, did_you_mean

if TYPE_CHECKING:
    import gradio as gr

REPOS = "repos.txt"  # in a published Space: what it shows, an id with its commit or a name in its folder on each line


def names() -> list[str]:
    """The apps that there are."""
    return sorted(path.parent.name for path in (registry.data_root() / "spaces").glob("*/app.py"))


def folder(name: str) -> Path:
    """The folder of a shipped app.

    Raises:
        InputError: No such app.
    """
    if name not in names():
        raise InputError(f"no Space is called {name!r}{did_you_mean(name, names())}")
    return registry.data_root() / "spaces" / name


def build(name: str, place: Path | None = None, repos: Sequence[str] = ()) -> "gr.Blocks":
    """Makes an app.

    Args:
        name: Which one.
        place: The folder of the Space; None = the shipped one.
        repos: What it shows: Hub ids (``namespace/name``, with ``@`` and a revision if wanted) or folders. Empty: what
            the folder's own list says, or else what travels in the folder.

    Raises:
        DependencyError: gradio is not installed.
        InputError: No such app or repository.
    """
    place = place or folder(name)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from ggez_hub.spaces import page

    if page.on_zero_gpu():
        importlib.import_module("spaces")  # has to come before torch
    try:
        importlib.import_module("gradio")
    except ImportError as err:
        raise DependencyError("Spaces need gradio", 'pip install "ggez_hub[spaces]"') from err
    listed = place / REPOS
    if not repos and listed.is_file():
        repos = listed.read_text(encoding="utf-8").split()
    app: gr.Blocks = importlib.import_module(f"ggez_hub.spaces.{name}").build(place, repos)
    return app


def launch(
    name: str, place: Path | None = None, repos: Sequence[str] = (), ready: Callable[[str], object] = print
) -> None:
    """Makes an app and serves it until it is stopped.

    Arguments and errors as `build`; `ready` is called with the page's address once it answers.
    """
    from ggez_hub.spaces import page

    page.serve(build(name, place, repos), ready)


def split_revision(repo: str) -> tuple[str, str | None]:
    """``namespace/name@revision`` -> its two parts; a folder has no revision."""
    name, _, revision = repo.rpartition("@")
    return (name, revision) if name and not Path(repo).exists() else (repo, None)
