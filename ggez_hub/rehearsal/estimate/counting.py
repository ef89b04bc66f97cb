"""What a training step, or answering a batch, takes in memory and arithmetic: counted on the real classes.

Everything runs as it does in training: the family's own losses, PEFT's layers, the autocast of a GPU, the recomputing
of gradient checkpointing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ggez_hub.rehearsal.estimate.counter import Cost, counted
from ggez_hub.rehearsal.estimate.models import Model, at_once, side, text_shapes

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Shape:
    """How long a row is.

    Attributes:
        picture: Tokens of its picture that a language model reads; of other families 0.
        prompt: Tokens of text that are read and not learned.
        answer: Tokens that are learned.
    """

    picture: int = 0
    prompt: int = 0
    answer: int = 0


def step(made: Model, rows: int, shape: Shape = Shape(), loss: str | None = None, whole: int | None = None) -> Cost:
    """Counts a part of a training step, forward and backward.

    Args:
        made: The model.
        rows: In memory at once.
        shape: How long they are.
        loss: None = that of the training proper.
        whole: Of the families that match pictures with texts: the rows of the step, which one part holds.
    """
    import torch

    loss = loss or made.recipe.train.loss or next(iter(made.family.LOSSES))
    network = made.family.network(made.loaded, loss)
    network.train()
    with made.mode:
        kept = [p for p in network.parameters() if p.requires_grad]
        for parameter in kept:
            parameter.grad = torch.empty_like(parameter)
        if made.loaded.pipeline:
            part = made.family.losses(made.loaded, _diffused(made, rows, loss), rows, loss)[0]
        elif "answers" in made.family.LOSSES:
            part = _answering(made, rows, shape)
        else:
            named = [{"image": None, "text": str(i), "label": str(i)} for i in range(whole or rows)]
            part = made.family.losses(made.loaded, named, rows, loss)[0]

        def call() -> None:
            with torch.autocast("cpu", made.dtype, enabled=made.dtype != torch.float32):
                found = part().float()
            # What Tensor.backward calls; by its front door `_as_on_gpu` would not see what is recomputed.
            grads = (torch.ones_like(found),)
            torch.autograd.graph._engine_run_backward(
                (found,), grads, False, False, (), allow_unreachable=True, accumulate_grad=True
            )

        cost = counted(call, [*made.owned, *(p.grad for p in kept if p.grad is not None)], made.gpu)
        for parameter in kept:
            parameter.grad = None
    return cost


def _diffused(made: Model, rows: int, loss: str) -> list[dict[str, Any]]:
    """Rows as `prepare` of diffusion makes them; or pictures."""
    from PIL import Image

    pipe, config = made.loaded.pipeline, made.loaded.pipeline.unet.config
    if loss == "reconstruct":
        return [{"image": Image.new("RGB", (8, 8))}] * rows
    import torch

    size = 4 if next(pipe.unet.parameters()).dtype == torch.float32 else 2
    shapes = [(2, config.in_channels, config.sample_size, config.sample_size), *text_shapes(pipe)]
    row: dict[str, Any] = {}
    for name, shape in zip(("latents", "text", "pooled"), shapes, strict=False):
        row[name] = bytes(math.prod(shape) * size)
    return [row | {"time_ids": [0] * 6}] * rows


def _answering(made: Model, rows: int, shape: Shape) -> "Callable[[], torch.Tensor]":
    """What the loss of conversations does with a part, of which it needs to know how many tokens are learned."""
    import torch

    inputs = _read(made, rows, shape)

    def part() -> "torch.Tensor":
        logits = made.loaded.model(**inputs, logits_to_keep=shape.answer + 1, use_cache=False).logits
        logits = logits[:, -shape.answer - 1 : -1]
        chosen = logits.flatten(0, 1)[torch.arange(rows * shape.answer)].float()
        return torch.nn.functional.cross_entropy(
            chosen, torch.zeros(rows * shape.answer, dtype=torch.long), reduction="sum"
        )

    return part


def _read(made: Model, rows: int, shape: Shape) -> dict[str, Any]:
    """The inputs of a language model that sees pictures."""
    import torch

    network = getattr(made.loaded.model, "get_base_model", lambda: made.loaded.model)()
    length = shape.picture + shape.prompt + shape.answer
    inputs = {
        "input_ids": torch.zeros(rows, length, dtype=torch.long),
        "attention_mask": torch.ones(rows, length, dtype=torch.long),
    }
    side = network.config.vision_config.image_size
    inputs["pixel_values"] = torch.zeros(rows, 3, side, side, dtype=next(network.parameters()).dtype)
    inputs["token_type_ids"] = torch.zeros(rows, length, dtype=torch.long)
    return inputs


def extended(costs: Sequence[Cost], left_out: Sequence[int]) -> Cost:
    """What a deep model takes, given what those of `models.shallow` do, and how many layers these lack."""
    few, *others = costs

    def at(name: str) -> int:
        layer = [int(getattr(one, name)) - int(getattr(few, name)) for one in others]
        return int(getattr(few, name)) + sum(n * each for n, each in zip(left_out, layer, strict=True))

    # What one stack holds for a moment may be the most of few layers, and not of many.
    moment = max(cost.peak - cost.saved for cost in costs)
    return Cost(at("saved"), max(at("peak"), at("saved") + moment), at("flops"))


def answers(made: Model, rows: int, shape: Shape = Shape()) -> dict[str, Cost]:
    """Counts what a sweep does with a batch, by its passes.

    Returns:
        Of the families that match: ``pictures`` and ``texts``; of vision-language ``questions``, up to the first token
        that is written; of diffusion ``step``, one of the UNet with and without the prompts, and ``decode``, of the
        pictures that the VAE takes at once.
    """
    import torch

    network = made.loaded.model
    network.eval()
    with made.mode, torch.no_grad():
        if pipe := made.loaded.pipeline:
            return _drawing(made, pipe, rows)
        if "answers" in made.family.LOSSES:
            inputs = _read(made, rows, shape)
            return {
                "questions": counted(lambda: network(**inputs, logits_to_keep=1, use_cache=True), made.owned, made.gpu)
            }
        encoders = made.family.embedder(made.loaded).encoders  # type: ignore[attr-defined]
        items = {"pictures": [None] * rows, "texts": [""] * rows}
        return {
            name: counted(lambda encode=encode, part=part: encode(made.loaded, part), made.owned, made.gpu)  # type: ignore[misc]
            for encode, (name, part) in zip(encoders, items.items(), strict=True)
        }


def _drawing(made: Model, pipe: Any, rows: int) -> dict[str, Cost]:
    import torch

    config, dtype = pipe.unet.config, next(pipe.unet.parameters()).dtype
    texts = [torch.zeros(2 * rows, *shape, dtype=dtype) for shape in text_shapes(pipe)]
    latents = torch.zeros(2 * rows, config.in_channels, config.sample_size, config.sample_size, dtype=dtype)
    added = {"text_embeds": texts[1], "time_ids": torch.zeros(2 * rows, 6)} if len(texts) > 1 else None
    drawn = torch.zeros(at_once(rows, side(made)), *latents.shape[1:], dtype=next(pipe.vae.parameters()).dtype)
    return {
        "step": counted(
            lambda: made.loaded.model(latents, torch.zeros(()), texts[0], added_cond_kwargs=added), made.owned, made.gpu
        ),
        "decode": counted(lambda: pipe.vae.decode(drawn), made.owned, made.gpu),
    }


def encoding(made: Model, rows: int) -> Cost:
    """Counts what the VAE takes to encode so many pictures before the training."""
    import torch

    pipe, edge = made.loaded.pipeline, side(made)
    rows = at_once(rows, edge)
    with made.mode, torch.no_grad():
        pixels = torch.zeros(rows, 3, edge, edge, dtype=next(pipe.vae.parameters()).dtype)
        return counted(lambda: pipe.vae.encode(pixels).latent_dist.std, made.owned, made.gpu)
