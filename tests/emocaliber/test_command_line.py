"""A mistake on the command line is one line and exit status 2; the help keeps its line breaks."""

import io
import sys

import pytest

from emocaliber.command_line import CommandParser


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "the following arguments are required: --output-dir"),
        (["--output-dir", "x", "--no\nsuch"], "unrecognized arguments: --no such"),
        (["--output-dir", "x", "--seed", "one"], "argument --seed: invalid int value: 'one'"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, told):
    parser = CommandParser()
    parser.add_argument("--output-dir", required=True)
    parser.add_argument("--seed", type=int)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(arguments)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"error: {told}; see --help\n")


def test_the_help_keeps_its_line_breaks():
    description = "First line.\n\n    a command"
    assert description in CommandParser(description=description).format_help()


def test_what_the_terminal_cannot_show_is_printed_as_an_escape(monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    CommandParser()
    print("a\udcff.jpg Übermut")
    shown.flush()
    assert shown.buffer.getvalue() == b"a\\udcff.jpg \\xdcbermut\n"


def test_a_stream_that_is_no_file_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    CommandParser()
