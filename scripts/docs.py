"""Writes the generated blocks of the documents, or says which are out of date (--check). No network, a second or two.

A block stands between ``<!-- begin:NAME -->`` and ``<!-- end:NAME -->``; NAME is one of BLOCKS below.
"""

import argparse
import ast
import contextlib
import difflib
import functools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

import estimates
import layers
from ggez_hub import describe, registry, reproduce
from ggez_hub.cli import cli
from ggez_hub.data import readers
from ggez_hub.schema import Corpus, Recipe

REPOSITORY = Path(__file__).parents[1]
FAMILIES = ("diffusion", "embedding", "open_clip", "vlm")  # each has a document of its own
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/paper.md", *(f"docs/{family}.md" for family in FAMILIES))
RESULTS = REPOSITORY / "cards" / "pocket"
SHOWN = "pocket-sea-embedding"  # whose table stands for what `ggez demo` prints
BLOCK = re.compile(r"(<!-- begin:(\S+) -->\n).*?(<!-- end:\2 -->)", re.DOTALL)
MARKER = re.compile(r"<!-- (?:begin|end):\S+ -->")
NOT_MEASURED = "Not measured yet."
FOLDERS = {
    ".ci/run": "what has to pass: installs, checks and tests, with the commands of the README",
    ".github/": "workflows: the same checks, and recipes of pull requests validated and tried",
    "recipes/": "recipes, one YAML file each; regions/ and benchmarks/ too",
    "cards/": "the template of model cards, and the cards of the pocket recipes",
    "spaces/": "the Gradio apps: one folder each, which is what a Hugging Face Space holds",
    "scripts/": "what maintainers run; docs.py writes this tree",
    "tests/": "mirrors the package",
}


# --------------------------------------------------------------------------------------------------------------- blocks
def tree() -> str:
    """The folders of the repository, and every module of the package with the first sentence of its docstring."""
    rows = [(name, note) for name, note in FOLDERS.items() if (REPOSITORY / name).exists()]
    rows.append((f"{layers.PACKAGE.name}/", _summary(layers.PACKAGE / "__init__.py")))
    rows += _modules(layers.PACKAGE, "  ")
    width = max(len(name) for name, _ in rows)
    return _fence("\n".join(f"{name:{width}}  {note}".rstrip() for name, note in rows))


def _modules(folder: Path, indent: str) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir(), key=lambda p: (p.is_dir(), p.name)):
        if path.suffix == ".py" and path.name != "__init__.py":
            yield f"{indent}{path.name}", _summary(path)
        elif (path / "__init__.py").is_file():
            yield f"{indent}{path.name}/", _summary(path / "__init__.py")
            yield from _modules(path, indent + "  ")
        else:  # a module of evaluate, which is loaded by its place
            yield from ((f"{indent}{path.name}/{file.name}", _summary(file)) for file in sorted(path.glob("*.py")))


def _summary(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0].replace("\n", " ")


def command_help() -> str:
    """``ggez --help``, and behind a fold the help of every command."""
    first, *others = _helps(cli, click.Context(cli, info_name="ggez", terminal_width=78, **cli.context_settings))
    folded = "\n\n".join(_fence(text) for text in others)
    return f"{_fence(first)}\n\n<details>\n<summary>Every command</summary>\n\n{folded}\n\n</details>"


def _helps(command: click.Command, context: click.Context) -> Iterator[str]:
    yield "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            yield from _helps(inner, click.Context(inner, info_name=name, parent=context))


def layer_picture() -> str:
    """The layers of the package, as tests/test_layers.py checks them."""
    return _fence(layers.picture())


def recipe_table() -> str:
    """The shipped recipes."""
    rows = []
    for name, path in registry.files("recipes").items():
        recipe = registry.read(Recipe, path)
        region = registry.load_region(recipe.region).title
        rows.append((f"`{name}`", region, recipe.family, _base(recipe), _training(recipe), _data(recipe)))
    return _table(("recipe", "region", "family", "base", "training", "data"), rows)


def _base(recipe: Recipe) -> str:
    if recipe.base.random is not None:
        return "random weights"
    return f"`{recipe.base.id}`" if recipe.base.id else f"output of `{recipe.base.recipe}`"


def _training(recipe: Recipe) -> str:
    train = recipe.train
    method = f"LoRA, rank {train.lora.r}" if train.method == "lora" else "all weights"
    return f"{method}; {train.length}"


def _data(recipe: Recipe) -> str:
    return "; ".join(_corpus(name, corpus) for name, corpus in recipe.data.corpora.items())


def _corpus(name: str, corpus: Corpus) -> str:
    source = corpus.path or corpus.id or corpus.reader
    if readers.needs_path(corpus.reader) and not (corpus.path or corpus.id):
        key = "data" if name == "data" else f"data.sources.{name}"
        source = f"yours: `{key}.path=FILE`"
    return source + (" (synthetic)" if corpus.synthetic else "")


def demo_table(folder: Path = RESULTS) -> str:
    """What ``ggez demo`` prints, from the results that are kept with its cards."""
    path = folder / SHOWN / "results.json"
    return _fence(describe.results_table(_json(path))) if path.is_file() else NOT_MEASURED


def result_table(folder: Path = RESULTS) -> str:
    """What the pocket recipes reached, from the results that are kept with their cards."""
    rows = []
    for path in sorted(folder.glob("*/results.json")):
        results = _json(path)
        chosen, plain, zero = results["chosen"], results["grp_best"], results["points"][0]
        name = f"`{path.parent.name}`"
        card = path.with_name("adapter.md")
        rows.append(
            (
                f"[{name}]({card.relative_to(folder.parents[1]).as_posix()})" if card.is_file() else name,
                registry.load_region(results["region"]).title,
                f"{results['globalization']['value']:.3f}",
                f"{chosen['alpha']:g}",
                f"{zero['grp']:.3f} → {chosen['grp']:.3f}",
                _percent(chosen, "gain"),
                _percent(chosen, "retention"),
                f"α = {plain['alpha']:g}: {_percent(plain, 'gain')}, {_percent(plain, 'retention')}",
            )
        )
    if not rows:
        return NOT_MEASURED
    heads = ("recipe", "region", "globalization", "chosen α", "GRP at α = 0 → chosen", "gain", "retention")
    table = _table((*heads, "plain rule: gain, retention"), rows)
    plot = folder / SHOWN / "parity.png"
    if not plot.is_file():
        return table
    return f"{table}\n\n![{SHOWN}: quality over α (synthetic)]({plot.relative_to(folder.parents[1]).as_posix()})"


def _percent(judged: Mapping[str, Any], key: str) -> str:
    """A fraction and its interval in percent."""
    if judged[key] is None:
        return "undefined"
    interval = judged[f"{key}_ci95"]
    return f"{judged[key]:.1%}" + (f" [{interval[0]:.1%}, {interval[1]:.1%}]" if interval else "")


def paper_table() -> str:
    """What ``ggez reproduce-paper`` prints."""
    return _fence(reproduce.text(reproduce.recompute()))


def estimate_table(family: str) -> str:
    """What the real run of each recipe of a family needs, from what scripts/estimates.py wrote."""
    rows = estimates.rows(family)
    return _table(estimates.HEAD, rows) if rows else NOT_MEASURED


BLOCKS: dict[str, Callable[[], str]] = {
    "tree": tree,
    "help": command_help,
    "layers": layer_picture,
    "recipes": recipe_table,
    "demo": demo_table,
    "results": result_table,
    "paper": paper_table,
    **{f"estimates-{name}": functools.partial(estimate_table, name) for name in FAMILIES},
}


# -------------------------------------------------------------------------------------------------------------- writing
def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _fence(text: str) -> str:
    return f"```text\n{text}\n```"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fill(text: str, blocks: Mapping[str, Callable[[], str]] = BLOCKS) -> str:
    """A document with its blocks written anew.

    Raises:
        ValueError: A block of an unknown name, or a marker without its other half.
    """
    lost = MARKER.findall(BLOCK.sub("", text))
    if lost:
        raise ValueError(f"{lost[0]}: the other half of this marker is missing")
    for _, name, _ in BLOCK.findall(text):
        if name not in blocks:
            raise ValueError(f"no block is called {name!r}; there are: {', '.join(sorted(blocks))}")
    return BLOCK.sub(lambda match: f"{match[1]}{blocks[match[2]]()}\n{match[3]}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes or checks the documents; 1 if --check finds a block out of date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; show what would change and exit with 1")
    parser.add_argument("documents", nargs="*", type=Path, default=[REPOSITORY / name for name in DOCUMENTS])
    args = parser.parse_args(arguments)
    if registry.data_root() != REPOSITORY:
        parser.error("another ggez_hub is installed than this one; first: pip install -e .")
    stale = False
    for path in [path.resolve() for path in args.documents]:
        old = path.read_text(encoding="utf-8")
        with contextlib.chdir(REPOSITORY):  # elsewhere, a folder `recipes` would add to the shipped recipes
            new = fill(old)
        if args.check:
            diff = difflib.unified_diff(old.splitlines(), new.splitlines(), path.name, "up to date", lineterm="")
            sys.stdout.writelines(f"{line}\n" for line in diff)
        elif new != old:
            path.write_text(new, encoding="utf-8")
        stale |= new != old
    if args.check and stale:
        print("out of date; run: python scripts/docs.py", file=sys.stderr)
    return int(args.check and stale)


if __name__ == "__main__":
    sys.exit(main())
