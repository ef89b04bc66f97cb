"""The layers of the package: who may import whom. tests/test_layers.py holds the code to it; the documents draw it."""

import ast
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "ggez_hub"
ROOT = "ggez_hub"  # the package's own __init__, which only gathers names for users

# From the bottom up. A part (a module or a folder of the package) imports from the layers below it. Parts of one layer
# may import each other as long as that makes no circle.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("schema", "method", "device", "metadata"),
    ("registry", "runs"),
    ("hub", "kof", "endpoint"),
    ("pocket", "families", "data", "merging", "scoring"),
    ("recipes",),
    ("stages",),
    ("pipeline", "model", "gate", "pins"),
    (
        "describe",
        "scaffold",
        "ablate",
        "generalisation",
        "preview",
        "verify",
        "predict",
        "reproduce",
        "spaces",
        "metrics",
    ),
    ("rehearsal",),
    ("cli",),
    ("__main__", ROOT),
)
APART = {"families": "a family", "stages": "a stage"}  # folders whose modules know nothing of each other
SHARED = ("base", "_contrastive")  # modules of such a folder that are none of its kind, and that the others may import


@dataclass(frozen=True)
class Import:
    """One module importing another; both named without the package in front: ``data.readers``."""

    source: str
    target: str
    line: int


def part(module: str) -> str:
    """The part of the package that a module belongs to."""
    return module.partition(".")[0]


def imports(package: Path = PACKAGE) -> list[Import]:
    """Every import of one module of the package by another, also those inside functions and by ``import_module``."""
    files = {_name(path.relative_to(package)): path for path in sorted(package.rglob("*.py"))}
    found = []
    for source, path in files.items():
        folder = source if path.name == "__init__.py" else source.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            for name in _imported(node, package.name, "" if folder == ROOT else folder):
                target = _module(name, files)
                if target != source:
                    found.append(Import(source, target, node.lineno))  # type: ignore[attr-defined]
    return sorted(set(found), key=lambda i: (i.source, i.line, i.target))


def _name(path: Path) -> str:
    """``data/readers.py`` -> ``data.readers``, ``data/__init__.py`` -> ``data``, ``__init__.py`` -> ROOT."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or ROOT


def _module(name: str, files: dict[str, Path]) -> str:
    """The module that a dotted name, such as ``data.readers.check``, leads to."""
    while name and name not in files:
        name = name.rpartition(".")[0]
    return name or ROOT


def _imported(node: ast.AST, package: str, folder: str) -> Iterator[str]:
    """The dotted names within the package that a statement imports; empty for the package itself."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        origin = node.module or ""
        if node.level:
            above = [package, *folder.split(".")] if folder else [package]
            origin = ".".join([*above[: len(above) - node.level + 1], *([origin] if origin else [])])
        names = [f"{origin}.{alias.name}" for alias in node.names]
    elif isinstance(node, ast.Call) and node.args and "import_module" in ast.unparse(node.func):
        text = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            names = [text.value]
    for name in names:
        if name == package or name.startswith(f"{package}."):
            yield name[len(package) + 1 :].rstrip(".")


def problems(found: list[Import]) -> list[str]:
    """What breaks the rules above, one line each."""
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    modules = {name for i in found for name in (i.source, i.target)}
    said = [f"{name}: stands in no layer" for name in sorted({part(m) for m in modules} - level.keys())]
    for i in found:
        where, source, target = f"{i.source} line {i.line}: imports {i.target}", part(i.source), part(i.target)
        if level.get(target, 0) > level.get(source, len(LAYERS)):
            said.append(f"{where}, which is above it")
        if (
            source == target
            and source in APART
            and i.source != source
            and i.target not in (source, *(f"{source}.{name}" for name in SHARED))
        ):
            said.append(f"{where}, but {APART[source]} never imports another")
    for edges in ({(part(i.source), part(i.target)) for i in found}, {(i.source, i.target) for i in found}):
        sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
        for source, target in sorted(edges):
            if source != target:
                sorter.add(source, target)
        try:
            sorter.prepare()
        except graphlib.CycleError as err:
            said.append(f"a circle: {' imports '.join(reversed(err.args[1]))}")
    return list(dict.fromkeys(said))


def sideways(found: list[Import]) -> list[tuple[str, str]]:
    """Pairs of parts of one layer of which the first imports the second."""
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    pairs = {(part(i.source), part(i.target)) for i in found}
    return sorted((a, b) for a, b in pairs if a != b and level.get(a) == level.get(b))


def picture() -> str:
    """The layers as text, top first, with the imports within a layer as they are in the code."""
    across = sideways(imports())
    rows: list[list[str]] = []
    for layer in reversed(LAYERS):
        row = ["   ".join(f"{name}/" if (PACKAGE / name / "__init__.py").is_file() else name for name in layer)]
        row += [f"  {a} -> {', '.join(b for x, b in across if x == a)}"
                for a in sorted({a for a, _ in across}) if a in layer]  # fmt: skip
        row += [f"  {APART[name]} never imports another" for name in layer if name in APART]
        rows.append(row)
    width = max(len(line) for row in rows for line in row) + 2
    border = f"  +{'-' * width}+"
    drawn = [border]
    for row in rows:
        drawn += [*(f"  | {line:{width - 1}}|" for line in row), border]
    middle = len(drawn) // 2
    return "\n".join(
        line + {middle - 1: "   imports", middle: "   go down", middle + 1: "      |", middle + 2: "      v"}.get(i, "")
        for i, line in enumerate(drawn)
    )


if __name__ == "__main__":
    print(picture())
    print("\n".join(problems(imports())) or "the code keeps to it")
