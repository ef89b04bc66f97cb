"""Turning alpha on a model in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ggez_hub.errors import InputError
from ggez_hub.families.base import Loaded
from ggez_hub.merging import checkpoints
from ggez_hub.method import interpolate

Dial = Callable[[float], None]  # sets alpha


def attach_adapter(loaded: Loaded, folder: Path, name: str = "regional") -> Dial:
    """Puts a LoRA adapter on a base in memory; it stands at alpha = 1.

    Scaling a LoRA is the linear merge, exactly: theta(alpha) = base + alpha * s * BA (paper, section 4.2).

    Raises:
        InputError: The adapter is damaged, or made for another base.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.tuners.lora import LoraLayer

    _, parts = checkpoints.read_adapter(folder)
    try:
        loaded.model = PeftModel.from_pretrained(loaded.model, folder, adapter_name=name).eval()
    except (RuntimeError, ValueError) as err:
        if not ("size mismatch" in str(err) or "target modules" in str(err).lower()):
            raise
        raise InputError(f"{folder}: the adapter does not fit the base {loaded.folder}: {err}") from err
    # PEFT is silent about tensors that find no place, and leaves layers without tensors at random.
    placed = get_peft_model_state_dict(loaded.model, adapter_name=name, save_embedding_layers=False)
    if orphans := sorted(parts.keys() ^ placed.keys()):
        raise InputError(
            f"{folder}: the adapter does not fit the base {loaded.folder}: {len(orphans)} tensors are only in one of "
            f"them: {', '.join(orphans[:5])}"
        )
    layers = [module for module in loaded.model.modules() if isinstance(module, LoraLayer)]

    def dial(alpha: float) -> None:
        for layer in layers:
            layer.set_scale(name, alpha)

    return dial


def between(loaded: Loaded, regional: Any) -> Dial:
    """Interpolates a base in memory to a fully trained model of the same shape; it stands at alpha = 0."""
    import torch

    parameters = dict(loaded.model.named_parameters())
    base = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    other = {name: parameter.detach() for name, parameter in regional.named_parameters()}

    def dial(alpha: float) -> None:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(interpolate(base[name], other[name], alpha))

    return dial
