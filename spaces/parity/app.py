"""The Space in this folder: `python app.py`, or `ggez space parity --launch`."""

from pathlib import Path

from ggez_hub import spaces

if __name__ == "__main__":
    spaces.launch("parity", Path(__file__).resolve().parent)
