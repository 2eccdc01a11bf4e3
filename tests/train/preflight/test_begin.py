"""A run goes on only with what it was begun with, and only that is certified: all stages, both engines."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from train.preflight import begin as begin_run
from train.preflight.variables import settings_files

ROOT = Path(__file__).parents[3]
MINI = ROOT / "models" / "EmoCaliber-mini"
SETTINGS = ROOT / "train" / "settings"


def start(
    folder: Path,
    *flags: str,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str] | None = None,
    **changes: str,
) -> int:
    """The command, in this process: its status."""
    data = folder / "rows.jsonl"
    if not data.exists():
        data.write_text("{}\n")
    arguments = {"output-dir": str(folder / "out"), "base": str(MINI), "dataset": str(data), "stage": "3"}
    arguments |= {"settings": str(SETTINGS / "stage3_mini.yaml"), "engine": "verl", "reward": "brier"}
    arguments |= changes
    argv = [text for name, value in arguments.items() for text in (f"--{name}", value)]
    with monkeypatch.context() as here:
        here.setattr(os, "environ", os.environ | (variables or {}))
        return begin_run.main([*argv, "--", *flags])


def begin(folder: Path, *flags: str, **arguments: Any) -> None:
    assert start(folder, *flags, **arguments) == 0


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *flags: str, **arguments: Any) -> str:
    assert start(folder, *flags, **arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


WORK = {
    "a finished model": "final/config.json",
    "checkpoints": "checkpoint-5/trainer_state.json",
    "checkpoints ": "latest_checkpointed_iteration.txt",
    "rollouts": "rewards.jsonl",
}


def leave(folder: Path, work: str) -> None:
    (folder / "out" / WORK[work]).parent.mkdir(parents=True, exist_ok=True)
    (folder / "out" / WORK[work]).write_text("{}")


@pytest.mark.parametrize("work", WORK)
def test_a_start_that_differs_is_refused_while_there_is_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    begin(tmp_path, "data.seed=0", monkeypatch=monkeypatch)
    begin(tmp_path, "data.seed=1", monkeypatch=monkeypatch)  # nothing is there yet: a first start
    leave(tmp_path, work)
    before = (tmp_path / "out" / "run.json").read_bytes()
    begin(tmp_path, "data.seed=1", monkeypatch=monkeypatch)
    message = refused(capsys, tmp_path, "data.seed=2", monkeypatch=monkeypatch, reward="rlcr")
    assert (
        f"out holds {work.strip()}: reward brier then, rlcr now; data.seed 1 then, 2 now; give the" in message
    )
    assert (tmp_path / "out" / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "changes", "message"),
    [
        (["data.seed=1"], {"reward": "emocaliber"}, "reward brier then, emocaliber now"),
        ([], {}, "data.seed 1 then, as in the settings now"),
        (["data.seed=1", "a.optim.lr=1e-3"], {}, "a.optim.lr as in the settings then, 1e-3 now"),
        (["data.seed=1"], {"stage": "2"}, "stage 3 then, 2 now"),
        (["data.seed=1"], {"settings": str(SETTINGS / "stage3_3b_2gpu.yaml")}, "stage3_3b_2gpu.yaml ("),
        (
            ["data.seed=1"],
            {"base": str(ROOT / "models" / "EmoCaliber-mini-stage2")},
            "EmoCaliber-mini-stage2 (",
        ),
        (["data.seed=1"], {"base": "owner/name"}, "then, owner/name (owner/name) now"),
    ],
)
def test_what_decides(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    changes: dict[str, str],
    message: str,
) -> None:
    begin(tmp_path, "data.seed=1", monkeypatch=monkeypatch)
    leave(tmp_path, "checkpoints")
    assert message in refused(capsys, tmp_path, *flags, monkeypatch=monkeypatch, **changes)


def test_other_records_are_refused_also_under_the_same_name_and_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, monkeypatch=monkeypatch)
    leave(tmp_path, "checkpoints")
    data = tmp_path / "rows.jsonl"
    time = data.stat().st_mtime_ns
    data.write_text("{ \n")
    os.utime(data, ns=(time, time))
    assert f"data {data} (" in refused(capsys, tmp_path, monkeypatch=monkeypatch)


def test_files_at_another_place_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path, "a.optim.lr=0.001", monkeypatch=monkeypatch)
    leave(tmp_path, "checkpoints")
    shutil.copytree(MINI, tmp_path / "copied")
    begin(tmp_path, "a.optim.lr=0.001", base=str(tmp_path / "copied"), monkeypatch=monkeypatch)


def test_a_settings_file_counts_with_the_one_that_it_extends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, base = tmp_path / "own.yaml", tmp_path / "base.yaml"
    own.write_text("defaults: [base, ppo_trainer, _self_]\na: 1\n")
    base.write_text("defaults: [ppo_trainer, _self_]\nb: 1\n")
    assert settings_files(own) == [base, own]
    begin(tmp_path, monkeypatch=monkeypatch, settings=str(own))
    leave(tmp_path, "checkpoints")
    base.write_text("b: 2\n")
    assert "settings " in refused(capsys, tmp_path, monkeypatch=monkeypatch, settings=str(own))


def test_gpus_and_pixels_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_swift = {"engine": "swift", "settings": str(SETTINGS / "stage1_mini.yaml"), "stage": "1", "reward": ""}
    flags = ("--max_steps", "7", "--seed=3")
    begin(tmp_path, *flags, monkeypatch=monkeypatch, **of_swift)
    leave(tmp_path, "checkpoints")
    begin(tmp_path, "--seed", "3", "--max-steps=7", monkeypatch=monkeypatch, **of_swift)
    given = {"MAX_PIXELS": "6272", "N_GPU": "2"}
    message = refused(capsys, tmp_path, *flags, monkeypatch=monkeypatch, variables=given, **of_swift)
    assert "N_GPU as in the settings then, 2 now; MAX_PIXELS as in the settings then, 6272 now" in message
    message = refused(capsys, tmp_path, "--seed", "3", monkeypatch=monkeypatch, **of_swift)
    assert "max_steps 7 then, as in the settings now" in message


def test_a_changed_start_goes_on_if_it_is_said_and_the_change_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {"RESUME_CHANGED": "1"}
    begin(tmp_path, "trainer.total_training_steps=5", monkeypatch=monkeypatch)
    leave(tmp_path, "checkpoints")
    message = refused(capsys, tmp_path, "trainer.total_training_steps=9", monkeypatch=monkeypatch)
    assert "steps 5 then, 9 now; give the same, RESUME_CHANGED=1 to go on with what is given now" in message
    for steps in (9, 12):
        begin(tmp_path, f"trainer.total_training_steps={steps}", monkeypatch=monkeypatch, variables=changed)
    assert "goes on though trainer.total_training_steps 9 then, 12 now" in capsys.readouterr().out
    begin(tmp_path, "trainer.total_training_steps=12", monkeypatch=monkeypatch)
    lines = [f"trainer.total_training_steps {step}" for step in ("5 then, 9 now", "9 then, 12 now")]
    assert begin_run.changes_of(tmp_path / "out") == lines

    leave(tmp_path, "a finished model")
    before = (tmp_path / "out" / "run.json").read_bytes()
    begin(tmp_path, "trainer.total_training_steps=99", monkeypatch=monkeypatch, variables=changed)
    assert (tmp_path / "out" / "run.json").read_bytes() == before, "it was made as it says"


def test_a_run_json_from_before_is_refused_in_one_line_or_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, monkeypatch=monkeypatch)
    leave(tmp_path, "checkpoints")
    written = tmp_path / "out" / "run.json"
    run = json.loads(written.read_text())
    run["made"]["rows a step"] = "16"
    written.write_text(json.dumps(run))
    assert "rows a step 16 then" in refused(capsys, tmp_path, monkeypatch=monkeypatch)
    begin(tmp_path, monkeypatch=monkeypatch, variables={"RESUME_CHANGED": "1"})
    begin(tmp_path, monkeypatch=monkeypatch)


def test_a_folder_from_before_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(tmp_path, "checkpoints")
    message = refused(capsys, tmp_path, monkeypatch=monkeypatch)
    assert "holds checkpoints and no run.json that says with what they were made" in message
    assert not (tmp_path / "out" / "run.json").exists()
    begin(tmp_path, monkeypatch=monkeypatch, variables={"RESUME_UNKNOWN": "1"})
    begin(tmp_path, monkeypatch=monkeypatch)
    assert "reward" in refused(capsys, tmp_path, monkeypatch=monkeypatch, reward="rlcr")
    (tmp_path / "out" / "run.json").unlink()
    leave(tmp_path, "a finished model")
    begin(tmp_path, monkeypatch=monkeypatch, reward="rlcr")
    assert not (tmp_path / "out" / "run.json").exists(), "nobody knows what it would have to say"


@pytest.mark.parametrize("text", ["", "[]", '{"made": {}}', '{"made": [], "sums": {}}'])
def test_an_unreadable_record_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    leave(tmp_path, "checkpoints")
    (tmp_path / "out" / "run.json").write_text(text)
    assert "run.json: not readable (" in refused(capsys, tmp_path, monkeypatch=monkeypatch)


def test_missing_files_and_an_apostrophe_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refused(capsys, tmp_path, monkeypatch=monkeypatch, dataset=str(tmp_path / "none"))
    assert f"{tmp_path / 'none'}: No such file" in message
    message = refused(capsys, tmp_path, monkeypatch=monkeypatch, **{"output-dir": str(tmp_path / "it's")})
    assert "it's, " in message and "cannot hold an apostrophe; rename the folder" in message
    assert not (tmp_path / "out").exists() and not (tmp_path / "it's").exists()


def test_large_weights_are_told_apart_by_their_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(begin_run, "WHOLE_BYTES", 100)
    monkeypatch.setattr(begin_run, "BLOCKS", 4)
    monkeypatch.setattr(begin_run, "BLOCK_BYTES", 10)
    weights = tmp_path / "model.safetensors"
    sums = set()
    for changed in (None, 0, 35, 199, 15):  # blocks: 0-9, 63-72, 126-135, 190-199
        content = bytearray(200)
        if changed is not None:
            content[changed] = 1
        weights.write_bytes(content)
        sums.add(begin_run.model_sum(str(tmp_path)))
    assert len(sums) == 3
    weights.write_bytes(bytes(201))
    assert begin_run.model_sum(str(tmp_path)) not in sums
