"""What tests of the Hub share: a tiny model of every family, made once by the whole pipeline on a base from the Hub."""

import pytest
from huggingface_hub import constants

import libraries
from ggez_hub import registry
from tests.hub_server import HubServer

FAMILIES = sorted(registry.files("families"))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> libraries.Repositories:
    """What the families publish, and their bases; the server that they came from is gone."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub_cache"))
        patch.setenv("GGEZ_HOME", str(folder / "ggez_home"))
        with HubServer(port=int(constants.ENDPOINT.rpartition(":")[2])) as server:
            return libraries.make(folder, FAMILIES, server)


@pytest.fixture
def commits(made: libraries.Repositories, hub_server: HubServer) -> dict[str, str]:
    """All of it on the Hub of a test: the commit of every repository by its id."""
    return libraries.publish(hub_server, made)
