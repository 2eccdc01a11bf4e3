"""Rows handed out: to racing processes, to one that is killed, and given back."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inference.runs.workers import _BLOCK, Handout

ROOT = Path(__file__).resolve().parents[2]
RACER = """
import sys
sys.path.insert(0, sys.argv[1])
from inference.runs.workers import Handout
sys.stdin.read(1)
print(*Handout(int(sys.argv[2])).rows_for(int(sys.argv[3])))
"""
HOLDER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from inference.runs.workers import Handout
handout = Handout(int(sys.argv[2]))
with handout._locked():
    print("holds it", flush=True)
    time.sleep(600)
"""


def start(script: str, handout: Handout, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, str(ROOT), str(handout.descriptor), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[handout.descriptor],
    )


def test_rows_come_in_order_and_each_once() -> None:
    handout = Handout.of(3)
    assert [handout.take(0), handout.take(1), handout.take(0), handout.take(1)] == [0, 1, 2, None]
    assert (handout.taken_by(0), handout.taken_by(1), handout.n_free()) == ([0, 2], [1], 0)


def test_none_to_hand_out() -> None:
    handout = Handout.of(0)
    assert (handout.take(0), handout.n_free(), handout.taken_by(0)) == (None, 0, [])


def test_the_last_number_of_a_taker_is_kept_apart_from_a_free_row() -> None:
    handout = Handout.of(2)
    assert handout.take(254) == 0
    assert (handout.taken_by(254), handout.n_free()) == ([0], 1)


def test_more_rows_than_are_read_at_a_time() -> None:
    handout = Handout.of(2 * _BLOCK + 1)
    os.pwrite(handout.descriptor, b"\1" * (2 * _BLOCK), 0)
    assert (handout.n_free(), handout.take(3), handout.take(3)) == (1, 2 * _BLOCK, None)
    assert handout.taken_by(3) == [2 * _BLOCK]
    assert len(handout.taken_by(0)) == 2 * _BLOCK


def test_rows_given_back_are_taken_again_also_by_one_that_is_past_them() -> None:
    handout = Handout.of(5)
    assert [handout.take(0), handout.take(1), handout.take(1)] == [0, 1, 2]
    handout.free([0])
    assert (handout.n_free(), handout.taken_by(0)) == (3, [])
    assert list(handout.rows_for(1)) == [3, 4, 0]
    handout.free([2, 4])
    assert list(handout.rows_for(1)) == [2, 4]


def test_racing_processes_take_every_row_exactly_once() -> None:
    n_rows, n_racers = 3000, 4
    handout = Handout.of(n_rows)
    racers = [start(RACER, handout, number) for number in range(n_racers)]
    for racer in racers:  # all at once: each waits for this
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    taken = [[int(row) for row in racer.communicate(timeout=120)[0].split()] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * n_racers
    assert sorted(row for rows in taken for row in rows) == list(range(n_rows))
    assert [handout.taken_by(number) for number in range(n_racers)] == taken


def test_a_killed_process_does_not_keep_the_lock() -> None:
    handout = Handout.of(1)
    holder = start(HOLDER, handout)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "holds it\n"
    with pytest.raises(BlockingIOError):
        fcntl.lockf(handout.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    holder.kill()
    assert holder.wait(timeout=60) == -signal.SIGKILL
    assert handout.take(0) == 0


def test_the_others_keep_it_when_one_has_closed_its_own() -> None:
    handout = Handout.of(1)
    other = Handout(os.dup(handout.descriptor))
    handout.close()
    assert other.take(0) == 0
