"""Which part of the world a country is in: the World Bank's regions, or continents, as recipes/regions says."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from ggez_hub import registry
from ggez_hub.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

Partition = Literal["World Bank", "continent"]
PARTITIONS: Mapping[str, Partition] = {"region": "World Bank", "continent": "continent"}  # by their field in reports
SEVERAL = "several"  # a question whose countries are not all in one region
TURNED = r"^(.+), (.* of|.* of the|U\.S\.|British)$"  # a name that a list of names has under its second part
ELSEWHERE = "elsewhere"  # ... of a country that is in none, or that is not known


def of(partition: Partition) -> dict[str, str]:
    """The region that every country is in.

    Args:
        partition: A division of the world into regions: those whose files name it, shipped or one's own.

    Returns:
        ISO3 code: name of the region. A country that is in no region of the division is not there.

    Raises:
        ConfigError: A country that is in two of the regions, or a region file that is not in order.
    """
    found: dict[str, str] = {}
    for name, path in registry.files("regions").items():
        region = registry.load_region(name)
        if region.partition != partition:
            continue
        for country in region.countries:
            if found.setdefault(country, name) != name:
                problem = f"{path}: countries: {country} is in region {found[country]!r} of partition {partition!r} too"
                raise ConfigError([problem], "take it out of one of them, or give the region no partition")
    return found


def place(country: str | None, regions: Mapping[str, str]) -> str | None:
    """The region of a question.

    Args:
        country: Where it is about: an ISO3 code, or several with "|" between.
        regions: Of countries, as `of` gives them.

    Returns:
        Name of a region if all of its countries are in it; SEVERAL if they are not all in the same; ELSEWHERE if they
        are in none; None without a country.
    """
    if not country:
        return None
    names = {regions.get(code, ELSEWHERE) for code in country.split("|")}
    return names.pop() if len(names) == 1 else SEVERAL


def members(questions: "pa.Table", field: str) -> list[str]:
    """The group of every question; "" where it is in none.

    Args:
        questions: As scoring/items.py gives them.
        field: One of PARTITIONS, or a column; a question about several countries is in no country's group: SEVERAL.
    """
    if field in PARTITIONS:
        regions = of(PARTITIONS[field])
        return [place(country, regions) or "" for country in questions["country"].to_pylist()]
    values = [value or "" for value in questions[field].to_pylist()]
    return [SEVERAL if "|" in value else value for value in values] if field == "country" else values


def country(code: str) -> str | None:
    """The name of a country, as it is said: "Federated States of Micronesia"; None if ISO 3166 has no such code."""
    import pycountry

    found = pycountry.countries.get(alpha_3=code) if len(code) == 3 and code.isupper() else None
    return re.sub(TURNED, r"\2 \1", str(getattr(found, "common_name", found.name))) if found else None
