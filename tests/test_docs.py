"""What is written about the package is true: generated blocks, code and links in the documents, docstrings, names."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import docs
import ggez_hub
from ggez_hub import recipes
from layers import PACKAGE

ROOT = PACKAGE.parent
DOCUMENTS = sorted(ROOT.glob("*.md"))
POINT = {"alpha": 0.0, "global": 0.9, "regional": 0.4, "grp": 0.61}
CHOSEN = {**POINT, "alpha": 0.25, "regional": 0.5, "grp": 0.68, "gain": 0.25, "gain_ci95": [0.2, 0.3],
          "retention": 0.99, "retention_ci95": [0.98, 1.0]}  # fmt: skip
RESULTS = {
    "recipe": "Pocket Southeast Asia", "region": "sea", "synthetic": True, "min_retention": 0.98,
    "globalization": {"value": 0.434, "source": "KOF", "year": 2023}, "points": [POINT], "chosen": CHOSEN,
    "grp_best": {**CHOSEN, "alpha": 0.5, "gain": None, "gain_ci95": None},
}  # fmt: skip


def code_blocks(language: str) -> Iterator[tuple[str, str]]:
    for path in DOCUMENTS:
        for i, code in enumerate(re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)):
            yield f"{path.name}:{i + 1}", code


def write_results(folder: Path, name: str, **changes: Any) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "results.json").write_text(json.dumps(RESULTS | changes))


# ------------------------------------------------------------------------------------------------------------ documents
def test_generated_blocks_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "docs.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_block_stands_in_a_document() -> None:
    text = "".join((ROOT / name).read_text() for name in docs.DOCUMENTS)
    assert [name for name in docs.BLOCKS if f"<!-- begin:{name} -->" not in text] == []


@pytest.mark.parametrize(("place", "code"), list(code_blocks("python")))
def test_python_in_the_documents_compiles(place: str, code: str) -> None:
    compile(code, place, "exec")


def test_yaml_in_the_documents_is_valid(tmp_path: Path) -> None:
    found = list(code_blocks("yaml"))
    assert found
    for i, (_, text) in enumerate(found):
        (tmp_path / f"example-{i}.yaml").write_text(text)
        recipes.validate_file(tmp_path / f"example-{i}.yaml")


def test_every_ggez_command_in_the_documents_exists() -> None:
    used = [line for _, code in code_blocks("bash") for line in code.splitlines() if line.startswith("ggez ")]
    assert used
    assert [line for line in used if line.split()[1] not in docs.cli.commands] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
    assert [target for target in targets if not (ROOT / target).exists()] == []


# --------------------------------------------------------------------------------------------------------------- blocks
def document(folder: Path, text: str) -> Path:
    path = folder / "README.md"
    path.write_text(text)
    return path


def test_check_shows_what_is_out_of_date_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = document(tmp_path, old := "before\n<!-- begin:layers -->\nold\n<!-- end:layers -->\nafter\n")
    assert docs.main(["--check", str(path)]) == 1
    assert "-old" in capsys.readouterr().out
    assert path.read_text() == old


def test_blocks_are_filled_in_place_and_stay_so(tmp_path: Path) -> None:
    path = document(tmp_path, "before\n<!-- begin:recipes -->\n<!-- end:recipes -->\nafter\n")
    assert docs.main([str(path)]) == 0
    text = path.read_text()
    assert text.startswith("before\n<!-- begin:recipes -->\n| recipe |")
    assert text.endswith("|\n<!-- end:recipes -->\nafter\n")
    assert "`pocket-sea-embedding`" in text
    assert docs.main(["--check", str(path)]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- begin:trees -->\n<!-- end:trees -->", "no block is called 'trees'"),
        ("<!-- begin:tree -->\n", "begin:tree -->: the other half"),
        ("<!-- begin:tree -->\n<!-- end:help -->\n", "the other half"),
    ],
)
def test_a_wrong_marker_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        docs.fill(text)


def test_result_table_has_a_row_per_region_with_intervals_and_both_choices(tmp_path: Path) -> None:
    write_results(tmp_path, "pocket-sea-embedding")
    head, _, *rows = docs.result_table(tmp_path).splitlines()
    assert len(rows) == 1
    assert [cell.strip() for cell in rows[0].strip("|").split("|")] == [
        "`pocket-sea-embedding`", "Southeast Asia", "0.434", "0.25", "0.610 → 0.680", "25.0% [20.0%, 30.0%]",
        "99.0% [98.0%, 100.0%]", "α = 0.5: undefined, 99.0% [98.0%, 100.0%]",
    ]  # fmt: skip
    assert head.count("|") == rows[0].count("|")
    assert "gain 0.250 [0.200, 0.300]" in docs.demo_table(tmp_path)


def test_tables_say_that_nothing_is_measured_yet(tmp_path: Path) -> None:
    assert docs.result_table(tmp_path) == docs.demo_table(tmp_path) == "Not measured yet."


def test_the_tree_names_every_module() -> None:
    tree = docs.tree()
    assert [path.name for path in PACKAGE.rglob("*.py") if path.stem != "__init__" and path.name not in tree] == []


# -------------------------------------------------------------------------------------------------------- the package
def test_everything_public_has_a_docstring() -> None:
    lacking = []

    def look(node: ast.Module | ast.ClassDef, place: str) -> None:
        for inner in node.body:
            if isinstance(inner, ast.FunctionDef | ast.ClassDef) and not inner.name.startswith("_"):
                if ast.get_docstring(inner) is None and not is_property_setter(inner):
                    lacking.append(f"{place}.{inner.name}")
                if isinstance(inner, ast.ClassDef):
                    look(inner, f"{place}.{inner.name}")

    for path in PACKAGE.rglob("*.py"):
        module = ast.parse(path.read_text())
        if ast.get_docstring(module) is None:
            lacking.append(path.name)
        look(module, path.stem)
    assert lacking == []


def is_property_setter(node: ast.AST) -> bool:
    """Whether this is the setter of a property; the getter has the docstring."""
    return any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in getattr(node, "decorator_list", []))


def test_the_names_users_import_are_there() -> None:
    assert list(ggez_hub.__all__) == sorted(ggez_hub.__all__)
    contract = {"RegionalModel", "grp", "globalization_factor", "interpolate", "load_recipe", "run"}
    assert contract <= set(ggez_hub.__all__)
    assert [name for name in ggez_hub.__all__ if not hasattr(ggez_hub, name)] == []


def test_every_all_names_what_its_module_defines() -> None:
    for path in PACKAGE.rglob("*.py"):
        module = ast.parse(path.read_text())
        names = {
            alias.asname or alias.name
            for n in module.body
            if isinstance(n, ast.ImportFrom | ast.Import)
            for alias in n.names
        }
        names |= {n.name for n in module.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        names |= {t.id for n in module.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
        for node in module.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                assert set(ast.literal_eval(node.value)) <= names, path.name


def test_the_version_is_the_same_everywhere() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    changes = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert version
    assert changes
    assert changes[1] == version[1] == yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
