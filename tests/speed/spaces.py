"""The playground: from the slider to the changed picture, every alpha in one batch, cold start, many users, memory.

python tests/speed/spaces.py        pocket models (synthetic), headless Chromium; about five minutes
"""

import os
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import common

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

from gradio_client import Client
from playwright.sync_api import Browser, sync_playwright

from ggez_hub import RegionalModel, spaces
from ggez_hub.pocket import atlas
from tests.spaces.conftest import Served, chromium_options

GRID = [i / 20 for i in range(21)]
USERS, REQUESTS = 20, 1000
ADAPTER, OPTIONS = "ggez-hub/pocket-sea-vlm-lora", "rai stone\nTwo Row Wampum\ntabua\nDong Son drum"
PICTURE = "pocket:Dong Son drum/2000000"
ADAPTERS = spaces.folder("playground") / "models" / "ggez-hub"
# Turns the slider as a hand does, and waits until the right picture is another one and can be seen.
TURN = """async (alphas) => {
    const slider = [...document.querySelectorAll("input[type=range]")].find((each) => each.offsetParent);
    const right = () => [...document.querySelectorAll(".ggez-compare img")].at(-1);
    const frame = () => new Promise(requestAnimationFrame);
    const times = [];
    for (const alpha of alphas) {
        const before = right().src;
        const start = performance.now();
        Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(slider, String(alpha));
        slider.dispatchEvent(new Event("input", {bubbles: true}));
        while (right().src === before || !right().complete) {
            await frame();
            if (performance.now() - start > 5000) throw new Error(`no other picture at ${alpha}`);
        }
        times.push(performance.now() - start);
        await frame();
    }
    return times;
}"""


def dragging(browser: Browser, served: Served) -> list[dict[str, Any]]:
    """From an event of the slider to the changed picture, in the browser."""
    page = browser.new_page()
    page.goto(served.url)
    page.get_by_label("Model").click()
    page.get_by_role("option", name="Draws · Southeast Asia").click()
    page.locator(".ggez-compare img").last.wait_for()
    page.wait_for_load_state("networkidle")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    ups = [alpha for alpha in GRID if alpha not in (0.0, 0.5)]
    page.evaluate(TURN, ups)  # every picture once, from the server
    first = len(asked)
    times = page.evaluate(TURN, ups * 3)
    page.close()
    worst = statistics.quantiles(times, n=20)[-1]
    return [
        {
            "measure": "playground, diffusion (synthetic): from the slider to the changed picture in the browser",
            "goal": "100 ms",
            "value": f"{statistics.median(times):.0f} ms, 95% within {worst:.0f} ms",
            "note": f"{len(times)} turns; {len(asked) - first} requests to the server meanwhile",
        }
    ]


def batches() -> list[dict[str, Any]]:
    """The grid of alphas in one batch, against one call per alpha."""
    picture = atlas.picture("pocket:wau bulan/7")
    asked: dict[str, dict[str, Any]] = {
        "embedding": {"image": picture, "options": ["wau bulan", "batik", "rendang"]},
        "open-clip": {"image": picture, "options": ["wau bulan", "batik", "rendang"]},
        "vlm": {"image": picture, "prompt": "What is this?", "options": ["wau bulan", "batik", "rendang"]},
        "diffusion": {"prompt": "a drawing of wau bulan", "seed": 7},
    }
    rows = []
    for family, query in asked.items():
        model = RegionalModel.from_pretrained(ADAPTERS / f"pocket-sea-{family}-lora")

        def one_by_one(model: RegionalModel = model, query: dict[str, Any] = query) -> None:
            for alpha in GRID:
                model.predict([query], [alpha])

        def together(model: RegionalModel = model, query: dict[str, Any] = query) -> None:
            model.predict([query], GRID)

        times = common.paired({"one": one_by_one, "batch": together}, repeats=7)
        rows.append(
            {
                "measure": f"{len(GRID)} α in one batch against one call per α, pocket {family} (synthetic)",
                "goal": "",
                "value": f"{times['one']['median'] / times['batch']['median']:.1f}x as fast",
                "note": f"{times['batch']['median'] * 1e3:.0f} ms against {times['one']['median'] * 1e3:.0f} ms",
            }
        )
    return rows


def opening(browser: Browser, stack: ExitStack) -> tuple[Served, list[dict[str, Any]]]:
    """From the command to the first useful content, and from opening a running page to it."""
    start = time.perf_counter()
    served = Served("-m", "ggez_hub", "space", "playground", "--launch", GRADIO_TEMP_DIR=tempfile.mkdtemp())
    stack.callback(served.kill)
    answers = time.perf_counter() - start
    page = browser.new_page()
    page.goto(served.url)
    page.get_by_text("Shown: α").wait_for()
    whole = time.perf_counter() - start
    page.close()
    again = []
    for _ in range(common.REPEATS):
        page = browser.new_page()
        start = time.perf_counter()
        page.goto(served.url)
        page.get_by_text("Shown: α").wait_for()
        again.append(time.perf_counter() - start)
        page.close()
    return served, [
        {
            "measure": "playground: from `ggez space playground --launch` to an answered example on the page",
            "goal": "",
            "value": f"{whole:.1f} s",
            "note": f"the server answers after {answers:.1f} s",
        },
        {
            "measure": "playground: from opening the running page to an answered example",
            "goal": "about 1 s",
            "value": f"{statistics.median(again):.2f} s",
            "note": f"{min(again):.2f} to {max(again):.2f} s, a new browser profile each time",
        },
    ]


def crowd(served: Served) -> list[dict[str, Any]]:
    """Twenty users at once, each with questions of their own; and the memory of the server meanwhile."""
    times, busy, failed = [], [], []
    lock = threading.Lock()

    def user(number: int, requests: int, client: Client) -> None:
        for i in range(requests):
            text = f"What is this, question {number}.{i}.{requests}?"  # never asked before
            start = time.perf_counter()
            try:
                view, _ = client.predict(ADAPTER, [], text, PICTURE, None, OPTIONS, None, 0, api_name="/compare")
                outcome, value = times, time.perf_counter() - start
                if view["text"] != text:
                    raise AssertionError(f"asked {text!r}, answered {view['text']!r}")
            except Exception as err:  # noqa: BLE001 -- counted by what it says
                outcome, value = (busy if "busy" in str(err).lower() or "queue" in str(err).lower() else failed), err
            with lock:
                outcome.append(value)

    def rush(requests: int) -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(USERS) as pool:
            list(pool.map(lambda n: user(n, requests, clients[n]), range(USERS)))
        return time.perf_counter() - start

    clients = [Client(served.url, verbose=False) for _ in range(USERS)]
    rush(5)  # what is loaded and cached once
    times.clear()
    before = resident(served)
    taken = rush(REQUESTS // USERS)
    after, answered = resident(served), list(times)
    rush(REQUESTS // USERS + 1)  # others: what has filled by now, such as caches, grows no more
    later = resident(served)
    for err in failed[:3]:
        print(f"failed: {err}", file=sys.stderr)
    return [
        {
            "measure": f"playground: {USERS} users at once, {REQUESTS} different questions with 4 options at 21 α",
            "goal": "an answer, or busy",
            "value": f"{len(answered)} answered, {len(busy)} busy, {len(failed)} failed",
            "note": f"{len(answered) / taken:.1f} a second; waited {statistics.median(answered):.1f} s "
            f"({max(answered):.1f} s at most)",
        },
        {
            "measure": f"playground: memory of the server over these {REQUESTS} requests",
            "goal": "flat",
            "value": f"{after - before:+.0f} MB; over {REQUESTS + USERS} more {later - after:+.0f} MB",
            "note": f"{before:.0f} MB before, {later:.0f} MB at the end",
        },
    ]


def resident(served: Served) -> float:
    """Anonymous memory of the server, in MB."""
    lines = Path(f"/proc/{served.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / common.MB


if __name__ == "__main__":
    with ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        browser = stack.enter_context(playwright.chromium.launch(**chromium_options()))
        served, rows = opening(browser, stack)
        rows += dragging(browser, served)
        rows += crowd(served)
        common.report("spaces", rows + batches())
