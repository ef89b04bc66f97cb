"""Alpha in memory: setting it, turning merged weights, and what a live LoRA costs in every forward pass.

python tests/speed/live.py        random weights of the true shapes; about three minutes
"""

import copy
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import common
import torch
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

from ggez_hub.families import embedding
from ggez_hub.merging.attention import split_attention
from ggez_hub.merging.live import attach_adapter, merge_in_place

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}


def siglip() -> Any:
    """A SiglipModel of the base size, 203 M parameters."""
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(0)
    config = SiglipConfig(
        text_config=BASE | {"vocab_size": 32000, "max_position_embeddings": 64, "projection_size": 768},
        vision_config=BASE | {"image_size": 224, "patch_size": 16},
    )
    return SiglipModel(config).eval()


def adapter_for(model: Any, targets: str, folder: Path) -> Path:
    """A LoRA of rank 16 and random weights, saved by PEFT."""
    adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules=targets))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    adapted.unload()
    return folder


def baked(model: Any, adapter: Path) -> Any:
    """A copy with the adapter merged into its weights."""
    model = copy.deepcopy(model)
    merge_in_place(model, [adapter])(1.0)
    return model


def setting(model: Any, adapter: Path) -> list[dict[str, Any]]:
    """alpha = a, against PEFT's set_scale over all modules; and with weights merged in place."""
    theirs = PeftModel.from_pretrained(copy.deepcopy(model), adapter, adapter_name="x").eval()
    ours, dial = attach_adapter(copy.deepcopy(model), adapter, "x")
    layers = sum(isinstance(module, LoraLayer) for module in ours.modules())

    def peft_scale(alpha: float = 0.4) -> None:
        for module in theirs.modules():
            if isinstance(module, LoraLayer):
                module.set_scale("x", alpha)

    times = common.paired({"ours": lambda: dial(0.4), "peft": peft_scale}, inner=100)
    ratio = times["ours"]["median"] / times["peft"]["median"]
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    rows = [
        {
            "measure": f"setting α, {parameters:.0f} M SigLIP, {layers} LoRA layers, against PEFT set_scale",
            "goal": "1/100, about 10 µs",
            "value": f"1/{1 / ratio:.0f}, {times['ours']['median'] * 1e6:.1f} µs",
            "note": f"PEFT {times['peft']['median'] * 1e3:.2f} ms",
        }
    ]
    merged = copy.deepcopy(model)
    turn, base, alphas = merge_in_place(merged, [adapter]), copy.deepcopy(model.state_dict()), [0.0]

    def ours_merged() -> None:
        alphas[0] = 0.3 if alphas[0] == 0.7 else 0.7
        turn(alphas[0])

    def peft_merged() -> None:
        theirs.unmerge_adapter()
        peft_scale(0.3)
        theirs.merge_adapter()

    theirs.merge_adapter()
    times = common.paired({"ours": ours_merged, "peft": peft_merged})
    turn(0.0)
    drift = max(float((tensor - base[name]).abs().max()) for name, tensor in merged.state_dict().items())
    rows.append(
        {
            "measure": "changing α with weights merged in place, against PEFT unmerge + set_scale + merge",
            "goal": "1/8, no drift",
            "value": f"1/{times['peft']['median'] / times['ours']['median']:.1f}, drift {drift:g}",
            "note": f"{times['ours']['median'] * 1e3:.0f} ms, PEFT {times['peft']['median'] * 1e3:.0f} ms",
        }
    )
    return rows


def forward(name: str, merged: Any, ours: Any, peft: Any, inputs: dict[int, Any]) -> list[dict[str, Any]]:
    """A forward pass with a live LoRA, against one with merged weights."""
    rows = []
    for size, batch in inputs.items():
        with torch.inference_mode():
            ways = {"merged": merged, "ours": ours, "peft": peft}
            outputs = {way: call(batch) for way, call in ways.items()}
            times = common.paired({way: partial(call, batch) for way, call in ways.items()}, 9)
        apart = float((outputs["ours"] - outputs["merged"]).abs().max())
        rows.append(
            {
                "measure": f"forward with a live LoRA against merged weights, {name}, batch {size}",
                "goal": "1.10x",
                "value": f"{times['ours']['median'] / times['merged']['median']:.2f}x "
                f"(of the fastest runs {times['ours']['min'] / times['merged']['min']:.2f}x)",
                "note": f"PEFT {times['peft']['median'] / times['merged']['median']:.2f}x; "
                f"{times['merged']['median'] * 1e3:.0f} ms merged; outputs differ by {apart:.0e}",
            }
        )
    return rows


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        model = siglip()
        targets = r".*(encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])|text_model\.head)"
        targets += r"|vision_model\.head\.mlp\.fc[12]"
        rows += setting(model, adapter_for(copy.deepcopy(model), targets, Path(scratch) / "all"))

        adapter = adapter_for(copy.deepcopy(model), embedding.lora_targets(), Path(scratch) / "siglip")
        theirs = PeftModel.from_pretrained(copy.deepcopy(model), adapter).eval()
        ours, _ = attach_adapter(copy.deepcopy(model), adapter)
        merged = baked(model, adapter)
        pictures = {size: torch.randn(size, 3, 224, 224) for size in (1, 8)}
        rows += forward(
            "SigLIP vision tower",
            *((lambda x, m=m: m.get_image_features(pixel_values=x).pooler_output) for m in (merged, ours, theirs)),
            pictures,
        )
        del model, theirs, ours, merged

        from open_clip.model import CLIP

        torch.manual_seed(0)
        vision = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32}
        text = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
        model = CLIP(512, vision, text).eval()
        theirs = copy.deepcopy(model)
        config = LoraConfig(r=16, target_modules=r"visual\.transformer\.resblocks\.\d+\.(attn|mlp\.(c_fc|c_proj))")
        inject_adapter_in_model(config, theirs)
        ours = copy.deepcopy(model)
        split_attention(ours)
        targets = r"visual\.transformer\.resblocks\.\d+\.(attn\.(in|out)_proj|mlp\.(c_fc|c_proj))"
        inject_adapter_in_model(LoraConfig(r=16, target_modules=targets), ours)
        factors = {n: torch.randn_like(p) * 0.02 for n, p in ours.named_parameters() if ".lora_" in n}
        folder = Path(scratch) / "open_clip"
        folder.mkdir()
        save_file({n.replace(".default", ""): t for n, t in factors.items()}, folder / "adapter_model.safetensors")
        LoraConfig(r=16, lora_alpha=16, target_modules=targets).save_pretrained(folder)
        ours = copy.deepcopy(model)
        split_attention(ours)
        ours, _ = attach_adapter(ours, folder)
        merged = baked(model, folder)  # with torch's own attention, the fastest there is without a LoRA
        rows += forward("open_clip ViT-B-32", *(m.encode_image for m in (merged, ours, theirs)), pictures)
    common.report("live", rows)


if __name__ == "__main__":
    main()
