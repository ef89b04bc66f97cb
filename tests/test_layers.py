"""The drawn layers are true: arrows go down only, without circles; stages and families know nothing of each other."""

from pathlib import Path

import pytest

import layers

ABOVE = ", which is above it"


def package(folder: Path, **modules: str) -> Path:
    """Writes a package of that name with the given modules (``stages__train`` is stages/train.py)."""
    root = folder / "ggez_hub"
    for name, code in {"__init__": "", **modules}.items():
        path = root / f"{name.replace('__', '/') if name != '__init__' else name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(code)
    return root


def test_the_package_keeps_to_its_layers() -> None:
    found = layers.imports()
    assert len(found) > 50
    assert layers.problems(found) == []


def test_every_layer_names_something_that_exists() -> None:
    there = {path.stem for path in layers.PACKAGE.iterdir()} | {layers.ROOT}
    assert [name for layer in layers.LAYERS for name in layer if name not in there] == []


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ({"errors": "from ggez_hub import schema", "schema": ""}, f"errors line 1: imports schema{ABOVE}"),
        ({"kof": "def f():\n    import ggez_hub.pipeline", "pipeline": ""}, f"kof line 2: imports pipeline{ABOVE}"),
        ({"hub": "from ggez_hub.model import RegionalModel", "model": ""}, f"hub line 1: imports model{ABOVE}"),
        ({"recipes": "from ggez_hub import grp"}, f"recipes line 1: imports ggez_hub{ABOVE}"),
        ({"runs": "from .stages import train", "stages__train": ""}, f"runs line 1: imports stages.train{ABOVE}"),
        (
            {"registry": "import importlib\nimportlib.import_module(f'ggez_hub.families.{name}')", "families__a": ""},
            f"registry line 2: imports families{ABOVE}",
        ),
        (
            {"stages__card": "from . import sweep", "stages__sweep": ""},
            "stages.card line 1: imports stages.sweep, but a stage never imports another",
        ),
        (
            {"families__vlm": "from ggez_hub.families import embedding", "families__embedding": ""},
            "families.vlm line 1: imports families.embedding, but a family never imports another",
        ),
        ({"extras": "from ggez_hub import errors", "errors": ""}, "extras: stands in no layer"),
        (
            {"data__a": "from ggez_hub.pocket import b", "pocket__b": "", "pocket__c": "from ggez_hub.data import a"},
            "a circle: data imports pocket imports data",
        ),
        (
            {"data__a": "from ggez_hub.data import b", "data__b": "from ggez_hub.data.a import x"},
            "a circle: data.a imports data.b imports data.a",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_an_import_against_the_rules_is_found(tmp_path: Path, modules: dict[str, str], expected: str) -> None:
    assert layers.problems(layers.imports(package(tmp_path, **modules))) == [expected]


def test_imports_down_sideways_and_of_the_base_are_allowed(tmp_path: Path) -> None:
    root = package(
        tmp_path,
        errors="import json",
        data__readers="from ggez_hub import errors\nfrom ggez_hub.pocket import atlas",
        pocket__atlas="from ..errors import GgezError",
        families__base="",
        families__vlm="from ggez_hub.families.base import Family\nfrom ggez_hub import data",
    )
    found = layers.imports(root)
    assert {(i.source, i.target) for i in found} == {
        ("data.readers", "errors"), ("data.readers", "pocket.atlas"), ("pocket.atlas", "errors"),
        ("families.vlm", "families.base"), ("families.vlm", "data"),
    }  # fmt: skip
    assert layers.problems(found) == []


def test_the_picture_shows_every_part_below_what_uses_it() -> None:
    drawn = layers.picture()
    places = {name: drawn.index(f" {name}") for layer in layers.LAYERS for name in layer}
    assert places["cli"] < places["stages"] < places["families"] < places["registry"] < places["errors"]
