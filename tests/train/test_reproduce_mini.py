"""The reproduction's plan, and that it goes on from what is there: no training, no inference."""

import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emocaliber.mini.chains import reasoning
from emocaliber.mini.scene import Scene
from emocaliber.response import render

ROOT = Path(__file__).parents[2]
SCENE = Scene("photo", "sunny", "meadow", "flower", "standing", "smiling", "near", "none", None, -1, 3)
FEW = {"N_TRAIN": "60", "N_TEST": "1", "N_TEST_VSA": "60", "DRAWS": "100", "REWARDS": "brier"}


def reproduce(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "OUTPUT_ROOT": str(folder / "output"),
        "MINI_DATA": str(folder / "mini"),
        "TEST_DATA": str(folder / "test"),
        "README": "README.md",
        "FIGURE": str(folder / "evolution.png"),
    } | variables
    command = ["bash", str(ROOT / "train" / "reproduce_mini.sh"), *arguments]
    environment = os.environ | variables
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)


def test_the_plan_names_every_part_in_its_order(tmp_path: Path) -> None:
    # Variables that are for one stage alone must not reach all of them.
    stray = {"MODEL": "/elsewhere", "DATASET": "/elsewhere.jsonl", "REWARD": "rewarding_doubt"}
    run = reproduce(tmp_path, DRY_RUN="1", DRAWS="500", SEEDS="3\n4", REWARDS="brier rlcr", **stray)
    assert run.returncode == 0, run.stderr
    plan = dict(line.split(": ", 1) for line in run.stdout.splitlines())
    of_seed = ["stage 1", "answers of stage1", "stage 2", "answers of stage2", "answers of stage2_held_out"]
    of_seed += [
        "stage 3 with brier",
        "answers of stage3_brier",
        "stage 3 with rlcr",
        "answers of stage3_rlcr",
    ]
    assert list(plan) == [
        *("training data", "test data"),
        *(f"seed 3, {part}" for part in of_seed),
        "tables after seed 3",
        *(f"seed 4, {part}" for part in of_seed),
        "tables after seed 4",
    ]
    # The two tasks of ID VSA have rows of their own number.
    assert "--n-test 500 --test-rows FI-2=4000 WebEmo-2=4000 --seed 1" in plan["test data"]
    seed4 = f"{tmp_path}/output/seed4"
    third = plan["seed 4, stage 3 with rlcr"]
    assert (
        f"SEED=4 OUTPUT_ROOT={seed4} IMAGE_ROOT={tmp_path}/mini REWARD=rlcr MODEL={seed4}/stage2/final"
        in third
    )
    assert f"OUTPUT_DIR={seed4}/stage3_rlcr bash {ROOT}/train/step3_example.sh" in third
    # Without DATASET stage 2 samples the stage-1 model of its own seed, into that seed's folder.
    assert f"OUTPUT_ROOT={seed4} " in plan["seed 4, stage 2"] and "DATASET=" not in plan["seed 4, stage 2"]
    # Stage 1 is asked as it was trained; the held-out answers are those of stage 2 to stage 3's prompts.
    assert "--data " + f"{tmp_path}/test/test_without_confidence.jsonl" in plan["seed 3, answers of stage1"]
    held_out = plan["seed 3, answers of stage2_held_out"]
    assert "/seed3/stage2/final --data " + f"{tmp_path}/mini/train_stage3.jsonl" in held_out
    last = plan["tables after seed 4"]
    assert all(f"{seed}/stage3_brier={tmp_path}/output/seed{seed}/evaluation/" in last for seed in (3, 4))
    assert last.endswith("--draws 500")
    assert " 4/" not in plan["tables after seed 3"] and " 4/" in plan["tables after seed 4"]
    assert list(tmp_path.iterdir()) == []


def all_parts_done(folder: Path, seed: int = 0) -> None:
    """Leave what the parts before the tables leave: the data, the models' cards, predictions."""
    build = [sys.executable, str(ROOT / "data" / "build_mini.py"), "--output-dir"]
    subprocess.run([*build, str(folder / "mini"), "--split", "train", "--n-train", "60"], check=True)
    rows_of_task = ["--n-test", "1", "--test-rows", "FI-2=60", "WebEmo-2=60"]
    test = [*rows_of_task, "--seed", "1", "--without-confidence"]
    subprocess.run([*build, str(folder / "test"), *test], check=True)
    rng = random.Random(0)
    rows = [json.loads(line) for line in (folder / "test" / "test.jsonl").read_text().splitlines()]
    for row in rows:
        answer, p = max(row["posterior"].items(), key=lambda item: item[1])
        row["response"] = render(reasoning(SCENE, answer, rng), answer, round(p, 2))
    files = {"README.md": "<!-- stages: begin -->\n<!-- stages: end -->\n"}
    for stage in ("stage1", "stage2", "stage3_brier"):
        files[f"output/seed{seed}/{stage}/final/README.md"] = "the card, which is written last"
    for name in ("stage1", "stage2", "stage2_held_out", "stage3_brier"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        files[f"output/seed{seed}/evaluation/{name}/predictions.jsonl"] = text
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_what_is_there_is_not_done_again(tmp_path: Path) -> None:
    all_parts_done(tmp_path)
    run = reproduce(tmp_path, SEEDS="0", **FEW)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines[:2]] == ["training data", "test data"]
    assert [line.split(": ")[1] for line in lines[2:9]] == ["is there"] * 7
    assert lines[9].startswith("tables after seed 0: ") and lines[9].endswith(" s")
    assert lines[10].startswith("stage 3, `brier`, ID VSA: ECE lower: ")
    readme = (tmp_path / "README.md").read_text()
    assert "| stage 3, `brier` | 1 |" in readme and "(evolution.png)" in readme
    assert (tmp_path / "evolution.png").is_file()


@pytest.mark.slow
def test_results_of_other_settings_are_not_taken(tmp_path: Path) -> None:
    all_parts_done(tmp_path)
    assert reproduce(tmp_path, SEEDS="0", **FEW).returncode == 0
    run = reproduce(tmp_path, SEEDS="0", STEPS="7", **FEW)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == (
        f"error: {tmp_path}/output was begun otherwise, then STEPS=,now STEPS=7; give the same, "
        "or another OUTPUT_ROOT"
    )
    (tmp_path / "output" / "run.txt").unlink()
    run = reproduce(tmp_path, SEEDS="0", **FEW)
    assert run.returncode == 2 and "no run.txt that says with what they were made" in run.stderr
    assert reproduce(tmp_path, SEEDS="0", RESUME_UNKNOWN="1", **FEW).returncode == 0


def test_two_do_not_write_into_one_folder(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    with (tmp_path / "output" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = reproduce(tmp_path, **FEW)
    assert run.returncode == 2 and "another reproduction writes there" in run.stderr
    assert {path.name for path in tmp_path.rglob("*")} == {"output", ".lock"}


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ((), {"SEEDS": "1 2 1"}, "SEEDS=1 2 1: give different seeds, at least one"),
        ((), {"SEEDS": " "}, "SEEDS= : give different seeds, at least one"),
        (("--draws", "7"), {}, "--draws: takes no arguments"),
    ],
)
def test_what_makes_no_plan_is_told(
    tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], message: str
) -> None:
    run = reproduce(tmp_path, *arguments, DRY_RUN="1", **variables)
    assert run.returncode == 2 and run.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


def test_tables_that_fail_name_their_log(tmp_path: Path) -> None:
    all_parts_done(tmp_path)
    (tmp_path / "README.md").write_text("no markers\n")
    run = reproduce(tmp_path, SEEDS="0", **FEW)
    assert run.returncode == 1
    log = tmp_path / "output" / "logs" / "tables_after_seed_0.log"
    assert "error: tables after seed 0 failed after " in run.stderr and f"see {log}" in run.stderr
    assert "put both where the tables go" in log.read_text()
    (tmp_path / "README.md").write_text("<!-- stages: begin -->\n<!-- stages: end -->\n")
    assert reproduce(tmp_path, SEEDS="0", **FEW).returncode == 0


@pytest.mark.slow
def test_seeds_side_by_side_share_the_cores_and_one_that_fails_leaves_the_others(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        all_parts_done(tmp_path, seed)
    (tmp_path / "output/seed1/evaluation/stage2/predictions.jsonl").unlink()  # and the model has no weights
    (tmp_path / "bin").mkdir()
    spy = f'#!/bin/sh\necho "$2" >>"{tmp_path}/cores"\nexec "{shutil.which("taskset")}" "$@"\n'
    (tmp_path / "bin" / "taskset").write_text(spy)
    (tmp_path / "bin" / "taskset").chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    given = {"SEEDS": "0 1 2", "N_JOBS": "2", "PATH": path, **FEW}
    run = reproduce(tmp_path, **given)
    assert run.returncode == 1
    assert "error: seed 1, answers of stage2 failed after " in run.stderr
    assert "tables after seed 2: " in run.stdout and "tables after seed 1" not in run.stdout
    assert "training seeds 0, 2." in " ".join((tmp_path / "README.md").read_text().split())
    all_parts_done(tmp_path, 1)
    run = reproduce(tmp_path, **given)
    assert run.returncode == 0, run.stderr
    assert "training seeds 0, 1, 2." in " ".join((tmp_path / "README.md").read_text().split())
    cores = [{int(core) for core in line.split(",")} for line in (tmp_path / "cores").read_text().split()]
    assert len(cores) == 6, "a call for each seed in each run"
    mine = os.sched_getaffinity(0)
    assert all(core <= mine for core in cores)
    if len(mine) > 1:
        first, second = cores[3], next(core for core in cores[3:] if core != cores[3])
        assert first | second == mine and not first & second


@pytest.mark.parametrize("variable", ["MODEL", "REWARD"])
def test_the_plan_is_the_same_whatever_is_set_for_one_stage(tmp_path: Path, variable: str) -> None:
    plain = reproduce(tmp_path, DRY_RUN="1").stdout
    assert plain == reproduce(tmp_path, DRY_RUN="1", **{variable: "elsewhere"}).stdout != ""
