"""The rules of the house, read from the source without running it: what may import what, what is where.

A command is at the top of its room (`data/`, `inference/`, `train/`). What only that room uses is in its
folders, and what two rooms use is in `emocaliber/`.
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "inference", "train")
OURS = ("emocaliber", *ROOMS)

# What each part of emocaliber/ may import of the others. A new part gets a line here.
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
    "server_url": {"jsonl"},
    "stated": {"taxonomy"},
    "records": {"jsonl", "taxonomy"},
    "prompts": {"records"},
    "response": {"prompts", "stated", "taxonomy"},
    "scoring": {"records", "response", "taxonomy"},
    "confidences": {"records", "response", "scoring", "taxonomy"},
    "reward": {"response", "taxonomy"},
    "reward_log": {"jsonl", "metrics", "response", "reward"},
    "report": {"confidences", "images", "jsonl", "metrics", "records", "response", "scoring", "taxonomy"},
    "mini": {"prompts", "records", "response", "taxonomy"},
}
NOT_AT_MODULE_LEVEL = {"torch", "vllm", "swift", "verl", "ray"}
HOME = {"vllm": "inference/backends", "swift": "train", "verl": "train"}
MOST_LATE_IMPORTS = 20
LATE_IMPORTS_ALLOWED_IN = {"main", "work"}
"""In a command: they import its heavy parts once the arguments are read, so that --help stays quick."""
SHADOWED = {
    *sys.stdlib_module_names,
    "swift",
    "verl",
    "vllm",
    "ray",
    "datasets",
    "torch",
    "transformers",
    "peft",
}


def sources(root: Path) -> list[Path]:
    """The Python files of the house but the tests, relative to its root."""
    return sorted(path.relative_to(root) for part in OURS for path in (root / part).rglob("*.py"))


def parsed(file: Path) -> ast.Module:
    return parsed_text(file.read_text(encoding="utf-8"))


@cache
def parsed_text(source: str) -> ast.Module:
    return ast.parse(source)


def imports(nodes: Iterator[ast.AST], package: tuple[str, ...]) -> Iterator[str]:
    """Every dotted name that the nodes import; `from a import b` gives a.b, as b may be a module."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imported_by(root: Path, file: Path) -> set[str]:
    return set(imports(ast.walk(parsed(root / file)), file.parts[:-1]))


def at_module_level(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: no function bodies, nothing under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from at_module_level(node)


def wrong_imports(root: Path) -> list[str]:
    """Each import that goes against an arrow, as "FILE imports NAME: why"."""
    found = []
    for file in sources(root):
        check = library_faults if file.parts[0] == "emocaliber" else room_faults
        faults = [*check(root, file), *framework_faults(root, file)]
        found += [f"{file} imports {fault}" for fault in faults]
    return found


def library_faults(root: Path, file: Path) -> Iterator[str]:
    """A module of emocaliber keeps to its arrows, knows no room, and is light to import."""
    part = file.with_suffix("").parts[1]
    if part not in ARROWS and part != "__init__":
        yield "perhaps too much: ARROWS in tests/test_house.py has no line for it"
    for name in imported_by(root, file):
        top, *rest = name.split(".")
        if top in ROOMS:
            yield f"{name}: a room"
        if top == "emocaliber" and rest[0] != part and rest[0] not in ARROWS.get(part, set()):
            yield f"{name}: not an arrow of {part}"
    for name in imports(at_module_level(parsed(root / file)), file.parts[:-1]):
        if name.split(".")[0] in NOT_AT_MODULE_LEVEL - HOME.keys():
            yield f"{name}: heavy, at module level"


def room_faults(root: Path, file: Path) -> Iterator[str]:
    """A room knows no other room, and its folders do not know its commands."""
    room, *folders = file.parts[:-1]
    for name in imported_by(root, file):
        top, *rest = name.split(".")
        if top in ROOMS and top != room:
            yield f"{name}: another room"
        if top == room and folders and (root / room / f"{rest[0]}.py").exists():
            yield f"{name}: a command of the room"


def framework_faults(root: Path, file: Path) -> Iterator[str]:
    """A framework is imported in its home alone."""
    for name in imported_by(root, file):
        home = HOME.get(name.split(".")[0])
        if home and not file.is_relative_to(home):
            yield f"{name}: belongs in {home}/"


def folder_arrows(root: Path, room: str) -> dict[str, set[str]]:
    """Which folders of a room each of its folders imports."""
    arrows: dict[str, set[str]] = {}
    for file in sources(root):
        if file.parts[0] == room and len(file.parts) > 2:
            names = [name.split(".") for name in imported_by(root, file)]
            others = {name[1] for name in names if name[0] == room and name[1] != file.parts[1]}
            arrows.setdefault(file.parts[1], set()).update(others)
    return arrows


def late_imports(root: Path) -> list[str]:
    """Each statement that imports a module of ours inside a function, as FILE:LINE."""
    found = []
    for file in sources(root):
        command = len(file.parts) == 2 and file.parts[0] in ROOMS
        nodes = list(ast.iter_child_nodes(parsed(root / file)))
        for node in nodes:
            if isinstance(node, ast.FunctionDef) and command and node.name in LATE_IMPORTS_ALLOWED_IN:
                continue
            for function in ast.walk(node):
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                    found += [
                        f"{file}:{inner.lineno}"
                        for inner in ast.walk(function)
                        if any(name.split(".")[0] in OURS for name in imports(iter([inner]), file.parts[:-1]))
                    ]
    return sorted(set(found))


def unused(root: Path) -> list[str]:
    """The modules that nothing imports, names or starts; a command of a room is there for the user."""
    imported = {(file, name) for file in sources(root) for name in imported_by(root, file)}
    shell = [path for part in OURS for path in (root / part).rglob("*.sh")] + list(root.glob("*.sh"))
    texts = "\n".join(path.read_text(encoding="utf-8") for path in shell)
    found = []
    for file in sources(root):
        dotted = ".".join(file.with_suffix("").parts)
        command = len(file.parts) == 2 and file.parts[0] in ROOMS
        used = any(by != file and (name == dotted or name.startswith(f"{dotted}.")) for by, name in imported)
        named = re.search(rf"\b({re.escape(file.as_posix())}|{re.escape(dotted)})\b", texts)
        if file.name != "__init__.py" and not command and not used and not named:
            found.append(str(file))
    return found


def test_every_import_follows_an_arrow() -> None:
    assert wrong_imports(ROOT) == []


def test_every_arrow_starts_at_a_part_that_exists() -> None:
    there = {path.stem for path in (ROOT / "emocaliber").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set(ARROWS) <= there


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_between_the_folders_of_a_room_runs_in_a_circle(room: str) -> None:
    arrows = folder_arrows(ROOT, room)
    assert arrows
    TopologicalSorter(arrows).prepare()  # raises CycleError


def test_few_imports_of_our_own_stand_inside_functions() -> None:
    found = late_imports(ROOT)
    assert len(found) <= MOST_LATE_IMPORTS, found


def test_every_module_is_used() -> None:
    assert unused(ROOT) == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_at_the_top_of_a_room_is_a_command(room: str) -> None:
    files = [file for file in (ROOT / room).glob("*.py") if file.name != "__init__.py"]
    assert files
    for file in files:
        functions = {node.name for node in parsed(file).body if isinstance(node, ast.FunctionDef)}
        assert "main" in functions, file
        assert '\nif __name__ == "__main__":\n' in file.read_text(encoding="utf-8"), file


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_commands_and_one_level_of_folders_with_parts(room: str) -> None:
    assert [node for node in parsed(ROOT / room / "__init__.py").body if not isinstance(node, ast.Expr)] == []
    files = [file for file in sources(ROOT) if file.parts[0] == room]
    assert {len(file.parts) for file in files} == {2, 3}


def test_no_name_hides_a_standard_module_or_a_framework() -> None:
    # A program that is started by its path has its own folder first on sys.path.
    names = {(file.parent, file.stem) for file in sources(ROOT)}
    names |= {(file.parent.parent, file.parent.name) for file in sources(ROOT)}
    assert sorted(f"{folder}/{name}" for folder, name in names if name in SHADOWED) == []


def write(root: Path, file: str, source: str) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(source, encoding="utf-8")


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
        ("inference/infer.py", "import vllm"),
        ("inference/runs/plan.py", "from inference import infer"),
        ("inference/runs/plan.py", "def f():\n    from inference.infer import main"),
        ("data/build_mini.py", "import vllm"),
        ("train/plugin.py", "from vllm import LLM"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, source: str) -> None:
    write(tmp_path, "inference/infer.py", "")
    write(tmp_path, file, source)
    assert len(wrong_imports(tmp_path)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("emocaliber/response.py", "from emocaliber.taxonomy import TASKS"),
        ("emocaliber/metrics/calibration.py", "from .scores import accuracy\nimport numpy"),
        ("emocaliber/mini/world.py", "def f():\n    import torch"),
        ("emocaliber/report/tables.py", "if TYPE_CHECKING:\n    import torch"),
        ("inference/infer.py", "from emocaliber import records\nfrom inference.runs import plan"),
        ("inference/backends/engine.py", "import vllm"),
        ("inference/runs/plan.py", "from inference.runs.arguments import parse"),
        ("train/plugin.py", "import swift, verl, torch"),
    ],
)
def test_a_right_import_is_not(tmp_path: Path, file: str, source: str) -> None:
    write(tmp_path, file, source)
    assert wrong_imports(tmp_path) == []


def test_a_circle_of_folders_is_found(tmp_path: Path) -> None:
    write(tmp_path, "data/raw/scan.py", "from data.vec_cot import rows")
    write(tmp_path, "data/vec_cot/rows.py", "from data.raw.scan import scan")
    with pytest.raises(CycleError):
        TopologicalSorter(folder_arrows(tmp_path, "data")).prepare()


def test_a_late_import_counts_outside_a_commands_main(tmp_path: Path) -> None:
    late = "def {name}():\n    if True:\n        from data.raw.scan import a, b\n    import numpy\n"
    write(tmp_path, "data/build.py", late.format(name="main") + late.format(name="work"))
    assert late_imports(tmp_path) == []
    write(tmp_path, "data/other.py", late.format(name="load"))
    write(tmp_path, "data/raw/scan.py", late.format(name="main"))
    assert late_imports(tmp_path) == ["data/other.py:3", "data/raw/scan.py:3"]


def test_a_module_without_a_use_is_found(tmp_path: Path) -> None:
    write(tmp_path, "data/build.py", "from data.raw.scan import scan\nfrom data.raw import draw")
    for file in ("data/raw/scan.py", "data/raw/draw.py", "data/raw/by_path.py", "data/raw/by_name.py"):
        write(tmp_path, file, "")
    write(tmp_path, "data/raw/left.py", "from data.raw import left")
    write(tmp_path, "data/start.sh", 'python "$ROOT/data/raw/by_path.py"\nNAME=data.raw.by_name\n')
    assert unused(tmp_path) == ["data/raw/left.py"]
