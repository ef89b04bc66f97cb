"""Turning alpha on a model in memory: adapters beside its weights, adapters merged into them, or two whole models.

Each way gives a dial, a function that sets one alpha per adapter in place. Beside the weights a turn costs
microseconds, and one batch can hold rows at different alphas (`blocks`); merged in, the model runs as fast as one
without adapters, and a turn costs one pass over the weights that change.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.errors import InputError
from ggez_hub.merging.adapters import LowRank, place, read_adapter, read_config, targeted
from ggez_hub.merging.tensors import canonical, read, some
from ggez_hub.merging.threads import in_threads

if TYPE_CHECKING:
    import torch

Dial = Callable[..., None]  # sets alpha; with several adapters one number for each, in the order they came

_blocks: ContextVar["Mapping[str, _Alphas] | None"] = ContextVar("_blocks", default=None)


# --------------------------------------------------------------------------------------------------- beside the weights
def check_finite(weights: "Iterable[tuple[str, torch.Tensor]]", folder: Path) -> None:
    """Raises InputError where weights hold what is no number: every answer of such a model would be none."""
    for name, weight in weights:
        if not weight.isfinite().all():
            raise InputError(f"{folder}: {name} holds NaN or infinity", "fetch or write it again")


def attach_adapter(model: Any, folder: Path, name: str = "regional") -> tuple[Any, Dial]:
    """Puts a LoRA adapter on a base in memory, or on one that has others; it stands at alpha = 1.

    Scaling a LoRA is the linear merge, exactly: theta(alpha) = base + alpha * s * BA (paper, section 4.2). The sum of
    several is the exact sum of their deltas.

    Args:
        model: A torch module; one of transformers becomes a PeftModel, others get their layers in place.
        folder: The adapter, in PEFT's format.
        name: What PEFT calls it; another for every adapter of a model.

    Returns:
        The model, and the dial of this adapter.

    Raises:
        InputError: The adapter is damaged, or made for another base.
    """
    from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model, set_peft_model_state_dict
    from peft.tuners.lora import LoraLayer
    from torch.nn import MultiheadAttention
    from transformers import PreTrainedModel

    layers = read_adapter(folder)
    _check_modules(model, layers, folder)
    weights = [(n, p) for n, p in model.named_parameters(remove_duplicate=False) if ".lora_" not in n]
    shapes = {name: tuple(weight.shape) for name, weight in weights}
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    called = getattr(model, "name_or_path", None) or type(model).__name__
    placed = {_module_of(name): layer for name, layer in place(layers, shapes, folder, called).items()}
    uses = Counter(id(weight) for _, weight in weights)
    if shared := [name for name, weight in weights if uses[id(weight)] > 1 and _module_of(name) in placed]:
        raise InputError(
            f"{folder}: has a LoRA on {shared[0]}, a weight that another layer shares",
            "merge it: ggez merge-checkpoints",
        )
    said = read_config(folder)
    is_meant = targeted(said, folder)
    meant = (n for n, m in base.named_modules() if hasattr(m, "weight") and is_meant(n))
    if empty := sorted(set(meant) - placed.keys()):
        raise InputError(f"{folder}: does not fit the base {called}: has nothing for {some(empty)}",
                         "the adapter belongs to another base")  # fmt: skip
    # Given to PEFT by their names in this model, so that nothing depends on how its versions match names; and nothing
    # else of the file, whose other keys can make PEFT import modules or read more files.
    config = LoraConfig(
        target_modules="|".join(re.escape(module) for module in placed),
        rank_pattern={f"^{re.escape(module)}": layer.rank for module, layer in placed.items()},
        alpha_pattern={f"^{re.escape(module)}": layer.scale * layer.rank for module, layer in placed.items()},
        lora_bias=any(layer.bias for layer in placed.values()),
        task_type="CAUSAL_LM" if said.get("task_type") == "CAUSAL_LM" else None,
        inference_mode=True,
    )
    if isinstance(model, PeftModel):
        model.add_adapter(name, config)
    elif isinstance(model, PreTrainedModel):
        model = get_peft_model(model, config, name)
    else:
        inject_adapter_in_model(config, model, name)
    factors = {f"base_model.model.{module}.{key}": read(entry)
               for module, layer in placed.items() for key, entry in layer.parts().items()}  # fmt: skip
    check_finite(factors.items(), folder)
    set_peft_model_state_dict(model, factors, name)
    model.eval()
    own: list[Any] = [m for m in model.modules() if isinstance(m, LoraLayer) and name in m.scaling]
    if len(own) != len(placed):
        raise InputError(f"{folder}: PEFT puts {len(own)} of {len(placed)} layers on {called}", "report this adapter")
    for layer in own:
        layer.requires_grad_(False)
        layer.set_adapter(list(layer.scaling), inference_mode=True)  # all at once, or PEFT would use the last alone
        layer.ggez_scales = getattr(layer, "ggez_scales", {}) | {name: layer.scaling[name]}
        layer.forward = partial(_forward, layer)
    for module in model.modules():
        if isinstance(module, MultiheadAttention):  # none of ours; by frozen weights torch multiplies it far slower
            module.requires_grad_(True)
    turned = [(layer.scaling, layer.scaling[name]) for layer in own]

    def dial(alpha: float) -> None:
        for scaling, full in turned:
            scaling[name] = alpha * full

    return model, dial


def _module_of(weight: str) -> str:
    """The module in the model underneath, given the name of its weight in a model that may have adapters."""
    return weight.removesuffix(".weight").removesuffix(".base_layer").removeprefix("base_model.model.")


def _check_modules(model: Any, layers: Mapping[str, LowRank], folder: Path) -> None:
    """Refuses layers whose LoRA torch would never apply, or that PEFT applies twice."""
    from torch.nn import MultiheadAttention

    packed = tuple(
        canonical(name) + "." for name, module in model.named_modules() if isinstance(module, MultiheadAttention)
    )
    if inside := [module for module in layers if f"{canonical(module)}.".startswith(packed)]:
        raise InputError(
            f"{folder}: has a LoRA on {inside[0]}, inside an attention of torch, which reads its weights directly",
            "such a LoRA is left out, or applied twice; train on the other layers",
        )


def takes_blocks(model: Any) -> bool:
    """Whether all of a model's adapters are on layers that `blocks` reaches: linear ones and convolutions."""
    from peft.tuners.lora import Conv2d, Linear, LoraLayer

    return all(type(module) in (Linear, Conv2d) for module in model.modules() if isinstance(module, LoraLayer))


@contextlib.contextmanager
def blocks(alphas: Mapping[str, Sequence[float]]) -> Iterator[None]:
    """Runs batches at several alphas at once, without changing anything that other threads see.

    Inside, a batch holds as many equal blocks of rows as there are alphas, one block after the other; the first block
    runs at the first alpha, and so on. The first dimension of what reaches a layer must be the batch, or the batch and
    more in one.

    Args:
        alphas: For every adapter, by name, the alpha of each block.
    """
    if len({len(values) for values in alphas.values()}) != 1:
        raise InputError("several alphas in one batch: expected as many for every adapter")
    token = _blocks.set({name: _Alphas(values) for name, values in alphas.items()})
    try:
        yield
    finally:
        _blocks.reset(token)


def _forward(layer: Any, x: "torch.Tensor", *args: Any, **kwargs: Any) -> "torch.Tensor":
    """What PEFT's LoRA layers compute, at the alphas of `blocks` if any are set, and faster without gradients."""
    import torch
    from peft.tuners.lora import Conv2d, Linear
    from torch.nn import functional

    chosen = _blocks.get()
    if type(layer) not in (Linear, Conv2d):
        if chosen is not None:
            raise InputError(
                f"several alphas in one batch: not for a LoRA on {type(layer).__name__}", "ask for each alone"
            )
        return type(layer).forward(layer, x, *args, **kwargs)  # type: ignore[no-any-return]
    active = [] if layer.disable_adapters else [name for name in layer.active_adapters if name in layer.lora_A]
    if chosen is not None and (layer.merged or not chosen.keys() >= set(active)):
        raise InputError("several alphas in one batch: expected them for every adapter, and none merged")
    trains = torch.is_grad_enabled() and any(p.requires_grad for p in (x, *layer.parameters()))
    if layer.merged or not active or args or kwargs or trains or layer.training:
        if chosen is not None and active:
            raise InputError("several alphas in one batch are for inference: use torch.inference_mode() and eval()")
        return type(layer).forward(layer, x, *args, **kwargs)  # type: ignore[no-any-return]
    plain = type(layer) is Linear and all(layer.lora_B[name].bias is None for name in active)
    result: torch.Tensor = layer.base_layer(x)
    for name in active:
        alphas = chosen[name] if chosen is not None else None
        scale = layer.scaling[name] if alphas is None else layer.ggez_scales[name]
        if not (scale if alphas is None else any(alphas.values)):
            continue  # the base, bit for bit
        down, up = layer.lora_A[name], layer.lora_B[name]
        if plain and x.dtype == down.weight.dtype == result.dtype and result.is_contiguous():
            inner = functional.linear(x, down.weight)
            if alphas is not None:
                alphas.scale(inner)  # a few numbers per row: the cheapest place for it
            rows = result.view(-1, result.shape[-1])
            rows.addmm_(inner.view(-1, inner.shape[-1]), up.weight.T, alpha=scale)
        else:
            delta = up(down(x.to(down.weight.dtype)))
            if alphas is not None:
                alphas.scale(delta)
            result = result + (delta * scale).to(result.dtype)
    return result


@dataclass(frozen=True)
class _Alphas:
    """The alphas of one adapter, one per block of rows."""

    values: Sequence[float]
    tensors: "dict[tuple[torch.device, torch.dtype], torch.Tensor]" = field(default_factory=dict)

    def scale(self, rows: "torch.Tensor") -> None:
        """Multiplies each block of rows, in place."""
        import torch

        count = len(self.values)
        if rows.shape[0] % count:
            raise InputError(f"a batch of {rows.shape[0]} rows cannot be cut into {count} equal blocks, one per alpha")
        key = (rows.device, rows.dtype)
        if key not in self.tensors:
            self.tensors[key] = torch.tensor(self.values, device=rows.device, dtype=rows.dtype)
        rows.unflatten(0, (count, -1)).mul_(self.tensors[key].view(-1, *[1] * rows.dim()))


# -------------------------------------------------------------------------------------------------- merged, and in full
def merge_in_place(model: Any, adapters: Sequence[Path]) -> Dial:
    """Holds adapters merged into a base in memory, for full inference speed; it stands at alpha = 0.

    Every turn starts from a copy of the base's weights, so nothing drifts: at 0 they are the base's, bit for bit.

    Args:
        model: A torch module without adapters.
        adapters: Folders in PEFT's format.

    Returns:
        The dial: one number per adapter.

    Raises:
        InputError: An adapter is damaged, or made for another base.
    """
    import torch

    parameters = dict(model.named_parameters())
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    terms: dict[str, list[tuple[int, float, torch.Tensor, torch.Tensor]]] = {}  # which adapter, its scale, up, down
    for i, folder in enumerate(adapters):
        for name, layer in place(read_adapter(folder), shapes, folder, "the base").items():
            terms.setdefault(name, []).append((i, layer.scale, *layer.factors()))
            if layer.bias:
                beside = name.removesuffix("weight") + "bias"
                terms.setdefault(beside, []).append(
                    (i, layer.scale, read(layer.bias).float()[:, None], torch.ones(1, 1))
                )
    turned = []
    for name, parts in terms.items():
        weight = parameters[name].detach()
        down = torch.cat([part[3] for part in parts]).to(weight.device)
        turned.append((weight, weight.clone(), down, [(i, scale, up.to(weight.device)) for i, scale, up, _ in parts]))

    def turn(i: int, alphas: Sequence[float]) -> int:
        weight, base, down, parts = turned[i]
        with torch.no_grad():
            if any(alphas[which] for which, _, _ in parts):
                up = torch.cat([up * (alphas[which] * scale) for which, scale, up in parts], dim=1)
                _add_product(base.view(len(base), -1), up, down, weight.view(len(base), -1))
            else:
                weight.copy_(base)
        return 1

    def dial(*alphas: float) -> None:
        in_threads((partial(turn, i, alphas) for i in range(len(turned))), int)

    return dial


def _add_product(base: "torch.Tensor", up: "torch.Tensor", down: "torch.Tensor", out: "torch.Tensor") -> None:
    """``out = base + up @ down``, computed in fp32 and rounded once."""
    import torch

    if base.dtype == torch.float32:
        torch.mm(up, down, out=out)
        out += base
        return
    step = max(2**20 // base.shape[1], 1)  # rows; a whole matrix in fp32 could be large
    for start in range(0, len(base), step):
        rows = slice(start, start + step)
        out[rows] = base[rows] + up[rows] @ down  # bf16 + fp32 is fp32


def between(model: Any, regional: Any) -> Dial:
    """Interpolates a base in memory to a fully trained model of the same shape; it stands at alpha = 0.

    Only tensors that differ take part. Buffers that are kept on disk count as tensors.

    Raises:
        InputError: The two differ in more than the values of their floating-point tensors.
    """
    import torch

    ours, theirs = model.state_dict(), regional.state_dict()
    if ours.keys() != theirs.keys():
        raise InputError(
            f"the models do not hold the same tensors: {', '.join(sorted(ours.keys() ^ theirs.keys())[:5])}"
        )
    seen: dict[int, torch.Tensor] = {}  # regional values by the place of ours; tied tensors share one
    turned = {}
    for name, tensor in ours.items():
        high = theirs[name]
        if tensor.shape != high.shape:
            raise InputError(f"{name}: {list(tensor.shape)} and {list(high.shape)} cannot be mixed")
        if not tensor.numel():
            continue
        if not torch.equal(seen.setdefault(tensor.data_ptr(), high), high):
            raise InputError(f"{name}: shares its values with another tensor in the base, not in the regional model")
        if torch.equal(tensor, high):
            continue
        if not tensor.is_floating_point():
            raise InputError(f"{name}: {tensor.dtype} values differ, and cannot be mixed")
        turned[tensor.data_ptr()] = (tensor, tensor.clone(), high.to(tensor))
    unequal = {place: low != high for place, (_, low, high) in turned.items() if not (low + high).isfinite().all()}

    def dial(alpha: float) -> None:
        with torch.no_grad():
            for place, (tensor, low, high) in turned.items():
                if alpha in (0, 1):
                    tensor.copy_(high if alpha else low)
                    continue
                torch.lerp(low, high, alpha, out=tensor)
                if place in unequal:  # between two infinities of one sign lies the same, not NaN
                    tensor.copy_(torch.where(unequal[place], tensor, low))

    return dial
