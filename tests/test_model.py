"""A published model as its users meet it: alpha live and exact, and one clear error for whatever is not one."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file, save_file
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
    if (config := folder / "adapter_config.json").is_file():
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": base}))
    return folder


@pytest.fixture
def adapter(tmp_path: Path, tiny_base: Path, tiny_adapter: Path) -> Path:
    return publish(tmp_path / "hub" / "me" / "tiny-lora", tiny_adapter, "adapter", str(tiny_base))


@pytest.fixture
def merged(tmp_path: Path, tiny_base: Path, tiny_adapter: Path) -> Path:
    files = tmp_path / "merged"
    checkpoints.merge_adapters(tiny_base, {tiny_adapter: RECOMMENDED}, files)
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
                np.testing.assert_allclose(found[i], expected, rtol=0, atol=1e-5)
    assert model.alpha == RECOMMENDED


def test_queries_may_be_mappings_or_query_objects(adapter: Path) -> None:
    model = RegionalModel.from_pretrained(adapter)
    objects = [Query(query["image"], query["options"]) for query in QUERIES]  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        np.stack(model.predict(objects, batch_size=1)), np.stack(model.predict(QUERIES, batch_size=1))
    )
    assert model.predict([]) == []


def test_threads_that_ask_at_different_alphas_do_not_disturb_each_other(adapter: Path) -> None:
    model = RegionalModel.from_pretrained(adapter)
    expected = {alpha: np.stack(model.predict(QUERIES, alphas=[alpha]))[:, 0] for alpha in (0.0, 0.3, 0.6, 1.0)}
    found: list[tuple[float, np.ndarray]] = []

    def ask(alpha: float) -> None:
        for _ in range(10):
            found.append((alpha, np.stack(model.predict(QUERIES, alphas=[alpha]))[:, 0]))
            model.alpha = alpha  # nor does one that turns the model itself

    threads = [threading.Thread(target=ask, args=(alpha,)) for alpha in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    for alpha, given in found:
        np.testing.assert_allclose(given, expected[alpha], rtol=0, atol=1e-5)


def test_curve_gives_every_alpha_from_a_few_passes(adapter: Path) -> None:
    model = RegionalModel.from_pretrained(adapter)
    curve = model.curve(QUERIES)
    alphas = [0.0, 0.15, 0.33, 0.7, 1.0]
    true = model.predict(QUERIES, alphas=alphas)
    unit = np.ptp(np.stack(true)) / 2
    for found, expected in zip(curve.at(alphas), true, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=max(curve.error, 1e-4) * unit)
    assert model.alpha == RECOMMENDED


# --------------------------------------------------------------------------------------------------- merged in place
def test_model_held_merged_equals_the_live_one_at_every_alpha(adapter: Path, tiny_base: Path) -> None:
    live, held = RegionalModel.from_pretrained(adapter), RegionalModel.from_pretrained(adapter, merged=True)
    assert not isinstance(held.model, PeftModel), "adapters beside the weights would cost time"
    assert held.alpha == RECOMMENDED
    for alpha in (RECOMMENDED, 1.0, 0.0, 0.7):
        live.alpha = held.alpha = alpha
        np.testing.assert_allclose(scores(held), scores(live), rtol=0, atol=1e-5)
    together = held.predict(QUERIES, alphas=[0.2, 0.9, 0.0])
    for found, expected in zip(together, live.predict(QUERIES, alphas=[0.2, 0.9, 0.0]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert held.alpha == 0.7
    held.alpha = 0
    base = AutoModel.from_pretrained(tiny_base).state_dict()
    assert all(torch.equal(tensor, base[name]) for name, tensor in held.model.state_dict().items())


def test_threads_wait_for_each_other_where_weights_change(adapter: Path) -> None:
    model = RegionalModel.from_pretrained(adapter, merged=True)
    expected = {alpha: np.stack(model.predict(QUERIES, alphas=[alpha])) for alpha in (0.0, 0.5, 1.0)}
    wrong: list[float] = []

    def ask(alpha: float) -> None:
        for _ in range(10):
            if np.abs(np.stack(model.predict(QUERIES, alphas=[alpha])) - expected[alpha]).max() > 1e-5:
                wrong.append(alpha)

    threads = [threading.Thread(target=ask, args=(alpha,)) for alpha in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert model.alpha == RECOMMENDED


def test_alpha_that_others_ask_at_is_never_seen_as_that_of_the_model(adapter: Path) -> None:
    model = RegionalModel.from_pretrained(adapter, merged=True)
    expected, wrong = scores(model), []

    def watch() -> None:
        for _ in range(10):
            with model.at(RECOMMENDED):
                if model.alpha != RECOMMENDED or np.abs(scores(model) - expected).max() > 1e-5:
                    wrong.append(model.alpha)

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    while any(watcher.is_alive() for watcher in watchers):
        model.predict(QUERIES, alphas=[0.0, 1.0])
    assert not wrong
    assert model.alpha == RECOMMENDED
    np.testing.assert_allclose(scores(model), expected, rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------------ several regions
@pytest.fixture
def second(tmp_path: Path, tiny_base: Path, tiny_adapter: Path) -> Path:
    """An adapter of another region on the same base."""
    folder = publish(
        tmp_path / "hub" / "me" / "ssa-lora", tiny_adapter, "adapter", str(tiny_base), region="ssa", alpha=0.2
    )
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name: tensor.flip(0) for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize("merged", [False, True])
def test_two_regions_have_an_alpha_each(
    adapter: Path, second: Path, tiny_base: Path, tmp_path: Path, merged: bool
) -> None:
    model = RegionalModel.from_pretrained(adapter, merged=merged)
    model.load_adapter(second)
    assert model.alpha == {"sea": RECOMMENDED, "ssa": 0.2}
    for i, alpha in enumerate(({"sea": 0.5, "ssa": 0.25}, {"ssa": 1.0, "sea": 0.0}, {"sea": 1.0, "ssa": 1.0})):
        model.alpha = alpha
        assert model.alpha == alpha
        checkpoints.merge_adapters(tiny_base, {adapter: alpha["sea"], second: alpha["ssa"]}, tmp_path / str(i))
        files = publish(tmp_path / f"files{i}", tmp_path / str(i), "merged", str(tiny_base))
        expected = scores(RegionalModel.from_pretrained(files))
        np.testing.assert_allclose(scores(model), expected, rtol=0, atol=1e-5)
        both = model.predict(QUERIES, alphas=[{"sea": 0.0, "ssa": 0.0}, alpha])
        np.testing.assert_allclose(np.stack(both)[:, 1], expected, rtol=0, atol=1e-5)
    with pytest.raises(ZeroDivisionError), model.at({"sea": 0.1, "ssa": 0.1}):
        _ = 1 / 0
    assert model.alpha == {"sea": 1.0, "ssa": 1.0}


@pytest.mark.parametrize("merged", [False, True])
def test_a_region_may_come_while_the_model_stands_elsewhere(adapter: Path, second: Path, merged: bool) -> None:
    model = RegionalModel.from_pretrained(adapter, merged=merged)
    with model.at(0.9):
        model.load_adapter(second)
        assert model.alpha == {"sea": 0.9, "ssa": 0.2}
    assert model.alpha == {"sea": RECOMMENDED, "ssa": 0.2}


def test_alpha_of_two_regions_names_both(adapter: Path, second: Path) -> None:
    model = RegionalModel.from_pretrained(adapter)
    model.load_adapter(second, alpha=0.6)
    assert model.alpha == {"sea": RECOMMENDED, "ssa": 0.6}
    before = scores(model)
    for alpha in (0.5, {"sea": 0.5}, {"sea": 0.5, "ssa": 0.5, "na": 0.5}, {"sea": 0.5, "ssa": 1.5}):
        with pytest.raises(InputError, match="alpha"):
            model.alpha = alpha  # type: ignore[assignment]
    np.testing.assert_array_equal(scores(model), before)


@pytest.mark.parametrize("merged", [False, True])
def test_adapters_that_cannot_be_added_leave_the_model_as_it_was(
    adapter: Path, second: Path, tiny_base: Path, tiny_adapter: Path, tmp_path: Path, merged: bool
) -> None:
    model = RegionalModel.from_pretrained(adapter, merged=merged)
    before = scores(model)
    with pytest.raises(InputError, match="'sea' is loaded already"):
        model.load_adapter(adapter)
    elsewhere = publish(tmp_path / "elsewhere", tiny_adapter, "adapter", "them/other", region="na")
    with pytest.raises(InputError, match="made for them/other"):
        model.load_adapter(elsewhere)
    tensors = load_file(second / "adapter_model.safetensors")
    name = next(iter(tensors))
    save_file(tensors | {name: torch.ones(4, 7)}, second / "adapter_model.safetensors")
    with pytest.raises(InputError, match="does not fit the base"):
        model.load_adapter(second)
    assert model.alpha == RECOMMENDED
    np.testing.assert_array_equal(scores(model), before)


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
