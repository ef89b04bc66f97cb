"""What tests of the pages share: a page served as users serve it, and a real browser that looks at it."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

expect.set_options(timeout=30_000)  # a busy machine is no failure
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium_options() -> dict[str, Any]:
    """How Playwright starts the system's Chromium."""
    return {"executable_path": shutil.which("chromium"), "args": QUIET}


class Served:
    """A page that `ggez space NAME --launch` serves in a process of its own.

    Attributes:
        url: Its address, the same after a restart.
    """

    def __init__(self, *command: str, cwd: Path | None = None, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"
        self._command, self._cwd = command, cwd
        self._environment = os.environ | {"GRADIO_SERVER_PORT": str(port)} | environment
        self.start()

    def start(self) -> None:
        """Starts the server, and returns when it answers."""
        self.process = subprocess.Popen(
            [sys.executable, *self._command], stdout=subprocess.PIPE, text=True, cwd=self._cwd, env=self._environment
        )
        assert self.process.stdout
        said = self.process.stdout.readline().strip()
        assert said == self.url, said

    def kill(self) -> None:
        """Ends the server as a power cut would."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Serves a page: name, further arguments of `ggez space`, and environment variables."""
    with ExitStack() as stack:

        def start(name: str, *arguments: str, cwd: Path | None = None, **environment: str) -> Served:
            environment = {"GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("gradio")), **environment}
            served = Served("-m", "ggez_hub", "space", name, "--launch", *arguments, cwd=cwd, **environment)
            stack.callback(served.kill)
            return served

        yield start


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A headless Chromium."""
    if not shutil.which("chromium"):
        pytest.skip("needs the browser chromium on the path (Debian package chromium)")
    with sync_playwright() as playwright, playwright.chromium.launch(**chromium_options()) as browser:
        yield browser


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page of a server in a browser of its own: address, and what Playwright calls a context's options.

    A request to another host, or an error of the page's own code, fails the test at its end.
    """
    elsewhere: list[str] = []
    errors: list[str] = []
    with ExitStack() as stack:

        def open_(url: str, **options: Any) -> Page:
            context = stack.enter_context(
                chromium.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
            )
            page = context.new_page()
            host = urlsplit(url).netloc

            def asked(address: str) -> None:
                parts = urlsplit(address)
                if parts.scheme not in ("data", "blob", "about") and parts.netloc != host:
                    elsewhere.append(address)

            context.on("request", lambda request: asked(request.url))
            context.on("weberror", lambda error: errors.append(str(error.error)))
            page.goto(url)
            return page

        yield open_
    assert not elsewhere, "the page asked other hosts"
    assert not errors, "the page's own code failed"
