"""Photographs the pages for the documents: desktop, phone, light and dark, in a headless Chromium.

python scripts/screenshots.py        about a minute; needs chromium on the path
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
DESKTOP, PHONE = {"width": 1200, "height": 1060}, {"width": 390, "height": 844}
VIEWS = (("", DESKTOP, "light"), ("-dark", DESKTOP, "dark"), ("-phone", PHONE, "light"))
COLOURS = 192  # of a picture; more cannot be told apart, and the file is a third


def playground(page: Page) -> None:
    page.get_by_text("Shown: α").wait_for()


def parity(page: Page) -> None:
    page.locator("[data-says] p").first.wait_for()
    page.get_by_role("heading", name="Which wins where").evaluate("(heading) => heading.scrollIntoView()")


def annotate(page: Page) -> None:
    page.get_by_label("Your name").fill("Ana")
    page.get_by_role("button", name="Start").click()
    page.get_by_role("progressbar").wait_for()


READY: dict[str, Callable[[Page], None]] = {"playground": playground, "parity": parity, "annotate": annotate}


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-background-networking"]
        )
        for name, ready in READY.items():
            with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
                free.bind(("127.0.0.1", 0))
                port = str(free.getsockname()[1])
                free.close()
                server = subprocess.Popen(
                    [sys.executable, "-m", "ggez_hub", "space", name, "--launch"],
                    stdout=subprocess.PIPE,
                    env=os.environ | {"GRADIO_SERVER_PORT": port, "GGEZ_RATINGS": folder, "GRADIO_TEMP_DIR": folder},
                )
                try:
                    assert server.stdout
                    server.stdout.readline()  # it answers
                    for suffix, size, colours in VIEWS:
                        page = browser.new_page(viewport=size, color_scheme=colours)
                        page.goto(f"http://127.0.0.1:{port}/")
                        ready(page)
                        page.wait_for_function("[...document.images].every((image) => image.complete)")
                        target = IMAGES / f"{name}{suffix}.png"
                        page.screenshot(path=target)
                        Image.open(target).convert("RGB").quantize(COLOURS).save(target, optimize=True)
                        print(target, target.stat().st_size)
                        page.close()
                finally:
                    server.kill()
                    server.communicate()
        browser.close()


if __name__ == "__main__":
    main()
