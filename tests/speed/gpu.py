"""The GPU path: training steps, turns of alpha and a batch with an alpha of its own for every row, at real shapes.

python tests/speed/gpu.py              Gemma 3 4B and SDXL's UNet, random weights, on the GPU at hand; 40 GB of disk
python tests/speed/gpu.py --tiny       the same procedure on tiny models, on whatever is there: says nothing of speed

Training goes against transformers' Trainer or diffusers' procedure with PEFT, in the same run, on the same rows. Beside
the memory that was used stands the estimate of ggez_hub.rehearsal. Only what ran on a GPU at real shapes is kept in
results.json; the rest is printed.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import torch
import train as training

from ggez_hub import device as devices
from ggez_hub import families
from ggez_hub.families.base import Loaded, Query
from ggez_hub.merging import live
from ggez_hub.rehearsal import bases, estimate
from ggez_hub.rehearsal.estimate import models
from ggez_hub.runs import Run

STEPS, TURNS = 6, 50
ALPHAS = (0.0, 0.25, 0.5, 1.0)
REAL = {"vlm": "google/gemma-3-4b-it", "diffusion": "stabilityai/stable-diffusion-xl-base-1.0"}
BATCHES = {"vlm": (8, 2), "diffusion": (8, 2)}  # rows of a step, and in memory at once
GB = 1e9


def prepared(family: str, tiny: bool) -> tuple[Any, Run, str]:
    """A base with random weights in the present folder, a recipe on it, and its rows; and what to call it."""
    name = f"{family} {'tiny shape' if tiny else 'real shape'}"
    batch, micro = BATCHES[family]
    training.SIZES[name] = {"batch": batch, "micro": micro, "sizes": {}}
    recipe, run = training.filtered(name)  # which writes a tiny base
    folder = Path(recipe.base.id)
    random_base(family, folder, bases.find(str(folder), family) if tiny else bases.known()[REAL[family]])
    return recipe, run, name


def random_base(family: str, folder: Path, architecture: bases.Architecture) -> None:
    """Puts networks of an architecture, with random weights, in the place of those of a tiny model.

    Tokenizers stay, so pictures and texts become as many tokens as they would, of fewer kinds.
    """
    parts = bases.built(architecture)
    if family == "diffusion":
        for name, part in parts.items():
            shutil.rmtree(folder / name)
            random_weights(part).save_pretrained(folder / name)
        length = parts["text_encoder"].config.max_position_embeddings
        for name in ("tokenizer", "tokenizer_2"):
            changed(folder / name / "tokenizer_config.json", model_max_length=length)
        return
    tiny = families.get(family).load(folder, torch.device("cpu"))
    config, vision = parts["model"].config, parts["model"].config.vision_config
    for key in ("image_token_index", "image_token_id", "boi_token_index", "eoi_token_index"):
        if hasattr(tiny.model.config, key):
            setattr(config, key, getattr(tiny.model.config, key))
    network = random_weights(parts["model"])
    network.generation_config = tiny.model.generation_config
    network.save_pretrained(folder)
    processor = type(tiny.processor)(
        type(tiny.processor.image_processor)(size={"height": vision.image_size, "width": vision.image_size}),
        tiny.processor.tokenizer,
        tiny.processor.chat_template,
        config.mm_tokens_per_image,
    )
    processor.save_pretrained(folder)


def changed(file: Path, **values: Any) -> None:
    """Changes keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def random_weights(network: Any) -> Any:
    """The network with small random numbers in bfloat16, in place of none."""
    network = network.to(torch.bfloat16).to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(std=0.02) if parameter.dim() > 1 else parameter.fill_(float("bias" not in name))
        for buffer in network.buffers():
            buffer.zero_()
    if hasattr(network, "tie_weights"):
        network.tie_weights()
    return network


def peak(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a call, and the most memory of the device during it, in GB; on a CPU of the process above before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - started, torch.cuda.max_memory_allocated() / GB
    with common.memory() as used:
        started = time.perf_counter()
        call()
        taken = time.perf_counter() - started
    return taken, used["anonymous"] / 1e3


def expected(recipe: Any, family: str) -> str:
    """What an estimate says of the training's memory on a GPU, in words."""
    items = estimate.estimate(recipe, bases.find(recipe.base.id, family)).memory["train"]
    needed, allowance = ((items[name].value or 0) / GB for name in ("all", "allowance"))
    return f"estimate for a GPU: {size(needed - allowance)} without its allowance of {size(allowance)}"


def size(gigabytes: float) -> str:
    """Memory in words."""
    return f"{gigabytes:.2f} GB" if gigabytes >= 0.1 else f"{gigabytes * 1000:.1f} MB"


def trained(recipe: Any, run: Run, name: str, family: str) -> list[dict[str, Any]]:
    """Our loop against the plain procedure."""
    plain = training.trainer if family == "vlm" else training.procedure
    ways: dict[str, Callable[[int], Any]] = {
        "ours": partial(training.ours, name, run), "plain": partial(plain, recipe, run)
    }  # fmt: skip
    seconds, most = {}, {}
    for way, call in ways.items():
        call(training.SHORT)  # the first call of a process pays for what is made once
        seconds[way] = statistics.median(training.step(call, STEPS) for _ in range(training.ROUNDS))
        most[way] = peak(partial(call, training.SHORT))[1]
    batch = recipe.train.batch_size
    return [
        {
            "measure": f"training steps a second, {name}, batch {batch} in parts of {recipe.train.micro_batch_size}",
            "goal": "0.95x" if family == "vlm" else "1.5x",
            "value": f"{seconds['plain'] / seconds['ours']:.2f}x",
            "note": f"{1 / seconds['ours']:.2f} against {1 / seconds['plain']:.2f} steps a second",
        },
        {
            "measure": f"peak memory of the training, {name}",
            "goal": "",
            "value": f"{size(most['ours'])}",
            "note": f"plain: {size(most['plain'])}; {expected(recipe, family)}",
        },
    ]


def asked(recipe: Any, run: Run, name: str, family: str) -> list[dict[str, Any]]:
    """Turns of alpha, and one batch at several alphas against one batch for each."""
    module = families.get(family)
    loaded = module.load(Path(recipe.base.id))
    adapter = Path("adapter") / name.replace(" ", "-")
    write_adapter(recipe, module, adapter)
    loaded.model, dial = live.attach_adapter(loaded.model, adapter)
    started = time.perf_counter()
    for i in range(TURNS):
        dial(ALPHAS[i % len(ALPHAS)])
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    turn = (time.perf_counter() - started) / TURNS
    queries = questions(family, run)

    def together() -> None:
        with live.blocks({"regional": ALPHAS}):
            module.predict(loaded, queries, len(queries) * len(ALPHAS), len(ALPHAS))

    def apart() -> None:
        for alpha in ALPHAS:
            dial(alpha)
            module.predict(loaded, queries, len(queries))

    found = common.paired({"together": together, "apart": apart}, repeats=3)
    most = peak(together)[1]
    ours, others = found["together"]["median"], found["apart"]["median"]
    return [
        {"measure": f"a turn of alpha, {name}", "goal": "", "value": f"{turn * 1e6:.0f} us", "note": ""},
        {
            "measure": f"{len(queries)} questions at {len(ALPHAS)} alphas in one batch, against apart, {name}",
            "goal": "",
            "value": f"{others / ours:.2f}x",
            "note": f"{ours:.2f} against {others:.2f} s; {size(most)}",
        },
    ]


def write_adapter(recipe: Any, module: Any, folder: Path) -> None:
    """A LoRA that does something: PEFT's own starts at nothing."""
    loaded: Loaded = training.with_lora(recipe, module.lora_targets())
    with torch.no_grad():
        for key, parameter in loaded.model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.02)
    module.save_adapter(loaded, folder)


def questions(family: str, run: Run) -> list[Query]:
    """Two, of the rows that train."""
    import datasets

    rows = datasets.Dataset.from_parquet(str(run.stage("filter") / "examples.parquet"), cache_dir="cache")[:2]
    if family == "diffusion":
        return [Query(prompt=text, seed=i) for i, text in enumerate(rows["text"])]
    return [Query(image["bytes"], ("yes", "no"), "Is this food?") for image in rows["image"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny models, on a CPU too")
    parser.add_argument("--family", choices=tuple(REAL), action="append", help="one of them; default both")
    parser.add_argument("--folder", type=Path, help="where the random models are written; default a temporary one")
    options = parser.parse_args()
    device = devices.best()
    if device.type != "cuda" and not options.tiny:
        raise SystemExit("no GPU here: --tiny runs the procedure on tiny models, which says nothing of speed")
    kind = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, no GPU"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        os.chdir(scratch)
        for family in options.family or REAL:
            recipe, run, name = prepared(family, options.tiny)
            made = bases.built(bases.find(recipe.base.id, family))
            count = models.parameters(made["unet" if family == "diffusion" else "model"])
            print(f"{name}: {count / 1e6:,.1f} M parameters on {kind}")
            rows += trained(recipe, run, name, family)
            rows += asked(recipe, run, name, family)
    if options.tiny or device.type != "cuda":
        print(f"\nTINY SHAPES, {kind}: the procedure works; these figures say nothing of a GPU, and are not kept.\n")
        for row in rows:
            print(f"  {row['measure']}: {row['value']}  {row['note']}")
        return
    for row in rows:
        row["note"] = f"{row['note']}; {kind}" if row["note"] else kind
    common.report("gpu", rows)


if __name__ == "__main__":
    main()
