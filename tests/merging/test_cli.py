"""ggez merge-checkpoints: what it says, what it refuses, and what is left when it is killed or the disk is full."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from ggez_hub.cli import _guarded, cli
from ggez_hub.families import embedding

Ggez = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ggez(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_base: Path, tiny_adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Ggez:  # fmt: skip
    """Runs merge-checkpoints in a folder with base, lora and another lora; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    Path("base").symlink_to(tiny_base)
    Path("lora").symlink_to(tiny_adapter)
    Path("lora2").mkdir()
    tensors = {
        name: tensor.flip(0).contiguous() for name, tensor in load_file("lora/adapter_model.safetensors").items()
    }
    save_file(tensors, "lora2/adapter_model.safetensors")
    Path("lora2/adapter_config.json").write_bytes(Path("lora/adapter_config.json").read_bytes())

    def call(*arguments: str) -> tuple[int, str, str]:
        code = _guarded(lambda: cli.main(["merge-checkpoints", *arguments], standalone_mode=False))
        return code, *capsys.readouterr()

    return call


def tensors(folder: str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


# ----------------------------------------------------------------------------------------------------------- what works
def test_two_checkpoints(ggez: Ggez) -> None:
    embedding.write_tiny(Path("regional"), seed=1)
    code, out, err = ggez("base", "regional", "--alpha", "0.25", "--out", "made/merged")
    assert (code, out) == (0, "made/merged\n")
    low, high = tensors("base"), tensors("regional")
    assert f"{len(low)} tensors, {len(low)} of them merged" in err
    assert all(torch.equal(t, torch.lerp(low[name], high[name], 0.25)) for name, t in tensors("made/merged").items())


def test_two_adapters_each_with_its_alpha(ggez: Ggez) -> None:
    assert ggez("base", "lora", "lora2", "--alpha", "0.5", "--alpha", "0.25", "--out", "both")[0] == 0
    for name, alpha in (("lora", "0.5"), ("lora2", "0.25")):
        assert ggez("base", name, "--alpha", alpha, "--out", f"with-{name}")[0] == 0
    base, one, other = tensors("base"), tensors("with-lora"), tensors("with-lora2")
    for name, tensor in tensors("both").items():
        torch.testing.assert_close(tensor, one[name] + other[name] - base[name], rtol=0, atol=5e-6)


def test_regional_checkpoint_of_another_dtype_is_told(ggez: Ggez) -> None:
    embedding.load(Path("base")).model.bfloat16().save_pretrained("half")
    code, _, err = ggez("base", "half", "--alpha", "0.5", "--out", "merged")
    assert code == 0
    assert f"{len(tensors('base'))} tensors of another dtype were rounded to that of the base" in err
    assert {tensor.dtype for tensor in tensors("merged").values()} == {torch.float32}


# ------------------------------------------------------------------------------------------------------ what is refused
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base", "lora", "lora2", "--alpha", "0.5"], "2 to merge, but 1 times --alpha"),
        (["base", "lora", "--alpha", "0.5", "--alpha", "1"], "1 to merge, but 2 times --alpha"),
        (["base", "lora", "lora", "--alpha", "0.5", "--alpha", "1"], "one adapter is given twice"),
        (["base", "lora"], "Missing option '--alpha'"),
        (["base", "--alpha", "0.5"], "Missing argument 'REGIONAL...'"),
        (["base", "lora", "--alpha", "1.5"], "alpha 1.5: expected a number from 0"),
        (["base", "lora", "--alpha", "-0.5"], "alpha -0.5: expected a number from 0"),
        (["base", "lora", "--alpha", "nan"], "alpha nan: expected a number from 0"),
        (["base", "lora", "--alpha", "half"], "'half' is not a valid float"),
        (["nowhere", "lora", "--alpha", "0.5"], "nowhere: no such folder, and not a Hub id"),
        (["base", "nowhere", "--alpha", "0.5"], "nowhere: no such folder, and not a Hub id"),
        (["base", "empty", "--alpha", "0.5"], "empty: no .safetensors file"),
        (["empty", "lora", "--alpha", "0.5"], "empty: no .safetensors file"),
        (["lora", "base", "--alpha", "0.5"], "lora: a base with an adapter in it"),
        (
            ["base", "base", "lora", "--alpha", "0.5", "--alpha", "0.5"],
            "base: a full checkpoint can only be merged alone",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_merged_is_one_message_and_leaves_nothing(
    ggez: Ggez, arguments: list[str], message: str
) -> None:
    Path("empty").mkdir()
    before = sorted(Path().rglob("*"))
    code, out, err = ggez(*arguments, "--out", "made")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file"])
def test_existing_output_is_never_replaced(ggez: Ggez, kind: str) -> None:
    if kind == "file":
        Path("made").write_text("mine")
    else:
        Path("made").mkdir()
    if kind == "folder":
        Path("made/mine").write_text("mine")
    code, out, err = ggez("base", "lora", "--alpha", "0.5", "--out", "made")
    assert (code, out) == (2, "")
    assert err.startswith("error: made: is there already\n  hint: ")
    assert [path.read_text() for path in (Path("made"), Path("made/mine")) if path.is_file()] in (["mine"], [])


# ------------------------------------------------------------------------------------------------- killed, or disk full
CALLS = ("truncate", "pwrite", "copy_file_range", "rename")
KILLED = f"""
import os, signal, sys
left = int(sys.argv.pop(1))
def counted(call):
    def count(*arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    return count
for name in {CALLS}:
    setattr(os, name, counted(getattr(os, name)))
from ggez_hub.cli import main
main()
"""
LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
from ggez_hub.cli import main
main()
"""
MERGE = ["merge-checkpoints", "base", "lora", "--alpha", "0.5", "--out", "made/out"]


def loads(folder: Path) -> bool:
    try:
        AutoModel.from_pretrained(folder)
    except (OSError, ValueError):
        return False
    return True


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("calls", [pytest.param(1, marks=pytest.mark.slow), 20])
def test_killed_merge_leaves_no_folder_that_loads_and_can_be_repeated(ggez: Ggez, calls: int) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(calls), *MERGE], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert {path.name for path in Path("made").iterdir()} <= {".out.partial", ".out.lock"}
    assert list(Path("made").rglob("*.safetensors")), "killed before it wrote anything"
    assert not loads(Path("made/.out.partial"))
    code, out, _ = ggez(*MERGE[1:])
    assert (code, out) == (0, "made/out\n")
    assert [path.name for path in Path("made").iterdir()] == ["out"]
    assert loads(Path("made/out"))


@pytest.mark.slow
def test_full_disk_is_told_and_leaves_nothing(ggez: Ggez) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, *MERGE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: the disk is full; nothing half-written is left" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(Path("made").iterdir()) == []
