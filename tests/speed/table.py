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

What bounds the goals that are missed, or met only at times:

* Turning merged weights moves 680 MB in and 680 MB out. A bare copy of that takes 59 to 84 ms with two threads, so
  1/8 of PEFT's time is out of reach where PEFT's temporaries find warm pages (it then takes 250 ms; 750 ms and more
  where the system has to give it fresh ones).
* A merged state in memory reads two models and writes a third: 28 GB/s, which is what this machine's memory gives.
  Copying the model alone takes 0.17 s.
* Eleven α in one batch: reading the prompt is bound by arithmetic, of which a batch saves none; the more is decoded,
  the nearer the gain comes to that of the weights, which are read once instead of eleven times.
* mergekit with shards of 100 MB holds less in memory than by default, and is faster for it.
* Setting α is the dial alone; `model.alpha = a` adds the checks of what was assigned, about 1 µs.
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
