"""Corpora: reading, filtering, decoding."""

from ggez_hub.data.regions import filter_region

__all__ = ["filter_region"]
