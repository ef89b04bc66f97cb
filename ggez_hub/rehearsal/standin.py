"""A stand-in for the models behind endpoints: an OpenAI-compatible server on this machine. All it says is synthetic."""

import contextlib
import json
import re
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from ggez_hub.data import rewards, translators
from ggez_hub.data.codes import iso639
from ggez_hub.data.languages import ENGLISH, FLORES, name_of
from ggez_hub.data.texts import AT_PLACEHOLDERS, other_language
from ggez_hub.errors import DependencyError
from ggez_hub.rehearsal.words import drawn, words

LOW = 0.2  # share of scores below 3, which the paper drops
TRIES = 16  # at words of which it is certain in which language they are
FEW = ("ara", "fra", "hin", "ind", "rus")  # languages, one of each script, that a text could be in
_WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|['’\u0300-\u036f])*")
_BEGINNINGS = {  # of what reward models are asked: what they answer
    rewards.CONVERSATION.partition("{")[0]: "It says what the picture shows.\nFinal Score: {percent:.0f}",
    rewards.CAPTION.partition("{")[0]: "thing (object): 1\nFinal Score: {score:.1f}",
    rewards.THREE.partition("{")[0]: "\n".join(
        f"{name} Score (1-5): {{score:.4f}}" for name in ("Alignment", "Coherence", "Style")
    ),
}


class Endpoint:
    """Answers what this package asks an endpoint; it serves whatever model it is asked for.

    A reward model's scores come from a hash of picture and text, one in five below 3. A translation keeps what has to
    stay (numbers, placeholders, letters of options), and has words of the language wanted for all others; back into
    English it gives the text that it was made of. To anything else the answer is "A".

        with Endpoint() as server:
            recipe = load_recipe(name, [f"filter.reward.endpoint={server.url}"])

    Attributes:
        url: Its address, ends in /v1.
    """

    def __init__(self) -> None:
        self._sources: dict[str, str] = {}  # what was translated, by its translation
        self._models = {"stand-in"}
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                listed = [{"id": name, "object": "model"} for name in sorted(server._models)]
                self.reply({"object": "list", "data": listed})

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server._models.add(str(request["model"]))
                message = {"role": "assistant", "content": server._answer(request["messages"])}
                choice = {"index": 0, "finish_reason": "stop", "message": message}
                self.reply({"object": "chat.completion", "model": request["model"], "choices": [choice]})

            def reply(self, value: Any) -> None:
                body = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Clients that go away are none of its business."""

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def _answer(self, messages: Any) -> str:
        content = messages[-1]["content"]
        asked = content if isinstance(content, str) else "\n".join(part["text"] for part in content if "text" in part)
        if found := _translation().fullmatch(asked):
            return self._translated(found["text"], _code(found["target"]))
        for beginning, answer in _BEGINNINGS.items():
            if asked.startswith(beginning):
                own = drawn(json.dumps(content))
                score = own.uniform(1, 2.9) if own.random() < LOW else own.uniform(3.1, 5)
                return answer.format(score=score, percent=20 * score)
        return "A"

    def _translated(self, text: str, language: str) -> str:
        if language == ENGLISH and text in self._sources:
            return self._sources[text]
        made = translated(text, language)
        self._sources.setdefault(made, text)
        return made

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def translated(text: str, language: str) -> str:
    """A text with words of a language for its own; what has to stay in a translation stays. Synthetic.

    Args:
        text: One line of English.
        language: ISO 639-3.
    """
    made = _worded(text, language, 0)
    with contextlib.suppress(DependencyError):  # then nobody else can check the language either
        for salt in range(1, TRIES):
            if not any(other_language(made, language, plausible) for plausible in (FEW, FLORES)):
                break
            made = _worded(text, language, salt)
    return made


def _worded(text: str, language: str, salt: int) -> str:
    own, known = drawn("translation", text, language, salt), words(language)

    def word(found: re.Match[str]) -> str:
        if len(found[0]) == 1 and found[0].isupper():  # an option's letter
            return found[0]
        return min(own.choices(known, k=3), key=lambda other: abs(len(other) - len(found[0]))).lower()

    pieces = AT_PLACEHOLDERS.split(text)  # [words, placeholder, words, ...]
    return "".join(_WORD.sub(word, piece) if i % 2 == 0 else piece for i, piece in enumerate(pieces))


@cache
def _translation() -> re.Pattern[str]:
    """Matches what translators are asked: from what language, into which, and the text."""
    before, _, behind = re.escape(translators.PROMPT.format(source="\0", target="\1", text="\2")).partition("\1")
    behind = behind.replace("\1", "(?P=target)").replace("\2", "(?P<text>.+)")
    return re.compile(f"{before.replace(chr(0), '(?P<source>.+)')}(?P<target>.+?){behind}", re.DOTALL)


@cache
def _code(name: str) -> str:
    """The ISO 639-3 code of a language by the name that translators are given."""
    return next((code for code in (ENGLISH, *FLORES) if name_of(code) == name), None) or iso639(name) or ENGLISH
