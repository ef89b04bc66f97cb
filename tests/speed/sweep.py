"""Eleven α on the pocket vision-language model: a sweep against eleven separate runs, and against one batch.

python tests/speed/sweep.py [--questions 240]       about three minutes
"""

import argparse
import copy
import tempfile
from pathlib import Path
from typing import Any

import common
import live
import numpy as np
import torch

from ggez_hub import hub, registry
from ggez_hub.families import vlm
from ggez_hub.merging.live import attach_adapter, blocks
from ggez_hub.recipes import load_benchmark
from ggez_hub.scoring.questions import questions

ALPHAS = [i / 10 for i in range(11)]
BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=240)
    count = parser.parse_args().questions
    torch.set_num_threads(1)
    base = hub.fetch("ggez-hub/pocket-base-vlm")
    asked = questions(load_benchmark("pocket-regional-question"), registry.load_region("sea"))["test"]
    queries = [question.query for question in asked[:count]]
    loaded = vlm.load(base)
    with tempfile.TemporaryDirectory() as scratch:
        adapter = live.adapter_for(copy.deepcopy(loaded.model), vlm.lora_targets(), Path(scratch))
        loaded.model, dial = attach_adapter(loaded.model, adapter, "x")

        def sweep() -> list[Any]:
            answers = []
            for alpha in ALPHAS:
                dial(alpha)
                answers.append(vlm.predict(loaded, queries, BATCH))
            return answers

        def separate() -> list[Any]:
            """What eleven runs of a notebook do: load, put the adapter on, scale it, merge it, ask."""
            from peft import PeftModel
            from peft.tuners.lora import LoraLayer

            answers = []
            for alpha in ALPHAS:
                one = vlm.load(base)
                one.model = PeftModel.from_pretrained(one.model, adapter)
                for module in one.model.modules():
                    if isinstance(module, LoraLayer):
                        module.set_scale("default", alpha)
                one.model = one.model.merge_and_unload().eval()
                answers.append(vlm.predict(one, queries, BATCH))
            return answers

        def together() -> list[Any]:
            with blocks({"x": ALPHAS}):
                return vlm.predict(loaded, queries, BATCH, len(ALPHAS))

        apart = max(float(np.abs(a[0] - b[0]).max()) for one, other in zip(sweep(), separate(), strict=True)
                    for a, b in zip(one, other, strict=True))  # fmt: skip
        times = common.paired({"sweep": sweep, "separate": separate, "together": together}, repeats=3)
    rows = [
        {
            "measure": f"11 α, pocket-base-vlm (synthetic), {len(queries)} questions, {name}: against 11 separate runs",
            "goal": "",
            "value": f"{times['separate']['median'] / times[way]['median']:.2f}x as fast",
            "note": f"{times[way]['median']:.1f} s, separate {times['separate']['median']:.1f} s{note}",
        }
        for way, name, note in (
            ("sweep", "one load, α turned", f"; scores differ by {apart:.0e}"),
            ("together", "all α in one batch", ""),
        )
    ]
    common.report("sweep", rows)


if __name__ == "__main__":
    main()
