"""Publishes a pocket run on a Hub of its own on this machine, uses it as others would, and keeps what was printed.

python scripts/hub_demo.py [--out runs]    writes the generated blocks of docs/hub.md; runs pocket-sea-embedding first
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import docs

REPOSITORY = Path(__file__).parents[1]
LIBRARIES = REPOSITORY / "scripts" / "libraries.py"
DOCUMENT = REPOSITORY / "docs" / "hub.md"
RECIPE = "pocket-sea-embedding"
TEAM = "sea-lab"
ADAPTER = f"{TEAM}/{RECIPE}-lora"
LOADING = f"""\
from ggez_hub import RegionalModel
from ggez_hub.pocket import atlas

model = RegionalModel.from_pretrained("{ADAPTER}")
question = {{"image": atlas.picture("pocket:wau bulan/7"), "options": ["wau bulan", "Bermuda kite", "batik"]}}
print(model.revision, model.alpha)
print(model.predict([question], alphas=[0.0, model.alpha, 1.0])[0].round(2))
"""


def transcript(out: str) -> str:
    """Every command with what it printed."""
    sys.path.insert(0, str(REPOSITORY))
    from tests.hub_server import HubServer

    lines: list[str] = []
    with tempfile.TemporaryDirectory() as home, HubServer() as server:
        environment = os.environ | {
            "HF_ENDPOINT": server.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": home,
            "HF_TOKEN": "hf_ggez",
            "TQDM_DISABLE": "1",
            "PYTHONWARNINGS": "ignore",
            "TRANSFORMERS_VERBOSITY": "error",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

        def say(shown: str, *command: str) -> None:
            done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            lines.append(f"$ {shown}\n{done.stdout.replace(server.url, 'https://the-hub').rstrip()}\n")
            if done.returncode:
                sys.exit(f"exit code {done.returncode}\n{lines[-1]}")

        def ggez(*arguments: str) -> None:
            given = ("--out", out) if arguments[0] == "push" else ()
            say(f"ggez {shlex.join(arguments)}", sys.executable, "-m", "ggez_hub", *arguments, *given)

        push = ("push", RECIPE, "--to", "hf", "--namespace", TEAM)
        ggez(*push)
        ggez(*push, "--yes", "--tag", "v1")
        ggez(*push, "--yes", "--tag", "v1")
        ggez("hub", "ls", "--region", "sea")
        say("python load.py", sys.executable, "-c", LOADING)
        ggez("verify", ADAPTER)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs")
    out = parser.parse_args().out
    subprocess.run([sys.executable, "-m", "ggez_hub", "run", RECIPE, "--out", out], check=True)
    text = transcript(out)
    loaded = subprocess.run([sys.executable, LIBRARIES], check=True, text=True, stdout=subprocess.PIPE).stdout
    blocks = {
        "transcript": lambda: f"```text\n{text}```",
        "loading": lambda: f"```python\n{LOADING}```",
        "libraries": loaded.rstrip,
    }
    DOCUMENT.write_text(docs.fill(DOCUMENT.read_text(encoding="utf-8"), blocks), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
