"""A mistake is one line and status 2, the help keeps its line breaks, each kind of end has one status."""

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emocaliber.command_line import CommandParser, Failure, is_server_url, read_key, run_command
from emocaliber.jsonl import RecordError

ROOT = Path(__file__).parents[2]


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


def ends(error, capsys, **remedies):
    """The status of a command that raises this, and what it says on stderr."""

    def command():
        print("so far")
        raise error

    status = run_command(command, **remedies)
    captured = capsys.readouterr()
    assert captured.out == "so far\n"
    return status, captured.err


@pytest.mark.parametrize(("given", "status"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_a_command_that_comes_to_its_end_gives_its_own_status_and_says_nothing(given, status, capsys):
    assert run_command(lambda: given) == status
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (RecordError("a.jsonl:3: no\n  task; give its name"), 2, "a.jsonl:3: no task; give its name"),
        (Failure("all 3 rows failed"), 1, "all 3 rows failed"),
        (MemoryError(), 2, "not enough memory; free memory"),
        (MemoryError("a picture of 9 GB"), 2, "a picture of 9 GB; free memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 2, "Cannot allocate memory; free memory"),
        (FileNotFoundError(2, "No such file", "a b"), 2, "a b: No such file; give other paths"),
        (FileNotFoundError(2, "No such file", ""), 2, "'': No such file; give other paths"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device"),
        (OSError("cannot identify image file"), 1, "cannot identify image file"),
        (TimeoutError(), 1, "TimeoutError"),
        # A pipe to somebody else than the reader of the standard output.
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "Broken pipe"),
    ],
)
def test_what_ends_a_command_is_one_line(error, status, line, capsys):
    assert ends(error, capsys) == (status, f"error: {line}\n")


def test_the_remedies_are_the_commands_own(capsys):
    assert ends(MemoryError(), capsys, if_no_memory="give fewer --workers") == (
        2,
        "error: not enough memory; give fewer --workers\n",
    )
    assert ends(KeyboardInterrupt(), capsys, if_interrupted="no report was written") == (
        130,
        "interrupted: no report was written\n",
    )
    assert ends(KeyboardInterrupt(), capsys) == (130, "")


def test_a_defect_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


def test_the_handler_of_sigterm_is_given_back():
    before = signal.getsignal(signal.SIGTERM)
    run_command(lambda: None)
    assert signal.getsignal(signal.SIGTERM) is before


COMMAND = """
import signal, sys
from emocaliber.command_line import Failure, run_command

def command():
    try:
        {work}
    finally:
        print("cleared away", file=sys.stderr)

sys.exit(run_command(command, if_interrupted="nothing was written"))
"""


def run(work, shell='exec "$0" -c "$1"'):
    """Status and stderr of a process of its own; it clears away whatever ends it."""
    command = ["bash", "-o", "pipefail", "-c", shell, sys.executable, COMMAND.format(work=work)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    said = done.stderr.splitlines()
    assert said.pop(0) == "cleared away", done.stderr
    return done.returncode, said


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [
        ("pass", 0, []),
        ("raise Failure('no')", 1, ["error: no"]),
        ("open('/no/such/file')", 2, ["error: /no/such/file: No such file or directory; give other paths"]),
        ("signal.raise_signal(signal.SIGINT)", 130, ["interrupted: nothing was written"]),
        ("signal.raise_signal(signal.SIGTERM)", 143, []),
    ],
)
def test_the_status_of_the_process(work, status, said):
    assert run(work) == (status, said)


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [
        ("for n in range(100000): print(n)", 141, []),
        ("raise Failure(print('x') or 'no')", 1, ["error: no"]),
    ],
)
def test_a_reader_that_goes_away_is_no_fault(work, status, said):
    """Closed while it prints, or before what it has printed is written out: nothing is told of the pipe."""
    assert run(work, '{ sleep 0.3; "$0" -c "$1"; } | true') == (status, said)


def test_a_disk_that_is_full_is_told():
    assert run("print('x')", '"$0" -c "$1" > /dev/full') == (1, ["error: No space left on device"])


def test_without_a_standard_output_a_command_ends_as_ever():
    assert run("print('x')", '"$0" -c "$1" >&-') == (0, [])


# the address and key of a server


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("https://api.example.org/openai/v1/", True),
        ("ftp://h/v1", False),
        ("h:8000/v1", False),
        ("http:///v1", False),
        ("https://me:pw@h/v1", False),
        ("https://:pw@h/v1", False),
        ("http://h:port/v1", False),
        ("https://h/v1?key=k", False),
        ("http://[::1/v1", False),
        ("http://a host/v1", False),
        ("http://h\n/v1", False),
        ("http://h/\udcff", False),
        ("", False),
    ],
)
def test_addresses(url: str, good: bool) -> None:
    assert is_server_url(url) is good


@pytest.mark.parametrize(
    ("written", "key"),
    [("", ""), (" sk-1/+=\r\n", "sk-1/+="), ("sk-A\nsk-B", None), ("sk-A sk-B", None), ("schlüssel", None)],
)
def test_a_key_is_one_word_that_a_header_can_hold(
    monkeypatch: pytest.MonkeyPatch, written: str, key: str | None
) -> None:
    monkeypatch.setenv("SOME_KEY", written)
    if key is not None:
        assert read_key("SOME_KEY") == key
        return
    with pytest.raises(
        RecordError, match=r"^the environment variable SOME_KEY holds no key[^\n]*$"
    ) as caught:
        read_key("SOME_KEY")
    assert "sk-" not in str(caught.value) and "schl" not in str(caught.value)


def test_no_variable_is_no_key() -> None:
    assert read_key("EMOCALIBER_NO_SUCH_VARIABLE") == ""
