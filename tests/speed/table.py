"""Writes docs/speed.md from the last results of the speed scripts.

python tests/speed/table.py
"""

import json
from pathlib import Path

import common

TARGET = Path(__file__).parents[2] / "docs" / "speed.md"
HEAD = """\
# Speed and memory

Written by `python tests/speed/table.py` from the last results of the scripts in [tests/speed](../tests/speed): paired
runs, medians of five or more, ratios. Weights are random, their shapes true; what is measured is time and memory, not
quality.
"""


def main() -> None:
    parts = [HEAD]
    for script, kept in sorted(json.loads(common.RESULTS.read_text()).items()):
        parts.append(f"## {script}.py\n\n{kept['date']}, {kept['machine']}.\n")
        lines = ["| measure | goal | measured | |", "|---|---|---|---|"]
        lines += [f"| {r['measure']} | {r['goal']} | {r['value']} | {r.get('note', '')} |" for r in kept["rows"]]
        parts.append("\n".join(lines) + "\n")
    TARGET.write_text("\n".join(parts))
    print(TARGET)


if __name__ == "__main__":
    main()
