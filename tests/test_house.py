"""The arrows of the house: which part may import which, read from the source without running it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "inference", "train")

# What each part of emocaliber/ may import of the rest of it. A new part says its arrows here.
ARROWS: dict[str, set[str]] = {
    "chat_server": set(),
    "command_line": {"jsonl"},
    "environment": set(),
    "images": set(),
    "image_scan": {"images", "jsonl"},
    "jsonl": set(),
    "metrics": set(),
    "taxonomy": set(),
    "provenance": set(),
    "supervise": {"command_line"},
    "stated": {"taxonomy"},
    "records": {"jsonl", "taxonomy"},
    "prompts": {"records"},
    "response": {"prompts", "stated", "taxonomy"},
    "scoring": {"records", "response", "taxonomy"},
    "confidences": {"records", "response", "scoring", "taxonomy"},
    "reward": {"response", "taxonomy"},
    "reward_log": {"jsonl", "metrics", "response", "reward"},
    "report": {
        "confidences",
        "images",
        "jsonl",
        "metrics",
        "records",
        "response",
        "scoring",
        "taxonomy",
    },
    "mini": {"prompts", "records", "response", "taxonomy"},
}
NOT_AT_MODULE_LEVEL = {"torch", "vllm", "swift", "verl", "ray"}
HOME = {"vllm": {"inference"}, "swift": {"train"}, "verl": {"train"}}


def imports(tree: ast.AST, package: tuple[str, ...], *, module_level: bool = False) -> Iterator[str]:
    """Every dotted name that the source imports; `from a import b` gives a.b, as b may be a module."""
    for node in module_level_nodes(tree) if module_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def module_level_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: no function bodies, nothing under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from module_level_nodes(node)


def violations(root: Path) -> list[str]:
    """Each import of the tree that goes against an arrow, as "file imports name: why"."""
    found = []
    for file in sorted(path for part in ("emocaliber", *ROOMS) for path in (root / part).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
        check = check_library if parts[0] == "emocaliber" else check_room
        found += [f"{file.relative_to(root)} imports {why}" for why in check(tree, parts)]
    return found


def check_library(tree: ast.AST, parts: tuple[str, ...]) -> Iterator[str]:
    """An emocaliber module keeps to its arrows, knows no room, and is light to import."""
    part = parts[1]
    if part not in ARROWS and part != "__init__":
        yield "something, perhaps: ARROWS in tests/test_house.py does not say what it may"
    for name in imports(tree, parts[:-1]):
        top, *rest = name.split(".")
        if top in ROOMS:
            yield f"{name}: a room"
        if top == "emocaliber" and rest[0] != part and rest[0] not in ARROWS.get(part, set()):
            yield f"{name}: not an arrow of {part}"
        if top in HOME:
            yield f"{name}: belongs in {', '.join(HOME[top])}/"
    for name in imports(tree, parts[:-1], module_level=True):
        if name.split(".")[0] in NOT_AT_MODULE_LEVEL:
            yield f"{name}: heavy, at module level"


def check_room(tree: ast.AST, parts: tuple[str, ...]) -> Iterator[str]:
    """A room imports emocaliber, never another room, and only its own framework."""
    for name in imports(tree, parts[:-1]):
        top = name.split(".")[0]
        if top in ROOMS and top != parts[0]:
            yield f"{name}: another room"
        if top in HOME and parts[0] not in HOME[top]:
            yield f"{name}: belongs in {', '.join(HOME[top])}/"


def test_every_import_follows_an_arrow() -> None:
    assert violations(ROOT) == []


def test_every_arrow_starts_at_a_part_that_exists() -> None:
    there = {path.stem for path in (ROOT / "emocaliber").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set(ARROWS) <= there


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("emocaliber/taxonomy.py", "from emocaliber import response"),
        ("emocaliber/taxonomy.py", "from .response import parse"),
        ("emocaliber/metrics/scores.py", "from ..taxonomy import TASKS"),
        ("emocaliber/metrics/scores.py", "def f():\n    import emocaliber.scoring"),
        ("emocaliber/scoring.py", "import torch"),
        ("emocaliber/scoring.py", "try:\n    import ray.util\nexcept ImportError:\n    pass"),
        ("emocaliber/mini/world.py", "def f():\n    from vllm import LLM"),
        ("emocaliber/mini/world.py", "from inference.infer import main"),
        ("emocaliber/novelty.py", ""),
        ("inference/infer.py", "import data.build_mini"),
        ("inference/infer.py", "def f():\n    import swift"),
        ("data/build_mini.py", "import vllm"),
        ("train/plugin.py", "from vllm import LLM"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, source: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(source, encoding="utf-8")
    assert len(violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("emocaliber/response.py", "from emocaliber.taxonomy import TASKS"),
        ("emocaliber/metrics/calibration.py", "from .accuracy import accuracy\nimport numpy"),
        ("emocaliber/mini/world.py", "def f():\n    import torch"),
        ("emocaliber/report/tables.py", "if TYPE_CHECKING:\n    import torch"),
        ("inference/infer.py", "import vllm\nfrom emocaliber import records"),
        ("train/plugin.py", "import swift, verl, torch"),
    ],
)
def test_a_right_import_is_not(tmp_path: Path, file: str, source: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(source, encoding="utf-8")
    assert violations(tmp_path) == []
