"""Models as a recipe trains and asks them, without values: real classes at real sizes, which take no memory.

Their tensors have shapes and types and no values, so a model of 27 billion parameters takes seconds and one gigabyte.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ggez_hub import families
from ggez_hub.families.base import Family, Loaded
from ggez_hub.rehearsal import bases
from ggez_hub.rehearsal.bases import Architecture
from ggez_hub.schema import Recipe
from ggez_hub.stages import train

if TYPE_CHECKING:
    import torch

Place = tuple[str | int, ...]
# Where configurations say how many layers of one kind there are, and how many of a deep stack are counted, and then one
# more: those that all others are just like. transformers', open_clip's, and of the UNet of Stable Diffusion XL those at
# its lowest resolution, which most of its layers are.
STACKS: dict[Place, int] = {
    ("text_config", "num_hidden_layers"): 2,
    ("vision_config", "num_hidden_layers"): 2,
    ("model_cfg", "text_cfg", "layers"): 2,
    ("model_cfg", "vision_cfg", "layers"): 2,
    ("unet", "transformer_layers_per_block", 2): 1,
}
DEEP = 4  # layers; of deeper stacks not all are counted


@dataclass
class Model:
    """A model without values, as the recipe trains it.

    Attributes:
        family: Its family.
        recipe: Says how it trains.
        loaded: As the family loads it; what reads pictures and texts gives tensors of the right shape instead.
        parts: All of its networks, by name.
        mode: In which its tensors live.
        dtype: What is computed in.
        gpu: Whether it is counted as a GPU computes.
        owned: Its tensors.
    """

    family: Family
    recipe: Recipe
    loaded: Loaded
    parts: Mapping[str, Any]
    mode: Any
    dtype: "torch.dtype"
    gpu: bool = True
    owned: list[Any] = field(default_factory=list)


def model(
    architecture: Architecture,
    recipe: Recipe,
    loss: str | None = None,
    gpu: bool = True,
    trains: bool = True,
    runs: bool = True,
) -> Model:
    """The base of a recipe as the stages have it in memory: with its LoRA, or with all of its weights.

    Args:
        architecture: Of the base.
        recipe: Says what trains, and how.
        loss: What a phase trains with; None = what the training proper does.
        gpu: Count what a GPU would do: bfloat16 unless the recipe says otherwise, and its autocast; else a CPU.
        trains: False = as the sweep has it, where all weights train: nothing is held in float32 for that.
        runs: False = only its sizes are asked for.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    family, settings = families.get(architecture.family), recipe.train
    dtype: torch.dtype = getattr(torch, (settings.dtype if trains else None) or ("bfloat16" if gpu else "float32"))
    full = settings.method == "full"
    parts = bases.built(architecture)
    for part in parts.values():
        part.requires_grad_(False)
        for parameter in part.parameters():  # before PEFT looks at their types
            parameter.data = parameter.data.to(_held(part, torch.float32 if full and trains else dtype))
    loaded = _loaded(architecture, parts)
    loss = loss or settings.loss or next(iter(family.LOSSES))
    if not full:
        main = loaded.model
        with torch.device("meta"):
            train.add_lora(family, loaded, recipe)
        parts = {name: loaded.model if part is main else part for name, part in parts.items()}
    elif trains:
        network = family.network(loaded, loss)
        network.requires_grad_(True)
        for name, parameter in network.named_parameters():
            if name.startswith(tuple(settings.freeze)):
                parameter.requires_grad_(False)
    if settings.gradient_checkpointing:
        train.checkpoint_activations(family.network(loaded, loss))
    found = Model(family, recipe, loaded, parts, FakeTensorMode(allow_non_fake_inputs=True), dtype, gpu)
    if runs:
        with found.mode:
            for part in parts.values():
                found.owned += _without_values(part)
            _readers(found, architecture)
    return found


def _loaded(architecture: Architecture, parts: Mapping[str, Any]) -> Loaded:
    from ggez_hub.merging.attention import split_attention

    main = parts["unet"] if "unet" in parts else parts["model"]
    if architecture.family == "open_clip":
        split_attention(main)
    pipe = None
    if "unet" in parts:
        from diffusers import DDPMScheduler

        scale = 2 ** (len(parts["vae"].config.block_out_channels) - 1)
        pipe = SimpleNamespace(**parts, scheduler=DDPMScheduler(), vae_scale_factor=scale)
    return Loaded(main, None, Path(architecture.id), pipe)


def _held(part: Any, dtype: "torch.dtype") -> "torch.dtype":
    """The type of a part's weights: a VAE that would overflow stays in float32, as the family loads it."""
    import torch

    config = getattr(part, "config", None)
    overflows = "Autoencoder" in type(part).__name__ and getattr(config, "force_upcast", True)
    return torch.float32 if overflows else dtype


def _without_values(part: Any) -> "list[torch.Tensor]":
    """Puts tensors that have a place, but no values, where a module on the meta device has its own."""
    import torch

    made: dict[int, torch.Tensor] = {}
    for module in part.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                    whole = isinstance(tensor, torch.nn.Parameter)
                    made[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if whole else empty
                store[name] = made[id(tensor)]
    return list(made.values())


def _readers(found: Model, architecture: Architecture) -> None:
    """Lets the family read pictures and texts of which nothing is known but their shape."""
    import torch

    loaded = found.loaded
    network = getattr(loaded.model, "get_base_model", lambda: loaded.model)()
    config = getattr(network, "config", None)
    if architecture.family == "embedding":
        vision, text = config.vision_config, config.text_config  # type: ignore[union-attr]
        pixels = (vision.num_channels, vision.image_size, vision.image_size)
        loaded.processor = _Processor(pixels, text.max_position_embeddings, next(network.parameters()).dtype)
    elif architecture.family == "open_clip":
        size = network.visual.image_size
        side = tuple(size) if isinstance(size, tuple | list) else (size, size)
        loaded.processor = SimpleNamespace(
            preprocess=lambda image: torch.zeros(3, *side),
            tokenizer=lambda texts: torch.zeros(len(texts), network.context_length, dtype=torch.long),
        )
    elif architecture.family == "diffusion":
        pipe = loaded.pipeline
        pipe.ggez_empty_text = [torch.zeros(1, *shape) for shape in text_shapes(pipe)]
    else:
        # The model's own asks for values: where in a text the picture stands.
        network.model.get_placeholder_mask = lambda *args, inputs_embeds, **rest: torch.ones(
            *inputs_embeds.shape[:2], 1, dtype=torch.bool
        )


class _Processor:
    """Reads pictures and texts as tensors of the right shape."""

    def __init__(self, pixels: tuple[int, int, int], length: int, dtype: "torch.dtype") -> None:
        self.pixels, self.length, self.dtype = pixels, length, dtype

    def __call__(self, images: Sequence[Any] = (), text: Sequence[str] = (), **how: Any) -> Any:
        import torch
        from transformers import BatchFeature

        if images:
            return BatchFeature({"pixel_values": torch.zeros(len(images), *self.pixels)})
        tokens = torch.zeros(len(text), self.length, dtype=torch.long)
        return BatchFeature({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})


def side(made: Model) -> int:
    """Pixels of a side of what a diffusion model draws."""
    pipe = made.loaded.pipeline
    return int(pipe.unet.config.sample_size * pipe.vae_scale_factor)


def at_once(rows: int, side: int) -> int:
    """How many pictures of so many pixels a side the VAE takes at once."""
    from ggez_hub.families.diffusion import VAE_PIXELS

    return min(rows, max(1, VAE_PIXELS // side**2))


def stored(made: Model) -> int:
    """How many numbers of a row are kept, where frozen parts compute them once."""
    config = made.loaded.pipeline.unet.config
    shapes = [(2, config.in_channels, config.sample_size, config.sample_size), *text_shapes(made.loaded.pipeline)]
    return sum(math.prod(shape) for shape in shapes)


def text_shapes(pipe: Any) -> list[tuple[int, ...]]:
    """Of what the UNet gets of a text."""
    length = pipe.text_encoder.config.max_position_embeddings
    shapes: list[tuple[int, ...]] = [(length, pipe.unet.config.cross_attention_dim)]
    if hasattr(pipe, "text_encoder_2"):
        shapes.append((pipe.text_encoder_2.config.projection_dim,))
    return shapes


def picture_tokens(architecture: Architecture) -> int:
    """How many tokens a language model reads of a picture; 0 in other families."""
    return int(architecture.config.get("mm_tokens_per_image", 0))


# --------------------------------------------------------------------------------------------------------------- layers
def stacks(architecture: Architecture) -> dict[Place, int]:
    """How many layers make up each deep stack of a model, by where its configuration says it."""
    found = {place: _at(architecture.config, place) for place in STACKS}
    return {place: layers for place, layers in found.items() if isinstance(layers, int) and layers > DEEP}


def left_out(architecture: Architecture) -> list[int]:
    """How many layers of each deep stack the first model of `shallow` lacks."""
    return [layers - STACKS[place] for place, layers in stacks(architecture).items()]


def shallow(architecture: Architecture, recipe: Recipe, loss: str | None = None, trains: bool = True) -> list[Model]:
    """The base with few layers in its deep stacks, and for each of them the same with one more in that one.

    What a model takes follows from that (`counting.extended`): all layers of a stack take as much. One that is not
    deep is the only one of the list.
    """
    few = {place: STACKS[place] for place in stacks(architecture)}
    variants = [few, *(few | {place: layers + 1} for place, layers in few.items())]
    return [model(with_layers(architecture, layers), recipe, loss, trains=trains) for layers in variants]


def with_layers(architecture: Architecture, layers: Mapping[Place, int]) -> Architecture:
    """The same with other numbers of layers."""
    config = copy.deepcopy(dict(architecture.config))
    for place, count in layers.items():
        _at(config, place[:-1])[place[-1]] = count
        _at(config, place[:-1] if isinstance(place[-1], str) else place[:-2]).pop("layer_types", None)  # one for each
    return replace(architecture, config=config)


def _at(config: Any, place: Place) -> Any:
    """What stands at a place of a configuration; None where there is no such place."""
    for key in place:
        named = isinstance(config, Mapping) and key in config
        listed = isinstance(config, list | tuple) and isinstance(key, int) and key < len(config)
        if not (named or listed):
            return None
        config = config[key]
    return config


# ---------------------------------------------------------------------------------------------------------------- sizes
def parameters(network: Any, trained: bool = False) -> int:
    """How many parameters a network has, or trains."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trained)


def base_parameters(network: Any) -> int:
    """How many parameters a network has without those of a LoRA."""
    return sum(p.numel() for name, p in network.named_parameters() if "lora_" not in name)


def size(network: Any, trained: bool | None = None) -> int:
    """Bytes of a network's parameters; `trained`: of those that train, or of the others."""
    return sum(p.numel() * p.element_size() for p in network.parameters() if trained in (None, p.requires_grad))


def gathered(network: Any) -> int:
    """Bytes that every process of a sharded training holds at once: what lies in no layer, and two layers."""
    import torch

    layers = [
        layer
        for module in network.modules()
        if isinstance(module, torch.nn.ModuleList)
        for layer in module
        if any(True for _ in layer.parameters())
    ]
    inner = {id(p) for layer in layers for p in layer.parameters()}
    rest = sum(p.numel() * p.element_size() for p in network.parameters() if id(p) not in inner)
    return int(rest + 2 * max((size(layer) for layer in layers), default=0))
