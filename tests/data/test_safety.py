"""Unsafe pictures by a model: what is dropped, and which models are refused."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from ggez_hub.data import readers, safety
from ggez_hub.errors import InputError
from ggez_hub.schema import Unsafe


def picture(seed: int, size: tuple[int, int] = (24, 16)) -> bytes:
    buffer = io.BytesIO()
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def rows(*pictures: bytes | None) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [{"image": None if data is None else {"bytes": data, "path": None}} for data in pictures], readers.row_schema()
    )


def write(folder: Path, **changes: Any) -> Path:
    """A tiny classifier with random weights."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8,
        initializer_range=0.2, **{"id2label": {0: "normal", 1: "NSFW"}, "label2id": {"normal": 0, "NSFW": 1}} | changes,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("classifier"))


def probabilities(folder: Path, pictures: list[bytes]) -> list[float]:
    """What the library's own pipeline says of a label."""
    from transformers import pipeline

    classify: Any = pipeline("image-classification", model=str(folder), image_processor=str(folder))
    said = classify([Image.open(io.BytesIO(data)) for data in pictures])
    return [next(each["score"] for each in row if each["label"] == "NSFW") for row in said]


def test_pictures_above_the_limit_are_dropped(classifier: Path) -> None:
    pictures = [picture(i) for i in range(40)]
    expected = probabilities(classifier, pictures)
    limit = float(np.median(expected))
    assert np.ptp(expected) > 0.01
    batch = rows(*pictures)
    found = safety.unsafe_picture(Unsafe(id=str(classifier), max=limit))(batch)
    assert found.batch is batch
    assert found.kept.to_pylist() == [value <= limit for value in expected]
    assert found.why[0].as_py() == f"nsfw {expected[0]:.3f} {'<=' if expected[0] <= limit else '>'} {limit:g}"


def test_rows_without_a_picture_are_dropped_and_say_so(classifier: Path) -> None:
    rule = safety.unsafe_picture(Unsafe(id=str(classifier), max=1.0))
    _, kept, why = rule(rows(None, picture(0), b"broken"))
    assert kept.to_pylist() == [False, True, False]
    assert [text.partition(":")[0] for text in why.to_pylist()[::2]] == ["no picture in the row", "cannot be decoded"]
    assert len(rule(rows()).kept) == 0


def test_a_large_picture_is_held_no_larger_than_models_see() -> None:
    held = safety._decoded({"bytes": picture(0, (2100, 700)), "path": None})
    assert not isinstance(held, str)
    assert held.size == (1024, 341)


def test_a_model_of_several_labels_at_once_gives_each_its_own_probability(tmp_path: Path) -> None:
    write(tmp_path, problem_type="multi_label_classification")
    (value,) = probabilities(tmp_path, [picture(0)])
    assert 0.1 < value < 0.9
    why = safety.unsafe_picture(Unsafe(id=str(tmp_path), max=1.0))(rows(picture(0))).why
    assert why[0].as_py() == f"nsfw {value:.3f} <= 1"


def test_a_label_that_the_model_does_not_have_is_told_with_those_it_has(classifier: Path) -> None:
    with pytest.raises(InputError, match="no label 'porn'; known: normal, nsfw"):
        safety.unsafe_picture(Unsafe(id=str(classifier), label="porn"))


def test_a_model_whose_numbers_are_none_drops_all(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(write(tmp_path) / "model.safetensors")
    save_file({k: v * math.nan for k, v in state.items()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert safety.unsafe_picture(Unsafe(id=str(tmp_path)))(rows(picture(0))).kept.to_pylist() == [False]


def test_what_is_no_classifier_is_one_error(tmp_path: Path) -> None:
    from safetensors.torch import load

    with pytest.raises(InputError, match="cannot be loaded as an image classification model"):
        safety.unsafe_picture(Unsafe(id=str(tmp_path)))
    write(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(InputError, match="damaged weights"):
        safety.unsafe_picture(Unsafe(id=str(tmp_path)))
    (tmp_path / "model.safetensors").unlink()
    torch.save(load(weights), tmp_path / "pytorch_model.bin")  # the very same ones
    with pytest.raises(InputError, match="cannot be loaded"):
        safety.unsafe_picture(Unsafe(id=str(tmp_path)))


def test_code_in_a_model_is_not_run(tmp_path: Path) -> None:
    write(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "odd", "auto_map": {"AutoModelForImageClassification": "code.Odd", "AutoConfig": "code.C"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(InputError):
        safety.unsafe_picture(Unsafe(id=str(tmp_path)))
    assert not (tmp_path / "ran").exists()
