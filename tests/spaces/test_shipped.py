"""What travels with the Spaces is what the recipes made."""

import pytest

from ggez_hub import hub, registry
from ggez_hub.schema import Facts

ADAPTERS = sorted((registry.data_root() / "spaces" / "playground" / "models").glob("*/*"))


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda folder: folder.name)
def test_an_adapter_of_the_playground_is_the_one_whose_card_and_results_are_shown_elsewhere(folder):
    facts = hub.read(folder, hub.FACTS, Facts, folder.name)
    golden = registry.data_root() / "cards" / "pocket" / facts.recipe
    assert (folder / "results.json").read_bytes() == (golden / "results.json").read_bytes()
    assert (folder / "README.md").read_bytes() == (golden / "adapter.md").read_bytes()


def test_every_family_has_an_adapter_and_one_of_them_a_second_region():
    facts = [hub.read(folder, hub.FACTS, Facts, folder.name) for folder in ADAPTERS]
    assert {each.family for each in facts} == set(registry.files("families"))
    assert {each.region for each in facts if each.family == "embedding"} >= {"sea", "ssa"}
