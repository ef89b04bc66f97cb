"""The paper's printed tables (arXiv 2604.11490 v2), as reference."""

from functools import cache
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ggez_hub import registry
from ggez_hub.errors import InputError
from ggez_hub.schema import Strict

FILE = Path(__file__).with_name("paper.yaml")


class Printed(Strict):
    """A table as printed."""

    title: str
    source: str
    note: str | None = None
    columns: tuple[str, ...] = Field(min_length=1)
    rows: tuple[tuple[str | float, ...], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _even(self) -> Self:
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("a column is named twice")
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {i} has {len(row)} cells, expected {len(self.columns)}")
            if not isinstance(row[0], str) or not all(isinstance(cell, float) for cell in row[1:]):
                raise ValueError(f"row {i}: expected a name, then numbers")
        return self

    def records(self) -> list[dict[str, float]]:
        """The rows as mappings of columns to numbers, without the name in the first column."""
        return [{c: float(v) for c, v in zip(self.columns[1:], row[1:], strict=True)} for row in self.rows]


class _Tables(Strict):
    tables: dict[int, Printed]


@cache
def tables() -> dict[int, Printed]:
    """All tables, by their number in the paper."""
    return registry.read(_Tables, FILE).tables


def table(number: int) -> Printed:
    """A table.

    Raises:
        InputError: Not among those that were typed in.
    """
    if number not in tables():
        known = ", ".join(map(str, tables()))
        raise InputError(f"table {number} of the paper: not among the tables here, {known}")
    return tables()[number]
