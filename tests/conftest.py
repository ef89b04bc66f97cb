"""What all tests share: no network, one thread, a data folder of their own."""

import os

# Before any import that reads them.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ggez", deadline=None)  # a busy machine is no failure
settings.load_profile("ggez")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, so that nothing the user imported changes a test, and no test changes it."""
    folder = tmp_path / "ggez_home"
    monkeypatch.setenv("GGEZ_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the paper's printed tables and real data, beside the repository."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the paper's tables and real data in {folder}")
    return folder
