"""Counts what some computation takes in memory and arithmetic, on tensors that need not have values."""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# What autocast computes in float32 on a GPU, and, in part, not on a CPU (torch's autocast_mode.h).
FLOAT32 = {
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt",
    "sinh", "tan", "pow", "__pow__", "__rpow__", "softplus", "layer_norm", "rms_norm", "group_norm",
    "cosine_similarity", "nll_loss", "kl_div", "l1_loss", "smooth_l1_loss", "huber_loss", "mse_loss",
    "cross_entropy", "binary_cross_entropy_with_logits", "dist", "cdist", "logsumexp", "interpolate", "prod",
    "softmax", "log_softmax", "cumprod", "cumsum", "sum", "norm", "normalize",
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What something takes, as it was counted.

    Attributes:
        saved: Bytes that are kept for the backward pass.
        peak: Bytes in use at most, what is saved among them; the weights, and gradients that are kept, are not.
        flops: Floating point operations; a multiplication and an addition are two.
    """

    saved: int
    peak: int
    flops: int


def counted(call: Callable[[], Any], owned: "Sequence[torch.Tensor]", gpu: bool) -> Cost:
    """Runs something and counts.

    Args:
        call: What is run.
        owned: Tensors that are there anyhow: weights and their gradients.
        gpu: Whether it is counted as a GPU computes.
    """
    import torch

    counter = _counter(owned)
    saved: dict[int, int] = {}

    def pack(tensor: "torch.Tensor") -> "torch.Tensor":
        storage = tensor.untyped_storage()
        if storage not in counter.owned:
            saved[id(storage)] = storage.nbytes()
        return tensor

    with contextlib.ExitStack() as stack:
        if gpu:
            stack.enter_context(_as_on_gpu())
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor))
        stack.enter_context(counter)
        call()
    return Cost(sum(saved.values()), counter.peak, counter.flops)


def _counter(owned: "Sequence[torch.Tensor]") -> Any:
    """A mode that counts operations, and follows how many bytes are in use beside tensors that are there anyhow.

    Torch's own FlopCounterMode has the same table of operations, but keeps what is recomputed in the backward pass.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    class Counter(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.flops = self.now = self.peak = 0
            self.owned = weakref.WeakSet(tensor.untyped_storage() for tensor in owned)
            self.seen: weakref.WeakSet[Any] = weakref.WeakSet()

        def freed(self, count: int) -> None:
            self.now -= count

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func is torch.ops.prim.device.default:  # asked for as often as all others together
                return args[0].fake_device
            out = func(*args, **kwargs)
            if count := flop_registry.get(func._overloadpacket):
                self.flops += count(*args, **kwargs, out_val=out)
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    if storage not in self.seen and storage not in self.owned:
                        self.seen.add(storage)
                        self.now += storage.nbytes()
                        weakref.finalize(storage, self.freed, storage.nbytes())
            self.peak = max(self.peak, self.now)
            return out

    return Counter()


@contextlib.contextmanager
def _as_on_gpu() -> Iterator[None]:
    """Under autocast, computes in float32 what a GPU would."""
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._pytree import tree_map

    def wide(value: Any) -> Any:
        low = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
        return value.float() if low else value

    class AsOnGpu(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if getattr(func, "__name__", "") in FLOAT32 and torch.is_autocast_enabled("cpu"):
                args, kwargs = tree_map(wide, args), tree_map(wide, kwargs)
            return func(*args, **kwargs)

    with AsOnGpu():
        yield
