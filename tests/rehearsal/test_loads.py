"""What a run on a twin publishes loads back with every library; what is broken is not passed over."""

import contextlib
import importlib.util
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import safetensors.torch
from safetensors.torch import load_file

from ggez_hub import load_recipe, run
from ggez_hub.errors import InputError
from ggez_hub.pocket import atlas
from ggez_hub.rehearsal import bases, loads, twins
from ggez_hub.stages import push

BASES = {
    "vlm": "google/gemma-3-4b-it",
    "embedding": "google/siglip2-base-patch16-224",
    "diffusion": "stabilityai/stable-diffusion-xl-base-1.0",
    "open_clip": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
}
RECIPE = """\
title: Tiny {family}
family: {family}
region: sea
base: {{id: base, license: mit}}
data: {{reader: {reader}, options: {{train: 1}}, where: {{category: [Food]}}, synthetic: true}}
train: {{steps: 2, batch_size: 4, learning_rate: 1e-3, lora: {{r: 2}}, method: {method}}}
sweep: {{alphas: [0, 1], global: [others], regional: [region], resamples: 20}}
"""
BENCHMARK = """\
title: Tiny {rows}
source: {{reader: {reader}, options: {{test: 1}}, where: {{category: [Food]}}}}
task: {task}
rows: {rows}
synthetic: true
"""
DRAWING = "drawing\nprompt: a drawing of {label}\njudge: ggez-hub/pocket-base-embedding\nmeasure: confidence"


def made(folder: Path, family: str, method: str = "lora") -> Path:
    """Runs a tiny recipe on the twin of a base, and publishes it into the folder `published`."""
    texts = sorted({atlas.caption(concept, 0) for concept in atlas.concepts() if concept.category == "Food"})
    twins.write(bases.known()[BASES[family]], folder / "base", texts)
    reader = "pocket_questions" if family == "vlm" else "pocket"
    task = {"vlm": "question", "diffusion": DRAWING}.get(family, "top1")
    (folder / "recipes" / "benchmarks").mkdir(parents=True)
    (folder / "recipes" / "tiny.yaml").write_text(RECIPE.format(family=family, reader=reader, method=method))
    for rows in ("others", "region"):
        text = BENCHMARK.format(rows=rows, reader=reader, task=task)
        (folder / "recipes" / "benchmarks" / f"{rows}.yaml").write_text(text)
    with contextlib.chdir(folder):
        push.to_folder(load_recipe("tiny"), run("tiny"), folder / "published")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda family: made(tmp_path_factory.mktemp(family), family))


def back(folder: Path) -> dict[str, str]:
    published = {artefact: path for artefact, name in (("adapter", "tiny-lora"), ("merged", "tiny"))
                 if (path := folder / "published" / "ggez-hub" / name).is_dir()}  # fmt: skip
    with contextlib.chdir(folder):
        return loads.back(load_recipe("tiny"), published, folder / "base")


def everything_loads(family: str, folder: Path) -> None:
    found = back(folder)
    assert list(found) == ["ggez_hub", *loads.LIBRARIES[family]]
    assert re.search(
        r"adapter at alpha 0 and 1: outputs differ by up to [0-9.e-]+; .*merged at alpha", found["ggez_hub"]
    )
    assert all(re.search(r"as ggez_hub to \d", words) for library, words in found.items() if library != "ggez_hub")
    assert "not installed" not in " ".join(found.values())


def test_what_is_published_loads_back_with_every_library(runs: Callable[[str], Path]) -> None:
    everything_loads("embedding", runs("embedding"))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vlm", "open_clip", "diffusion"])
def test_what_is_published_of_other_families_loads_back_as_well(family: str, runs: Callable[[str], Path]) -> None:
    everything_loads(family, runs(family))


# --------------------------------------------------------------------------------------------------------------- broken
@pytest.fixture
def broken(runs: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a run's folder, to break something in."""

    def copy(family: str) -> Path:
        shutil.copytree(runs(family), tmp_path / "copy")
        return tmp_path / "copy"

    return copy


def test_adapter_that_is_all_zero_is_caught(broken: Callable[[str], Path]) -> None:
    folder = broken("embedding")
    file = folder / "published" / "ggez-hub" / "tiny-lora" / "adapter_model.safetensors"
    state = {name: tensor * ("lora_B" not in name) for name, tensor in load_file(file).items()}
    safetensors.torch.save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"tiny-lora: the adapter changes nothing"):
        back(folder)


@pytest.mark.parametrize(("family", "file", "words"), [
    ("embedding", "tiny-lora/adapter_model.safetensors", "adapter_model.safetensors"),
    ("embedding", "tiny-lora/tokenizer.json", "tiny-lora: no tokenizer files"),
    ("embedding", "tiny-lora/adapter_config.json", "adapter_config.json"),
    ("embedding", "tiny/model.safetensors", "tiny"),
    ("embedding", "tiny/config.json", "tiny"),
    ("embedding", "tiny/modules.json", "sentence_transformers embeds otherwise than ggez_hub"),
    pytest.param("diffusion", "tiny-lora/pytorch_lora_weights.safetensors", "diffusers cannot", marks=pytest.mark.slow),
    pytest.param("diffusion", "tiny/model_index.json", "tiny", marks=pytest.mark.slow),
])  # fmt: skip
def test_file_that_is_missing_is_caught(family: str, file: str, words: str, broken: Callable[[str], Path]) -> None:
    folder = broken(family)
    (folder / "published" / "ggez-hub" / file).unlink()
    with pytest.raises(InputError, match=words) as caught:
        back(folder)
    assert caught.value.hint


@pytest.mark.slow
def test_lora_under_names_that_diffusers_does_not_know_is_caught(broken: Callable[[str], Path]) -> None:
    folder = broken("diffusion")
    repository = folder / "published" / "ggez-hub" / "tiny-lora"
    shutil.copy(repository / "adapter_model.safetensors", repository / loads.LORA)  # which it would pass over
    with pytest.raises(InputError, match=r"tiny-lora: diffusers (finds no LoRA|cannot load it)"):
        back(folder)


@pytest.mark.parametrize("file", ["tiny/model.safetensors", "tiny-lora/adapter_model.safetensors"])
def test_weights_that_are_no_numbers_are_caught(file: str, broken: Callable[[str], Path]) -> None:
    folder = broken("embedding")
    path = folder / "published" / "ggez-hub" / file
    state = {name: tensor * float("nan") for name, tensor in load_file(path).items()}
    safetensors.torch.save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=file.partition("/")[0]):
        back(folder)


def test_library_that_is_not_installed_is_named_and_no_error(
    runs: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("peft", "transformers") else find(name)
    )
    found = back(runs("embedding"))
    assert found["peft"] == found["transformers"] == "not installed, so not tried"


@pytest.mark.slow
def test_full_training_publishes_a_merged_model_alone(tmp_path: Path) -> None:
    found = back(made(tmp_path / "full", "embedding", "full"))
    assert found["peft"] == "nothing of this recipe is for it"
    assert "merged" in found["transformers"]
