"""`kill -9` of any process of a run, at any moment, again and again: no row is lost, none computed twice.

EMOCALIBER_KILLS=100 kills a hundred times; EMOCALIBER_KILLS_SEED draws other moments and processes.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from emocaliber.records import read_jsonl
from inference.runs.workers import MOST_REPLACED

pytestmark = pytest.mark.slow

N_KILLS = int(os.environ.get("EMOCALIBER_KILLS", "4"))
SEED = int(os.environ.get("EMOCALIBER_KILLS_SEED", "0"))
ROWS_A_KILL = 40
LONGEST_START_S = 3600  # far above what a start takes; a run that hangs fails the test
SETTINGS = ("--temperature", 0.7, "--max-new-tokens", 160, "--min-pixels", 3136, "--max-pixels", 12544)
# Every process of a run is started with the script that the run was, so this one is in all of them.
SPY = """
import os, sys
from inference import infer
from inference.backends import vllm_engine as engine

log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
add, take = engine.Engine._add, engine.Engine._take

def noting_add(self, request):
    os.write(log, f"asked {{request.id}}\\n".encode())
    return add(self, request)

def noting_take(self, output):
    outcome = take(self, output)
    if outcome is not None:
        os.write(log, f"answered {{outcome.id}}\\n".encode())
    return outcome

engine.Engine._add, engine.Engine._take = noting_add, noting_take
sys.exit(infer.main(sys.argv[1:]))
"""


@dataclass
class Moment:
    """When to kill: so many rows or so many seconds after the last kill or start, whichever is first.

    Without `n_rows` so long after all rows are on disk.
    """

    after_s: float
    n_rows: int | None = None


@dataclass
class SpiedRun:
    """A run whose engines note what they are asked, and that is killed and started again."""

    folder: Path
    arguments: list[str]
    n_rows: int
    random: random.Random
    log: Path = field(init=False)
    snapshots: list[tuple[int, set[str]]] = field(default_factory=list)
    """(lines of the log, ids on disk by then), at each start and each kill."""
    killed: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    n_in_hands: int = 0
    """At most so many rows were in the engines of the killed processes."""

    def __post_init__(self) -> None:
        self.log = self.folder.with_name(f"{self.folder.name}.log")
        self.log.touch()
        self.script = self.folder.with_name(f"{self.folder.name}-spied.py")
        self.script.write_text(SPY.format(log=str(self.log)))

    def log_lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def on_disk(self) -> set[str]:
        """The ids of the whole lines on disk: what must never be computed again."""
        ids: set[str] = set()
        for path in [*self.folder.glob("partial*.jsonl"), self.folder / "predictions.jsonl"]:
            try:
                whole = path.read_bytes().rpartition(b"\n")[0]
            except FileNotFoundError:  # not there yet, or just gathered into another
                continue
            ids |= {json.loads(line)["id"] for line in whole.splitlines()}
        return ids

    def take_snapshot(self) -> None:
        # The ids first: a row that is finished in between must not look as if it were computed again.
        ids = self.on_disk()
        self.snapshots.append((len(self.log_lines()), ids))

    def start(self, *machine: object) -> tuple[psutil.Popen, Path]:
        self.take_snapshot()
        stderr = self.folder.with_name(f"{self.folder.name}.stderr")
        command = [sys.executable, str(self.script), *self.arguments, *map(str, machine)]
        with open(stderr, "wb") as file:
            return psutil.Popen(command, stderr=file, stdin=subprocess.DEVNULL), stderr

    def run_and_kill(self, moments: list[Moment], workers: int, batch_size: int) -> int:
        """Start once and kill at the next moments until the run has ended; gives its exit status."""
        run, stderr = self.start("--workers", workers, "--batch-size", batch_size)
        n_workers_killed = 0
        while moments and self.wait_for(moments[0], run):
            phase = self.phase()
            victim = self.kill_any(run)
            if victim is None:  # it ended by itself just now
                continue
            moments.pop(0)
            is_parent = victim.pid == run.pid
            self.killed["parent" if is_parent else "worker"] += 1
            self.killed[phase] += 1
            self.n_in_hands += batch_size * (workers if is_parent else 1)
            if is_parent:
                break
            n_workers_killed += 1
            self.take_snapshot()
        status: int = run.wait(timeout=LONGEST_START_S)
        self.statuses[status] += 1
        said = stderr.read_text(errors="replace")[-3000:]
        assert status in (0, -signal.SIGKILL) or (status == 1 and n_workers_killed > MOST_REPLACED), said
        return status

    def kill_any(self, run: psutil.Popen) -> psutil.Process | None:
        """Kill a process of the run and wait for its end; None if it had ended by itself."""
        try:
            victim = self.random.choice([run, *living(run.children(recursive=True))])
            victim.kill()
        except psutil.NoSuchProcess:
            return None
        psutil.wait_procs([victim], timeout=60)
        return None if victim.pid == run.pid and run.wait() != -signal.SIGKILL else victim

    def wait_for(self, moment: Moment, run: psutil.Popen) -> bool:
        """Wait until it is time to kill; tells whether the run is still there to be killed."""
        since, before = time.monotonic(), self.n_lines()
        is_complete = False
        while run.poll() is None:
            now = time.monotonic()
            assert now < since + LONGEST_START_S, "the run hangs"
            if moment.n_rows is not None:
                if now >= since + moment.after_s or self.n_lines() >= before + moment.n_rows:
                    return True
            elif is_complete and now >= since + moment.after_s:
                return True
            elif not is_complete and self.n_lines() >= self.n_rows:
                is_complete, since = True, now
            time.sleep(0.003 if is_complete else 0.02)
        moment.after_s *= 0.7  # it came too late; the next start is killed sooner
        return False

    def n_lines(self) -> int:
        """Count the rows on disk, quickly."""
        n_lines = 0
        for path in [*self.folder.glob("partial*.jsonl"), self.folder / "predictions.jsonl"]:
            try:
                n_lines += path.read_bytes().count(b"\n")
            except FileNotFoundError:
                continue
        return n_lines

    def phase(self) -> str:
        """What the run was doing when it was killed."""
        start, _ = self.snapshots[-1]
        if (self.folder / "predictions.jsonl").exists():
            return "after the final files were there once"
        return "while answering" if len(self.log_lines()) > start else "before a first row"


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def processes_of(script: Path) -> list[psutil.Process]:
    """Every process that was started with a script, whoever is its parent now."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(script) in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return living(found)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    n_test = max(2, N_KILLS * ROWS_A_KILL * 3 // 4 // 9)
    build = [sys.executable, root / "data" / "build_mini.py", "--output-dir", folder, "--n-test", n_test]
    subprocess.run(list(map(str, build)), check=True, timeout=1200)
    return folder / "test.jsonl"


@pytest.fixture(scope="module")
def spied_run(
    data: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], SpiedRun]]:
    folder = tmp_path_factory.mktemp("runs")
    made: list[SpiedRun] = []

    def make(name: str) -> SpiedRun:
        arguments = ["--checkpoint", checkpoint, "--data", data, "--output-dir", folder / name, *SETTINGS]
        n_rows = data.read_bytes().count(b"\n")
        made.append(SpiedRun(folder / name, list(map(str, arguments)), n_rows, random.Random(SEED)))
        return made[-1]

    yield make
    for run in made:
        for process in processes_of(run.script):
            process.kill()


def random_moments(random: random.Random, loading_s: float) -> list[Moment]:
    """Most at any time while a run loads or answers, a sixth (at least one) when all rows are there.

    The rows between kills are few enough that there are some left at the last kill.
    """
    n_at_end = max(1, N_KILLS // 6)
    moments = [
        Moment(random.choice([LONGEST_START_S, random.uniform(0, loading_s)]), random.randint(1, ROWS_A_KILL))
        for _ in range(N_KILLS - n_at_end)
    ]
    return moments + [Moment(random.uniform(0, 1.5)) for _ in range(n_at_end)]


def test_killed_again_and_again_every_row_is_there_once_and_none_is_computed_twice(
    data: Path, spied_run: Callable[[str], SpiedRun]
) -> None:
    ids = [row["id"] for _, row in read_jsonl(data)]
    whole = spied_run("whole")
    assert whole.run_and_kill([], workers=1, batch_size=256) == 0
    assert Counter(whole.log_lines()) == Counter(
        f"{what} {row}" for what in ("asked", "answered") for row in ids
    )

    run = spied_run("killed")
    loading_s = first_row_s(whole.folder)
    moments = random_moments(run.random, loading_s)
    while moments:
        run.run_and_kill(moments, run.random.choice([1, 2, 2]), run.random.choice([2, 4, 16]))
    assert run.run_and_kill([], workers=2, batch_size=16) == 0

    print(f"\n{len(ids)} rows, {N_KILLS} kills: {dict(run.killed)}; exit statuses {dict(run.statuses)}")
    lines = run.log_lines()
    asked = Counter(line.removeprefix("asked ") for line in lines if line.startswith("asked "))
    print(f"{asked.total()} rows put into engines, {asked.total() - len(ids)} of them again")
    assert run.killed["parent"] + run.killed["worker"] == N_KILLS
    for n_lines, finished in run.snapshots:
        again = {line.removeprefix("asked ") for line in lines[n_lines:] if line.startswith("asked ")}
        assert not again & finished
    assert set(asked) == set(ids)
    assert asked.total() <= len(ids) + run.n_in_hands
    for name in ("predictions.jsonl", "merged.jsonl"):
        assert [row["id"] for _, row in read_jsonl(run.folder / name)] == ids
    assert (run.folder / "merged.jsonl").read_bytes() == (whole.folder / "merged.jsonl").read_bytes()
    final = {".lock", "error.jsonl", "merged.jsonl", "predictions.jsonl", "run.json"}
    assert {path.name for path in run.folder.iterdir()} == final
    assert no_process_is_left(run.script)


def first_row_s(folder: Path) -> float:
    return float(json.loads((folder / "run.json").read_text())["attempts"][0]["first_row_s"])


def no_process_is_left(script: Path, within_s: float = 30) -> bool:
    """Workers end when they notice that their parent has."""
    deadline = time.monotonic() + within_s
    while processes_of(script):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
