"""Every document names files that exist, and commands with options that they take."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    file.relative_to(ROOT).as_posix()
    for file in (*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("models/*/*.md"))
    if "node_modules" not in file.parts
)
ROOMS = "data|emocaliber|inference|models|tests|train"
# What a command makes, and names with a choice in them.
NOT_IN_THE_REPOSITORY = re.compile(r"[*{}<>…]|VECBench|VEC-CoT|train/output|SIZE|Emotion6|MultiEmo|NAME")


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def commands(text: str) -> list[list[str]]:
    """The words of every `python FILE` or `bash FILE` in the indented blocks, without the comments."""
    block = "\n".join(re.findall(r"^(?: {4}|\t)(.*)$", text, re.MULTILINE)).replace("\\\n", " ")
    found = []
    for line in block.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a table, a quotation
            continue
        starts = [place for place, word in enumerate(words) if re.search(r"(^|/)(python3?|bash)$", word)]
        found += [words[start + 1 :] for start in starts if len(words) > start + 1]
    return found


@cache
def help_of(*command: str) -> str:
    arguments = [sys.executable, str(ROOT / command[0]), *command[1:], "--help"]
    run = subprocess.run(arguments, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def help_for(command: str, arguments: list[str]) -> str:
    """The help of the command, or of the part of it that the arguments choose."""
    text = help_of(command)
    if arguments and re.search(rf"[{{,]{re.escape(arguments[0])}[,}}]", text.split("\n\n")[0]):
        text += help_of(command, arguments[0])
    if command == "inference/benchmark.py":  # what it does not know goes to infer.py
        text += help_of("inference/infer.py")
    return text


# The changelog names what is gone.
@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name != "CHANGELOG.md"])
def test_every_file_that_is_named_exists(document: str) -> None:
    text = text_of(document)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not re.match(r"[a-z]+:", link)]
    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []
    named = re.findall(rf"(?<![\w/.$-])(?:{ROOMS})/[\w./{{}}*-]+\.(?:py|sh|md|yaml|json|png)\b", text)
    named = [name for name in named if not NOT_IN_THE_REPOSITORY.search(name)]
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_is_there_and_takes_its_options(document: str) -> None:
    for words in commands(text_of(document)):
        command, *arguments = words
        if not re.fullmatch(r"[\w/]+\.(py|sh)", command):
            continue  # python -m pytest
        assert (ROOT / command).is_file(), command
        if command.endswith(".py"):
            ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
            options = [word.split("=")[0] for word in ours if word.startswith("--")]
            text = help_for(command, arguments)
            unknown = [word for word in options if not re.search(rf"{word}(?![\w-])", text)]
            assert unknown == [], f"{command} in {document}"


def test_the_readme_is_short_and_has_its_two_commands() -> None:
    text = text_of("README.md")
    assert text.count("\n") < 150
    assert ["inference/infer_and_eval_example.sh"] in commands(text)
    assert ["tests/run.sh"] in commands(text)


@pytest.mark.parametrize("room", ["data", "inference", "train"])
def test_the_readme_of_a_room_is_under_200_lines(room: str) -> None:
    assert text_of(f"{room}/README.md").count("\n") < 200


def test_commands_of_a_document_are_found() -> None:
    text = "Run\n\n    A=1 python data/x.py --to DIR \\\n        --seed 0   # why\n    env/bin/python -m x\n"
    assert commands(text) == [["data/x.py", "--to", "DIR", "--seed", "0"], ["-m", "x"]]
