"""Exactness of merged bf16 and fp16 files: against fp32 arithmetic rounded once, and bit for bit at both ends.

python tests/speed/exact.py [--scratch FOLDER]       random weights; 4 GB of room; about a minute
"""

import argparse
import filecmp
import tempfile
from pathlib import Path
from typing import Any

import common
import torch
from safetensors.torch import load_file, save_file

from ggez_hub.merging import checkpoints

ELEMENTS, TENSORS = 2**24, 8
ALPHAS = (0.05, 0.1, 0.25, 0.3, 0.5, 0.9)
GOAL = "0"


def checkpoint(folder: Path, dtype: torch.dtype, seed: int) -> Path:
    """Random weights of a usual size, and a few that are very small or large."""
    rng = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True)
    tensors = {f"w{i}": torch.randn(ELEMENTS, generator=rng) * 0.02 for i in range(TENSORS)}
    for tensor in tensors.values():
        tensor[: 2**16] *= torch.logspace(-30, 4, 2**16)
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def measure(scratch: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Counts elements that a merge got wrong."""
    base, regional = (checkpoint(scratch / str(dtype) / str(seed), dtype, seed) for seed in (0, 1))
    low, high = (load_file(folder / "model.safetensors") for folder in (base, regional))
    wrong, ends = 0, []
    for alpha in (*ALPHAS, 0.0, 1.0):
        out = scratch / str(dtype) / f"at {alpha}"
        checkpoints.merge_full(base, regional, alpha, out)
        if alpha in (0, 1):
            ends.append(
                filecmp.cmp(out / "model.safetensors", (base, regional)[int(alpha)] / "model.safetensors", False)
            )
            continue
        merged = load_file(out / "model.safetensors")
        for name, tensor in merged.items():
            wrong += int((tensor != torch.lerp(low[name].float(), high[name].float(), alpha).to(dtype)).sum())
        (out / "model.safetensors").unlink()
    count = ELEMENTS * TENSORS * len(ALPHAS)
    return {
        "measure": f"merged {str(dtype).removeprefix('torch.')}: elements that are not fp32 arithmetic rounded once, "
        f"over {len(ALPHAS)} α",
        "goal": GOAL,
        "value": f"{wrong:,} of {count:,}",
        "note": f"α = 0 the very file of the base: {ends[0]}; α = 1 that of the regional model: {ends[1]}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", help="where to write; default: the folder for temporary files")
    with tempfile.TemporaryDirectory(dir=parser.parse_args().scratch) as folder:
        rows = [measure(Path(folder), dtype) for dtype in (torch.bfloat16, torch.float16)]
    common.report("exact", rows)


if __name__ == "__main__":
    main()
