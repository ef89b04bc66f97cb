"""The review of pull requests: what its report says and cannot be made to say, and what the workflows may do."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import review
from ggez_hub.registry import parse_yaml
from review import Finding

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"
HOSTILE = "a | b `c` @someone <img src=x> [x](https://x.example) **bold** \\| ``` #1"
RECIPE = """\
title: {title!r}
family: embedding
region: sea
base: {{{base}}}
data: {{reader: pocket, options: {{train: 9}}, where: {{category: [{category}]}}, license: mit, synthetic: true}}
train: {{method: full, steps: 5000, batch_size: 512, loss: softmax}}
sweep: {{global: [few-others], regional: [few-region]}}
"""
RANDOM = (
    "random: {hidden: 16, layers: 1, text_hidden: 16, text_layers: 1, heads: 2, image: 16, patch: 8, vocabulary: 300}"
)
BENCHMARK = """\
title: A few questions
source: {{reader: pocket, options: {{selection: 9, test: 9}}, where: {{category: [Food]}}}}
task: top1
rows: {rows}
test: {{split: [test]}}
selection: {{split: [selection]}}
synthetic: true
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a recipe, with benchmarks of its own, into the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes" / "benchmarks").mkdir(parents=True)
    for rows in ("region", "others"):
        (tmp_path / "recipes" / "benchmarks" / f"few-{rows}.yaml").write_text(BENCHMARK.format(rows=rows))

    def write(title: str = "Tiny", base: str = RANDOM, category: str = "Food") -> Path:
        path = tmp_path / "tiny.yaml"
        path.write_text(RECIPE.format(title=title, base=base, category=category))
        return path

    return write


def reviewed(*paths: Path) -> tuple[int, str]:
    """What the script ends with, and its report."""
    code = review.main([*map(str, paths), "--out", "review.md"])
    return code, Path("review.md").read_text(encoding="utf-8")


def rows(report: str) -> list[list[str]]:
    """The cells of the table below its head."""
    lines = [line for line in report.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# -------------------------------------------------------------------------------------------------------------- reviews
@pytest.mark.slow
def test_a_valid_recipe_is_rehearsed_and_a_hostile_title_stays_a_title(recipe: Any) -> None:
    code, report = reviewed(recipe(title=HOSTILE))
    ((file, what, valid, seconds, memory, hours),) = rows(report)
    assert code == 0, report
    assert (file, valid) == ("`tiny.yaml`", "yes")
    assert what.startswith("`recipe: a ¦ b 'c' @\N{ZERO WIDTH SPACE}someone <img")
    assert re.fullmatch(r"\d+ s", seconds)
    assert memory == "`no GPU needed`"
    assert hours == "`5,000 steps, not estimated`"
    assert "only that it runs is known" in report
    assert not Path("rehearsals").exists()


def test_a_recipe_that_does_not_run_is_told_with_its_error_at_its_line(recipe: Any) -> None:
    code, report = reviewed(recipe(base="id: google/siglip2-base-patch16-224, license: cc-by-nc-4.0"))
    assert code == 1
    assert rows(report)[0][2:4] == ["yes", "**failed**"]
    assert "tiny.yaml:4  base.license cc-by-nc-4.0 forbids commercial use, card.license apache-2.0 does not" in report


def test_an_invalid_recipe_is_told_at_its_line(recipe: Any) -> None:
    path = recipe()
    path.write_text(path.read_text() + "titel: '```@someone'\n")
    code, report = reviewed(path)
    assert code == 1
    assert rows(report)[0][2:] == ["**no**", "", "", ""]
    assert "tiny.yaml:8  titel: unknown key; did you mean 'title'?" in report
    assert "only that it runs" not in report


def test_no_file_of_this_machine_is_read_that_is_not_in_the_repository(recipe: Any) -> None:
    path = recipe()
    path.write_text(
        path.read_text().replace("reader: pocket, options: {train: 9}", "reader: parquet, path: /etc/hosts")
    )
    code, report = reviewed(path)
    assert code == 0, report
    assert rows(report)[0][3] == "`validated, not rehearsed; not in this repository: /etc/hosts`"


def test_recipes_that_extend_a_changed_one_are_rehearsed_too(recipe: Any) -> None:
    clash = "id: google/siglip2-base-patch16-224, license: cc-by-nc-4.0"
    path = recipe(base=clash).rename("recipes/tiny.yaml")
    Path("recipes/child.yaml").write_text("extends: tiny\ntitle: Child\n")
    Path("recipes/grandchild.yaml").write_text("extends: child\ntitle: Grandchild\ncard: {license: cc-by-nc-4.0}\n")
    Path("recipes/stranger.yaml").write_text(path.read_text())
    assert review.extending(path.absolute()) == [path.parent.absolute() / f"{name}child.yaml" for name in ("", "grand")]
    Path("recipes/grandchild.yaml").unlink()
    _, report = reviewed(path)
    assert [(row[0], row[3]) for row in rows(report)] == [("`tiny.yaml`", "**failed**"), ("`child.yaml`", "**failed**")]


def test_regions_and_benchmarks_name_the_recipes_that_use_them(recipe: Any) -> None:
    folder = ROOT / "recipes"
    code, report = reviewed(
        folder / "regions" / "lac.yaml",
        folder / "benchmarks" / "pocket-core-calm.yaml",
        folder / "benchmarks" / "gone.yaml",
    )
    assert code == 0
    assert rows(report) == [
        ["`recipes/regions/lac.yaml`", "`region: Latin America and the Caribbean`", "yes",
         "`used by: lac-gemma3-4b, lac-siglip2-base, pocket-lac-embedding`", "", ""],
        ["`recipes/benchmarks/pocket-core-calm.yaml`", "`benchmark: Pocket, name a calm picture of the common "
         "core among all names`", "yes", "`used by: pocket-judge`", "", ""],
        ["`recipes/benchmarks/gone.yaml`", "`benchmark`", "", "`removed; used by: no recipe`", "", ""],
    ]  # fmt: skip


def test_changed_files_are_those_of_the_branch(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(*names: str) -> str:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        git("add", "--all")
        git("commit", "--quiet", "--message", "x")
        return git("rev-parse", "HEAD")

    git("init", "--quiet")
    start = commit("recipes/old.yaml", "recipes/regions/gone.yaml", "README.md")
    base = commit("recipes/theirs.yaml")
    git("checkout", "--quiet", "-b", "branch", start)
    (tmp_path / "recipes" / "regions" / "gone.yaml").rename(tmp_path / "recipes" / "regions" / "new.yaml")
    commit("recipes/ü |`x`.yaml", "recipes/readme.md", "other.yaml")
    found = [path.relative_to(tmp_path).as_posix() for path in review.changed(base, tmp_path)]
    assert found == ["recipes/regions/gone.yaml", "recipes/regions/new.yaml", "recipes/ü |`x`.yaml"]


# ------------------------------------------------------------------------------------------------------- untrusted text
TEXT = st.text(max_size=30) | st.text("`~|\\@<>[]()!*_#&;:/.- \n\r\tab1", max_size=30) | st.text("`\n", max_size=12)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=3))
def test_no_text_leaves_its_cell_or_its_code_block(texts: list[tuple[str, str, str]]) -> None:
    findings = [Finding(path, what, error, valid=not error, note=path) for path, what, error in texts]
    tokens = MarkdownIt("commonmark").enable("table").parse(review.report(findings))
    assert sum(token.type == "tr_open" for token in tokens) == 1 + len(texts)
    assert sum(token.type == "td_open" for token in tokens) == 6 * len(texts)
    assert sum(token.type == "fence" for token in tokens) == sum(bool(error) for _, _, error in texts)
    inline = {child.type for token in tokens for child in token.children or ()}
    assert inline <= {"text", "code_inline", "strong_open", "strong_close"}
    plain = "".join(c.content for t in tokens for c in t.children or () if c.type == "text")
    assert set(plain) <= set("filewhatvalidrehearsedGPU memorytimeyesno: ")


@pytest.mark.parametrize("text", [HOSTILE, "```\n@someone\n````x", "\u202edesrever\x1b[31m", "@" * 50, "\\|\\", "`"])
def test_hostile_text_mentions_nobody(text: str) -> None:
    report = review.report([Finding(text, text, text, valid=False, note=text)])
    assert not re.search(r"@\w", report)
    assert not re.search("[\u202e\x1b]", report)
    assert len(rows(report)[0]) == 6


def test_a_report_that_would_be_cut_says_so_instead() -> None:
    report = review.report([Finding("x", error="ü" * 5000, valid=False)] * 20)
    assert report == "20 files changed; the report is too long to show.\n"
    assert f"head -c {review.REPORT}" in (WORKFLOWS / "comment.yml").read_text()


# ------------------------------------------------------------------------------------------------------------ workflows
def workflow(name: str) -> tuple[dict[str, Any], str]:
    text = (WORKFLOWS / name).read_text(encoding="utf-8")
    return parse_yaml(text, name)[0], text


def steps(parsed: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in parsed["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("name", sorted(path.name for path in WORKFLOWS.iterdir()))
def test_a_workflow_has_its_limits_and_puts_no_words_of_others_into_a_script(name: str) -> None:
    parsed, text = workflow(name)
    assert parsed["concurrency"]["group"]
    assert all(job["timeout-minutes"] <= 120 for job in parsed["jobs"].values())
    assert not any("permissions" in job for job in parsed["jobs"].values())
    assert not any("${{" in step.get("run", "") for step in steps(parsed))
    assert all(
        re.fullmatch(r"actions/[a-z-]+@(v\d+|[0-9a-f]{40})", step["uses"]) for step in steps(parsed) if "uses" in step
    )
    assert "pull_request_target" not in text


@pytest.mark.parametrize("name", ["ci.yml", "recipes.yml"])
def test_what_runs_the_code_of_a_pull_request_may_only_read_and_knows_no_secrets(name: str) -> None:
    parsed, text = workflow(name)
    assert "pull_request" in parsed["on"]
    assert parsed["permissions"] == {"contents": "read"}
    assert not re.search(r"secrets\b|github\.token|GITHUB_TOKEN|GH_TOKEN", re.sub("(?m)^#.*", "", text))
    checkouts = [step for step in steps(parsed) if step.get("uses", "").startswith("actions/checkout@")]
    assert [step["with"]["persist-credentials"] for step in checkouts] == [False]


def test_what_may_write_runs_nothing_of_the_pull_request() -> None:
    parsed, text = workflow("comment.yml")
    first = workflow("recipes.yml")[0]
    assert parsed["on"] == {"workflow_run": {"workflows": [first["name"]], "types": ["completed"]}}
    assert parsed["permissions"] == {"actions": "read", "pull-requests": "write"}
    assert not [step for step in steps(parsed) if "uses" in step]  # no checkout, no code of others
    (script,) = [step["run"] for step in steps(parsed)]
    assert not re.search(r"\b(python|pip|eval|source|bash|sh) ", script)
    assert "secrets" not in text


def test_comment_of_a_report_breaks_mentions_and_says_who_wrote_it(tmp_path: Path) -> None:
    (script,) = [step["run"] for step in steps(workflow("comment.yml")[0])]
    start, end = script.index("{\n  printf"), script.index("> body.md")
    mark = re.search("^mark=.*$", script, re.MULTILINE)
    assert mark
    (tmp_path / "review.md").write_bytes(b"a @someone \xff\n")
    subprocess.run(["bash", "-c", f"{mark[0]}\n{script[start:end]} > body.md"], cwd=tmp_path, check=True)
    body = (tmp_path / "body.md").read_text(encoding="utf-8")
    assert body.startswith("<!-- review of recipes -->\n\n*Written by a run of the code of this pull request")
    assert body.endswith("\n\na @\N{ZERO WIDTH SPACE}someone \n")


def test_a_pull_request_starts_from_the_checklist() -> None:
    text = (ROOT / ".github" / "pull_request_template.md").read_text(encoding="utf-8")
    assert "- [ ] `ggez validate FILE`" in text
    section = re.search(r"CONTRIBUTING\.md, \*(.+)\*\)", text)
    assert section
    assert f"## {section[1]}\n" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
