"""`--log-to`: what the tools then hold is what was written; one that is missing or fails costs no result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inference.outputs.log_to import TOOLS, scores_by_name

ROOT = Path(__file__).parents[3]
COMMAND = ROOT / "inference" / "evaluate.py"
PREDICTIONS = ROOT / "tests" / "golden" / "merged.jsonl"
# Nothing of these tests may reach a network: the tools have none to go to but this machine's closed port.
CLOSED = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}


# In the place of a package that is no part of the environment: it writes down how it is called.
SWANLAB = """
import json
calls = []
def init(**settings): calls.append(settings)
def Image(path): return {"image": path}
def log(values): calls.append(values)
def finish(): open("calls.json", "w").write(json.dumps(calls))
"""


def evaluate(output_dir, *options, path=()):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "SWANLAB"))
    }
    environment |= {**CLOSED, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    arguments = ["--predictions", PREDICTIONS, "--output-dir", output_dir, "--no-page", "--draws", "0"]
    return subprocess.run(
        [sys.executable, COMMAND, *arguments, *options],
        capture_output=True,
        text=True,
        env=environment,
        cwd=output_dir.parent,
        timeout=300,
    )


def logged_scores(output_dir):
    return scores_by_name(json.loads((output_dir / "metrics.json").read_text(encoding="utf-8")))


def results(output_dir):
    return {file.name for file in output_dir.iterdir() if file.is_file()}


def test_every_score_has_a_name():
    summary = {"n": 4, "acc": 0.5, "ece": None, "flags": {"fallback": 1}, "intervals": {"acc": [0.1, 0.9]}}
    pooled = {
        "samples": {
            **summary,
            "null_ece": {"mean": 0.1, "p95": 0.2},
            "truth": {"n": 4, "bayes_acc": 0.7, "forecast": {"soft_ece": 0.2, "intervals": {}}},
            "thresholds": [{"threshold": 0.1, "n": 2, "acc": 1.0, "f1": None, "coverage": 0.5}],
        },
        "task_mean": {"acc": 0.6, "ece": None, "n_tasks": {"acc": 2}},
    }
    metrics = {
        "protocol": "default",
        "tasks": {"a/b": summary},
        "groups": {"ID VER": pooled},
        "overall": pooled,
        "samples": {"overall": {"agreement": {"acc": 0.25, "differences": {"acc": -0.25}}}},
        "paper": {
            "tasks": {"EmoSet-8": {"acc": 0.4}},
            "groups": {},
            "overall": {"acc": 0.3, "faults": {"clipped": 2}},
        },
    }
    shown = {"n": 4, "acc": 0.5, "null_ece/mean": 0.1, "null_ece/p95": 0.2, "acc_at_0.1": 1.0}
    shown |= {"coverage_at_0.1": 0.5, "task_mean/acc": 0.6}
    shown |= {"truth/n": 4, "truth/bayes_acc": 0.7, "truth/forecast/soft_ece": 0.2}
    assert scores_by_name(metrics) == {
        "a_b/n": 4,
        "a_b/acc": 0.5,
        **{f"group/ID VER/{name}": score for name, score in shown.items()},
        **{f"overall/{name}": score for name, score in shown.items()},
        "samples/overall/agreement/acc": 0.25,
        "samples/overall/agreement/differences/acc": -0.25,
        "paper/EmoSet-8/acc": 0.4,
        "paper/overall/acc": 0.3,
    }


@pytest.mark.parametrize("task", ["overall", "group", "samples", "paper", "figures"])
def test_a_task_that_is_called_like_a_kind_of_score_is_told_apart(task):
    metrics = {"tasks": {task: {"acc": 0.1}}, "groups": {}, "overall": {"acc": 0.2}}
    assert scores_by_name({**metrics, "protocol": "default"}) == {f"task/{task}/acc": 0.1, "overall/acc": 0.2}
    assert scores_by_name({**metrics, "protocol": "paper"}) == {
        f"paper/task/{task}/acc": 0.1,
        "paper/overall/acc": 0.2,
    }


def test_the_scores_of_the_paper_protocol_are_told_apart():
    metrics = {"protocol": "paper", "tasks": {"FI-2": {"acc": 0.5}}, "groups": {}, "overall": {"acc": 0.5}}
    assert scores_by_name(metrics) == {"paper/FI-2/acc": 0.5, "paper/overall/acc": 0.5}


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """The folder of an evaluation that was logged to all tools."""
    folder = tmp_path_factory.mktemp("logged")
    (folder / "swanlab.py").write_text(SWANLAB, encoding="utf-8")
    output_dir = folder / "my run"
    ran = evaluate(output_dir, *(word for tool in TOOLS for word in ("--log-to", tool)), path=[folder])
    assert (ran.returncode, ran.stderr) == (0, "")
    told = [f"Logged to {output_dir / 'logs' / tool}" for tool in TOOLS]
    assert ran.stdout.splitlines()[-len(TOOLS) :] == told
    return output_dir


def test_tensorboard_holds_the_scores_and_figures(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = (logged / "logs" / "tensorboard" / "my run").iterdir()
    events = EventAccumulator(str(file), size_guidance={"scalars": 0, "images": 0}).Reload()
    expected = logged_scores(logged)
    assert {"overall/ece", "group/ID VER/task_mean/ece", "FI-2/acc"} <= set(expected)
    assert set(events.Tags()["scalars"]) == set(expected)
    for name, score in expected.items():
        (scalar,) = events.Scalars(name)
        assert (scalar.step, scalar.value) == (0, pytest.approx(score, rel=1e-6))
    figures = {f"figures/{file.stem}": file for file in logged.glob("*.png")}
    assert figures
    assert figures.keys() == set(events.Tags()["images"])
    for name, file in figures.items():
        assert events.Images(name)[0].encoded_image_string == file.read_bytes()


def test_tensorboard_holds_the_last_evaluation_alone(tmp_path):
    folder = tmp_path / "run" / "logs" / "tensorboard" / "run"
    for _ in range(2):
        assert evaluate(tmp_path / "run", "--no-figures", "--log-to", "tensorboard").returncode == 0
    assert len(list(folder.iterdir())) == 1


def wandb_records(file):
    """The records of a .wandb file, which is a LevelDB log behind seven bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = file.read_bytes(), 7, b""
    while place < len(content):
        rest = 32768 - place % 32768
        if rest < 7:
            place += rest
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def test_wandb_holds_the_scores_and_figures_offline(logged):
    (folder,) = (logged / "logs" / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    records = list(wandb_records(file))
    assert {record.run.display_name for record in records if record.HasField("run")} == {"my run"}
    values = {
        (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
        for record in records
        for item in record.history.item
    }
    expected = logged_scores(logged)
    assert {name: values[name] for name in expected} == expected
    figures = {file.stem: file.read_bytes() for file in logged.glob("*.png")}
    assert figures
    for name, content in figures.items():
        assert (folder / "files" / values[f"figures/{name}/path"]).read_bytes() == content


def test_swanlab_is_given_the_scores_and_figures_offline(logged):
    settings, values = json.loads((logged.parent / "calls.json").read_text(encoding="utf-8"))
    assert settings == {
        "project": "emocaliber",
        "experiment_name": "my run",
        "logdir": str(logged / "logs" / "swanlab"),
        "mode": "offline",
    }
    figures = {f"figures/{file.stem}": {"image": str(file)} for file in logged.glob("*.png")}
    assert values == {**logged_scores(logged), **figures}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_missing_package_is_one_line_before_any_work(tool, tmp_path):
    # A folder of its name, as `logs/wandb`, is not the package; this one hides it if it is there.
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nsys.modules[{tool!r}] = None\n", encoding="utf-8"
    )
    output_dir = tmp_path / "run"
    ran = evaluate(output_dir, "--log-to", tool, path=[tmp_path])
    line = f"error: --log-to {tool}: the package {tool} is not installed; pip install {tool}\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", line)
    assert not output_dir.exists()


def test_a_folder_of_its_name_is_not_the_package(tmp_path):
    (tmp_path / "swanlab").mkdir()
    ran = evaluate(tmp_path / "run", "--log-to", "swanlab", path=[tmp_path])
    assert (ran.returncode, "is not installed" in ran.stderr) == (2, True)


def test_an_unknown_tool_is_a_mistake(tmp_path):
    ran = evaluate(tmp_path / "run", "--log-to", "paper")
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: argument --log-to: invalid choice: 'paper'")
    assert ran.stderr.count("\n") == 1


def test_a_tool_that_fails_costs_no_result_and_not_the_other_tools(tmp_path):
    (tmp_path / "swanlab.py").write_text(
        "def init(**settings): raise OSError('no\\nspace')\n", encoding="utf-8"
    )
    output_dir = tmp_path / "run"
    plain = evaluate(output_dir, "--no-figures")
    assert plain.returncode == 0
    expected = results(output_dir)
    options = ("--no-figures", "--log-to", "swanlab", "--log-to", "tensorboard")
    ran = evaluate(output_dir, *options, path=[tmp_path])
    assert ran.returncode == 1
    assert ran.stderr == f"error: --log-to swanlab: no space; the results are in {output_dir}\n"
    assert ran.stdout == plain.stdout + f"Logged to {output_dir / 'logs' / 'tensorboard'}\n"
    assert results(output_dir) == expected
