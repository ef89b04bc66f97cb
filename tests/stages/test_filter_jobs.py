"""Filtering as a job: killed, interrupted, out of disk, on several engines; it ends in the same bytes."""

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ggez_hub import run
from ggez_hub.data import engines
from ggez_hub.registry import parse_overrides
from ggez_hub.runs import file_hash
from ggez_hub.stages import filter as stage

UNIT = 4  # rows, those of a concept: about 80 units
OVERRIDES = ("data.options.train=4", "filter.contamination=keep", "filter.region=false")
# The command line with smaller units, so that a small corpus is a long job.
COMMAND = (
    "import ggez_hub.stages.filter as stage; from ggez_hub.cli import main; "
    f"stage.UNIT_ROWS, stage.engines.PATIENCE = {UNIT}, 0; main()"
)


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "UNIT_ROWS", UNIT)
    monkeypatch.setattr(engines, "PATIENCE", 0)


def hashes(out: str, *overrides: str) -> dict[str, str]:
    """Runs the stage in this process; returns what it wrote, but for the manifest, which has times."""
    folder = run("tiny", out, parse_overrides([*OVERRIDES, *overrides]), until="filter").stage("filter")
    return {path.name: file_hash(path) for path in folder.iterdir() if path.name != "manifest.json"}


def started(*overrides: str, limit: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """Starts the command as a user would, in a group of its own."""
    command = [sys.executable, "-c", COMMAND, "filter", "tiny", *OVERRIDES, *overrides, "--out", "hit"]
    environment = os.environ | {"TQDM_MININTERVAL": "0"}
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True, preexec_fn=limit
    )


def shows(process: subprocess.Popen[str], rows: int) -> str:
    """Waits until so many rows are done; returns what was said until then."""
    assert process.stderr
    seen = ""
    while not any(int(count) >= rows for count in re.findall(r"filter: (\d+) rows", seen)):
        seen += (character := process.stderr.read(1))
        assert character, seen
    return seen


def left(seen: str, process: subprocess.Popen[str]) -> str:
    """All that was said. It ends only when the last process that could say something has ended: workers, too."""
    assert process.stderr
    return seen + process.stderr.read()


def workers(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    found = {int(pid) for children_of in children for pid in children_of.read_text().split()}
    return sorted(pid for pid in found if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text())


def kept_parts(project: Path) -> int:
    return len(list((project / "hit" / "tiny" / ".filter.parts").glob("*/*.decisions")))


def resumed(project: Path, parts: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command again ends in the bytes of a run that was never disturbed, and does nothing twice."""
    assert parts
    assert not (project / "hit" / "tiny" / "filter").exists(), "a stage that was stopped must not look complete"
    capsys.readouterr()
    again = hashes("hit")
    first = capsys.readouterr().err.split("filter: ")[1]
    assert first.startswith(f"{parts * UNIT} rows"), "what was done is done again"
    assert again == hashes("undisturbed")
    assert {path.name for path in (project / "hit" / "tiny").iterdir()} == {".lock", "filter", "recipe.yaml"}


@pytest.mark.slow
def test_several_processes_write_what_one_does(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = hashes("several", "data.options.train=1")
    monkeypatch.setattr(engines, "PATIENCE", 1000)
    assert found == hashes("one", "data.options.train=1")
    assert found.keys() == {"README.md", "decisions.parquet", "examples.parquet", "report.json"}


@pytest.mark.slow
def test_a_job_that_is_killed_leaves_no_process_and_goes_on(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = started()
    seen = shows(process, 10 * UNIT)
    process.kill()
    left(seen, process)
    assert process.wait() == -signal.SIGKILL
    resumed(project, kept_parts(project), capsys)


@pytest.mark.slow
def test_ctrl_c_says_what_is_kept(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = started()
    seen = shows(process, 10 * UNIT)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    said = left(seen, process)
    assert process.wait() == 130, said
    parts = kept_parts(project)
    assert f"{parts * UNIT} rows are done and kept in " in said
    assert "Traceback" not in said
    resumed(project, parts, capsys)


@pytest.mark.slow
def test_a_killed_worker_ends_the_job_with_one_message(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = started()
    seen = shows(process, 10 * UNIT)
    os.kill(workers(process)[0], signal.SIGKILL)
    said = left(seen, process)
    parts = kept_parts(project)
    assert process.wait() == 2, said
    assert f"error: a worker process was killed, most often because the memory does not do; {parts * UNIT} rows" in said
    assert "Traceback" not in said
    resumed(project, parts, capsys)


def full_after(size: int) -> None:
    """No file may become larger: what a disk says that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [60_000, 1_000_000])
@pytest.mark.slow
def test_a_full_disk_loses_nothing_that_was_done(project: Path, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    process = started(limit=partial(full_after, size))
    said = left("", process)
    assert process.wait() == 2, said
    assert "the disk is full" in said
    assert "Traceback" not in said
    resumed(project, kept_parts(project), capsys)


@pytest.mark.slow
def test_ray_gives_the_same_bytes_though_a_worker_is_killed(project: Path) -> None:
    pytest.importorskip("ray")
    expected = hashes("processes")
    process = started("engine=ray")
    seen = shows(process, 10 * UNIT)
    found = [pid for pid in Path("/proc").glob("[0-9]*") if _is_ray_worker(pid, process.pid)]
    os.kill(int(found[0].name), signal.SIGKILL)
    said = left(seen, process)
    assert process.wait() == 0, said
    folder = project / "hit" / "tiny" / "filter"
    assert {p.name: file_hash(p) for p in folder.iterdir() if p.name != "manifest.json"} == expected


def _is_ray_worker(place: Path, session: int) -> bool:
    """Whether a process is an actor of the Ray that a process of ours started."""
    try:
        told = (place / "stat").read_text().rpartition(")")[2].split()
        return int(told[3]) == session and "MapWorker" in (place / "cmdline").read_text()
    except OSError:  # it has ended meanwhile
        return False
