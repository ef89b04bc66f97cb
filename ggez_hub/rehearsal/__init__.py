"""Rehearsals: a whole recipe, as written, on tiny twins of its base and its data, offline, in a minute."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, cast

from ggez_hub import registry
from ggez_hub.errors import ConfigError, InputError
from ggez_hub.rehearsal import bases, checks, remote, report
from ggez_hub.rehearsal.child import ENVIRONMENT, LOG
from ggez_hub.rehearsal.report import Problem, Report
from ggez_hub.runs import Run
from ggez_hub.schema import Recipe

LIMIT = 600  # seconds of a rehearsal
LAST = 6  # lines of its log that are shown when a process has ended by itself


def rehearse(
    name: str, out: str | Path = "rehearsals", overrides: Mapping[str, Any] | None = None, addresses: bool = True
) -> Report:
    """Rehearses a recipe: checks it, then runs every stage of it on twins, in a process of its own.

    Args:
        name: Name or path of a recipe.
        out: The folder that gets ``<recipe>/``: the run, what was published, and the report.
        overrides: Values that win over the file, such as ``{"data.path": "train.parquet"}``.
        addresses: Whether to ask the addresses that it names, where there is a network, if they answer.

    Returns:
        What was covered, and every problem.

    Raises:
        InputError: ``OUT/<recipe>`` holds something else or cannot be written, or another process is at work there.
    """
    return next(rehearsals([name], out, overrides, addresses))


def rehearsals(
    names: Sequence[str],
    out: str | Path = "rehearsals",
    overrides: Mapping[str, Any] | None = None,
    addresses: bool = True,
) -> Iterator[Report]:
    """Rehearses several recipes, one on each core at a time; yields each report as it is there.

    Of a single one it says on stderr what is under way.

    Raises:
        InputError: As `rehearse`; of several it is in the report of the one. Two of them have one name.
    """
    stems = [Path(name).stem if name.endswith((".yaml", ".yml")) else name for name in names]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise InputError(f"two recipes of the name {twice!r}", "rehearse one after the other, each with its own --out")
    workers = min(len(os.sched_getaffinity(0)), len(names))
    servers = [Server({family for name in names for family in _family(name)}) for _ in range(workers)]
    free: SimpleQueue[Server] = SimpleQueue()
    for server in servers:
        free.put(server)

    def one(name: str) -> Report:
        server = free.get()
        try:
            return _rehearse(server, name, Path(out), overrides or {}, addresses, talk=len(names) == 1)
        except InputError as err:
            if len(names) == 1:
                raise
            return Report(name, stage="checks", problems=[Problem("", err.message, err.hint or "")])
        finally:
            free.put(server)

    pool = ThreadPoolExecutor(workers)
    try:
        for done in as_completed([pool.submit(one, name) for name in names]):
            yield done.result()
    finally:
        for server in servers:
            server.end()
        pool.shutdown(cancel_futures=True)


class Server:
    """The process that rehearses one recipe after the other; it starts at once, for it imports for seconds."""

    def __init__(self, families: Iterable[str]) -> None:
        self._ended = False
        serve = "import sys; from ggez_hub.rehearsal import child; child.serve(sys.argv[1:])"
        command = [sys.executable, "-c", serve, *sorted(families)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
        self._process = subprocess.Popen(command, env=os.environ | ENVIRONMENT, **pipes)  # noqa: S603 -- this package's own

    def do(self, job: Mapping[str, Any]) -> int | None:
        """Does a job; returns its exit code, minus the signal that killed it, or None if the server is gone.

        Raises:
            Ended: It was told to end meanwhile.
        """
        jobs, outcomes = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(job), file=jobs, flush=True)
        line = outcomes.readline()
        if self._ended:
            raise Ended
        return int(json.loads(line)["code"]) if line else None

    def end(self) -> None:
        """Ends it, and what it is doing."""
        self._ended = True
        self._process.terminate()


class Ended(Exception):
    """What was under way is of no use."""


def _family(name: str) -> Iterator[str]:
    """The family of a recipe, where it can be told."""
    with contextlib.suppress(ConfigError):
        value = registry.parse_file(registry.find("recipes", name), extends=True)[0]
        if isinstance(value, dict) and isinstance(family := value.get("family"), str):
            yield family


def _rehearse(
    server: Server, name: str, out: Path, overrides: Mapping[str, Any], addresses: bool, talk: bool
) -> Report:
    try:
        stem = registry.find("recipes", name).stem
    except ConfigError as err:
        return Report(name, stage="checks", problems=checks.invalid(err))
    target, hidden = out / stem, out / f".{stem}.rehearsal"
    try:
        _replaceable(target)
        if hidden.is_symlink():
            raise InputError(f"{hidden}: is a link; it is left as it is", "remove it, or give another --out")
        with Run(hidden).locked():
            for path in hidden.iterdir():
                if path.name != ".lock":
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            found = Report(stem, stage="checks")
            try:
                if _checked(found, name, overrides, addresses):
                    _in_child(server, found, name, overrides, hidden, talk)
                    found = report.read(hidden) or found
                found.write(hidden)
                _replaceable(target)
                shutil.rmtree(target, ignore_errors=True)
                hidden.rename(target)
            except BaseException:
                shutil.rmtree(hidden, ignore_errors=True)
                raise
            (target / ".lock").unlink()
    except OSError as err:
        said = f"{err.filename or out}: cannot be written: {err.strerror or err}"
        raise InputError(said, "give another --out, or make room") from err
    return found


def _replaceable(target: Path) -> None:
    """Raises InputError if what lies where a rehearsal is to go is something else than a former one."""
    if target.is_symlink() or (target.exists() and not is_rehearsal(target)):
        raise InputError(f"{target}: holds something else than a rehearsal; it is left as it is", "give another --out")


def is_rehearsal(folder: Path) -> bool:
    """Whether a folder is one that a rehearsal has written."""
    try:
        value = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return isinstance(value, dict) and value.get("notice") == report.NOTICE
    except (OSError, ValueError):
        return False


def _checked(found: Report, name: str, overrides: Mapping[str, Any], addresses: bool) -> bool:
    """What can be told without a model; returns whether there is more to do."""
    started = time.monotonic()
    try:
        recipe, place = checks.opened(name, overrides)
    except ConfigError as err:
        found.problems += checks.invalid(err)
        return False
    finally:
        found.seconds["checks"] = round(time.monotonic() - started, 2)
    found.title = recipe.title
    found.problems += checks.offline(recipe, place)
    found.notes += checks.told(recipe)
    _ask_the_hub(found, recipe, place, addresses)
    found.seconds["checks"] = round(time.monotonic() - started, 2)
    return not found.problems


def _ask_the_hub(found: Report, recipe: Recipe, place: registry.Place, addresses: bool) -> None:
    """What is really there, where there is a network."""
    for each in remote.check(recipe, place, addresses):
        if each.ok is False:
            where, _, text = each.said.partition("  ")
            found.problems.append(Problem(where, text or each.said, each.hint or ""))
        else:
            named = f"{each.key} {each.id}: ".lstrip() if each.key else ""
            found.online.append(f"{named}{each.what}: {each.said}")


def _in_child(server: Server, found: Report, name: str, overrides: Mapping[str, Any], hidden: Path, talk: bool) -> None:
    """Has a process rehearse; what it could not write itself is added to the report in the folder."""
    job = {"recipe": name, "overrides": dict(overrides), "folder": str(hidden.absolute()), "home": str(Path.cwd())}
    code = server.do(job | {"report": found.as_json(), "met": bases.met(), "limit": LIMIT, "talk": talk})
    if code == 0:
        return
    last = report.read(hidden) or found
    log = hidden / LOG
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST:] if log.is_file() else []
    why = {None: "its process is gone", -9: "its process was killed, most often because the memory does not do",
           -14: f"it took longer than {LIMIT} s"}.get(code, f"its process ended with exit code {code}")  # fmt: skip
    last.problems.append(Problem("", f"{last.stage}: {why}", "\n".join(["its last words:", *said]) if said else ""))
    last.write(hidden)
