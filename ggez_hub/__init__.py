"""Regional adapters for vision-language models: filter, train, merge at any alpha, measure, publish."""

from ggez_hub.families.base import Query
from ggez_hub.kof import globalization_factor
from ggez_hub.method import grp, interpolate
from ggez_hub.model import RegionalModel
from ggez_hub.pipeline import run
from ggez_hub.recipes import load_recipe

__all__ = ["Query", "RegionalModel", "globalization_factor", "grp", "interpolate", "load_recipe", "run"]
