"""Every error a user can meet: one message that says what and where, and a hint that says what to do next.

GgezError                  exit code 1 (a bug, unless a subclass says otherwise)
├── InputError        2    the user's input: a name, an argument, a file, the data, a full disk
│   └── ConfigError   2    YAML files: all problems at once, each with file and line
├── DependencyError   3    an optional dependency is missing
├── HubError          4    the Hub or the network
└── GateError         5    a publishing gate is not met
"""

import difflib
from collections.abc import Iterable, Sequence


class GgezError(Exception):
    """Base of all errors of this package.

    Args:
        message: What went wrong, naming the file, line, key or argument and what was expected.
        hint: The next step, usually a command.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class InputError(GgezError):
    """Something the user gave cannot be used."""

    exit_code = 2


class ConfigError(InputError):
    """One or more problems in YAML files.

    Args:
        problems: One line each, starting with ``file:line`` where known.
    """

    def __init__(self, problems: Sequence[str], hint: str | None = None) -> None:
        super().__init__("\n".join(problems), hint)
        self.problems = tuple(problems)


class DependencyError(GgezError):
    """An optional dependency is not installed."""

    exit_code = 3


class HubError(GgezError):
    """The Hub refused, or could not be reached."""

    exit_code = 4


class GateError(GgezError):
    """A publishing gate is not met."""

    exit_code = 5


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the nearest known word, or the known words if none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"; known: {shown}" if known else ""
