"""What the tests of this room share: helper modules, a checkpoint, rows, a run in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from emocaliber.prompts import conversation
from emocaliber.taxonomy import MIKELS_8

ROOT = Path(__file__).resolve().parents[2]
INFER = ROOT / "inference" / "infer.py"
sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # last: it shadows no package

Row = dict[str, Any]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    return Path(os.environ.get("EMOCALIBER_TEST_CHECKPOINT", ROOT / "models" / "EmoCaliber-mini"))


@pytest.fixture(scope="session")
def infer_command() -> Callable[..., list[str]]:
    def command(*arguments: object) -> list[str]:
        return [sys.executable, str(INFER), *map(str, arguments)]

    return command


@pytest.fixture(scope="session")
def infer(infer_command: Callable[..., list[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run infer.py to its end in a process of its own."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(infer_command(*arguments), capture_output=True, text=True, timeout=600)

    return run


@pytest.fixture(scope="session")
def make_row() -> Callable[..., Row]:
    def make(identity: str, image: str, text: str | None = None, **fields: Any) -> Row:
        messages = conversation(image, MIKELS_8)
        if text is not None:
            messages[0]["content"][1]["text"] = text
        row = {"id": identity, "conversations": messages, "task": "EmoSet-8", "ground_truth": "awe"}
        return {**row, "candidates": list(MIKELS_8), **fields}

    return make


@pytest.fixture(scope="session")
def draw() -> Callable[[int, int, int], Image.Image]:
    def drawn(number: int, width: int, height: int) -> Image.Image:
        image = Image.new("RGB", (width, height), (number * 37 % 256, number * 91 % 256, number * 53 % 256))
        ImageDraw.Draw(image).ellipse((width // 4, height // 4, width // 2, height // 2), fill=(250, 240, 10))
        return image

    return drawn


@pytest.fixture(scope="session")
def write_rows() -> Callable[[Path, Sequence[Row]], Path]:
    def write(path: Path, rows: Sequence[Row]) -> Path:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def read_rows() -> Callable[[Path], list[Row]]:
    def read(path: Path) -> list[Row]:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    return read


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Put back the signal handlers that a run in this process sets."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def hollow_checkpoint(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint from outside: enough for everything before loading."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors_bytes({"a": [0, 4]}, 4))
    return folder


def safetensors_bytes(offsets: dict[str, list[int]], n_bytes: int) -> bytes:
    header = json.dumps({name: {"data_offsets": ends} for name, ends in offsets.items()}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * n_bytes
