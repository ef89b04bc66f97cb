"""Filter rules: each says of every row of a batch whether it is kept. A new rule is one function here (paper, 4.1)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ggez_hub.schema import Filter, Region

if TYPE_CHECKING:
    import pyarrow as pa

Rule = Callable[["pa.RecordBatch"], "pa.BooleanArray"]  # row by row: kept?


def in_region(region: Region) -> Rule:
    """Keeps rows of the region's countries: x with region(x) = r."""
    import pyarrow as pa
    import pyarrow.compute as pc

    members = pa.array(region.countries)
    return lambda batch: pc.is_in(batch.column("country"), value_set=members)


def has_text() -> Rule:
    """Keeps rows that say something: a caption or a conversation."""
    import pyarrow.compute as pc

    def rule(batch: "pa.RecordBatch") -> "pa.BooleanArray":
        letters = pc.utf8_length(pc.utf8_trim_whitespace(batch.column("text")))
        return pc.or_(pc.fill_null(pc.greater(letters, 0), False), pc.is_valid(batch.column("messages")))

    return rule


def rewarded(minimum: float) -> Rule:
    """Keeps rows whose reward is at least `minimum`; rows without one are dropped (section 5.1)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    least = pa.scalar(minimum, pa.float32())  # as rewards are kept, or 3.3 would be less than 3.3
    return lambda batch: pc.fill_null(pc.greater_equal(batch.column("reward"), least), False)


def rules(settings: Filter, region: Region) -> dict[str, Rule]:
    """The rules a recipe asks for, in the order they are applied, by the name the report gives them."""
    chosen: dict[str, Rule] = {}
    if settings.region:
        chosen["region"] = in_region(region)
    chosen["text"] = has_text()
    if settings.min_reward is not None:
        chosen["reward"] = rewarded(settings.min_reward)
    return chosen
