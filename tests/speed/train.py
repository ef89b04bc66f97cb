"""Training steps a second against the plain recipe: transformers' Trainer with PEFT, diffusers' procedure for SDXL.

python tests/speed/train.py [--threads 1]       random weights; about ten minutes

Both sides train the same LoRA on the same rows in the same micro batches. Loading is not counted: the time of a short
training is taken off that of a longer one.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import torch

from ggez_hub import families, recipes, registry
from ggez_hub.data.images import decode
from ggez_hub.families.base import Loaded
from ggez_hub.pipeline import execute
from ggez_hub.runs import Run
from ggez_hub.stages import train

SHORT, ROUNDS = 2, 3
CPU = not torch.cuda.is_available()
RECIPE = """\
title: Speed
family: {family}
region: sea
base: {{id: base-{name}}}
data: {{reader: {reader}, options: {{train: 8}}, synthetic: true}}
train:
  steps: 2
  batch_size: {batch}
  micro_batch_size: {micro}
  learning_rate: 1e-4
  lora: {{r: 16}}
sweep: {{global: [pocket-core-{benchmark}], regional: [pocket-regional-{benchmark}]}}
"""
SIZES: dict[str, dict[str, Any]] = {
    "vlm tiny": {"batch": 64, "micro": 16, "steps": 10,
                 "sizes": {"hidden": 128, "layers": 3, "heads": 4, "kv_heads": 2, "ffn": 320, "vocabulary": 1500,
                           "image": 48, "patch": 6, "vision_hidden": 128, "vision_layers": 3, "image_tokens": 16}},
    "vlm mid-size": {"batch": 8, "micro": 4, "steps": 6,
                     "sizes": {"hidden": 768, "layers": 8, "heads": 8, "kv_heads": 4, "ffn": 3072, "vocabulary": 1500,
                               "image": 112, "patch": 14, "vision_hidden": 384, "vision_layers": 8,
                               "image_tokens": 16}},
    "diffusion tiny": {"batch": 48, "micro": 48, "steps": 22,
                       "sizes": {"image": 32, "vae": 16, "latents": 8, "unet": 32, "heads": 4, "groups": 8,
                                 "text_hidden": 48, "length": 16, "vocabulary": 900}},
    "diffusion mid-size": {"batch": 8, "micro": 8, "steps": 8,
                           "sizes": {"image": 64, "vae": 64, "unet": 128, "heads": 8, "groups": 32,
                                     "text_hidden": 512, "text_layers": 8, "length": 77, "vocabulary": 1500}},
}  # fmt: skip


def filtered(name: str) -> tuple[Any, Run]:
    """A recipe on a base of that size in the present folder, with its rows; and its run folder."""
    settings, family = SIZES[name], name.split()[0]
    stem = name.replace(" ", "-")
    texts = ["a drawing of nasi lemak", "a picture that shows wau bulan", "Which country is this from?"]
    families.get(family).write_tiny(Path(f"base-{stem}"), texts, **settings["sizes"])
    reader, benchmark = ("pocket_questions", "question") if family == "vlm" else ("pocket", "drawing")
    Path("recipes").mkdir(exist_ok=True)
    Path(f"recipes/{stem}.yaml").write_text(
        RECIPE.format(family=family, name=stem, reader=reader, benchmark=benchmark, **settings)
    )
    recipe, run = recipes.load_recipe(stem), Run(Path("runs") / stem)
    for _ in execute(recipe, run, "filter"):
        pass
    return recipe, run


def ours(name: str, run: Run, steps: int) -> None:
    """The stage as it runs for everybody."""
    stem = name.replace(" ", "-")
    recipe = recipes.load_recipe(stem, registry.parse_overrides([f"train.steps={steps}"]))
    with tempfile.TemporaryDirectory(dir=".") as folder:
        train.run(recipe, run, Path(folder))


def with_lora(recipe: Any, targets: str) -> Loaded:
    """The base with a fresh LoRA, as a user would put it there."""
    from peft import LoraConfig, get_peft_model

    loaded = families.get(recipe.family).load(Path(recipe.base.id))
    loaded.model = get_peft_model(loaded.model, LoraConfig(r=16, lora_alpha=16, target_modules=targets))
    return loaded


def trainer(recipe: Any, run: Run, steps: int) -> None:
    """transformers' Trainer and PEFT, with a collator that tokenises chats and masks all but the answers."""
    import datasets
    from transformers import Trainer, TrainingArguments

    loaded = with_lora(recipe, families.get("vlm").lora_targets())
    processor = loaded.processor
    rows = datasets.Dataset.from_parquet(str(run.stage("filter") / "examples.parquet"), cache_dir="cache")

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        chats, prompts = [], []
        for row in batch:
            user, assistant = (turn["content"].replace("<image>", "") for turn in row["messages"])
            asked = [{"type": "image"}, {"type": "text", "text": user}]
            answered = [{"type": "text", "text": assistant}]
            chat = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
            chats.append(processor.apply_chat_template(chat))
            prompts.append(processor.apply_chat_template(chat[:1], add_generation_prompt=True))
        images = [[decode(row["image"]["bytes"])] for row in batch]
        made = {"images": images, "padding": True, "padding_side": "right", "return_tensors": "pt"}
        inputs = processor(text=chats, add_special_tokens=False, **made)
        before = processor(text=prompts, add_special_tokens=False, **made)["attention_mask"].sum(dim=1)
        labels = inputs["input_ids"].clone()
        places = torch.arange(labels.shape[1])
        labels[(places < before[:, None]) | (inputs["attention_mask"] == 0)] = -100
        return {**inputs, "labels": labels}

    settings = recipe.train
    arguments = TrainingArguments(
        output_dir="trainer", max_steps=steps, per_device_train_batch_size=settings.micro_batch_size, use_cpu=CPU,
        gradient_accumulation_steps=settings.batch_size // settings.micro_batch_size, learning_rate=1e-4,
        lr_scheduler_type="linear", save_strategy="no", report_to=[], remove_unused_columns=False, disable_tqdm=True,
        logging_strategy="no", bf16=not CPU,
    )  # fmt: skip
    Trainer(loaded.model, arguments, data_collator=collate, train_dataset=rows).train()


def procedure(recipe: Any, run: Run, steps: int) -> None:
    """What diffusers' example for a LoRA on SDXL does in a step: encode pictures and prompts, add noise, learn."""
    import datasets
    from torch.nn.functional import mse_loss
    from torchvision import transforms

    loaded = with_lora(recipe, families.get("diffusion").lora_targets())
    pipe, unet = loaded.pipeline, loaded.model
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    look = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side), transforms.ToTensor(),
                               transforms.Normalize([0.5], [0.5])])  # fmt: skip
    rows = datasets.Dataset.from_parquet(str(run.stage("filter") / "examples.parquet"), cache_dir="cache")

    def collate(batch: list[dict[str, Any]]) -> tuple[torch.Tensor, list[str]]:
        return torch.stack([look(decode(row["image"]["bytes"])) for row in batch]), [row["text"] for row in batch]

    loader = torch.utils.data.DataLoader(
        rows, recipe.train.batch_size, shuffle=True, collate_fn=collate, drop_last=True
    )
    optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=1e-4)
    device = unet.device
    times = torch.tensor([[side, side, 0, 0, side, side]], device=device)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=not CPU)
    unet.train()
    done = 0
    while done < steps:
        for pixels, texts in loader:
            with torch.no_grad():
                latents = pipe.vae.encode(pixels.to(device)).latent_dist.sample() * pipe.vae.config.scaling_factor
                embeds, _, pooled, _ = pipe.encode_prompt(
                    texts, num_images_per_prompt=1, do_classifier_free_guidance=False
                )
            noise, t = torch.randn_like(latents), torch.randint(0, 1000, (len(latents),), device=device)
            added = {"text_embeds": pooled, "time_ids": times.expand(len(latents), -1)}
            with precision:
                found = unet(pipe.scheduler.add_noise(latents, noise, t), t, embeds, added_cond_kwargs=added).sample
                loss = mse_loss(found, pipe.scheduler.get_velocity(latents, noise, t))
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for p in unet.parameters() if p.requires_grad], 1.0)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            if done == steps:
                return


def step(way: Callable[[int], None], steps: int) -> float:
    """Seconds of a step, without what comes before the first."""
    taken = []
    for count in (SHORT, steps):
        started = time.perf_counter()
        way(count)
        taken.append(time.perf_counter() - started)
    return (taken[1] - taken[0]) / (steps - SHORT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        for name, settings in SIZES.items():
            recipe, run = filtered(name)
            plain = trainer if name.startswith("vlm") else procedure
            ways = {"ours": partial(ours, name, run), "plain": partial(plain, recipe, run)}
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(ROUNDS):
                for way, call in ways.items():
                    times[way].append(step(call, settings["steps"]))
            ours_, plain_ = (statistics.median(times[way]) for way in ways)
            size = sum(p.numel() for p in families.get(recipe.family).load(Path(recipe.base.id)).model.parameters())
            rows.append(
                {
                    "measure": f"training steps a second, {name} ({size / 1e6:.1f} M), batch {settings['batch']}, "
                    f"against {'Trainer + PEFT' if plain is trainer else 'the procedure of diffusers'}",
                    "goal": "0.95x" if plain is trainer else "1.5x",
                    "value": f"{plain_ / ours_:.2f}x",
                    "note": f"{1 / ours_:.2f} against {1 / plain_:.2f} steps a second",
                }
            )
    common.report("train", rows)


if __name__ == "__main__":
    main()
