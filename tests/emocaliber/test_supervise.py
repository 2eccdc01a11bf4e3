"""A signal to a script alone ends every process that it has started; the scripts start under that care."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emocaliber.response import SECTIONS

ROOT = Path(__file__).parents[2]
SUPERVISE = ROOT / "emocaliber" / "supervise.py"
# These tests may run in the background, where signals are ignored.
LISTENING = ("env", "--default-signal=HUP,INT,TERM")
# A child in a group of its own, one whose parent has ended, and one that does not listen.
SCRIPT = """
setsid sleep 301.5 &
(setsid sleep 302.5 &)
(trap '' TERM; sleep 303.5; sleep 304.5) &
sleep 305.5
"""


def sleeping(folder: Path) -> list[str]:
    """The command lines of processes that were started with this folder in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            mine = f"TEST_FOLDER={folder}".encode() in (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if mine and "sleep" in command:
            found.append(command)
    return found


def start(folder: Path, script: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    (folder / "script.sh").write_text(script)
    # As short a patience as the command line allows: none is documented, so the module's is replaced.
    code = (
        "import sys; sys.argv[0] = 'supervise.py'; from emocaliber import supervise; "
        "supervise.GRACE_S = supervise.PATIENCE_S = 1; sys.exit(supervise.main())"
    )
    command = [*LISTENING, sys.executable, "-c", code, str(folder / "script.sh"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TEST_FOLDER": str(folder)}
    return subprocess.Popen(command, env=environment | variables, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_it_alone_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, SCRIPT)
    while len(sleeping(tmp_path)) < 4:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=20) == 128 + number
    assert sleeping(tmp_path) == []


@pytest.mark.parametrize("status", [0, 2, 7])
def test_the_status_is_the_scripts(tmp_path: Path, status: int) -> None:
    process = start(tmp_path, f'[[ "$1" == "a b" && -n "$EMOCALIBER_SUPERVISED" ]] && exit {status}', "a b")
    assert process.wait(timeout=20) == status


def test_what_was_started_to_ignore_a_hangup_ignores_it(tmp_path: Path) -> None:
    script = f'touch "{tmp_path}/ready"; sleep 1; exit 5'
    (tmp_path / "script.sh").write_text(script)
    command = ["nohup", sys.executable, str(SUPERVISE), str(tmp_path / "script.sh")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=20) == 5


@pytest.mark.parametrize(
    "name",
    [
        "inference/infer_and_eval_example",
        "train/step1_example",
        "train/step2_example",
        "train/step3_example",
        "train/reproduce_mini",
        "train/check_gpu",
        "train/sft/swift_sft",
        "train/rl/swift_grpo",
        "train/rl/verl_grpo",
    ],
)
def test_a_script_is_supervised_before_it_starts_anything(name: str) -> None:
    lines = (ROOT / f"{name}.sh").read_text().splitlines()
    after = lines[lines.index('source "$ROOT/setup_env.sh"') + 1]
    assert after.endswith('exec "$EMOCALIBER_PYTHON" "$ROOT/emocaliber/supervise.py" "$0" "$@"')


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_to_a_step_ends_its_training(tmp_path: Path, number: signal.Signals) -> None:
    """Stage 2 by its own script; ms-swift's stand-in waits in a process of its own, as that does."""
    package = tmp_path / "stubs" / "swift" / "cli"
    package.mkdir(parents=True)
    waits = f"import subprocess; subprocess.run(['sh', '-c', 'touch {tmp_path}/ready; sleep 306.5'])"
    for module, text in (("../__init__", ""), ("__init__", ""), ("main", waits)):
        (package / f"{module}.py").write_text(text)
    think = "".join(f"<{name}>a</{name}>" for name in SECTIONS)
    answer = f"<think>{think}</think><answer>awe</answer><confidence>0.5</confidence>"
    messages = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": answer}]
    row = {"messages": messages, "candidates": ["awe", "fear"]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    environment = {
        name: value for name, value in os.environ.items() if name not in ("SETTINGS", "OUTPUT_DIR")
    }
    environment |= {
        "PYTHONPATH": str(package.parents[1]),
        "EMOCALIBER_PYTHON": sys.executable,
        "SIZE": "mini",
    }
    environment |= {"EMOCALIBER_DEVICE": "cpu", "PREFLIGHT": "rows", "TEST_FOLDER": str(tmp_path)}
    environment |= {
        "MODEL": str(ROOT / "models" / "EmoCaliber-mini"),
        "OUTPUT_ROOT": str(tmp_path / "output"),
    }
    environment |= {"DATASET": str(tmp_path / "rows.jsonl")}
    with (tmp_path / "log").open("w") as log:
        command = [*LISTENING, "bash", str(ROOT / "train" / "step2_example.sh")]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        while not (tmp_path / "ready").exists():
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        assert sleeping(tmp_path)
        process.send_signal(number)
        assert process.wait(timeout=40) == 128 + number
    assert sleeping(tmp_path) == []
