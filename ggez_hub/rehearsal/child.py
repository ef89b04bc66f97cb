"""The process that rehearses: it imports what takes seconds once, then does one recipe after the other, each in a fork.

A job is a line of JSON on stdin, its exit code one on stdout. What it finds is in the report in its folder, which is
written anew at every step: after a crash it says how far it came.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ggez_hub.errors import GgezError
from ggez_hub.registry import Place
from ggez_hub.rehearsal.report import Problem, Report, from_json
from ggez_hub.runs import Run
from ggez_hub.schema import Recipe

if TYPE_CHECKING:
    from ggez_hub.rehearsal.bases import Architecture

# Beside those of the one that starts it, before anything is imported that reads them. The cache is that of the job: a
# path from its folder.
ENVIRONMENT = {
    "HF_HUB_CACHE": "hub",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_CACHE": "hub",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}
LOG = "log.txt"
HEAVY = (
    "numpy", "pyarrow.parquet", "pyarrow.dataset", "torch", "PIL.Image", "datasets", "accelerate", "peft",
    "transformers", "matplotlib.pyplot", "imagehash", "torchvision", "openai", "http.server", "ggez_hub.stages.card",
)  # fmt: skip
OWN = {"embedding": ("sentence_transformers",), "diffusion": ("diffusers",), "open_clip": ("open_clip",)}


def rehearse(name: str, overrides: Mapping[str, Any], folder: Path, report: Report) -> None:
    """Rehearses a recipe in this process, which goes to the folder; the report is written there at every step.

    Args:
        name: Name or path of a recipe.
        overrides: The user's.
        folder: An empty folder.
        report: What is known already.
    """
    from ggez_hub.rehearsal import checks

    with at_stage(report, folder, "checks"):
        recipe, place = checks.opened(name, overrides)
    try:
        _rehearse(name, recipe, place, overrides, folder, report)
        report.stage = ""
    except Stop:
        pass
    except GgezError as err:
        report.problems.append(checks.located(err, recipe, place))
    except Exception as err:  # noqa: BLE001 -- of any library, on this recipe: told, with where it came from
        traceback.print_exc()
        where = traceback.extract_tb(err.__traceback__)[-1]
        said = f"{type(err).__name__}: {err}".strip()[:500]
        report.problems.append(Problem("", f"{said} ({Path(where.filename).name}:{where.lineno})",
                                       f"the whole of it stands in {LOG}"))  # fmt: skip
    report.write(folder)


_talk: list[TextIO] = []  # where to say what is under way


class Stop(Exception):
    """Nothing more is to be done."""


@contextlib.contextmanager
def at_stage(report: Report, folder: Path, stage: str) -> Iterator[None]:
    """Says in the report what is under way, and afterwards how long it took."""
    for stream in _talk:
        print(stage, file=stream, flush=True)
    report.stage, started = stage, time.monotonic()
    report.write(folder)
    try:
        yield
    finally:
        report.seconds[stage] = round(time.monotonic() - started, 2)


def _rehearse(
    name: str, recipe: Recipe, place: Place, overrides: Mapping[str, Any], folder: Path, report: Report
) -> None:
    from ggez_hub.rehearsal import checks, coverage, standin, world

    home, given = Path.cwd(), str(Path(name).absolute()) if Path(name).is_file() else name
    with at_stage(report, folder, "data"):
        _stop_at(report, checks.readable(recipe, place, here=True))
        made = world.data(recipe, folder, home)
        report.stand_ins = made.stand_ins
        with contextlib.chdir(folder):
            short = checks.opened(given, {**overrides, **made.overrides})[0]
            _stop_at(report, checks.readable(short, place))
    with at_stage(report, folder, "estimate"):
        architecture = estimated(recipe, place, report)
    os.chdir(folder)
    with contextlib.ExitStack() as stack:
        with at_stage(report, folder, "twins"):
            endpoint = stack.enter_context(standin.Endpoint())
            world.models(made, architecture, world.texts(short), endpoint.url)
            report.left = [*made.left, *coverage.left(recipe)]
            short = checks.opened(given, {**overrides, **made.overrides})[0]
        _run(short, Run(Path("runs") / Path(given).stem), folder, report)


def estimated(recipe: Recipe, place: Place, report: Report) -> "Architecture":
    """Estimates the real run; returns the architecture of the base. Raises Stop where there is a problem."""
    from ggez_hub.rehearsal import bases, checks, coverage, estimate

    try:
        architecture = bases.of(recipe)
    except GgezError as err:
        _stop_at(report, [checks.at(place, "base", err.message, err.hint or "")])
    found = estimate.estimate(recipe, architecture)
    report.estimate, report.arithmetic = found.plain(), estimate.text(found).splitlines()
    report.needs = coverage.needs(recipe, found)
    _stop_at(report, checks.fits(recipe, place, found))
    return architecture


def _stop_at(report: Report, problems: Iterable[Problem]) -> None:
    """Ends the rehearsal if there are problems."""
    if found := list(problems):
        report.problems += found
        raise Stop


def _run(recipe: Recipe, run: Run, folder: Path, report: Report) -> None:
    """Runs every stage, publishes into a folder and loads what is there."""
    from ggez_hub import hub, pipeline
    from ggez_hub.rehearsal import coverage, loads
    from ggez_hub.stages import push

    steps = pipeline.execute(recipe, run)
    step = next(steps, None)
    with between_the_ends():
        while step:  # what was yielded runs when the next is asked for
            with at_stage(report, folder, step.stage):
                done, step = step.stage, next(steps, None)
            report.covered[done] = coverage.covered(done, recipe, run)
    with at_stage(report, folder, "push"):
        folders = [repository for repository, _ in push.to_folder(recipe, run, Path("published"))]
        published = dict(zip(hub.artefacts(recipe), folders, strict=True))
    report.covered["push"] = coverage.published(published)
    with at_stage(report, folder, "load"):
        loaded = loads.back(recipe, published, hub.base_folder(recipe.base, run))
    report.covered |= {f"loaded by {library}": words for library, words in loaded.items()}


@contextlib.contextmanager
def between_the_ends() -> Iterator[None]:
    """Has the sweep of this process choose an α between 0 and 1, at which merging is more than copying."""
    from ggez_hub import method

    plain = method.choose_alpha

    def inside(points: Sequence[method.Point], min_retention: float | None = 0.98) -> tuple[method.Point, method.Point]:
        chosen, best = plain(points, min_retention)
        if chosen["alpha"] in (0, 1):
            chosen = min(
                (point for point in points if 0 < point["alpha"] < 1), key=lambda point: abs(point["alpha"] - 0.5)
            )
        return chosen, best

    method.choose_alpha = inside
    try:
        yield
    finally:
        method.choose_alpha = plain


# ---------------------------------------------------------------------------------------------------------- the process
def work(job: Mapping[str, Any]) -> None:
    """Does a job.

    Args:
        job: ``recipe``, ``overrides``, ``folder``, ``home`` (the current one), ``report`` so far, what was
            ``met`` on the Hub, ``limit`` in seconds, and whether to ``talk`` on what is stderr now.
    """
    from ggez_hub.rehearsal import bases

    os.setsid()  # so that it ends together with all that it starts
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(job["limit"])  # which ends it, whatever it is doing
    folder = Path(job["folder"])
    if job["talk"]:
        _talk.append(os.fdopen(os.dup(2), "w", encoding="utf-8"))
    with (folder / LOG).open("a", encoding="utf-8") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    os.chdir(job["home"])
    bases.learn(job["met"])
    rehearse(job["recipe"], job["overrides"], folder, from_json(job["report"]))


def serve(families: Sequence[str]) -> None:
    """Does the jobs of stdin, each in a fork of its own, with all imports done that these families need."""
    outcomes = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing else is to be written there
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one, which ends it
    import_all(families)
    for line in sys.stdin:
        if not (child := os.fork()):
            code = 1
            try:
                work(json.loads(line))
                code = 0
            except BaseException:  # noqa: BLE001 -- the last words of the process
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        try:
            _, status = os.waitpid(child, 0)
        finally:  # also when this process is told to end
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), file=outcomes, flush=True)


def import_all(families: Sequence[str]) -> None:
    """Imports what takes long, once."""
    for name in (*HEAVY, *(name for family in families for name in OWN.get(family, ()))):
        with contextlib.suppress(ImportError):  # optional
            importlib.import_module(name)
