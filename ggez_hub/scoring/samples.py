"""Contact sheets: what a model answers or draws as alpha rises."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.data import conversations, images
from ggez_hub.scoring.questions import Question

if TYPE_CHECKING:
    import numpy as np

SHOWN = (5, 3)  # regional and global ones
LONGEST = 56  # characters of an answer
RIGHT, WRONG = "#2e7d32", "#c62828"


def choose(sides: Sequence[Sequence[Question]]) -> list[list[int]]:
    """Places of the questions to show, of each side: spread evenly, so whatever the answers are."""
    wanted = [min(count, len(part)) for count, part in zip(SHOWN, sides, strict=True)]
    return [[(2 * i + 1) * len(part) // (2 * n) for i in range(n)] for n, part in zip(wanted, sides, strict=True)]


def answers_sheet(shown: Sequence[tuple[Question, Mapping[float, str]]], title: str, path: Path) -> None:
    """Writes a sheet of questions, each with its picture and the answer at each alpha.

    Args:
        shown: Questions, and their answers by alpha.
        title: What stands above.
        path: The PNG file.
    """
    figure, axes = _grid(-(-len(shown) // 2), 4, (11, 1.55), title, [1, 2.6, 1, 2.6])
    for place, (question, answers) in enumerate(shown):
        picture, words = axes[place // 2][2 * (place % 2) : 2 * (place % 2) + 2]
        picture.imshow(images.decode(question.picture))
        asked = textwrap.wrap(question.query.prompt or "", 52)
        words.text(0, 1, "\n".join([*asked[:4], f"right: {_short(question.answer)}"]), va="top", fontsize=7)
        for line, (alpha, answer) in enumerate(answers.items()):
            right = answer == question.answer if question.options else conversations.matches(answer, question.answer)
            words.text(0, 0.26 - 0.13 * line, f"α = {alpha:g}: {_short(answer) or '(unreadable)'}", fontsize=8,
                       va="bottom", color=RIGHT if right else WRONG)  # fmt: skip
    _save(figure, path)


def drawings_sheet(
    prompts: Sequence[str], drawn: "Mapping[float, Sequence[np.ndarray]]", chosen: float, title: str, path: Path
) -> None:
    """Writes a grid of drawings, a row for every prompt and a column for every alpha, at one seed per row.

    Args:
        prompts: What was to be drawn.
        drawn: By alpha: a picture for every prompt, uint8 [height, width, 3].
        chosen: The alpha to mark.
        title: What stands above.
        path: The PNG file.
    """
    figure, axes = _grid(len(prompts), len(drawn) + 1, (1.15 * (len(drawn) + 1), 1.15), title, None)
    for row, prompt in zip(axes, prompts, strict=True):
        row[0].text(1, 0.5, "\n".join(textwrap.wrap(_short(prompt), 16)), ha="right", va="center", fontsize=8)
    for column, (alpha, pictures) in enumerate(drawn.items(), 1):
        mark = f"α = {alpha:g}" + ("\n(chosen)" if alpha == chosen else "\n")
        axes[0][column].set_title(mark, fontsize=8, color=RIGHT if alpha == chosen else "black")
        for row, picture in zip(axes, pictures, strict=True):
            row[column].imshow(picture)
    _save(figure, path)


def _grid(rows: int, columns: int, size: tuple[float, float], title: str, widths: list[float] | None) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False  # "$" in a text is a dollar
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        rows, columns, figsize=(size[0], size[1] * rows + 0.6), layout="constrained", squeeze=False, width_ratios=widths
    )
    for axis in axes.flat:
        axis.axis("off")
    figure.suptitle(title)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rstrip()} …"
