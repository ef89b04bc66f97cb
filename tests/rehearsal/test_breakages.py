"""One thing broken in a copy of each shipped recipe: the rehearsal names its line and what to do."""

from pathlib import Path

import pytest

import breakages
from ggez_hub import registry

SAMPLE = {  # recipe: what is broken in the tests that always run
    "pocket-sea-vlm": "wrong column",
    "omniglot-base": "wrong column",
    "pocket-judge": "micro batch above batch",
    "pocket-mixes-embedding": "license of the data",
    "omniglot-sea": "region without KOF",
    "sea-siglip2-base": "unknown architecture",
    "sea-open-clip-vit-b-32": "lost column",
}
LINES = {  # of the copy: where the broken key stands, or the one above it where the broken thing is no key
    "micro batch above batch": "micro_batch_size",
    "license of the data": "license: cc-by-nc-4.0",
    "license of the base": "license: cc-by-nc-4.0",
    "region without KOF": "region: nowhere",
    "unknown architecture": "base:",
    "wrong column": "text: captoin",
    "impossible batch": "micro_batch_size",
    "batch beyond every GPU": "micro_batch_size",
}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of the Hub's client is where a rehearsal has it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", "hub")


def is_caught(recipe: str, breakage: str, folder: Path) -> None:
    found = breakages.caught(recipe, breakage, folder)
    if found is None:
        pytest.skip(f"{recipe} has nothing of this kind")
    assert found, "nothing is said"
    problem = found[0]
    assert problem.text
    assert problem.hint, "no next step"
    file, _, line = problem.place.rpartition(":")
    assert line.isdigit(), problem
    if wanted := LINES.get(breakage):
        assert Path(file).name == "copy.yaml"
        assert wanted in (folder / "copy.yaml").read_text().splitlines()[int(line) - 1]


@pytest.mark.parametrize(("recipe", "breakage"), SAMPLE.items())
def test_what_is_broken_is_caught_with_its_line_and_a_next_step(recipe: str, breakage: str, tmp_path: Path) -> None:
    is_caught(recipe, breakage, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("breakage", breakages.BREAKAGES)
@pytest.mark.parametrize("recipe", registry.files("recipes"))
def test_in_every_recipe(recipe: str, breakage: str, tmp_path: Path) -> None:
    is_caught(recipe, breakage, tmp_path)
