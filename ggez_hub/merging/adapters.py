"""LoRA adapters in PEFT's format, as files: which tensor each pair of low-rank factors changes, and by how much."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.errors import InputError
from ggez_hub.merging.tensors import Entry, header, match, read, some
from ggez_hub.runs import read_json

if TYPE_CHECKING:
    import torch

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
# What makes an adapter more than W + scale * B A on its base.
BEYOND = ("use_dora", "modules_to_save", "bias", "fan_in_fan_out", "target_parameters", "layer_replication",
          "trainable_token_indices", "use_qalora", "use_bdlora", "velora_config", "monteclora_config",
          "alora_invocation_tokens", "arrow_config", "kasa_config")  # fmt: skip
BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")  # they start by taking a part out of the base
PARTS = {"lora_A.weight": "down", "lora_B.weight": "up", "lora_B.bias": "bias",
         "lora_embedding_A": "embedding_down", "lora_embedding_B": "embedding_up"}  # fmt: skip


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to one layer: ``scale * up @ down``, and ``scale * bias`` to the layer's bias."""

    scale: float  # at alpha = 1
    down: Entry  # [r, inputs...]; of an embedding [r, tokens]
    up: Entry  # [outputs, r, 1...]; of an embedding [width, r]
    bias: Entry | None = None
    is_embedding: bool = False

    @property
    def rank(self) -> int:
        """The number of rows of `down`."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight that it changes."""
        return self.down.shape[1:] + self.up.shape[:1] if self.is_embedding else self.up.shape[:1] + self.down.shape[1:]

    def parts(self) -> dict[str, Entry]:
        """Its tensors, by what follows the module in PEFT's names."""
        a, b = ("lora_embedding_A", "lora_embedding_B") if self.is_embedding else ("lora_A.weight", "lora_B.weight")
        return {a: self.down, b: self.up} | ({"lora_B.bias": self.bias} if self.bias else {})

    def factors(self) -> "tuple[torch.Tensor, torch.Tensor]":
        """`up` [rows of the weight, r] and `down` [r, columns], in fp32."""
        down, up = read(self.down).float().flatten(1), read(self.up).float().flatten(1)
        return (down.T.contiguous(), up.T.contiguous()) if self.is_embedding else (up, down)


def read_adapter(folder: Path) -> dict[str, LowRank]:
    """The layers of a LoRA in PEFT's format, by the name of the module in memory.

    Ranks and scales of single layers (`rank_pattern`, `alpha_pattern`), rsLoRA, biases (`lora_bias`), convolutions and
    embeddings are understood.

    Raises:
        InputError: Not a LoRA whose scaling is the linear merge, or damaged.
    """
    file = folder / WEIGHTS
    if not file.is_file():
        raise InputError(f"{folder}: no {file.name}", "pickled adapters are never loaded")
    config = read_json(folder / CONFIG)
    config = config if isinstance(config, dict) else {}
    if config.get("peft_type") != "LORA":
        raise InputError(f"{folder}: not a LoRA, but {config.get('peft_type')}")
    beyond = [key for key in BEYOND if config.get(key) not in (None, False, "none", {}, [])]
    if (start := config.get("init_lora_weights")) and str(start).startswith(BASE_CHANGING):
        beyond.append(f"init_lora_weights={start}")
    if beyond:
        raise InputError(f"{folder}: not a plain LoRA ({', '.join(beyond)})", "scaling it is not the linear merge")
    found: dict[str, dict[str, Entry]] = {}
    strange = []
    for name, entry in header(file).items():
        part = next((part for part in PARTS if name.endswith(f".{part}")), None)
        if part is None or not entry.is_floating:
            strange.append(name)
        else:
            module = name.removesuffix(f".{part}").removeprefix("base_model.model.")
            found.setdefault(module, {})[PARTS[part]] = entry
    layers = {}
    for module, parts in found.items():
        is_embedding = parts.keys() == {"embedding_down", "embedding_up"}
        if is_embedding:
            parts = {key.removeprefix("embedding_"): entry for key, entry in parts.items()}
        if not {"down", "up"} <= parts.keys():
            strange += [f"{module}: {' and '.join(parts)} alone"]
            continue
        if min(len(parts["down"].shape), len(parts["up"].shape)) < 2:
            strange += [f"{module}: factors of {parts['down']} and {parts['up']}"]
            continue
        layers[module] = LowRank(_scale(config, module, parts["down"], folder), **parts, is_embedding=is_embedding)
    if strange or not layers:
        raise InputError(
            f"{file}: tensors that make no LoRA: {some(strange) or 'none at all'}",
            "expected PEFT's format, saved with save_embedding_layers=False",
        )
    return layers


def _scale(config: dict[str, Any], module: str, down: Entry, folder: Path) -> float:
    """lora_alpha / r of a layer, or lora_alpha / sqrt(r)."""
    try:
        r, lora_alpha = (
            next((value for key, value in (config.get(pattern) or {}).items() if re.match(rf"(.*\.)?({key})$", module)),
                 config.get(whole))
            for pattern, whole in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha"))
        )  # fmt: skip
    except (AttributeError, re.error) as err:
        raise InputError(f"{folder}: {CONFIG} has a rank_pattern or alpha_pattern of no use: {err}") from err
    if not (isinstance(r, int) and r > 0 and isinstance(lora_alpha, int | float) and math.isfinite(lora_alpha)):
        raise InputError(f"{folder}: {CONFIG} has r {r} and lora_alpha {lora_alpha} for {module}")
    if down.shape[:1] != (r,):
        raise InputError(f"{folder}: {module} has rank {down.shape[:1]}, {CONFIG} says {r}")
    return float(lora_alpha / (math.sqrt(r) if config.get("use_rslora") else r))


def place(
    layers: Mapping[str, LowRank], known: Mapping[str, tuple[int, ...]], adapter: Path, base: Any
) -> dict[str, LowRank]:
    """Finds the tensors of a base that an adapter changes.

    Args:
        layers: From read_adapter.
        known: Shapes of the base's tensors by name, on disk or in memory.
        adapter: For messages.
        base: For messages.

    Returns:
        By the base's own name of the weight; the entry's `bias`, if any, belongs to the bias beside it.

    Raises:
        InputError: A layer finds no tensor, or one of another shape; twenty are listed.
    """
    wanted = [f"{module}.weight" for module in layers]
    wanted += [f"{module}.bias" for module, layer in layers.items() if layer.bias]
    found = match(wanted, known)
    wrong = [f"{name}: no such tensor" for name in found.ours_alone]
    for name, target in found.pairs.items():
        module, _, kind = name.rpartition(".")
        shape = layers[module].shape if kind == "weight" else layers[module].bias.shape  # type: ignore[union-attr]
        rank = layers[module].rank
        up = layers[module].up.shape
        if known[target] != shape or math.prod(up) != up[0] * rank:
            wrong.append(f"{name}: {list(known[target])} in the base, {list(shape)} of rank {rank} in the adapter")
    if wrong:
        raise InputError(
            f"{adapter}: does not fit the base {base}: {len(wrong)} tensors find no place: {'; '.join(wrong[:20])}",
            "the adapter belongs to another base",
        )
    return {
        target: layers[name.removesuffix(".weight")] for name, target in found.pairs.items() if name.endswith(".weight")
    }
