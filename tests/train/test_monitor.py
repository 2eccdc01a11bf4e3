"""The monitor of stage 3, by its command line: what it prints of a log, growing or not, and its end."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emocaliber.response import SECTIONS, render
from emocaliber.reward_log import append_row, reward_and_log

COMMAND = Path(__file__).parents[2] / "train" / "monitor.py"
LABELS = ["awe", "fear"]
WAIT_S = 60


def monitor(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(COMMAND), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def add(log: Path, confidence: float, is_right: bool, **row: Any) -> None:
    response = render(dict.fromkeys(SECTIONS, "a dog"), "awe" if is_right else "fear", confidence)
    reward_and_log(
        response, "awe", LABELS, reward="brier", log=log, row={"task": "FI-2", "split": "train"} | row
    )


def add_run(log: Path, n: int, *, collapses: bool) -> None:
    rng = random.Random(0)
    for number in range(n):
        chance = rng.choice([0.4, 0.6, 0.9])
        stated = 0.7 if collapses and number > n / 2 else round(chance + rng.uniform(-0.1, 0.1), 2)
        add(log, stated, rng.random() < chance, id=str(number // 8), step=number // 64)


@pytest.fixture
def following(tmp_path: Path) -> Iterator[tuple[Path, Path, subprocess.Popen[bytes]]]:
    """A monitor that follows a log which is not there yet: the log, what is printed, the process."""
    log, printed = tmp_path / "rewards.jsonl", tmp_path / "printed"
    options = ["--follow", "--refresh", "0.2", "--exit-on-alarm", "--figure", str(tmp_path / "run.png")]
    with printed.open("wb") as file:
        command = [sys.executable, str(COMMAND), str(log), *options]
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            # A job in the background of a script ignores the interrupt, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            yield log, printed, process
        finally:
            process.kill()
            process.wait()


def wait_for(text: str, printed: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_S
    while text not in printed.read_text(encoding="utf-8"):
        assert process.poll() is None, printed.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, printed.read_text(encoding="utf-8")
        time.sleep(0.1)


def line_of(text: str, name: str) -> list[str]:
    (found,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return found.removeprefix(name).split()


def test_a_small_log_by_hand(tmp_path: Path) -> None:
    log = tmp_path / "rewards.jsonl"
    for _ in range(2):  # first and last window hold the same
        for confidence, is_right, task in (
            (0.9, True, "FI-2"),
            (0.9, False, "FI-2"),
            (0.6, True, "EmoSet-8"),
            (0.2, False, "EmoSet-8"),
        ):
            add(log, confidence, is_right, task=task)
    add(log, 0.3, False, split="test")
    append_row(log, {"id": "torn"})
    log.write_bytes(log.read_bytes()[:-1])  # a last line that is still being written
    run = monitor(log)
    assert (run.returncode, run.stderr) == (0, "")
    assert "\x1b" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 100
    assert "8 training rollouts" in run.stdout
    assert line_of(run.stdout, "correct")[:3] == ["0.500", "0.500", "+0.000"]
    assert line_of(run.stdout, "score")[:2] == ["1.245", "1.245"]
    assert line_of(run.stdout, "ECE %")[:2] == ["35.0", "35.0"]
    # n, correct, confidence, ECE, by chance, Brier, AUROC, parse rate
    tasks = {name: line_of(run.stdout, name) for name in ("all", "FI-2", "EmoSet-8", "(test)")}
    by_chance = {name: scores.pop(4) for name, scores in tasks.items()}
    assert all(0 < float(value) < 100 for value in by_chance.values())
    assert tasks == {
        "all": ["4", "0.500", "0.650", "35.0", "0.255", "62.5", "100.0"],
        "FI-2": ["2", "0.500", "0.900", "40.0", "0.410", "50.0", "100.0"],
        "EmoSet-8": ["2", "0.500", "0.400", "30.0", "0.100", "100.0", "100.0"],
        "(test)": ["1", "0.000", "0.300", "30.0", "0.090", "-", "100.0"],
    }
    assert line_of(run.stdout, "0.9 - 1.0") == ["#" * 30, "50%"] * 2
    assert line_of(run.stdout, "0.2 - 0.3") == ["#" * 15, "25%"] * 2
    assert "commonest confidence 0.9 (50%); the log names no prompts" in run.stdout
    assert run.stdout.endswith("no alarms yet: they need windows of 200 rollouts\n\n")


def test_only_held_out_rows_are_no_training(tmp_path: Path) -> None:
    log = tmp_path / "rewards.jsonl"
    add(log, 0.3, False, split="val")
    run = monitor(log)
    assert run.returncode == 0
    assert "no training rollouts yet" in run.stdout
    assert line_of(run.stdout, "(val)")[0] == "1"


def test_a_collapse_ends_with_3_and_a_healthy_run_with_0(tmp_path: Path) -> None:
    collapsed, fine = tmp_path / "collapsed.jsonl", tmp_path / "fine.jsonl"
    add_run(collapsed, 1600, collapses=True)
    add_run(fine, 1600, collapses=False)
    run = monitor(collapsed, "--exit-on-alarm", "--window", 400)
    assert run.returncode == 3
    alarms = [line for line in run.stdout.splitlines() if line.startswith("alarm: ")]
    assert ["standard deviation" in alarms[0], "100% of the confidences are 0.7" in alarms[1]] == [True, True]
    assert len(alarms) == 2
    assert monitor(collapsed, "--window", 400).returncode == 0
    run = monitor(fine, "--exit-on-alarm", "--window", 400)
    assert run.returncode == 0
    assert run.stdout.endswith("\nno alarm\n\n")
    assert "of 50 prompts give no gradient" in run.stdout


def test_a_figure_is_drawn_or_the_old_one_kept(tmp_path: Path) -> None:
    log, figure = tmp_path / "rewards.jsonl", tmp_path / "new" / "run.png"
    add_run(log, 64, collapses=False)
    assert monitor(log, "--figure", figure, "--window", 8).returncode == 0
    from PIL import Image

    with Image.open(figure) as image:
        assert image.format == "PNG"
        assert image.size == (1875, 930)
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 50
    assert [path.name for path in figure.parent.iterdir()] == ["run.png"]
    run = monitor(log, "--figure", log / "run.png")
    assert run.returncode == 2
    assert run.stderr.startswith(f"error: {log}/run.png: cannot be written (")
    assert run.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_growing_log_is_followed_to_its_alarm(
    following: tuple[Path, Path, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    log, printed, process = following
    wait_for("no training rollouts yet", printed, process)
    add_run(log, 480, collapses=False)
    wait_for("\n480 training rollouts", printed, process)
    with log.open("ab", buffering=0) as file:
        file.write(b'{"half": ')
    add(log, 0.5, True)  # the next writer removes what a killed one left
    wait_for("\n481 training rollouts", printed, process)
    assert (tmp_path / "run.png").stat().st_size > 10_000
    writer = "import sys; sys.path.insert(0, sys.argv[1]); import test_monitor as t; t.collapse(sys.argv[2])"
    subprocess.run(
        [sys.executable, "-c", writer, str(Path(__file__).parent), str(log)], check=True, timeout=60
    )
    assert process.wait(WAIT_S) == 3
    text = printed.read_text(encoding="utf-8")
    assert "alarm: 100% of the confidences are 0.9" in text
    assert "Traceback" not in text
    assert "error" not in text


def collapse(log: str) -> None:
    """What the writing process of the test above does."""
    for _ in range(700):
        add(Path(log), 0.9, True)


def test_an_interrupt_ends_following_without_a_word(
    following: tuple[Path, Path, subprocess.Popen[bytes]],
) -> None:
    log, printed, process = following
    add(log, 0.5, True)
    wait_for("\n1 training rollouts", printed, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_S) == 0
    assert "Traceback" not in printed.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, [], "cannot be read (No such file or directory)"),
        ("", [], "no rollouts yet"),
        ('{"torn": ', [], "no rollouts yet"),
        ("not json\n", [], "rewards.jsonl:1: not a JSON object"),
        ('{"id": "a row of something else"}\n', [], "rewards.jsonl:1: no number 'time'"),
        ("", ["--window", "0"], "--window 0: give at least 1"),
        ("", ["--window", "100", "--exit-on-alarm"], "alarms need windows of 200 rollouts"),
        ("", ["--refresh", "nan"], "--refresh nan"),
        ("", ["--figure", "run.pdf"], "only PNG is drawn"),
        ("", ["--once", "--follow"], "not allowed with argument"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    content: str | None, options: list[str], message: str, tmp_path: Path
) -> None:
    log = tmp_path / "rewards.jsonl"
    if content is not None:
        log.write_text(content, encoding="utf-8")
    run = monitor(log, *options)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: ")
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


def test_following_in_a_folder_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    run = monitor(tmp_path / "no" / "rewards.jsonl", "--follow")
    assert (run.returncode, run.stdout) == (2, "")
    assert "no such folder" in run.stderr
