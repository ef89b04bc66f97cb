"""LoRA adapters in PEFT's format, as files: which tensor each pair of low-rank factors changes, and by how much."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.errors import InputError
from ggez_hub.hub import read_json
from ggez_hub.merging.tensors import Entry, header, match, read, some

if TYPE_CHECKING:
    import torch

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
# What may stand in an adapter that is W + scale * B A on its base: any other key makes it more, unless it says nothing.
PLAIN = ("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision",
         "inference_mode", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_bias",
         "lora_dropout", "init_lora_weights", "eva_config", "target_modules", "exclude_modules", "layers_to_transform",
         "layers_pattern", "ensure_weight_tying")  # fmt: skip
DEFAULTS = (("megatron_core", "megatron.core"), ("qalora_group_size", 16))  # of PEFT, of what is not used
MAX_SCALE = 1e6  # lora_alpha; what is far above the usual 16 only makes numbers that overflow
MAX_PATTERN = 100_000  # characters
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
        """`up` [rows of the weight, r] and `down` [r, columns], in fp32. Raises InputError for NaN and infinity."""
        down, up = read(self.down).float().flatten(1), read(self.up).float().flatten(1)
        if not (down.isfinite().all() and up.isfinite().all()):
            raise InputError(f"{self.up.file}: a factor of {self.up} holds NaN or infinity", "fetch or write it again")
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
    config = read_config(folder)
    packed = _packed(config)
    scale_of = _scales(config, folder)
    found: dict[str, dict[str, Entry]] = {}
    strange = []
    for name, entry in header(file).items():
        part = next((part for part in PARTS if name.endswith(f".{part}")), None)
        if part is None or not entry.is_floating:
            strange.append(name)
        else:
            module = name.removesuffix(f".{part}").removeprefix("base_model.model.")
            if f".{module}.in_proj_weight".endswith(tuple(f".{parameter}" for parameter in packed)):
                module += ".in_proj"
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
        layers[module] = LowRank(scale_of(module, parts["down"]), **parts, is_embedding=is_embedding)
    if strange or not layers:
        raise InputError(
            f"{file}: tensors that make no LoRA: {some(strange) or 'none at all'}",
            "expected PEFT's format, saved with save_embedding_layers=False",
        )
    return layers


def read_config(folder: Path) -> dict[str, Any]:
    """What adapter_config.json says of a LoRA.

    Raises:
        InputError: Not a LoRA whose scaling is the linear merge.
    """
    file = folder / CONFIG
    config = read_json(file)
    if not isinstance(config, dict):
        raise InputError(f"{file}: expected a mapping of keys")
    if config.get("peft_type") != "LORA":
        raise InputError(f"{file}: not a LoRA, but {config.get('peft_type')}")
    nothing: tuple[Any, ...] = (None, False, "", "none", {}, [])
    known = {*PLAIN, *(["target_parameters"] if _packed(config) == config.get("target_parameters") else [])}
    beyond = [key for key, value in config.items()
              if key not in known and value not in nothing and (key, value) not in DEFAULTS]  # fmt: skip
    if (start := config.get("init_lora_weights")) and str(start).startswith(BASE_CHANGING):
        beyond.append(f"init_lora_weights={start}")
    if beyond:
        raise InputError(f"{file}: not a plain LoRA ({some(beyond)})", "scaling it is not the linear merge")
    return config


def _packed(config: Mapping[str, Any]) -> list[str]:
    """Of parameters only the packed projection of torch's attention, the layer `in_proj` of `split_attention`."""
    named = config.get("target_parameters")
    return [n for n in named if str(n).endswith("in_proj_weight")] if isinstance(named, list) else []


def fits(pattern: str) -> Callable[[str], bool]:
    """Whether a stranger's regular expression matches a whole name; in time linear in the name, unlike Python's own.

    Raises:
        InputError: Not a regular expression, or one that is too large or needs looking back.
    """
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    try:
        if len(pattern) > MAX_PATTERN:
            raise InputError(f"a pattern of {len(pattern)} characters, expected {MAX_PATTERN} at most")
        return SchemaValidator(core_schema.str_schema(pattern=rf"\A(?:{pattern})\z")).isinstance_python
    except SchemaError as err:
        raise InputError(f"not a regular expression without looking back: {pattern}") from err


def targeted(config: Mapping[str, Any], folder: Path) -> Callable[[str], bool]:
    """Whether an adapter says that it changes a module, given the module's name, as PEFT understands it."""

    def named(key: str) -> Callable[[str], bool]:
        given = config.get(key)
        if isinstance(given, str):
            return fits(given)
        names = frozenset(given or ())
        return lambda name: any(end in names for end in _ends(name))

    try:
        inside, outside = named("target_modules"), named("exclude_modules")
    except (InputError, TypeError) as err:
        raise InputError(f"{folder / CONFIG}: target_modules or exclude_modules: {err}") from err
    whole = config.get("layers_to_transform") is None  # or it means some of these alone
    return lambda name: whole and inside(name) and not outside(name)


def _ends(name: str) -> list[str]:
    """``a.b.c``, ``b.c`` and ``c``."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


def _scales(config: Mapping[str, Any], folder: Path) -> Callable[[str, Entry], float]:
    """What gives lora_alpha / r of a layer, or lora_alpha / sqrt(r), given its module and its `down`."""
    file = folder / CONFIG
    patterns: dict[str, list[tuple[Callable[[str], bool], Any]]] = {}
    for key in ("rank_pattern", "alpha_pattern"):
        given = config.get(key) or {}
        if not isinstance(given, dict) or sum(map(len, given)) > MAX_PATTERN * 10:
            raise InputError(f"{file}: {key} is no mapping of patterns, or too large a one")
        try:
            patterns[key] = [(fits(rf"(?:.*\.)?(?:{pattern})"), value) for pattern, value in given.items()]
        except InputError as err:
            raise InputError(f"{file}: {key}: {err.message}") from err

    def scale(module: str, down: Entry) -> float:
        r, lora_alpha = (
            next((value for matches, value in patterns[pattern] if matches(module)), config.get(whole))
            for pattern, whole in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha"))
        )
        if not (isinstance(r, int) and r > 0 and isinstance(lora_alpha, int | float) and abs(lora_alpha) <= MAX_SCALE):
            raise InputError(f"{file}: r {r} and lora_alpha {lora_alpha} for {module}")
        if down.shape[:1] != (r,):
            raise InputError(f"{folder}: {module} has rank {down.shape[:1]}, {CONFIG} says {r}")
        return float(lora_alpha / (math.sqrt(r) if config.get("use_rslora") else r))

    return scale


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
