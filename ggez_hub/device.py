"""Where and how precisely to compute, and what to say when the memory does not do."""

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ggez_hub.errors import InputError

if TYPE_CHECKING:
    import torch


def best() -> "torch.device":
    """The accelerator of this process if there is one, else the CPU."""
    from accelerate import PartialState

    device: torch.device = PartialState(cpu=on_cpu()).device
    return device


def on_cpu() -> bool:
    """Whether to compute on the CPU: nothing else is there, or accelerate was told so."""
    import torch

    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true") or not torch.accelerator.is_available()


def dtype(device: "torch.device") -> "torch.dtype":
    """Of weights that are not trained: bfloat16 on a GPU that computes in it, else float32."""
    import torch

    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


def processes() -> int:
    """How many processes work together, as `accelerate launch` or torchrun started them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes and talks."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def enough_memory(setting: str, value: int) -> Iterator[None]:
    """Says which setting to lower where the memory does not do.

    Args:
        setting: Of the recipe or the call, such as ``sweep.batch_size``.
        value: What it is now.

    Raises:
        InputError: In place of the error of torch.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as err:  # on a GPU torch.OutOfMemoryError; on the CPU words alone
        words = str(err).lower()
        if not (isinstance(err, MemoryError) or "out of memory" in words or "can't allocate memory" in words):
            raise
        lower = f"lower {setting}" if value > 1 else "a machine with more memory, or a smaller base, is needed"
        raise InputError(f"not enough memory at {setting}={value}", lower) from err
