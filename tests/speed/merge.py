"""Merging files: two bf16 checkpoints against cp, mergekit and load-lerp-save, memory over size, and an 8 GB LoRA bake.

python tests/speed/merge.py [--mergekit PYTHON] [--scratch FOLDER] [--no-bake]

PYTHON is the interpreter of an environment of its own with mergekit 0.1.5 (`pip install mergekit==0.1.5`). FOLDER needs
room for 8 GB; in memory (such as /dev/shm) times spread least. The bake takes 17 GB of the folder for temporary files.
Every timed merge is a process of its own that first imports all it needs and then times the merge alone. Checkpoints
are read once before, so that they come from the page cache. Random weights, deleted at the end.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

ALPHA = 0.4
WIDTH, INNER, WORDS = 2048, 5632, 32000
MERGEKIT = """
import json, resource, sys, time
import torch, transformers
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
base, regional, out, shard = sys.argv[1:]
config = MergeConfiguration.model_validate({"merge_method": "linear", "dtype": "bfloat16", "models": [
    {"model": base, "parameters": {"weight": 0.6}}, {"model": regional, "parameters": {"weight": 0.4}}]})
options = MergeOptions(copy_tokenizer=False, quiet=True, out_shard_size=int(shard))
start, cpu = time.perf_counter(), time.process_time()
run_merge(config, out, options)
print(json.dumps({"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu,
                  "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}))
"""


# ------------------------------------------------------------------------------------------- in a process of its own
def child(way: str, base: Path, regional: Path, out: Path) -> None:
    """Merges one way, and prints its seconds and memory."""
    import torch
    from safetensors.torch import load_file, save_file

    from ggez_hub.merging import checkpoints

    torch.lerp(torch.ones(8).bfloat16(), torch.ones(8).bfloat16(), ALPHA)

    def ours() -> None:
        checkpoints.merge(base, {regional: 1.0 if way == "bake" else ALPHA}, out)

    def naive() -> None:
        """What one writes in a notebook: both checkpoints in memory, lerp, save."""
        low, high = ({n: t for f in sorted(d.glob("*.safetensors")) for n, t in load_file(f).items()}
                     for d in (base, regional))  # fmt: skip
        out.mkdir()
        save_file({name: torch.lerp(low[name], high[name], ALPHA) for name in low}, out / "model.safetensors")

    with common.memory() as peak:
        start, cpu = time.perf_counter(), time.process_time()
        (naive if way == "naive" else ours)()
        taken = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    print(json.dumps(taken | peak))


def run(way: str, base: Path, regional: Path, out: Path, mergekit: str | None = None) -> dict[str, float]:
    """Runs one way in a process of its own; `command` is the whole of it, with the start of the interpreter."""
    shutil.rmtree(out, ignore_errors=True)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    if way == "cp":
        subprocess.run(["cp", "-r", str(base), str(out)], check=True)
        wall, printed = time.perf_counter() - start, "{}"
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken = {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}
    else:
        command = [sys.executable, __file__, "--child", way, str(base), str(regional), str(out)]
        if way.startswith("mergekit"):
            shard = "100000000" if way.endswith("small") else "5000000000"
            command = [str(mergekit), "-c", MERGEKIT, str(base), str(regional), str(out), shard]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        taken = json.loads(printed)
    taken["command"] = time.perf_counter() - start
    shutil.rmtree(out, ignore_errors=True)
    return taken


# -------------------------------------------------------------------------------------------------------- checkpoints
def checkpoint(folder: Path, layers: int, shards: int, seed: int) -> Path:
    """Random bf16 weights in the shapes of a Llama (0.1 GB and 0.088 GB per layer), sharded, with index and config."""
    import torch
    from safetensors.torch import save_file

    rng = torch.Generator().manual_seed(seed)
    block = (torch.randn(2**22, generator=rng) * 0.02).bfloat16()
    shapes = {"model.embed_tokens.weight": (WORDS, WIDTH), "model.norm.weight": (WIDTH,),
              "lm_head.weight": (WORDS, WIDTH)}  # fmt: skip
    for i in range(layers):
        inner = {"q_proj": (WIDTH, WIDTH), "k_proj": (256, WIDTH), "v_proj": (256, WIDTH), "o_proj": (WIDTH, WIDTH)}
        shapes |= {f"model.layers.{i}.self_attn.{name}.weight": shape for name, shape in inner.items()}
        inner = {"gate_proj": (INNER, WIDTH), "up_proj": (INNER, WIDTH), "down_proj": (WIDTH, INNER)}
        shapes |= {f"model.layers.{i}.mlp.{name}.weight": shape for name, shape in inner.items()}
        shapes |= {f"model.layers.{i}.{name}_layernorm.weight": (WIDTH,) for name in ("input", "post_attention")}
    names, folder_map = list(shapes), {}
    folder.mkdir()
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        tensors = {}
        for name in names[i * len(names) // shards : (i + 1) * len(names) // shards]:
            count = torch.Size(shapes[name]).numel()
            tensors[name] = block.repeat(count // len(block) + 1)[:count].view(shapes[name])
            folder_map[name] = file
        save_file(tensors, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": folder_map}))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "dtype": "bfloat16",
              "intermediate_size": INNER, "num_hidden_layers": layers, "num_attention_heads": 32,
              "num_key_value_heads": 4, "vocab_size": WORDS, "tie_word_embeddings": False}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def adapter(folder: Path, layers: int) -> Path:
    """A LoRA of rank 16 on all linear layers of such a checkpoint."""
    import torch
    from safetensors.torch import save_file

    shapes = {"self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (256, WIDTH), "self_attn.v_proj": (256, WIDTH),
              "self_attn.o_proj": (WIDTH, WIDTH), "mlp.gate_proj": (INNER, WIDTH), "mlp.up_proj": (INNER, WIDTH),
              "mlp.down_proj": (WIDTH, INNER)}  # fmt: skip
    tensors = {}
    for i in range(layers):
        for name, (rows, columns) in shapes.items():
            tensors[f"base_model.model.model.layers.{i}.{name}.lora_A.weight"] = torch.randn(16, columns) * 0.01
            tensors[f"base_model.model.model.layers.{i}.{name}.lora_B.weight"] = torch.randn(rows, 16) * 0.01
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 16, "lora_alpha": 16}))
    return folder


def size_of(folder: Path) -> float:
    """Gigabytes of weights."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e9


def warm(*folders: Path) -> None:
    """Reads all files once."""
    for folder in folders:
        for file in folder.glob("*.safetensors"):
            with file.open("rb") as stream:
                while stream.read(2**24):
                    pass


# ----------------------------------------------------------------------------------------------------------- measures
def against_others(scratch: Path, mergekit: str | None) -> list[dict[str, Any]]:
    """Time and memory of a linear merge of two checkpoints of 2.2 GB."""
    base, regional = (checkpoint(scratch / f"m{seed}", 22, 3, seed) for seed in (0, 1))
    warm(base, regional)
    ways = ["cp", "ours", "naive", *(["mergekit", "mergekit small"] if mergekit else [])]
    taken: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for i in range(common.REPEATS + 1):
        for way in ways:
            found = run(way, base, regional, scratch / "out", mergekit)
            if i:  # the first round warms up
                taken[way].append(found)
    middle = {way: {key: statistics.median(t[key] for t in times) for key in times[0]} for way, times in taken.items()}
    size, ours, cp = size_of(base), middle["ours"], middle["cp"]
    what = f"linear merge of two checkpoints of {size:.1f} GB (bf16)"
    rows = [
        {
            "measure": f"{what}: the merge itself against cp of one",
            "goal": "1.5x",
            "value": f"{ours['wall'] / cp['wall']:.2f}x",
            "note": f"{ours['wall']:.2f} s, cp {cp['wall']:.2f} s; CPU {ours['cpu']:.2f} s; "
            f"whole process {ours['command']:.1f} s, most of it the import of torch",
        },
        {
            "measure": f"{what}: anonymous memory above the interpreter with torch; mapped pages",
            "goal": "64 MB; 200 MB",
            "value": f"{ours['anonymous']:.0f} MB; {ours['mapped']:.0f} MB",
        },
        {
            "measure": f"{what}: load, lerp, save (what a notebook does)",
            "goal": "",
            "value": f"{middle['naive']['wall'] / ours['wall']:.1f}x our time",
            "note": f"{middle['naive']['wall']:.2f} s, {middle['naive']['anonymous']:,.0f} MB anonymous, "
            f"{middle['naive']['mapped']:,.0f} MB mapped",
        },
    ]
    for way, settings in (("mergekit", "its defaults"), ("mergekit small", "shards of 100 MB")):
        if way in middle:
            theirs = middle[way]
            rows.append(
                {
                    "measure": f"{what}: against mergekit 0.1.5, {settings}; wall, CPU",
                    "goal": "1/5, 1/4",
                    "value": f"1/{theirs['wall'] / ours['wall']:.1f}, 1/{theirs['cpu'] / ours['cpu']:.1f}",
                    "note": f"{theirs['wall']:.1f} s, {theirs['cpu']:.1f} s CPU, peak {theirs['peak']:,.0f} MB "
                    f"resident; whole process {theirs['command']:.1f} s",
                }
            )
    shutil.rmtree(base)
    shutil.rmtree(regional)
    return rows


def memory_over_size(scratch: Path) -> list[dict[str, Any]]:
    """Memory of a merge of checkpoints of four sizes."""
    found = []
    for layers in (5, 11, 22, 44):
        base, regional = (checkpoint(scratch / f"s{seed}", layers, 2, seed) for seed in (0, 1))
        peak = run("ours", base, regional, scratch / "out")
        found.append((size_of(base), peak["anonymous"], peak["mapped"]))
        shutil.rmtree(base)
        shutil.rmtree(regional)
    return [
        {
            "measure": "the same over checkpoints of " + ", ".join(f"{size:.1f}" for size, _, _ in found) + " GB",
            "goal": "no growth",
            "value": ", ".join(f"{anonymous:.0f}" for _, anonymous, _ in found) + " MB anonymous",
            "note": ", ".join(f"{mapped:.0f}" for _, _, mapped in found) + " MB mapped",
        }
    ]


def bake(scratch: Path) -> list[dict[str, Any]]:
    """A LoRA baked onto a base of more than 8 GB."""
    base, lora = checkpoint(scratch / "large", 90, 4, 0), adapter(scratch / "lora", 90)
    taken = run("bake", base, lora, scratch / "out")
    return [
        {
            "measure": f"LoRA (rank 16, all linear layers) baked onto a sharded base of {size_of(base):.1f} GB",
            "goal": "400 MB anonymous",
            "value": f"{taken['anonymous']:.0f} MB anonymous",
            "note": f"{taken['mapped']:.0f} MB mapped, {taken['wall']:.1f} s, {taken['cpu']:.1f} s CPU",
        }
    ]


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], *map(Path, sys.argv[3:]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", help="interpreter of an environment with mergekit 0.1.5")
    parser.add_argument("--scratch", help="where to write; default: the folder for temporary files")
    parser.add_argument("--no-bake", action="store_true", help="leave out the 8 GB bake")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        scratch = Path(folder)
        rows = against_others(scratch, arguments.mergekit) + memory_over_size(scratch)
    if not arguments.no_bake:
        with tempfile.TemporaryDirectory() as folder:
            rows += bake(Path(folder))
    common.report("merge", rows)


if __name__ == "__main__":
    main()
