"""A published model as its users meet it: alpha live and exact, and one clear error for whatever is not one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModel, AutoProcessor

from ggez_hub import RegionalModel
from ggez_hub.errors import GgezError, InputError
from ggez_hub.families import embedding
from ggez_hub.families.base import Query
from ggez_hub.merging import checkpoints

RECOMMENDED = 0.4
OPTIONS = ["a red thing", "a blue thing", "nothing"]
QUERIES = [{"image": Image.new("RGB", (40, 40), color), "options": OPTIONS} for color in ("red", "blue")]
CARD = "---\nlicense: apache-2.0\nlibrary_name: peft\ntags: [ggez]\n---\n\n# A model\n"


def publish(folder: Path, files: Path, artefact: str, base: str, **facts: Any) -> Path:
    """A repository in the layout that `ggez push` writes."""
    shutil.copytree(files, folder)
    known = {
        "schema": 1, "artefact": artefact, "recipe": "tiny", "family": "embedding", "region": "sea",
        "alpha": RECOMMENDED, "gain": 0.1, "retention": 0.99, "base": {"id": base, "revision": None}, "synthetic": True,
    }  # fmt: skip
    (folder / "ggez.json").write_text(json.dumps(known | facts))
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def adapter(tmp_path: Path, tiny_base: Path, tiny_adapter: Path) -> Path:
    return publish(tmp_path / "hub" / "me" / "tiny-lora", tiny_adapter, "adapter", str(tiny_base))


@pytest.fixture
def merged(tmp_path: Path, tiny_base: Path, tiny_adapter: Path) -> Path:
    files = tmp_path / "merged"
    checkpoints.merge_adapter(tiny_base, tiny_adapter, RECOMMENDED, files, embedding.tensor_name)
    return publish(tmp_path / "hub" / "me" / "tiny", files, "merged", str(tiny_base))


def scores(model: RegionalModel) -> np.ndarray:
    return np.stack(model.predict(QUERIES))


def plain_scores(model: Any, processor: Any) -> np.ndarray:
    """What a user of plain transformers computes."""
    images = [query["image"] for query in QUERIES]
    inputs = processor(
        images=images, text=OPTIONS, padding="max_length", truncation=True, max_length=64, return_tensors="pt"
    )
    with torch.inference_mode():
        return np.asarray(model.eval()(**inputs).logits_per_image)


# -------------------------------------------------------------------------------------------------------------- loading
def test_model_starts_at_the_recommended_alpha_and_knows_what_it_is(adapter: Path) -> None:
    model = RegionalModel.from_pretrained(adapter)
    assert (model.alpha, model.region, model.family) == (RECOMMENDED, "sea", "embedding")
    assert model.card.data.license == "apache-2.0"
    assert isinstance(model.model, PeftModel)
    assert not model.model.training
    np.testing.assert_array_equal(scores(model), scores(RegionalModel.from_pretrained(str(adapter), alpha=RECOMMENDED)))


def test_alpha_argument_wins_over_the_recommended_one(adapter: Path) -> None:
    model = RegionalModel.from_pretrained(adapter, alpha=0.9)
    other = RegionalModel.from_pretrained(adapter)
    other.alpha = 0.9
    assert model.alpha == 0.9
    np.testing.assert_array_equal(scores(model), scores(other))


def test_alpha_1_equals_plain_peft_and_0_plain_transformers(adapter: Path, tiny_base: Path) -> None:
    model, base = RegionalModel.from_pretrained(adapter, alpha=1), AutoModel.from_pretrained(tiny_base)
    processor = AutoProcessor.from_pretrained(tiny_base)
    of_base = plain_scores(base, processor)
    of_peft = plain_scores(PeftModel.from_pretrained(base, adapter), processor)
    assert np.abs(of_base - of_peft).max() > 0.1, "the adapter changes nothing"
    np.testing.assert_allclose(scores(model), of_peft, rtol=0, atol=1e-5)
    model.alpha = 0
    np.testing.assert_allclose(scores(model), of_base, rtol=0, atol=1e-5)


def test_merged_repository_equals_the_adapter_at_its_alpha(adapter: Path, merged: Path) -> None:
    model = RegionalModel.from_pretrained(merged)
    assert model.alpha == RECOMMENDED
    np.testing.assert_allclose(scores(model), scores(RegionalModel.from_pretrained(adapter)), rtol=0, atol=1e-5)


def test_base_argument_replaces_the_one_that_the_adapter_names(
    tmp_path: Path, tiny_base: Path, tiny_adapter: Path
) -> None:
    repository = publish(tmp_path / "lora", tiny_adapter, "adapter", "/gone/away")
    with pytest.raises(InputError, match="/gone/away"):
        RegionalModel.from_pretrained(repository)
    found = RegionalModel.from_pretrained(repository, base=tiny_base)
    expected = RegionalModel.from_pretrained(publish(tmp_path / "lora2", tiny_adapter, "adapter", str(tiny_base)))
    np.testing.assert_array_equal(scores(found), scores(expected))


def test_base_is_found_beside_the_adapter_in_a_folder_that_stands_for_the_hub(
    tmp_path: Path, tiny_base: Path, tiny_adapter: Path
) -> None:
    shutil.copytree(tiny_base, tmp_path / "hub" / "them" / "base")
    repository = publish(tmp_path / "hub" / "me" / "lora", tiny_adapter, "adapter", "them/base")
    assert scores(RegionalModel.from_pretrained(repository)).shape == (2, 3)


# ---------------------------------------------------------------------------------------------------------------- alpha
def test_alpha_turns_in_place_and_back_without_drift(adapter: Path) -> None:
    model = RegionalModel.from_pretrained(adapter)
    underneath, first = model.model, {}
    for alpha in (0.4, 1, 0, 0.7, 0.2, 1, 0.4, 0, 0.7):
        model.alpha = alpha
        assert model.alpha == alpha
        found = scores(model)
        np.testing.assert_array_equal(found, first.setdefault(alpha, found))
    assert model.model is underneath
    assert len({found.tobytes() for found in first.values()}) == len(first), "alpha has no effect"


def test_at_goes_back_even_after_an_error(adapter: Path) -> None:
    model = RegionalModel.from_pretrained(adapter)
    before = scores(model)
    with model.at(0.0) as inside:
        assert inside is model
        assert model.alpha == 0
        assert np.abs(scores(model) - before).max() > 0
    with pytest.raises(ZeroDivisionError), model.at(1.0):
        raise ZeroDivisionError
    assert model.alpha == RECOMMENDED
    np.testing.assert_array_equal(scores(model), before)


@pytest.mark.parametrize("alpha", [-0.01, 1.01, float("nan"), float("inf")])
def test_alpha_outside_0_and_1_is_refused_and_changes_nothing(adapter: Path, alpha: float) -> None:
    with pytest.raises(InputError, match="alpha"):
        RegionalModel.from_pretrained(adapter, alpha=alpha)
    model = RegionalModel.from_pretrained(adapter)
    before = scores(model)
    with pytest.raises(InputError, match="alpha"):
        model.alpha = alpha
    with pytest.raises(InputError, match="alpha"), model.at(alpha):
        pass
    with pytest.raises(InputError, match="alpha"):
        model.predict(QUERIES, alphas=[0, alpha])
    assert model.alpha == RECOMMENDED
    np.testing.assert_array_equal(scores(model), before)


def test_merged_model_stays_at_its_alpha(merged: Path) -> None:
    model = RegionalModel.from_pretrained(merged, alpha=RECOMMENDED)
    before = scores(model)
    with pytest.raises(InputError, match=r"merged.*0\.4"):
        model.alpha = 0.5
    with pytest.raises(InputError, match="merged"):
        RegionalModel.from_pretrained(merged, alpha=0)
    model.alpha = RECOMMENDED  # where it stands already
    np.testing.assert_array_equal(scores(model), before)


# -------------------------------------------------------------------------------------------------------------- predict
def test_several_alphas_at_once_equal_separate_calls(adapter: Path) -> None:
    model = RegionalModel.from_pretrained(adapter)
    queries = [*QUERIES, {"image": QUERIES[0]["image"], "options": OPTIONS[:2]}]
    together = model.predict(queries, alphas=[0.0, 0.25, 1.0])
    assert [(found.shape, found.dtype) for found in together] == [((3, n), np.float32) for n in (3, 3, 2)]
    for i, alpha in enumerate((0.0, 0.25, 1.0)):
        with model.at(alpha):
            for found, expected in zip(together, model.predict(queries), strict=True):
                np.testing.assert_array_equal(found[i], expected)
    assert model.alpha == RECOMMENDED


def test_queries_may_be_mappings_or_query_objects(adapter: Path) -> None:
    model = RegionalModel.from_pretrained(adapter)
    objects = [Query(query["image"], query["options"]) for query in QUERIES]  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        np.stack(model.predict(objects, batch_size=1)), np.stack(model.predict(QUERIES, batch_size=1))
    )
    assert model.predict([]) == []


# --------------------------------------------------------------------------------------------------------------- errors
def refused(name: Path | str, match: str, **arguments: Any) -> GgezError:
    with pytest.raises(InputError, match=match) as caught:
        RegionalModel.from_pretrained(name, **arguments)
    return caught.value


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"schema": 2}', '{"schema": "1"}', "{}"])
def test_facts_that_are_missing_damaged_or_newer_are_refused(adapter: Path, text: str | None) -> None:
    (adapter / "ggez.json").unlink()
    if text is not None:
        (adapter / "ggez.json").write_text(text)
    error = refused(adapter, r"ggez\.json")
    assert str(adapter) in error.message
    if text and "2" in text:
        assert error.hint == "update ggez_hub"


def test_family_of_a_newer_release_is_refused(adapter: Path) -> None:
    facts = json.loads((adapter / "ggez.json").read_text())
    (adapter / "ggez.json").write_text(json.dumps(facts | {"family": "hologram"}))
    refused(adapter, "hologram")


@pytest.mark.parametrize("text", [None, b"---\nlicense: [\n---\n", b"---\n- a\n---\n", b"\xff\xfe"])
def test_card_that_is_missing_or_damaged_is_refused(adapter: Path, text: bytes | None) -> None:
    (adapter / "README.md").unlink()
    if text is not None:
        (adapter / "README.md").write_bytes(text)
    assert str(adapter) in refused(adapter, r"README\.md").message


@pytest.mark.parametrize("repository", ["adapter", "merged"])
@pytest.mark.parametrize("damage", ["gone", "pickled", "truncated"])
def test_weights_that_are_missing_or_damaged_are_refused(
    request: pytest.FixtureRequest, repository: str, damage: str
) -> None:
    folder: Path = request.getfixturevalue(repository)
    file = next(folder.glob("*.safetensors"))
    content = file.read_bytes()
    file.unlink()
    if damage == "pickled":
        torch.save({}, file.with_name({"adapter": "adapter_model.bin", "merged": "pytorch_model.bin"}[repository]))
    elif damage == "truncated":
        file.write_bytes(content[:-100])
    assert str(folder) in refused(folder, "safetensors|damaged").message


def test_base_of_other_sizes_is_refused(adapter: Path, tmp_path: Path) -> None:
    embedding.write_tiny(tmp_path / "other", hidden=16, text_hidden=16)
    assert str(tmp_path / "other") in refused(adapter, "does not fit the base", base=tmp_path / "other").message


def test_base_that_is_no_model_is_refused(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refused(adapter, "cannot be loaded", base=tmp_path / "empty").message


def test_models_that_were_not_published_by_us_are_refused(tiny_base: Path, tiny_adapter: Path) -> None:
    for folder in (tiny_base, tiny_adapter):
        assert str(folder) in refused(folder, r"no ggez\.json").message


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "./nowhere", "/nowhere/at/all", "not an id/x"])
def test_name_that_is_neither_folder_nor_id_is_refused(name: str) -> None:
    assert name in refused(name, "no such folder, and not a Hub id").message
