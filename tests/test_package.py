"""The built wheel, installed into an empty environment, has all that it needs with it."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = ("recipes", "cards", "spaces")  # beside the package in the checkout, inside it in the wheel
INSIDE = ("ggez_hub/pocket/atlas", "ggez_hub/pocket/models")
BENCHMARK = """\
title: A few questions
source: {{reader: pocket, options: {{selection: 1, test: 1}}}}
task: top1
rows: {rows}
test: {{split: [test]}}
selection: {{split: [selection]}}
synthetic: true
"""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and a folder far from the checkout to work in."""

    wheel: Path
    environment: Path
    folder: Path

    def run(self, program: str, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        return subprocess.run(
            [self.environment / "bin" / program, *arguments],
            cwd=folder or self.folder, env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def out(self, program: str, *arguments: str, folder: Path | None = None) -> str:
        done = self.run(program, *arguments, folder=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.out("ggez", *arguments, "--json"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment that sees the libraries of this one, but not the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    subprocess.run(
        [*pip, "--python", environment / "bin" / "python", "install", "--no-deps", "--no-index", wheel], check=True
    )
    (site,) = environment.glob("lib/python*/site-packages")
    # A folder named in a .pth is searched, but its own .pth files, the editable install among them, are not read.
    (site / "libraries.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    (folder / "elsewhere").mkdir()
    return Installed(wheel, environment, folder / "elsewhere")


def files(folder: str) -> set[str]:
    """What the checkout has in a folder, hidden files aside."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".pyc"
    }


def test_all_data_of_the_checkout_is_in_the_wheel(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        packed = set(archive.namelist())
        wanted = {f"ggez_hub/_data/{name}": name for folder in SHIPPED for name in files(folder)}
        wanted |= {name: name for folder in INSIDE for name in files(folder)}
        assert len(wanted) > 20
        assert sorted(wanted.keys() - packed) == []
        assert [name for name, ours in wanted.items() if archive.read(name) != (ROOT / ours).read_bytes()] == []
    assert "ggez_hub/py.typed" in packed
    assert not [name for name in packed if name.startswith(("tests/", "scripts/"))]


def test_data_comes_from_inside_the_wheel_not_from_the_checkout(installed: Installed) -> None:
    code = (
        "from ggez_hub import hub, registry\n"
        "from ggez_hub.pocket import atlas\n"
        "print(registry.find('recipes', 'pocket-sea-embedding'), registry.find('regions', 'sea'), sep='\\n')\n"
        "print(registry.data_root() / 'cards' / 'model.md.j2', atlas.FOLDER / 'sea.yaml', sep='\\n')\n"
        "models = [hub.fetch(f'{hub.NAMESPACE}/{name}') for name in hub.shipped()]\n"
        "print(*(next(model.rglob('*.safetensors')) for model in models), sep='\\n')"
    )
    paths = [Path(line) for line in installed.out("python", "-c", code).splitlines()]
    assert len(paths) >= 5
    assert [path for path in paths if not path.is_file() or not path.is_relative_to(installed.environment)] == []


@pytest.mark.parametrize("kind", ["recipes", "regions", "benchmarks"])
def test_lists_what_the_checkout_has(installed: Installed, kind: str) -> None:
    ours = [Path(sys.executable).with_name("ggez"), "ls", kind, "--json"]
    here = subprocess.run(ours, cwd=ROOT, capture_output=True, text=True, check=True)
    assert installed.json("ls", kind) == json.loads(here.stdout)
    assert installed.json("ls", kind)[kind]


def test_shipped_files_are_valid(installed: Installed) -> None:
    done = installed.run("ggez", "validate")
    assert done.returncode == 0, done.stderr
    shipped = [name for name in files("recipes") if name.endswith(".yaml")]
    assert f"{len(shipped)} files are valid" in done.stderr


def test_runs_a_shipped_recipe_up_to_its_cards(installed: Installed) -> None:
    work = installed.folder / "work"
    (work / "recipes" / "benchmarks").mkdir(parents=True)
    for rows in ("region", "others"):  # few questions, in a recipes folder of one's own
        (work / "recipes" / "benchmarks" / f"few-{rows}.yaml").write_text(BENCHMARK.format(rows=rows))
    few = ("train.steps=2", "train.batch_size=8", "sweep.alphas=[0, 1]", "sweep.resamples=10")
    questions = ("sweep.global=[few-others]", "sweep.regional=[few-region]")
    installed.out("ggez", "run", "pocket-sea-embedding", *few, *questions, folder=work)
    run = work / "runs" / "pocket-sea-embedding"
    for artefact in ("adapter", "merged"):
        assert "Southeast Asia" in (run / "card" / artefact / "README.md").read_text(encoding="utf-8")
