"""Engines: every unit is worked on once, wherever; nothing that was done is lost when something is killed."""

import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ggez_hub.data import engines
from ggez_hub.data.engines import Step, Work
from ggez_hub.data.parts import Unit
from ggez_hub.errors import DependencyError, InputError


def units(count: int) -> Iterator[Unit]:
    for number in range(count):
        yield Unit(number, b"%d" % number, b"")


def doubling(given: str) -> Work:
    """Doubles a number; says by whom it was done."""
    return lambda unit: Unit(unit.number, b"%d" % (2 * int(unit.rows)), f"{given} {os.getpid()}".encode())


def failing(given: int) -> Work:
    """Refuses one unit."""

    def work(unit: Unit) -> Unit:
        if unit.number == given:
            raise InputError(f"unit {given} is bad", "mend it")
        return unit

    return work


def refusing(given: str) -> Work:
    raise InputError(f"{given} cannot be loaded", "give another")


def interrupted(given: None) -> Work:
    """Has Ctrl-C pressed at every unit, as all processes of a terminal are told of it."""

    def work(unit: Unit) -> Unit:
        os.kill(os.getpid(), signal.SIGINT)
        return unit

    return work


def killed(given: tuple[str, int]) -> Work:
    """Is killed at a unit, the first time that it is worked on."""

    def work(unit: Unit) -> Unit:
        flag = Path(given[0])
        if unit.number == given[1] and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return unit

    return work


def done(engine: str, count: int, *steps: Step) -> dict[int, Unit]:
    """The results by number; no unit comes twice."""
    found = list(engines.run(engine, partial(units, count), steps, workers=2))
    assert len({unit.number for unit in found}) == len(found)
    return {unit.number: unit for unit in found}


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even these short jobs are for several processes."""
    monkeypatch.setattr(engines, "PATIENCE", 0)


def test_a_small_job_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "PATIENCE", 1000)
    found = done("processes", 3, Step(doubling, "here"))
    assert [found[i].rows for i in sorted(found)] == [b"0", b"2", b"4"]
    assert {unit.decisions for unit in found.values()} == {f"here {os.getpid()}".encode()}


def test_a_model_is_loaded_in_this_process_alone() -> None:
    found = done("processes", 9, Step(doubling, "model", model=True))
    assert {unit.decisions for unit in found.values()} == {f"model {os.getpid()}".encode()}


def test_two_workers_do_every_unit_once_through_all_steps() -> None:
    found = done("processes", 25, Step(doubling, "one"), Step(doubling, "two", model=True), Step(interrupted, None))
    assert {number: int(unit.rows) for number, unit in found.items()} == {number: 4 * number for number in range(25)}


def test_units_are_drawn_as_they_are_done() -> None:
    drawn: list[int] = []

    def watched() -> Iterator[Unit]:
        for unit in units(100):
            drawn.append(unit.number)
            yield unit

    for done_so_far, _ in enumerate(engines.run("processes", watched, [Step(doubling, "")], workers=2)):
        assert len(drawn) <= done_so_far + 1 + engines.AHEAD * 2
    assert drawn == list(range(100))


@pytest.mark.parametrize(("step", "message"), [(Step(failing, 7), "unit 7 is bad"), (Step(refusing, "x"), "x cannot")])
def test_an_error_of_ours_arrives_as_it_is(step: Step, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        done("processes", 20, step)
    assert caught.value.hint in ("mend it", "give another")


def test_a_killed_worker_is_told_and_what_was_done_is_handed_on(tmp_path: Path) -> None:
    found: list[Unit] = []
    job = engines.run("processes", partial(units, 50), [Step(killed, (str(tmp_path / "f"), 20))], workers=2)
    with pytest.raises(engines.WorkerLost, match="a worker process was killed") as caught:
        found.extend(job)
    assert set(range(20 - engines.AHEAD * 2)) <= {unit.number for unit in found}
    assert "__main__" in (caught.value.hint or "")


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match="ray") as caught:
        done("ray", 3, Step(doubling, ""))
    assert caught.value.hint == 'pip install "ggez_hub[ray]"'


@pytest.fixture(scope="class")
def local_ray() -> Iterator[None]:
    """A local Ray of two workers."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestRay:
    """On a local Ray of two workers."""

    def test_every_unit_is_done_once_in_other_processes(self) -> None:
        found = done("ray", 25, Step(doubling, "one"), Step(doubling, "two", model=True))
        assert {number: int(unit.rows) for number, unit in found.items()} == {n: 4 * n for n in range(25)}
        workers = {unit.decisions for unit in found.values()}
        assert f"two {os.getpid()}".encode() not in workers

    def test_units_of_a_killed_worker_are_done_by_another(self, tmp_path: Path) -> None:
        flag = tmp_path / "killed"
        assert sorted(done("ray", 25, Step(killed, (str(flag), 9)))) == list(range(25))
        assert flag.exists()

    def test_an_error_of_ours_arrives_as_it_is(self) -> None:
        with pytest.raises(InputError, match="unit 7 is bad") as caught:
            done("ray", 20, Step(failing, 7))
        assert caught.value.hint == "mend it"


@pytest.mark.slow
def test_an_address_without_ray_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=r"RAY_ADDRESS=127\.0\.0\.1:1"):
        done("ray", 3, Step(doubling, ""))
