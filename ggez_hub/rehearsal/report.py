"""What a rehearsal says: what it covered, what stood in for what, what is left to the real run, and every problem."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ggez_hub.runs import read_json, write_json, write_text

NOTICE = "A rehearsal: tiny random models and made-up rows. Its figures say that the recipe runs, and nothing else."

NEEDS = ("GPU memory", "on", "time", "disk")  # of the real run


@dataclass(frozen=True)
class Problem:
    """Something that would stop the real run, or what it makes from being published.

    Attributes:
        place: ``file:line`` of the recipe, or the argument; empty where that is not known.
        text: What is wrong, and what was expected.
        hint: The next step.
    """

    place: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        said = f"{self.place}  {self.text}".strip()
        return f"{said}\n    hint: {self.hint}" if self.hint else said


@dataclass
class Report:
    """A rehearsal.

    Attributes:
        recipe: Its name.
        title: Its title.
        stage: What is under way, or was when it failed; empty when all is done.
        covered: What each stage has done, in words.
        stand_ins: What stood in, by what it stood for.
        left: What only the real run can show.
        notes: What is no mistake, but has to be known.
        problems: Every one that was found.
        estimate: Memory, disk and time of the real run as plain data; None where a problem came first.
        needs: The same in short, by NEEDS.
        arithmetic: The same in lines, with how each number comes about.
        online: What was looked up on the Hub, or why nothing was.
        seconds: Wall-clock time of each part.
        synthetic: Always.
    """

    recipe: str
    title: str = ""
    stage: str = ""
    covered: dict[str, str] = field(default_factory=dict)
    stand_ins: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    estimate: dict[str, Any] | None = None
    needs: dict[str, str] = field(default_factory=dict)
    arithmetic: list[str] = field(default_factory=list)
    online: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    synthetic: bool = True

    @property
    def ok(self) -> bool:
        """Whether it came to its end without a problem."""
        return not self.problems and not self.stage

    @property
    def outcome(self) -> str:
        """In a few words."""
        state = "runs" if self.ok else f"{len(self.problems)} problems, at {self.stage or 'checks'}"
        return f"{state}, {sum(self.seconds.values()):.0f} s"

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"ok": self.ok, "notice": NOTICE, **asdict(self)}

    def write(self, folder: Path) -> None:
        """Writes report.json and report.md."""
        write_json(folder / "report.json", self.as_json())
        write_text(folder / "report.md", self.markdown())

    def markdown(self) -> str:
        """The report for people."""
        lines = [f"# Rehearsal of {self.recipe}", "", f"*{NOTICE}*", "", self.title, ""]
        state = "It runs from end to end" if self.ok else f"**It does not run** ({self.stage or 'checks'})"
        lines += [f"{state}, in {sum(self.seconds.values()):.0f} s."]
        lines += _section("Problems", map(str, self.problems))
        lines += _section("Covered", (f"{what}: {words}" for what, words in self.covered.items()))
        lines += _section("Stand-ins", (f"{what}: {by}" for what, by in self.stand_ins.items()))
        lines += _section("Only the real run can show", self.left)
        lines += _section("To know", self.notes)
        lines += _section("On the Hub", self.online)
        lines += _section("Estimate for the real run", (f"{what}: {amount}" for what, amount in self.needs.items()))
        if self.arithmetic:
            lines += ["", "Where these come from:", "", "```text", *self.arithmetic, "```"]
        lines += _section("Seconds", (f"{what}: {seconds:.1f}" for what, seconds in self.seconds.items()))
        return "\n".join(lines) + "\n"


def _section(title: str, items: Any) -> list[str]:
    found = list(items)
    return ["", f"## {title}", "", *(f"- {item}" for item in found)] if found else []


def read(folder: Path) -> Report | None:
    """The report in a folder; None if there is none."""
    path = folder / "report.json"
    return from_json(read_json(path)) if path.is_file() else None


def from_json(value: Mapping[str, Any]) -> Report:
    """The report that ``as_json`` gave."""
    known = {name: value[name] for name in Report.__dataclass_fields__ if name in value}
    return Report(**known | {"problems": [Problem(**problem) for problem in value["problems"]]})


def table(reports: Sequence[Report]) -> str:
    """Several rehearsals, one line each."""
    head = ("recipe", "rehearsal", "seconds", *NEEDS)
    rows = [
        (each.recipe, "runs" if each.ok else "fails", f"{sum(each.seconds.values()):.0f}",
         *(each.needs.get(name, "?") for name in NEEDS))
        for each in reports
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in (head, *rows)]  # fmt: skip
    return "\n".join(lines)
