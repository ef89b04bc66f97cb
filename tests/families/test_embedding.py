"""What is special to embeddings: sentence-transformers reads them, too."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModel, AutoProcessor

from ggez_hub.families import embedding

TEXTS = ["a red square", "something blue, again and again " * 9]


@pytest.mark.parametrize("artefact", ["merged", "adapter"])
def test_sentence_transformers_embeds_what_a_repository_holds(tmp_path: Path, artefact: str) -> None:
    library = pytest.importorskip("sentence_transformers")
    base = tmp_path / "base"
    embedding.write_tiny(base, TEXTS)
    loaded = embedding.load(base, torch.device("cpu"))
    if artefact == "adapter":
        loaded.model = get_peft_model(loaded.model, LoraConfig(r=2, target_modules=embedding.lora_targets()))
        for name, parameter in loaded.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        embedding.save_adapter(loaded, tmp_path / "adapter")
        loaded.processor.save_pretrained(tmp_path / "adapter")
        loaded.model.eval()
    else:
        shutil.copytree(base, tmp_path / "merged")
    repository = tmp_path / artefact
    for name, text in embedding.repository_files(base, "me/regional").items():
        (repository / name).write_text(text)
    model = library.SentenceTransformer(str(repository), device="cpu")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)) for _ in TEXTS]
    with torch.inference_mode():
        np.testing.assert_allclose(model.encode(TEXTS), embedding._texts(loaded, TEXTS).numpy(), rtol=0, atol=1e-6)
        np.testing.assert_allclose(model.encode(images), embedding._images(loaded, images).numpy(), rtol=0, atol=1e-6)
    AutoModel.from_pretrained(repository)
    AutoProcessor.from_pretrained(repository)
