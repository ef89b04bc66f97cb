"""Kinds of models, one module each. A new family is a new module here; the folder is the registry."""

import importlib
from typing import cast

from ggez_hub.families.base import Family


def get(name: str) -> Family:
    """The module of a family by its name."""
    from ggez_hub import registry

    registry.find("families", name)
    return cast(Family, importlib.import_module(f"ggez_hub.families.{name}"))
