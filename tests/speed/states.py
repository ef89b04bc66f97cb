"""A sweep of 11 merged states of a 1.1 B bf16 model in memory; nothing is written to disk.

python tests/speed/states.py      needs 8 GB of memory; about a minute
"""

import time
from statistics import median

import common
import torch

from ggez_hub.merging.live import between


def build(seed: int) -> torch.nn.Module:
    """1.12 B bf16 parameters in the shapes of a Llama; what it computes does not matter here."""
    torch.manual_seed(seed)
    shapes = {"head": (32000, 2048), "embedding": (32000, 2048)}
    for i in range(22):
        shapes |= {f"{i}_{n}": (2048, 2048) for n in "qo"} | {f"{i}_{n}": (256, 2048) for n in "kv"}
        shapes |= {f"{i}_{n}": (5632, 2048) for n in ("gate", "up")} | {f"{i}_down": (2048, 5632)}
    block = torch.randn(2**20).bfloat16() * 0.02
    model = torch.nn.Module()
    for name, (rows, columns) in shapes.items():
        values = block.repeat(rows * columns // len(block) + 1)[: rows * columns].view(rows, columns)
        model.register_parameter(name, torch.nn.Parameter(values + 0.001 * seed, requires_grad=False))
    return model


def main() -> None:
    model, regional = build(0), build(1)
    size = sum(p.numel() for p in model.parameters())
    dial, taken = between(model, regional), []
    dial(0.5)
    for i in range(11):
        start = time.perf_counter()
        dial(i / 10)
        taken.append(time.perf_counter() - start)
    row = {
        "measure": f"a sweep of 11 merged states of a {size / 1e9:.2f} B bf16 model in memory, per α",
        "goal": "0.25 s",
        "value": f"{median(taken):.2f} s ({min(taken):.2f} to {max(taken):.2f})",
        "note": "nothing written to disk",
    }
    common.report("states", [row])


if __name__ == "__main__":
    main()
