"""A run folder: one sub-folder per stage, each with a manifest that is written last, so its presence means complete.

A stage writes into a hidden folder beside its own (``.train``), which is renamed when it is complete. A killed run
leaves at most that hidden folder; the next run continues in it if the stage can and its inputs are the same, or else
removes it.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggez_hub.errors import InputError

MANIFEST = "manifest.json"
LARGE = 2**26  # bytes
INPUTS = "inputs.json"  # in the hidden folder of a stage under way


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write a file under, completely or not at all: it takes its place at the end of the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a file completely or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON completely or not at all. Refuses NaN and infinity."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON. Raises InputError that names the file if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise InputError(f"{path}: cannot be read: {err}") from err


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> str:
    """A hash that changes when a file or folder changes, without reading large files whole.

    Files above LARGE count by size, time of change, and their first and last megabyte.
    """
    if path.is_dir():
        listing = [(p.relative_to(path).as_posix(), fingerprint(p)) for p in sorted(path.rglob("*")) if p.is_file()]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    status = path.stat()
    if status.st_size <= LARGE:
        return file_hash(path)
    with path.open("rb") as file:
        ends = file.read(2**20)
        file.seek(-(2**20), os.SEEK_END)
        ends += file.read()
    return hashlib.sha256(ends + f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted keys."""
    result: dict[str, Any] = {}
    for key, inner in value.items():
        result |= flat(inner, f"{prefix}{key}.") if isinstance(inner, Mapping) else {f"{prefix}{key}": inner}
    return result


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that shape its results."""
    import platform
    from importlib import metadata

    names = ("ggez_hub", "torch", "transformers", "peft", "safetensors", "numpy", "pillow", "pyarrow")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def hardware() -> str:
    """What this machine computes on."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' if threads > 1 else ''}"


@dataclass(frozen=True)
class Run:
    """The run folder of a recipe."""

    folder: Path  # OUT/<recipe>

    @property
    def out(self) -> Path:
        """The folder that holds the run folders."""
        return self.folder.parent

    def stage(self, name: str) -> Path:
        """The folder of a complete stage."""
        return self.folder / name

    def hidden(self, name: str) -> Path:
        """The folder of a stage under way."""
        return self.folder / f".{name}"

    def manifest(self, stage: str) -> dict[str, Any] | None:
        """The manifest of a stage, or None if the stage is not complete or its files have gone."""
        path = self.stage(stage) / MANIFEST
        if not path.is_file():
            return None
        manifest: dict[str, Any] = read_json(path)
        sizes = {name: output["size"] for name, output in manifest["outputs"].items()}
        there = {name: (self.stage(stage) / name) for name in sizes}
        whole = all(path.is_file() and path.stat().st_size == sizes[name] for name, path in there.items())
        return manifest if whole else None

    def outputs_hash(self, stage: str, of: str = "") -> str | None:
        """One hash over the outputs of a complete stage whose names begin so."""
        manifest = self.manifest(stage)
        if manifest is None:
            return None
        outputs = {name: output for name, output in manifest["outputs"].items() if name.startswith(of)}
        return hashlib.sha256(json.dumps(outputs, sort_keys=True).encode()).hexdigest()

    def stale(self, stage: str, inputs: Mapping[str, Any]) -> str | None:
        """Why a stage has to run, or None if it is complete for these inputs."""
        manifest = self.manifest(stage)
        if manifest is None:
            return "not done yet"
        before, now = flat(manifest["inputs"]), flat(json.loads(json.dumps(inputs)))
        changed = [key for key in (now | before) if before.get(key) != now.get(key)]
        if not changed:
            return None
        shown = [f"{key}: {_short(before.get(key))} -> {_short(now.get(key))}" for key in changed[:3]]
        return "changed " + ", ".join(shown) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")

    def write(
        self, stage: str, inputs: Mapping[str, Any], work: Callable[[Path], None], resumable: bool = False
    ) -> None:
        """Runs a stage's work in a hidden folder and puts it in place when it is complete.

        Args:
            stage: Its name.
            inputs: What the stage depends on; kept in the manifest.
            work: Called with the hidden folder.
            resumable: Whether the work can go on in a folder that an earlier, killed run left.
        """
        hidden = self.hidden(stage)
        if not (resumable and hidden.is_dir() and _same(hidden / INPUTS, inputs)):
            shutil.rmtree(hidden, ignore_errors=True)
            hidden.mkdir(parents=True)
            write_json(hidden / INPUTS, inputs)
        started = time.time()
        try:
            work(hidden)
            (hidden / INPUTS).unlink()
            outputs = {
                path.relative_to(hidden).as_posix(): {"sha256": file_hash(path), "size": path.stat().st_size}
                for path in sorted(hidden.rglob("*"))
                if path.is_file()
            }
            manifest = {
                "stage": stage,
                "inputs": inputs,
                "outputs": outputs,
                "versions": versions(),
                "hardware": hardware(),
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
                "seconds": round(time.time() - started, 3),
            }
            write_json(hidden / MANIFEST, manifest)
        except BaseException:
            if not resumable:
                shutil.rmtree(hidden, ignore_errors=True)
            raise
        old = self.folder / f".{stage}.old"
        shutil.rmtree(old, ignore_errors=True)
        if self.stage(stage).exists():
            self.stage(stage).rename(old)
        hidden.rename(self.stage(stage))
        shutil.rmtree(old, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process out of the run folder.

        Raises:
            InputError: Another process is at work in it.
        """
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                yield
        except Timeout as err:
            raise InputError(
                f"{self.folder}: another ggez is at work here", "wait for it, or give another --out"
            ) from err


def _same(path: Path, inputs: Mapping[str, Any]) -> bool:
    return path.is_file() and read_json(path) == json.loads(json.dumps(inputs))


def _short(value: Any) -> str:
    text = "(absent)" if value is None else str(value)
    return text[:12] + "…" if len(text) == 64 else text[:60]
