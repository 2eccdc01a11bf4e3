"""A mistake on the command line is one line and exit status 2; the help keeps its line breaks."""

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
