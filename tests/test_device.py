"""Where to compute, and what is said when the memory does not do."""

import numpy as np
import pytest
import torch

from ggez_hub import device
from ggez_hub.errors import InputError


def torch_asks_too_much() -> None:
    torch.empty(2**60)


def numpy_asks_too_much() -> None:
    np.empty(2**60, np.float32)


def python_asks_too_much() -> None:
    raise MemoryError


@pytest.mark.parametrize("ask", [torch_asks_too_much, numpy_asks_too_much, python_asks_too_much])
def test_too_little_memory_names_the_setting_to_lower(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(InputError, match=r"not enough memory at sweep\.batch_size=256") as caught, \
            device.enough_memory("sweep.batch_size", 256):  # fmt: skip
        ask()
    assert caught.value.hint == "lower sweep.batch_size"
    assert isinstance(caught.value.__cause__, RuntimeError | MemoryError)


def test_what_torch_raises_on_a_gpu_counts_too() -> None:
    with pytest.raises(InputError, match="batch_size=2"), device.enough_memory("batch_size", 2):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def test_where_nothing_can_be_lowered_the_hint_says_what_else() -> None:
    with pytest.raises(InputError, match="micro_batch_size=1") as caught, \
            device.enough_memory("train.micro_batch_size", 1):  # fmt: skip
        torch_asks_too_much()
    assert "lower train" not in (caught.value.hint or "")
    assert "smaller base" in (caught.value.hint or "")


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory")])
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, device.enough_memory("sweep.batch_size", 8):
        raise error
    assert caught.value is error


def test_enough_memory_changes_nothing() -> None:
    with device.enough_memory("sweep.batch_size", 8):
        found = torch.zeros(2)
    assert found.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("environment", "processes", "first"),
    [
        ({}, 1, True),
        ({"WORLD_SIZE": "1", "RANK": "0"}, 1, True),
        ({"WORLD_SIZE": "4", "RANK": "0"}, 4, True),
        ({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "0"}, 4, False),
    ],
)
def test_processes_are_those_of_the_launcher(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], processes: int, first: bool
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (device.processes(), device.is_first()) == (processes, first)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="a GPU is there")
def test_without_a_gpu_the_best_is_the_cpu_in_float32() -> None:
    assert device.on_cpu()
    assert device.best() == torch.device("cpu")
    assert device.dtype(device.best()) == torch.float32


@pytest.mark.parametrize(("value", "told"), [("true", True), ("True", True), ("1", True)])
def test_accelerate_may_be_told_to_stay_on_the_cpu(monkeypatch: pytest.MonkeyPatch, value: str, told: bool) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", value)
    assert device.on_cpu() is told
