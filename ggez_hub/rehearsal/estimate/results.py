"""An estimate, and how people read it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Number:
    """A number and where it is from.

    Attributes:
        value: None = not known.
        unit: ``bytes``, ``parameters``, ``rows``, ``questions``, ``steps``, ``operations``, ``hours``, ``USD``.
        how: The arithmetic, in one line.
    """

    value: float | None
    unit: str
    how: str


@dataclass(frozen=True)
class Way:
    """A machine that the run fits on.

    Attributes:
        gpu: Which.
        gpus: How many the training takes; more than one hold the model in shards (FSDP). The sweep takes one.
        memory: Of each, in the training.
        hours: By stage: ``filter``, ``train``, ``sweep``; and of ``1,000 steps``, whose number may not be known.
        cost: Of the hours of training and sweep.
    """

    gpu: str
    gpus: int
    memory: Number
    hours: Mapping[str, Number]
    cost: Number


@dataclass(frozen=True)
class Estimate:
    """What the real run of a recipe needs.

    Attributes:
        base: The base.
        parameters: By part of the base.
        trained: Those that train.
        lengths: Tokens of a row, where a row has some.
        rows: By source of the data, and ``all``; an upper bound where a filter drops some.
        questions: By benchmark, before alphas; an upper bound where it is not known how many are of the region.
        steps: By phase.
        memory: By stage (``train``, ``sweep``) what takes how much of a GPU, and ``all``; ``merge`` is of the machine.
        peak: The most of a GPU.
        peak_stage: Where.
        fits: GPUs one of which does for the whole run, the smallest first.
        possible: Whether some number of GPUs does.
        hint: Where it is not, or one GPU does not do, which setting to change.
        disk: What takes how much, and ``all``.
        ways: Machines that do: one GPU, the smallest first; then several, the cheapest first.
        missing: What is not known, and so is in no number.
    """

    base: str
    parameters: Mapping[str, Number]
    trained: Number
    lengths: Mapping[str, Number]
    rows: Mapping[str, Number]
    questions: Mapping[str, Number]
    steps: Mapping[str, Number]
    memory: Mapping[str, Mapping[str, Number]]
    peak: Number
    peak_stage: str
    fits: tuple[str, ...]
    possible: bool
    hint: str | None
    disk: Mapping[str, Number]
    ways: tuple[Way, ...]
    missing: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def value(number: Number) -> float:
    """Of a number; 0 where it is not known."""
    return number.value or 0.0


def text(found: Estimate) -> str:
    """An estimate in lines for people."""
    lines = [f"base {found.base}"]
    lines += _lines("parameters", {**found.parameters, "trained": found.trained})
    for title, numbers in (
        ("tokens of a row", found.lengths),
        ("rows", found.rows),
        ("questions", found.questions),
        ("steps", found.steps),
    ):
        lines += _lines(title, numbers)
    for stage, items in found.memory.items():
        lines += _lines(f"memory of {'the machine' if stage == 'merge' else 'a GPU'}, {stage}", items)
    lines.append(f"most: {shown(found.peak)} ({found.peak_stage}); fits one of: {', '.join(found.fits) or 'none'}")
    if found.hint:
        lines.append(f"  {found.hint}")
    lines += _lines("disk", found.disk)
    for way in found.ways[:1]:
        numbers = {"memory of each": way.memory, **way.hours, "cost": way.cost}
        lines += _lines(f"{way.gpus} x {way.gpu}", numbers, "hours of ")
    for way in found.ways[1:]:
        told = ", ".join(f"{name} {shown(hours)}" for name, hours in way.hours.items() if name != "filter")
        lines.append(f"{way.gpus} x {way.gpu}: {shown(way.memory)} each; {told}; {shown(way.cost)}")
    lines += ["not in these numbers", *(f"  {line}" for line in found.missing)] if found.missing else []
    return "\n".join(lines) + "\n"


def _lines(title: str, numbers: Mapping[str, Number], prefix: str = "") -> Iterable[str]:
    if not numbers:
        return []
    named = {f"{prefix if number.unit == 'hours' else ''}{name}": number for name, number in numbers.items()}
    width = max(len(name) for name in named)
    return [title, *(f"  {name:{width}}  {shown(number):>10}  = {number.how}" for name, number in named.items())]


def shown(number: Number) -> str:
    """A number as people read it: ``23.9 GB``, ``4.3e9``, ``3.2 h``; of one that is not known a question mark."""
    value = number.value
    if value is None:
        return "?"
    if number.unit == "bytes":
        return f"{value / 1e9:,.1f} GB" if value >= 1e8 else f"{value / 1e6:,.1f} MB"
    if number.unit == "hours":
        return f"{value:,.1f} h" if value >= 0.1 else f"{value * 60:.1f} min"
    if number.unit == "USD":
        return f"{value:,.2f} USD" if value < 100 else f"{value:,.0f} USD"
    return f"{value:.3e}" if value >= 1e6 else f"{value:,.0f}"
