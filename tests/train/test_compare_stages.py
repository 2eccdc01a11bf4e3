"""The comparison of the stages: hand-worked scores, known answers to claims, what is written and refused."""

import json
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from emocaliber.metrics.intervals import Resampled
from emocaliber.mini.chains import reasoning
from emocaliber.mini.scene import Scene
from emocaliber.prompts import conversation
from emocaliber.response import render
from emocaliber.scoring import score

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "train" / "compare_stages.py"

from train.stages import results as stage_results  # noqa: E402
from train.stages import scores as stage_scores  # noqa: E402
from train.stages import tables as stage_tables  # noqa: E402

SCENE = Scene("photo", "sunny", "meadow", "flower", "standing", "smiling", "near", "none", None, -1, 3)
LABELS = ["positive", "negative"]


def record(number, truth, p_positive, answer, confidence, task="FI-2", sections=None):
    """A row of two labels, of which "positive" has the probability p_positive."""
    chain = sections or reasoning(SCENE, answer, random.Random(0))
    return {
        "id": f"{task}-{number:05d}",
        "image": f"{task}/{number}.jpg",
        "conversations": conversation(f"{number}.jpg", LABELS),
        "task": task,
        "ground_truth": truth,
        "candidates": LABELS,
        "posterior": {"positive": p_positive, "negative": round(1 - p_positive, 6)},
        "response": render(chain, answer, confidence),
    }


def scored(records, facts=None):
    return stage_scores.Run([score(one) for one in records], facts or [1.0] * len(records))


def values(run, group="ID VSA", n_draws=100):
    scores, _ = stage_scores.score_runs({("0", "stage2"): run}, n_draws, 0)
    return scores["0", "stage2"][group]


def test_every_score_by_hand():
    # (truth, p of positive, answer, confidence): c - p of the answer is 0.1, 0.3, -0.05, 0.2.
    rows = [
        record(0, "positive", 0.8, "positive", 0.9),
        record(1, "negative", 0.6, "positive", 0.9),
        record(2, "negative", 0.95, "negative", 0.0),  # named against the odds, and said so
        record(3, "negative", 0.4, "negative", 0.8),
    ]
    found = values(scored(rows, [1.0, 1.0, 0.5, 1.0]))
    c, p, right = [0.9, 0.9, 0.0, 0.8], [0.8, 0.6, 0.05, 0.6], [1, 0, 1, 1]
    assert found.value("acc") == 0.75
    # Bins: 0.9 twice, half right; 0.0, right; 0.8, right.
    assert found.value("ece") == pytest.approx((2 * 0.4 + 1.0 + 0.2) / 4)
    assert found.value("brier") == pytest.approx((0.01 + 0.81 + 1.0 + 0.04) / 4)
    # Right at 0.9, 0.0, 0.8 against wrong at 0.9: a tie and two losses.
    assert found.value("auroc") == found.value("auroc_pooled") == pytest.approx(0.5 / 3)
    assert found.value("distance") == pytest.approx((0.1 + 0.3 + 0.05 + 0.2) / 4)
    assert found.value("rms_distance") == pytest.approx(((0.01 + 0.09 + 0.0025 + 0.04) / 4) ** 0.5)
    # p (1 - c)^2 + (1 - p) c^2 of each: 0.008 + 0.162, 0.006 + 0.324, 0.05, 0.024 + 0.256.
    assert found.value("expected_brier") == pytest.approx((0.17 + 0.33 + 0.05 + 0.28) / 4)
    assert found.value("std") == pytest.approx(np.std(c))
    assert found.value("commonest") == 0.5
    assert found.value("correlation") == pytest.approx(np.corrcoef(c, p)[0, 1])
    assert found.value("deliberate_errors") == 0.25
    assert found.value("facts") == 0.875
    assert found.value("parse_rate") == 1.0
    assert sum(right) == 3


def test_correlation_and_auroc_are_within_tasks():
    # Two tasks, each with its own constant: over both together they rank right above wrong, within neither.
    rows = [record(n, "positive", 0.9, "positive", 0.9) for n in range(6)]
    rows += [
        record(n, "negative" if n % 3 else "positive", 0.5, "positive", 0.5, "WebEmo-2") for n in range(6)
    ]
    rows[0]["ground_truth"] = "negative"
    found = values(scored(rows))
    assert found.value("correlation") == 0
    assert found.value("auroc") == 0.5 < found.value("auroc_pooled")
    assert found.value("std") == pytest.approx(0.2)


def test_rows_without_an_answer_or_a_confidence():
    rows = [record(0, "positive", 0.8, "positive", 0.9), record(1, "positive", 0.8, "positive", None)]
    rows.append(record(2, "positive", 0.8, "positive", 0.5) | {"response": "<confidence>0.4</confidence>"})
    found = values(scored(rows))
    assert found.value("parse_rate") == pytest.approx(2 / 3)
    # No answer has no chance to be right: 0.4 off; the row without a confidence is left out.
    assert found.value("distance") == pytest.approx((0.1 + 0.4) / 2)
    silent = values(scored([record(n, "positive", 0.8, "positive", None) for n in range(3)]))
    assert silent.value("acc") == 1
    for name in ("ece", "smooth_ece", "brier", "auroc", "distance", "std", "commonest", "correlation"):
        assert silent.value(name) is None, name
    assert silent.value("deliberate_errors") is None


def test_the_optimum_is_at_no_distance_and_most_accurate():
    rows = [record(n, "positive", 0.25 + 0.1 * (n % 6), "positive", 0.3) for n in range(12)]
    best = values(stage_scores.optimum(scored(rows)))
    assert best.value("distance") == pytest.approx(0, abs=1e-9)
    assert best.value("correlation") == pytest.approx(1)


def test_a_posthoc_map_is_fitted_on_the_held_out_rows_alone():
    held_out = [record(n, LABELS[n % 10 >= 6], 0.5, "positive", 0.9) for n in range(200)]
    test = [record(n, "positive", 0.5, "positive", 0.9) for n in range(20)]
    test += [record(n, "positive", 0.5, "positive", 0.9, "Abstract-8") for n in range(20)]
    runs, fell_back = stage_scores.posthoc_runs(scored(test), scored(held_out))
    assert set(runs) == {f"{name}{kind}" for name in stage_scores.FITS for kind in ("", ", per task")}
    assert fell_back == ("Abstract-8",)
    for run in runs.values():
        assert {round(float(row.confidence), 3) for row in run.rows} == {0.6}
        assert [row.label for row in run.rows] == ["positive"] * 40


def resampled(point, draws):
    return Resampled({"acc": np.array(point)}, {"acc": np.array(draws)}, {"acc": np.array(point)})


def test_the_mean_over_seeds_and_its_draws():
    one, other = resampled(0.5, [0.5] * 40000), resampled(0.7, [0.7] * 40000)
    both = stage_scores.over_seeds([one, other], 0)
    assert both.value("acc") == pytest.approx(0.6)
    # Images do not vary here: the interval is that of Student's t over two and over three seeds.
    assert both.interval("acc") == pytest.approx((0.6 - 12.706 * 0.1, 0.6 + 12.706 * 0.1), rel=0.15)
    three = stage_scores.over_seeds([one, other, resampled(0.9, [0.9] * 40000)], 0)
    half = 4.303 * 0.2 / 3**0.5
    assert three.interval("acc") == pytest.approx((0.7 - half, 0.7 + half), rel=0.1)
    # Paired: two models that differ by as much in every seed differ by that in every draw.
    better = stage_scores.over_seeds([resampled(point, [point] * 40000) for point in (0.55, 0.75)], 0)
    assert better.draws["acc"] - both.draws["acc"] == pytest.approx(0.05)
    alone = stage_scores.over_seeds([one], 0)
    assert set(alone.draws["acc"]) == {0.5}


def claim(score_, kind):
    return stage_results.Claim("said", score_, kind)


@pytest.mark.parametrize(
    ("kind", "value", "ends", "answer"),
    [
        ("falls", -0.03, (-0.05, -0.01), "yes"),
        ("falls", -0.03, (-0.07, 0.01), "not told apart"),
        ("falls", 0.03, (0.01, 0.05), "no"),
        ("holds", -0.01, (-0.03, 0.01), "yes"),
        ("holds", -0.02, (-0.03, -0.01), "no"),
        ("at least", 0.0, (-0.01, 0.01), "yes"),
        ("at least", -0.01, (-0.03, 0.01), "not told apart"),
        ("at least", -0.02, (-0.03, -0.01), "no"),
        ("holds", None, None, None),
    ],
)
def test_a_verdict_follows_the_interval(kind, value, ends, answer):
    differences = {"ece": {"value": value, "interval": ends}}
    found = stage_results.verdict(claim("ece", kind), "stage3_x", "ID VSA", {}, differences)
    assert (found["answer"], found["value"]) == (answer, value)


@pytest.mark.parametrize(
    ("low", "commonest", "answer"),
    [(0.2, 0.3, "yes"), (-0.1, 0.3, "no"), (0.2, 0.81, "no"), (0.0, 1.0, "no")],
)
def test_a_collapse_is_called_one(low, commonest, answer):
    shown = {"correlation": {"value": 0.3, "interval": (low, 0.5)}, "commonest": {"value": commonest}}
    assert stage_results.verdict(claim("correlation", "varies"), "x", "g", shown, {})["answer"] == answer


def test_figures_are_in_percent():
    assert stage_tables.figure_of({"value": 0.1234, "interval": (0.1, 0.15)}) == "12.3 [10.0, 15.0]"
    shown = stage_tables.figure_of({"value": -0.0311, "interval": (-0.04, 0.0004)}, signed=True)
    assert shown == "−3.1 [−4.0, 0.0]"
    assert stage_tables.figure_of({"value": None, "interval": None}) == "–"


# Stage 2 says 0.95 whatever it sees; its answers are right with the probability p that the row states.


def write_run(path, confidence_of, tasks=("FI-2", "EmoSet-8"), n=300, seed=0, prefix=""):
    rng = random.Random(seed)
    rows = []
    for task in tasks:
        for number in range(n):
            p = round(rng.uniform(0.5, 0.9), 2)
            truth = "positive" if rng.random() < p else "negative"
            stated = confidence_of(p, rng.gauss(0, 0.05))
            rows.append(record(number, truth, p, "positive", stated, task))
            rows[-1]["id"] = prefix + rows[-1]["id"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def cut(value):
    return Decimal(f"{min(max(value, 0), 1):.2f}")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    for seed in (0, 1):
        write_run(folder / f"{seed}-stage1.jsonl", lambda p, noise: None)
        write_run(folder / f"{seed}-stage2.jsonl", lambda p, noise: cut(0.9 + 0.2 * (p - 0.7) + noise / 2))
        write_run(
            folder / f"{seed}-held.jsonl",
            lambda p, noise: cut(0.9 + 0.2 * (p - 0.7) + noise / 2),
            seed=9,
            prefix="held-",
        )
    write_run(folder / "0-good.jsonl", lambda p, noise: cut(p + noise))
    write_run(folder / "1-good.jsonl", lambda p, noise: cut(p + noise / 2))
    write_run(folder / "0-flat.jsonl", lambda p, noise: cut(0.7))
    scenes = [
        {"id": f"{task}-{n:05d}", "scene": SCENE.to_json()}
        for task in ("FI-2", "EmoSet-8")
        for n in range(300)
    ]
    (folder / "scenes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scenes))
    (folder / "README.md").write_text("before\n<!-- stages: begin -->\nold\n<!-- stages: end -->\nafter\n")
    runs = [
        f"{seed}/{name}={folder}/{seed}-{file}.jsonl"
        for seed in (0, 1)
        for name, file in (
            ("stage1", "stage1"),
            ("stage2", "stage2"),
            ("stage2_held_out", "held"),
            ("stage3_brier", "good"),
            ("stage3_rlcr", "flat"),
        )
    ]
    done = run(folder, *runs)
    assert done.returncode == 0, done.stderr
    return folder, done


def run(folder, *runs, draws="300"):
    command = [sys.executable, str(SCRIPT), *runs, "--output-dir", str(folder / "out"), "--draws", draws]
    command += ["--scenes", str(folder / "scenes.jsonl"), "--readme", str(folder / "README.md")]
    command += ["--figure", str(folder / "images" / "evolution.png")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_calibrated_stage_3_is_told_from_a_collapsed_one(compared):
    folder, _ = compared
    answers = {
        (one["run"], one["group"], one["claim"]): one["answer"]
        for one in json.loads((folder / "out" / "stages.json").read_text())["verdicts"]
    }
    for group in ("ID VSA", "ID VER"):
        good = {
            name: answers["stage3_brier", group, name] for name in (one.text for one in stage_results.CLAIMS)
        }
        assert set(good.values()) == {"yes"}, good
        flat = {name: answers["stage3_rlcr", group, name] for name in good}
        # A constant at the base rate lowers ECE and Brier too.
        assert flat["ECE lower"] == flat["Brier lower"] == flat["no loss of accuracy"] == "yes"
        assert flat["confidence varies with the image"] == "no"


def test_the_tables_say_how_many_seeds_and_what_is_not_there(compared):
    folder, done = compared
    assert done.stderr == f"1/stage3_rlcr is not in the tables: no {folder}/1-flat.jsonl\n"
    results = json.loads((folder / "out" / "stages.json").read_text())
    assert {name: len(one["seeds"]) for name, one in results["runs"].items() if "+" not in name} == {
        **{"stage1": 2, "stage2": 2, "stage3_brier": 2, "stage3_rlcr": 1, "optimum": 1},
    }
    # The difference of a run with one seed is taken on that seed.
    assert results["differences"]["stage3_rlcr"]["seeds"] == ["0"]
    assert results["against_main"]["stage3_rlcr"]["seeds"] == ["0"]
    stage1 = results["runs"]["stage1"]["groups"]["ID VSA"]
    assert stage1["ece"]["value"] is None and stage1["acc"]["value"] > 0.6
    assert results["runs"]["stage2"]["groups"]["ID VER"]["facts"]["value"] == 1.0
    by_map = {name: one["groups"]["ID VSA"]["ece"]["value"] for name, one in results["runs"].items()}
    assert by_map["stage2 + platt"] < 0.08 < 0.15 < by_map["stage2"]
    difference = results["differences"]["stage3_brier"]["groups"]["ID VSA"]["brier"]
    values_ = [
        results["runs"][name]["groups"]["ID VSA"]["brier"]["value"] for name in ("stage2", "stage3_brier")
    ]
    assert difference["value"] == pytest.approx(values_[1] - values_[0])


def test_the_readme_gets_the_tables_between_its_markers(compared):
    folder, done = compared
    text = (folder / "README.md").read_text()
    tables = (folder / "out" / "stages.md").read_text()
    link = "![The stages, group by group](images/evolution.png)\n"
    assert text == f"before\n<!-- stages: begin -->\n{tables}\n{link}<!-- stages: end -->\nafter\n"
    assert "| stage 3, `brier` | 2 |" in tables and "| stage 2 + Platt, per task | 2 |" in tables
    assert (folder / "images" / "evolution.png").read_bytes().startswith(b"\x89PNG")
    lines = (folder / "out" / "verdicts.txt").read_text().splitlines()
    assert done.stdout.splitlines()[:-1] == lines
    assert len(lines) == 2 * 2 * len(stage_results.CLAIMS)
    assert lines[0].startswith("stage 3, `brier`, ID VSA: ECE lower: −") and lines[0].endswith(": yes")


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (["0/stage4={}/0-stage2.jsonl"], "is no run; give SEED/NAME=FILE"),
        (["0/stage2={}/0-stage2.jsonl", "0/stage2={}/0-stage2.jsonl"], "given twice"),
        (["0/stage1={}/0-stage1.jsonl"], "no stage2 run is there"),
        (["0/stage2={}/0-stage2.jsonl", "0/stage3_x={}/0-held.jsonl"], "no scene of row 'held-"),
        (["0/stage2={}/README.md"], "README.md"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(compared, tmp_path, runs, said):
    folder, _ = compared
    for name in ("scenes.jsonl", "README.md"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    done = run(tmp_path, *(one.format(folder) for one in runs))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and said in done.stderr and done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "scenes.jsonl"]


def test_a_readme_without_markers_is_refused(compared, tmp_path):
    folder, _ = compared
    (tmp_path / "README.md").write_text("no markers\n")
    done = run(tmp_path, f"0/stage2={folder}/0-stage2.jsonl")
    assert done.returncode == 2
    assert "put both where the tables go" in done.stderr
    assert (tmp_path / "README.md").read_text() == "no markers\n"


def test_the_results_of_the_room_have_the_markers_once():
    text = (ROOT / "train" / "RESULTS.md").read_text()
    begin, end = "<!-- stages: begin -->", "<!-- stages: end -->"
    assert text.count(begin) == text.count(end) == 1 and text.index(begin) < text.index(end)
