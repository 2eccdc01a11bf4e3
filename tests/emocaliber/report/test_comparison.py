"""Comparing runs: every number by hand or against a known truth, no order matters, other rows are refused."""

import json
import random
import re
from decimal import Decimal

import numpy as np
import pytest

from emocaliber.metrics import calibration
from emocaliber.metrics.intervals import Resampled, holm
from emocaliber.report import comparison as module
from emocaliber.report.as_json import comparison_content, metrics_json
from emocaliber.report.comparison import (
    COMPARED,
    Difference,
    MismatchError,
    RunAccount,
    compare,
    draws_needed,
)
from emocaliber.report.comparison_tables import (
    best_places,
    comparison_latex,
    comparison_markdown,
    comparison_text,
)
from emocaliber.report.tables import TaskSet
from emocaliber.scoring import ScoredRow
from emocaliber.taxonomy import task_group

LABELS = ("awe", "fear", "sadness")
HOSTILE = (r"a_b & 50% of #1 $x$ {y} ~z ^w \end{table} -- [q]", "*|<b>`_x_`](http://e.org)| @you\n# top")


def scored(number, right, confidence="0.5", task="EmoSet-8", truth="awe", image=None, candidates=LABELS):
    label = None if right is None else truth if right else next(name for name in LABELS if name != truth)
    return ScoredRow(
        id=f"row-{number}",
        task=task,
        group=task_group(task),
        truth=truth,
        candidates=candidates,
        label=label,
        correct=bool(right),
        confidence=None if confidence is None else Decimal(confidence),
        status="unparsed" if right is None else "answered",
        label_reason="no_answer" if right is None else None,
        confidence_reason="missing" if confidence is None else None,
        flags=frozenset(),
        posterior=None,
        image_key=image,
    )


def run_of(rights, confidences=None, **fields):
    confidences = confidences or ["0.5"] * len(rights)
    return [scored(n, *pair, **fields) for n, pair in enumerate(zip(rights, confidences, strict=True))]


def overall(comparison, run=0):
    return comparison.pairs[run].differences[comparison.sets[-1]]


def simulated(seed, n=200, skill=(0.6, 0.6), noise=(0.1, 0.1), rows_per_image=1):
    """Runs that share how hard each image is; a run's accuracy is its skill, its confidence is noisy."""
    rng = np.random.default_rng(seed)
    hard = np.repeat(rng.uniform(-0.3, 0.3, n // rows_per_image), rows_per_image)
    runs = []
    for one, spread in zip(skill, noise, strict=True):
        rights = rng.random(n) < one + hard
        stated = np.clip(np.round(one + hard + rng.normal(0, spread, n), 2), 0, 1)
        runs.append(
            [
                scored(k, bool(rights[k]), str(stated[k]), "Colour-3", image=str(k // rows_per_image))
                for k in range(n)
            ]
        )
    return runs


def test_every_difference_of_a_small_case_by_hand():
    # FI-2: rows 0 and 1; EmoSet-8: rows 2 to 5.
    first = [scored(n, right, c, "FI-2") for n, right, c in [(0, True, "0.9"), (1, False, "0.4")]]
    first += [scored(n, r, c) for n, r, c in [(2, True, "0.8"), (3, False, "0.8"), (4, None, None)]]
    other = [scored(n, right, c, "FI-2") for n, right, c in [(0, True, "0.9"), (1, True, "0.4")]]
    other += [scored(n, r, c) for n, r, c in [(2, False, "0.1"), (3, True, "1.0"), (4, True, "0.7")]]
    found = compare([("a", first), ("b", other)], n_draws=50)
    assert [(one.kind, one.name, n) for one, n in found.n_of.items()] == [
        *(("task", "EmoSet-8", 3), ("task", "FI-2", 2)),
        *(("group", "ID VSA", 2), ("group", "ID VER", 3), ("overall", "Overall", 5)),
    ]
    values = {one.name: found.values[one] for one in found.sets}
    assert [run["acc"] for run in values["EmoSet-8"]] == pytest.approx([1 / 3, 2 / 3])
    assert [run["acc"] for run in values["Overall"]] == pytest.approx([2 / 5, 4 / 5])
    means = {one.name: found.task_means[one] for one in found.pooled}
    assert [run["acc"] for run in means["Overall"]] == pytest.approx([(1 / 2 + 1 / 3) / 2, (1 + 2 / 3) / 2])
    # Brier of a: (0.01 + 0.16 + 0.04 + 0.64) / 4; of b: (0.01 + 0.36 + 0.01 + 0 + 0.09) / 5.
    assert overall(found)["brier"].difference == pytest.approx(0.47 / 5 - 0.85 / 4)
    # ECE of a: bins 0.1, 0.4, |1 - 1.6|, over 4; of b: |2 - 1.9|, 0.6, 0.1, 0.3, over 5.
    assert overall(found)["ece"].difference == pytest.approx(1.1 / 5 - 1.1 / 4)
    # AUROC of a: right 0.9, 0.8 against wrong 0.4, 0.8: 3.5 of 4; of b: all above 0.1.
    assert overall(found)["auroc"].difference == pytest.approx(1 - 3.5 / 4)
    # AUGRC = area of wrong answers kept. a, most confident first: right; a tie of one right, one wrong
    # (2 * 0.5); wrong (1.5); wrong without confidence (2.5): 5 / 25. b: one wrong, second to last ... last.
    assert overall(found)["augrc"].difference == pytest.approx(0.5 / 25 - 5 / 25)
    # FI-2 of b has no wrong answer, so no AUROC and nothing to test.
    assert found.pairs[0].differences[found.sets[1]]["auroc"] == Difference(None, None, None, None)
    mcnemar = found.pairs[0].mcnemar[found.sets[-1]]
    # Rows 1, 3, 4 against row 2: p = 2 (1 + 4) / 16.
    assert (mcnemar.only_first_right, mcnemar.only_other_right, mcnemar.p) == (1, 3, pytest.approx(10 / 16))
    assert found.runs == (RunAccount("a", 4, 1, 0, 4), RunAccount("b", 5, 0, 0, 5))


def test_mcnemar_by_hand():
    first = run_of([True] + [False] * 5 + [True, False])
    other = run_of([False] + [True] * 5 + [True, False])
    mcnemar = compare([("a", first), ("b", other)], 0).pairs[0].mcnemar
    # P(at most 1 of 6 at 1 : 1) = (1 + 6) / 64, on both sides.
    assert [test.p for test in mcnemar.values()] == pytest.approx([14 / 64] * 3)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    sets = [TaskSet("task", name, (name,)) for name in "xyz"]
    again = TaskSet("overall", "Overall", ("x",))
    tests = {
        one: {"acc": Difference(0.1, None, p), "auroc": Difference(None, None, None)}
        for one, p in zip([*sets, again], [0.01, 0.04, 0.03, 0.01], strict=True)
    }
    pair = module._pair(RunAccount("b", 1, 0, 0, 1), tests, {})
    assert [scores["acc"].p_holm for scores in pair.differences.values()] == pytest.approx(
        [0.03, 0.06, 0.06, 0.03]  # the same rows again are no fourth test
    )
    assert {scores["auroc"].p_holm for scores in pair.differences.values()} == {None}
    assert (pair.n_tests, pair.n_significant) == (3, 1)


def test_the_family_is_every_defined_score_of_every_set_of_rows():
    runs = [[*run, *run_of([True, False] * 20, task="FI-2")] for run in simulated(1, skill=(0.4, 0.8))]
    runs = [[scored_again(row, n) for n, row in enumerate(run)] for run in runs]
    found = compare(zip("ab", runs, strict=True), n_draws=400)
    pair = found.pairs[0]
    # Colour-3, FI-2 (again as ID VSA) and Overall.
    assert pair.n_tests == 3 * len(COMPARED)
    tests = [test for one in pair.differences.values() for test in one.values()]
    least = min(test.p for test in tests)
    assert least == pytest.approx(2 / 401)
    assert min(test.p_holm for test in tests) == pytest.approx(least * pair.n_tests)
    assert all(test.p <= test.p_holm <= 1 for test in tests)


def scored_again(row, number):
    return ScoredRow(**{**vars(row), "id": f"row-{number}"})


def test_identical_runs_differ_by_exactly_nothing():
    run = simulated(3)[0]
    found = compare([("a", run), ("b", random.Random(1).sample(run, len(run)))], n_draws=100)
    for tests in found.pairs[0].differences.values():
        for test in tests.values():
            assert test == Difference(0.0, (0.0, 0.0), 1.0, 1.0)
    assert {test.p for test in found.pairs[0].mcnemar.values()} == {1.0}


def test_neither_the_order_of_rows_nor_that_of_runs_changes_a_digit():
    runs = dict(
        zip("abc", simulated(4, skill=(0.5, 0.6, 0.7), noise=(0.1,) * 3, rows_per_image=2), strict=True)
    )
    before = compare(runs.items(), n_draws=100)
    shuffle = random.Random(2)
    for _ in range(3):
        shuffled = [(name, shuffle.sample(run, len(run))) for name, run in runs.items()]
        assert compare(shuffled, n_draws=100) == before
    swapped = compare([(name, runs[name]) for name in "acb"], n_draws=100)
    assert swapped.pairs == before.pairs[::-1]
    turned = compare([("b", runs["b"]), ("a", runs["a"])], n_draws=100)
    straight = compare([("a", runs["a"]), ("b", runs["b"])], n_draws=100)
    for score in COMPARED:
        one, other = overall(turned)[score], overall(straight)[score]
        assert (one.difference, one.p) == (-other.difference, other.p)
        assert one.interval == pytest.approx([-end for end in other.interval[::-1]])
    assert compare(runs.items(), n_draws=100, seed=1).pairs != before.pairs


A, B = run_of([True] * 4), run_of([False] * 4)
MISMATCHES = {
    "only in the first": (A, B[1:3], ["2 ids (first 'row-0') only in a, 0 ids only in b", "one data file"]),
    "only in the other": (A[2:], B, ["0 ids only in a, 2 ids (first 'row-0') only in b"]),
    "none in common": (A[:2], B[2:], ["2 ids (first 'row-0') only in a, 2 ids (first 'row-2') only in b"]),
    "task": (
        A,
        [*B[:3], scored(3, False, task="FI-8")],
        ["id 'row-3' has the task 'EmoSet-8' in a and 'FI-8'"],
    ),
    "truth": (
        A,
        [*B[2:], *run_of([False] * 2, truth="fear")],
        ["'row-0'", "true label 'awe'", "(2 such ids)"],
    ),
    "candidates": (
        A,
        [*B[:3], scored(3, False, candidates=LABELS[:2])],
        ["'row-3'", "candidates", "('awe', 'fear')"],
    ),
    "image": (
        run_of([True] * 4, image="x"),
        [*B[:2], scored(2, True, image="y"), scored(3, True, image="y")],
        ["id 'row-1' shares its image with other rows in a than in b"],
    ),
}


@pytest.mark.parametrize("kind", MISMATCHES)
def test_runs_over_other_rows_are_refused_in_one_line_in_any_order(kind):
    first, other, told = MISMATCHES[kind]
    for one, two in ((first, other), (first[::-1], other[::-1])):
        with pytest.raises(MismatchError) as refused:
            compare([("a", one), ("b", two)])
        message = str(refused.value)
        assert "\n" not in message
        assert "; compare" in message
        for part in told:
            assert part in message


def test_images_may_have_other_names_as_long_as_the_same_rows_share_one():
    runs = simulated(5, n=40, rows_per_image=2)
    renamed = [ScoredRow(**{**vars(row), "image_key": f"/elsewhere/{row.image_key}"}) for row in runs[1]]
    assert compare([("a", runs[0]), ("b", renamed)], 50) == compare(zip("ab", runs, strict=True), 50)


def test_the_interval_covers_a_known_difference_about_as_often_as_it_says(without_smooth_ece):
    n_runs = 60
    # The mean accuracy is the skill.
    truth = {"acc": 0.7 - 0.55, "brier": brier_of(0.7, 0.05) - brier_of(0.55, 0.2)}
    covered = dict.fromkeys(truth, 0)
    for seed in range(n_runs):
        runs = simulated(seed, n=120, skill=(0.55, 0.7), noise=(0.2, 0.05))
        found = overall(compare(zip("ab", runs, strict=True), n_draws=200, seed=seed))
        for score, value in truth.items():
            low, high = found[score].interval
            covered[score] += low <= value <= high
    # 95 % of 60 is 57, and its standard deviation 1.7.
    assert all(51 <= n < 60 for n in covered.values()), covered


@pytest.fixture
def without_smooth_ece(monkeypatch):
    # Finding its width takes most of the time.
    monkeypatch.setattr(calibration, "smooth_ece", lambda levels, *_: np.full(levels.n.shape[:-1], np.nan))


def brier_of(skill, spread):
    """By simulation of a million rows."""
    rng = np.random.default_rng(7)
    p = skill + rng.uniform(-0.3, 0.3, 1_000_000)
    stated = np.clip(np.round(p + rng.normal(0, spread, len(p)), 2), 0, 1)
    return float(np.mean(p * (1 - stated) ** 2 + (1 - p) * stated**2))


def test_runs_that_are_equally_good_seldom_seem_different(without_smooth_ece):
    n_runs = 60
    rejected = {score: 0 for score in COMPARED if score != "smooth_ece"}
    for seed in range(n_runs):
        tests = overall(compare(zip("ab", simulated(seed, n=120), strict=True), n_draws=100, seed=seed))
        for score in rejected:
            rejected[score] += tests[score].p < 0.05
    # 5 % of 60 is 3, and its standard deviation 1.7; a test that never fires would be no test.
    assert all(n <= 8 for n in rejected.values()), rejected
    assert sum(rejected.values()) > 0


def test_draws_of_a_distance_are_reflected_at_the_difference_and_others_are_not():
    def resampled(point, draws):
        points = dict.fromkeys(COMPARED, np.array(point))
        return Resampled(points, dict.fromkeys(COMPARED, draws), points)

    draws = np.arange(101) / 100  # of the difference: 2.5th and 97.5th percentile 0.025 and 0.975
    found = module._differences(resampled(0.1, np.zeros(101)), resampled(0.9, draws))
    for score in COMPARED:
        # The difference is 0.8, so 0.025 becomes 1.6 - 0.025, and 0 is as far off as a draw of 1.6.
        reflected = score in ("ece", "smooth_ece")
        assert found[score].interval == pytest.approx((0.625, 1.575) if reflected else (0.025, 0.975))
        assert found[score].p == pytest.approx(2 / 102 if reflected else 4 / 102)


def test_rows_that_share_an_image_widen_the_interval():
    # Four rows of an image say the same, so there are 50 images' worth of information, not 200.
    rng = np.random.default_rng(1)
    rights = [np.repeat(rng.random(50) < 0.6, 4).tolist() for _ in "ab"]
    width = {}
    for shared in (True, False):
        runs = [
            [scored(n, right, image=str(n // 4 if shared else n)) for n, right in enumerate(run)]
            for run in rights
        ]
        low, high = overall(compare(zip("ab", runs, strict=True), n_draws=1000))["acc"].interval
        width[shared] = high - low
    assert width[True] / width[False] == pytest.approx(2, rel=0.15)


def test_pairing_narrows_the_interval():
    runs = simulated(6, n=400)
    same = [ScoredRow(**{**vars(row), "label": "awe"}) if n < 20 else row for n, row in enumerate(runs[0])]
    near = overall(compare([("a", runs[0]), ("b", same)], 300))["acc"].interval
    far = overall(compare(zip("ab", runs, strict=True), 300))["acc"].interval
    assert near[1] - near[0] < (far[1] - far[0]) / 3


def test_a_run_without_confidence_has_accuracies_to_compare_and_nothing_else_to_show():
    first, other = run_of([True, False] * 4, [None] * 8), run_of([True, True] * 4)
    found = compare([("a", first), ("b", other)], n_draws=100)
    tests = overall(found)
    assert {score for score in COMPARED if tests[score].difference is None} == {
        "ece",
        "smooth_ece",
        "brier",
        "auroc",
    }
    assert found.pairs[0].n_tests == 3
    assert "N/A" in comparison_text(found, FILES)


def test_no_draws_give_differences_without_intervals():
    found = compare([("a", A), ("b", B)], n_draws=0)
    assert overall(found)["acc"] == Difference(-1.0, None, None, None)
    assert "No intervals and p-values: 0 draws" in comparison_text(found, FILES)
    assert found.pairs[0].n_tests == 0


FILES = {"a": "runs/a.jsonl", "b": "runs/b.jsonl", "c": "c.jsonl"}


def three(names=("a", "b", "c"), n_draws=50):
    """Two ID VSA tasks of different size, and one of one's own; the last run states no confidence."""
    runs = [[] for _ in names]
    number = 0
    for task, n_rows, n_right in (
        ("FI-2", 10, (5, 6, 6)),
        ("WebEmo-2", 30, (6, 27, 3)),
        ("Own", 8, (4, 4, 4)),
    ):
        for place, run in enumerate(runs):
            for k in range(n_rows):
                confidence = None if place == 2 else ("0.7", "0.9")[k % 2]
                run.append(scored(number + k, k < n_right[place], confidence, task))
        number += n_rows
    return compare(zip(names, runs, strict=True), n_draws=n_draws)


def test_the_table_of_runs_has_both_accuracies_and_marks_the_best():
    text = comparison_text(three(), FILES)
    block = text.split("ID VSA (2 tasks, 40 rows)\n")[1].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in block[3:6]]
    # Task means (50 + 20) / 2, (60 + 90) / 2, (60 + 10) / 2; samples 11, 33 and 9 of 40.
    assert [line[:3] for line in cells] == [
        ["a", "35.00", "27.50"],
        ["b", "75.00*", "82.50*"],
        ["c", "35.00", "22.50"],
    ]
    # c states no confidence. ROC AUC: a (5 * 14 + (6 * 14 + 5 * 15) / 2) / (11 * 29),
    # b (16 * 3 + (17 * 3 + 16 * 4) / 2) / (33 * 7).
    assert cells[2][3:] == ["N/A", "N/A", "N/A"]
    assert [line[5] for line in cells[:2]] == ["46.87*", "45.67"]
    assert [cell.endswith("*") for cell in cells[1][3:]] == [True, True, False]


def test_nothing_is_best_where_nothing_is_worse():
    assert best_places([0.5, None], "acc") == best_places([0.5, 0.50001], "acc") == set()
    assert best_places([0.5, 0.4, 0.5], "acc") == {0, 2}
    assert best_places([0.5, 0.4, 0.5], "ece") == {1}


def test_runs_that_are_alike_have_no_best():
    text = comparison_markdown(compare([("a", A), ("b", A)], 0), FILES)
    table = text.split("### Scores of each run")[1].split("##")[0]
    assert table.count("100.00") == 2 * 4 and "**" not in table


def test_text_tells_the_method_the_family_and_draws_that_are_too_few():
    text = " ".join(comparison_text(three(), FILES).split())
    assert "a: runs/a.jsonl, 48 rows = 48 answered + 0 unparsed + 0 failed; 48 state a confidence" in text
    assert "corrected over all tests of that run against the first" in text
    assert "takes rows as independent" in text
    # FI-2, WebEmo-2, Own, ID VSA, Overall; in c three scores each.
    assert "of 35 tests are below" in text
    assert "of 15 tests are below" in text
    assert "50 draws are too few for 35 tests" in text
    assert f"--draws {draws_needed(35)}" in text
    assert "too few" not in comparison_text(three(n_draws=1400), FILES)


def test_so_many_draws_are_needed_that_the_least_p_value_passes():
    for n_tests in (1, 7, 91):
        for n_draws, passes in ((draws_needed(n_tests), True), (draws_needed(n_tests) - 2, False)):
            least = 2 / (1 + n_draws)
            assert (holm([least] * n_tests)[0] < 0.05) == passes


def hostile():
    names = (*HOSTILE, "c")
    return three(names), dict.fromkeys(names, "x%|y_$.jsonl")


def test_latex_escapes_whatever_a_name_holds():
    latex = comparison_latex(*hostile())
    body = "\n".join(line for line in latex.splitlines() if not line.startswith("%"))
    for line in body.splitlines():
        assert line.startswith(("\\", "Run &", "Task/Group &")) or line.endswith(r" \\") or line == ""
    bare = re.sub(r"\\[&%$#_{}]", "", body.replace("$-$", "")).replace(r"{!}{%", "{")
    assert re.search(r"[#$~^|<>`\"_%]", bare) is None
    assert bare.count("{") == bare.count("}")
    assert r"\textbackslash{}end\{table\}" in body
    assert body.count(r"\begin{table") == body.count(r"\end{table") == 1 + 2 * len(COMPARED)
    assert "--" not in body
    # After a line's end LaTeX would read these as its arguments.
    assert not any(line.startswith(("[", "*")) for line in body.splitlines())
    assert "{[}q{]}" in body
    for table in re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", body, re.DOTALL):
        n_columns = len(re.search(r"\{(lr+)\}", table)[1])
        lines = [line for line in table.splitlines() if line.endswith(r" \\") and "multicolumn" not in line]
        assert {len(re.split(r"(?<!\\)&", line)) for line in lines} == {n_columns}
    assert r"\textbf{75.00}" in body
    assert r"\multicolumn{5}{c}{ID VSA}" in body
    assert r"\cmidrule(lr){7-11}" in body


def test_markdown_escapes_whatever_a_name_holds():
    markdown = comparison_markdown(*hostile())
    assert r"\*\|\<b\>\`\_x\_\`\](http://e.org)\| \@you \# top" in markdown
    assert not re.search(r"(?<!\\)[<>`@$]", markdown)
    tables = re.findall(r"(?:^\|.*\n?)+", markdown, re.MULTILINE)
    assert len(tables) == 1 + 2 * len(COMPARED)
    for table in tables:
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}) == 1


def test_json_is_complete_and_unrounded():
    found, files = hostile()
    content = json.loads(metrics_json(comparison_content(found, files)), parse_constant=pytest.fail)
    names = [*HOSTILE, "c"]
    assert [run["name"] for run in content["runs"]] == names
    assert [one["name"] for one in content["sets"]] == ["FI-2", "WebEmo-2", "Own", "ID VSA", "Overall"]
    assert content["sets"][3]["scores"]["c"]["acc"] == 9 / 40
    assert content["sets"][3]["task_mean"]["c"]["acc"] == pytest.approx(0.35)
    assert content["sets"][3]["scores"]["c"]["ece"] is None
    assert [(pair["run"], pair["minus"]) for pair in content["differences"]] == [
        (n, names[0]) for n in names[1:]
    ]
    for pair, given in zip(content["differences"], found.pairs, strict=True):
        assert pair["correction"]["n_tests"] == given.n_tests
        for one, tests in zip(pair["sets"], given.differences.values(), strict=True):
            assert set(one["scores"]) == set(COMPARED)
            assert one["scores"]["acc"]["difference"] == tests["acc"].difference
            assert one["scores"]["acc"]["interval"] == list(tests["acc"].interval)
            assert set(one["mcnemar"]) == {"only_first_right", "only_other_right", "p"}
    assert content["evolution"][0]["group"] == "ID VSA"
    assert content["evolution"][0]["best"]["acc"] == [names[1]]
    assert content["evolution"][0]["runs"][names[1]]["acc_task_mean"] == pytest.approx(0.75)
    assert (content["n_rows"], content["n_images"], content["intervals"]["n_draws"]) == (48, 48, 50)
