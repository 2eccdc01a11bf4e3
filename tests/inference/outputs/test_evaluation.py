"""Rows of any other benchmark: own tasks, labels of several words, votes for a truth, several samples."""

import json

import pytest

from inference import evaluate

LABELS = ["joy", "great joy", "no emotion", "怒り", "Sehr müde"]


def row(number, answer, task="Artworks-5", confidence="0.7", **fields):
    text = f"<answer>{answer}</answer><confidence>{confidence}</confidence>"
    asked = [{"type": "image", "image": f"{number}.jpg"}, {"type": "text", "text": "Which emotion?"}]
    return {
        "id": f"{task}-{number}",
        "task": task,
        "conversations": [{"role": "user", "content": asked}],
        "candidates": LABELS,
        "response": text,
        **fields,
    }


ROWS = [
    row(1, "Great joy", ground_truth="great joy"),
    row(2, "I would say: great-joy.", ground_truth="great joy"),
    row(3, "No Emotion", ground_truth="no emotion"),
    row(4, "joy or great joy", ground_truth="joy"),  # ambiguous
    row(5, "emotion", ground_truth="no emotion"),  # no candidate
    row(6, "怒り", votes={"怒り": 2, "Sehr müde": 1}),
    row(7, "SEHR MÜDE", votes={"sehr müde": 1, "joy": 1}),  # a tie: joy, the first candidate
    row(8, "joy", task="Bench | 2", ground_truth="joy", samples=["<answer>joy</answer>", "great joy"]),
    row(9, "joy", task="Bench | 2", ground_truth="joy", error={"type": "ImageError", "message": "x"}),
]


def evaluated(tmp_path, rows, *options):
    predictions = tmp_path / "predictions.jsonl"
    predictions.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    out = tmp_path / "out"
    status = evaluate.main(["--predictions", str(predictions), "--output-dir", str(out), *options])
    return status, out


def test_every_row_is_read_counted_and_shown(tmp_path):
    status, out = evaluated(tmp_path, ROWS, "--draws", "100")
    assert status == 0
    content = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert list(content["tasks"]) == ["Artworks-5", "Bench | 2"]
    assert content["groups"] == {}
    assert content["overall"]["tasks"] == ["Artworks-5", "Bench | 2"]
    task = content["tasks"]["Artworks-5"]
    assert (task["n"], task["answered"], task["unparsed"]) == (7, 5, 2)
    assert task["unparsed_reasons"] == {"ambiguous": 1, "not_a_candidate": 1}
    assert task["acc"] == pytest.approx(4 / 7)
    # By label (rows, F1): great joy 2, 1; no emotion 2, 2/3; joy 2, 0; 怒り 1, 1.
    assert task["f1"] == pytest.approx((2 * 1 + 2 * 2 / 3 + 2 * 0 + 1) / 7)
    assert task["confusion"] == {
        "labels": ["Sehr müde", "great joy", "joy", "no emotion", "怒り"],
        "counts": [
            [0, 0, 0, 0, 0, 0],
            [0, 2, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 1],
            [0, 0, 0, 1, 0, 1],
            [0, 0, 0, 0, 1, 0],
        ],
    }
    assert (task["truth"]["n"], content["overall"]["samples"]["truth"]["n"]) == (2, 2)
    assert task["truth"]["bayes_acc"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert content["samples"]["overall"]["n"] == content["samples"]["tasks"]["Bench | 2"]["n"] == 1
    for name in ("metric.log", "metric_conf.log"):
        log = (out / name).read_text(encoding="utf-8")
        assert "| Bench | 2       |  50.00 |" in log
    assert "Of k samples a row, k 2: 1 of 9 rows have at least two" in log
    # Without a group there is the overall diagram alone, besides that of the tasks.
    assert not list(out.glob("reliability_*d_ver*"))
    assert (out / "reliability_overall.png").exists()
    assert (out / "report.html").stat().st_size > 0


def test_nothing_is_said_of_samples_and_distributions_where_there_are_none(tmp_path):
    _, out = evaluated(tmp_path, ROWS[:5], "--draws", "0", "--no-figures", "--no-page")
    log = (out / "metric_conf.log").read_text(encoding="utf-8")
    assert "samples a row" not in log
    assert "istribution" not in log
    assert "samples" not in json.loads((out / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"samples": "joy"}, "row 'Artworks-5-1': samples is not a list of texts; make it the responses"),
        (
            {"votes": {"awe": 1}},
            "predictions.jsonl:1: votes give 'awe' 1; use candidates and numbers of raters",
        ),
        ({"ground_truth": None}, "predictions.jsonl:1: no ground_truth; give the true label"),
        (
            {"ground_truth": None, "votes": {"joy": 0}},
            "predictions.jsonl:1: votes sum to 0; give at least one",
        ),
    ],
)
def test_a_mistake_in_them_is_one_line(tmp_path, capsys, fields, message):
    status, out = evaluated(tmp_path, [{**ROWS[0], **fields}])
    assert status == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_rows_with_samples_alone_are_scored_by_the_first_and_written_as_given(tmp_path):
    samples = ["<answer>joy</answer><confidence>0.9</confidence>", "<answer>no emotion</answer>"]
    given = [row(1, "", ground_truth="joy", response=None, samples=samples)]
    given += [{key: value for key, value in given[0].items() if key != "response"} | {"id": "2"}]
    status, out = evaluated(
        tmp_path, given, "--draws", "0", "--no-figures", "--no-page", "--protocol", "both"
    )
    assert status == 0
    content = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    for scores in (content["overall"]["samples"], content["paper"]["overall"]):
        assert (scores["n"], scores["answered"], scores["acc"]) == (2, 2, 1.0)
    assert content["samples"]["overall"]["n"] == 2
    written = [json.loads(line) for line in (out / "merged_conf.jsonl").read_text().splitlines()]
    assert written == [{**one, "prediction": "joy", "confidence": 0.9} for one in given]


def with_confidences(number, answer, p_true, **fields):
    others = {label: -4.0 for label in LABELS if label != answer}
    return row(
        number,
        answer,
        ground_truth="joy",
        candidate_logprobs={answer: -0.5, **others},
        p_true=p_true,
        confidence_tokens={"likelihood": 50, "p_true": 20},
        **fields,
    )


def test_confidences_that_the_rows_hold_are_compared(tmp_path, capsys):
    answers = ["joy", "great joy", "joy", "怒り"]
    rows = [with_confidences(n, answer, 0.9 if answer == "joy" else 0.1) for n, answer in enumerate(answers)]
    rows.append(with_confidences(9, "joy", "very"))
    status, out = evaluated(tmp_path, rows, "--draws", "100", "--no-figures")
    assert status == 0
    best = "Ranks best (ROC AUC in tasks): P(True), 100.00, "
    assert best in (out / "metric_conf.log").read_text(encoding="utf-8")
    assert best in capsys.readouterr().out
    content = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["confidences"]
    assert (content["n_rows"], content["n_compared"]) == (5, 4)
    assert content["overall"]["confidences"]["p_true"]["brier"] == pytest.approx(0.01)
    assert content["occurrences"]["p_true"]["reasons"] == {"not_a_number": 1}
    merged = (out / "merged_conf.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["candidate_logprobs"] for line in merged] == [
        one["candidate_logprobs"] for one in rows
    ]


def test_rows_that_state_a_distribution_are_measured_by_it(tmp_path):
    stated = "<distribution>joy: 0.6, great joy: 0.3</distribution>"
    rows = [row(n, "", ground_truth="joy", response=f"<answer>joy</answer>{stated}") for n in range(2)]
    rows.append(row(2, "", ground_truth="joy", response="<answer>joy</answer><distribution>joy: 3, x"))
    status, out = evaluated(tmp_path, rows, "--draws", "0", "--no-figures")
    assert status == 0
    summary = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["overall"]["samples"]
    assert summary["n_with_confidence"] == 2
    assert summary["brier"] == pytest.approx(0.16)
    assert summary["no_confidence_reasons"] == {"out_of_range": 1}
    assert summary["flags"]["from_distribution"] == 2


def test_clusters_are_drawn_together_for_every_comparison(tmp_path):
    rows = [with_confidences(n, "joy" if n % 2 else "怒り", 0.1 * n) for n in range(8)]
    rows = [{**one, "samples": [one["response"], "joy"]} for one in rows]
    clusters = tmp_path / "clusters.json"
    clusters.write_text(json.dumps({"images": {f"{n}.jpg": "group-0" for n in range(8)}}))
    options = ("--draws", "100", "--no-figures", "--no-page", "--clusters", str(clusters))
    status, out = evaluated(tmp_path, rows, *options)
    assert status == 0
    content = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert content["samples"]["n_images"] == 1
    # One image alone is the same in every draw.
    assert content["confidences"]["overall"]["confidences"]["p_true"]["intervals"]["acc"] == [0.5, 0.5]
