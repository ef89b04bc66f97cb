"""Reviews recipes, regions and benchmarks that changed: validates each, rehearses recipes, writes a Markdown report.

A rehearsal (`ggez rehearse`) is a run on tiny twins in a temporary folder; recipes that extend a changed one have one.
What the files say is not trusted: in the report it neither breaks the table, nor links, nor mentions anybody.
"""

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ggez_hub import recipes, registry, rehearsal
from ggez_hub.errors import ConfigError, GgezError
from ggez_hub.rehearsal.report import Report
from ggez_hub.schema import Recipe

REPOSITORY = Path(__file__).parents[1]
CELL, BLOCK = 200, 4000  # characters
REPORT = 30_000  # bytes that comment.yml takes of a report
HARMLESS = str.maketrans({"`": "'", "|": "¦", "\\": "/", "@": "@\N{ZERO WIDTH SPACE}"})
VALID = {True: "yes", False: "**no**", None: ""}
NOTE = "Rehearsed on tiny twins, so only that it runs is known. Memory and time are estimates for the real run."


@dataclass(frozen=True)
class Finding:
    """What is said about one file."""

    path: str
    what: str = ""  # its kind and title
    error: str = ""  # why it is not valid, or why its rehearsal failed
    valid: bool | None = True  # None = it was removed
    note: str = ""  # why it was not rehearsed, or who uses it
    report: Report | None = None  # of the rehearsal


# ------------------------------------------------------------------------------------------------------------ reviewing
def changed(base: str, repository: Path = REPOSITORY) -> list[Path]:
    """The YAML files of recipes/ that differ from where the branch left `base`, removed ones included."""
    command = ["git", "diff", "--name-only", "--no-renames", "-z", f"{base}...HEAD", "--", "recipes"]
    done = subprocess.run(command, cwd=repository, capture_output=True, check=True)
    names = [name.decode("utf-8", "replace") for name in done.stdout.split(b"\0") if name]
    return [repository / name for name in names if name.endswith((".yaml", ".yml"))]


def review(path: Path) -> Finding:
    """Validates one file, and rehearses it if it is a recipe whose parts are all here."""
    shown = path.relative_to(REPOSITORY).as_posix() if path.is_relative_to(REPOSITORY) else path.name
    kind = registry.kind_of(path)
    users = f"used by: {', '.join(used_by(kind, path.stem)) or 'no recipe'}" if kind != "recipes" else ""
    if not path.is_file():
        return Finding(shown, registry.one(kind), valid=None, note=f"removed; {users}" if users else "removed")
    try:
        recipes.validate_file(path)
        loaded = recipes.load(kind, str(path))
    except ConfigError as err:
        return Finding(shown, registry.one(kind), str(err).replace(f"{REPOSITORY}/", ""), valid=False, note=users)
    what = f"{registry.one(kind)}: {loaded.title}"  # type: ignore[attr-defined]
    if not isinstance(loaded, Recipe):
        return Finding(shown, what, note=users)
    if outside := ", ".join(_outside(loaded)):
        return Finding(shown, what, note=f"validated, not rehearsed; not in this repository: {outside}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = rehearsal.rehearse(str(path), folder, addresses=False)  # of strangers
        except GgezError as err:
            return Finding(shown, what, str(err))
    problems = "\n".join(map(str, report.problems))
    return Finding(shown, what, problems.replace(f"{REPOSITORY}/", ""), report=report)


def used_by(kind: registry.Kind, name: str) -> list[str]:
    """The recipes that name a region or benchmark."""
    found = []
    for recipe, path in registry.files("recipes").items():
        with contextlib.suppress(ConfigError):  # one that is not valid is told of elsewhere
            loaded = registry.read(Recipe, path)
            names = (loaded.region,) if kind == "regions" else loaded.sweep.benchmarks
            found += [recipe] if name in names else []
    return found


def extending(path: Path) -> list[Path]:
    """The recipes that extend one."""
    found = []
    for other in registry.files("recipes").values():
        with contextlib.suppress(ConfigError):
            if path.resolve() in [parent.resolve() for parent in registry.extended(other)[2][1:]]:
                found.append(other.absolute())
    return found


def _outside(recipe: Recipe) -> Iterator[str]:
    """Files of this machine that a recipe would read, and that nobody has put into the repository."""
    benchmarks = [recipes.load_benchmark(name).source for name in recipe.sweep.benchmarks]
    for source in (*recipe.data.corpora.values(), *benchmarks):
        place = REPOSITORY / (source.path or "")
        if place.exists() and not place.resolve().is_relative_to(REPOSITORY.resolve()):
            yield str(source.path)


# --------------------------------------------------------------------------------------------------------------- report
def report(findings: Sequence[Finding]) -> str:
    """The findings as Markdown: a table, and below it every error in a code block."""
    if not findings:
        return "No recipe, region or benchmark changed.\n"
    lines = ["| file | what | valid | rehearsed | GPU memory | time |", "| --- | --- | --- | --- | --- | --- |"]
    for finding in findings:
        rehearsed, needs = cell(finding.note), {}
        if finding.report:
            rehearsed, needs = f"{sum(finding.report.seconds.values()):.0f} s", finding.report.needs
        if finding.error and finding.valid:
            rehearsed = "**failed**"
        cells = (cell(finding.path), cell(finding.what), VALID[finding.valid], rehearsed,
                 cell(needs.get("GPU memory", "")), cell(needs.get("time", "")))  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    if any(finding.report for finding in findings):
        lines += ["", NOTE]
    for finding in findings:
        if finding.error:
            lines += ["", f"{cell(finding.path)}:", "", block(finding.error)]
    text = "\n".join(lines) + "\n"
    return text if len(text.encode()) <= REPORT else f"{len(findings)} files changed; the report is too long to show.\n"


def cell(text: str) -> str:
    """Untrusted text for a cell of a table: as code, which links and mentions nothing, and that it cannot end."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    short = " ".join(plain.split())[:CELL].translate(HARMLESS)
    return f"`{short}`" if short else ""


def block(text: str) -> str:
    """Untrusted text as a code block that it cannot end."""
    kept = "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in text[:BLOCK])
    kept = kept.replace("@", HARMLESS[ord("@")])
    longest = max((len(run) for run in re.findall("`+", kept)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{kept}\n{fence}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the report; 1 if a file is invalid or a rehearsal fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", metavar="COMMIT", help="review the files of recipes/ that changed since this commit")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the report; default: stdout")
    parser.add_argument("files", nargs="*", type=Path, help="instead of --base: the files to review")
    args = parser.parse_args(arguments)
    if bool(args.base) == bool(args.files):
        parser.error("expected either --base or files")
    if registry.data_root() != REPOSITORY:
        parser.error("another ggez_hub is installed than this one; first: pip install -e .")
    paths = [path.absolute() for path in args.files] or changed(args.base)
    paths = list(dict.fromkeys(path for one in paths for path in (one, *extending(one))))
    findings = []
    for path in paths:
        print(f"{path.name} ...", file=sys.stderr)
        findings.append(review(path))
    text = report(findings)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return int(any(finding.error for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
