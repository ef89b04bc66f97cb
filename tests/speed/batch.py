"""Several alphas in one batch against a pass for each: decoding with a language model, and encoders.

python tests/speed/batch.py       random weights of true shapes; about five minutes
"""

import copy
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import common
import live
import torch

from ggez_hub.families import embedding
from ggez_hub.merging.live import Dial, attach_adapter, blocks

PROMPT = 64


def llama() -> Any:
    """A Llama of 222 M parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12, "num_attention_heads": 16}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32000, num_key_value_heads=8, **sizes)).eval()


def decode(model: Any, count: int, ids: torch.Tensor) -> torch.Tensor:
    """Greedy tokens [rows, count] after a prompt."""
    from transformers import DynamicCache

    cache, tokens = DynamicCache(config=model.config), []
    with torch.inference_mode():
        for _ in range(count):
            ids = model(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1, keepdim=True)
            tokens.append(ids)
    return torch.cat(tokens, dim=1)


def compare(name: str, run: Any, dial: Dial, rows: torch.Tensor, goals: dict[int, str]) -> list[dict[str, Any]]:
    """K alphas in one batch against K passes of the same rows."""
    result = []
    for count, goal in goals.items():
        alphas = [i / (count - 1) for i in range(count)]
        copies = rows.repeat(count, *[1] * (rows.dim() - 1))

        def separate(alphas: Sequence[float] = alphas) -> torch.Tensor:
            outputs = []
            for alpha in alphas:
                dial(alpha)
                outputs.append(run(rows))
            return torch.cat(outputs)

        def together(alphas: Sequence[float] = alphas, copies: torch.Tensor = copies) -> torch.Tensor:
            with blocks({"x": alphas}):
                return run(copies)  # type: ignore[no-any-return]

        one, other = together(), separate()
        same = bool((one == other).all()) if one.dtype is torch.int64 else float((one - other).abs().max())
        times = common.paired({"separate": separate, "together": together})
        result.append(
            {
                "measure": f"K = {count} α in one batch against {count} passes: {name}",
                "goal": goal,
                "value": f"{times['separate']['median'] / times['together']['median']:.2f}x as fast",
                "note": f"{times['together']['median']:.2f} s; "
                + (f"all tokens equal: {same}" if isinstance(same, bool) else f"outputs differ by {same:.0e}"),
            }
        )
    return result


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        model = llama()
        adapter = live.adapter_for(copy.deepcopy(model), r".*\.(q|k|v|o|gate|up|down)_proj", Path(scratch) / "llama")
        size = sum(p.numel() for p in model.parameters()) / 1e6
        model, dial = attach_adapter(model, adapter, "x")
        prompt = torch.randint(0, 32000, (1, PROMPT))
        for count, goals in ((12, {5: "2x", 11: "3x"}), (32, {11: "3x"})):
            what = f"{size:.0f} M language model, {PROMPT} tokens read, {count} decoded"
            rows += compare(what, partial(decode, model, count), dial, prompt, goals)
        base = live.siglip()
        adapter = live.adapter_for(copy.deepcopy(base), embedding.lora_targets(), Path(scratch) / "siglip")
        tower, dial = attach_adapter(base, adapter, "x")

        def images(pixels: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():
                return tower.get_image_features(pixel_values=pixels).pooler_output  # type: ignore[no-any-return]

        def texts(ids: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():
                return tower.get_text_features(input_ids=ids).pooler_output  # type: ignore[no-any-return]

        goals = {5: "never slower", 11: "never slower"}
        rows += compare("SigLIP vision tower, 1 picture", images, dial, torch.randn(1, 3, 224, 224), goals)
        rows += compare("SigLIP text tower, 4 texts", texts, dial, torch.randint(0, 32000, (4, 64)), goals)
    common.report("batch", rows)


if __name__ == "__main__":
    main()
