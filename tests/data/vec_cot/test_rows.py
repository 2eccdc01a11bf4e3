"""The stages of a VEC-CoT: 60/30/10 in every stratum, no image in two, the same for the same seed."""

from collections import Counter, defaultdict

import pytest

from data.vec_cot.rows import STAGES, Row, assign_stages

SHARES = (0.6, 0.3, 0.1)


def row(number: int, task: str, label: str, pixels: str) -> Row:
    return Row("f:1", f"{task}-{number}", task, label, ("a", "b"), "x.jpg", pixels=pixels)


def two_tasks(n: int) -> list[Row]:
    """FI-8 and FI-2 over the same n images, EmoSet-8 over n of its own; one label is rare."""
    label = ["b" if number % 10 == 0 else "a" for number in range(n)]
    rows = [row(number, "FI-8", label[number], f"fi-{number}") for number in range(n)]
    rows += [row(number, "FI-2", label[number], f"fi-{number}") for number in range(n)]
    return rows + [row(number, "EmoSet-8", label[number], f"emo-{number}") for number in range(n)]


def test_shares_within_one_image_in_every_stratum_and_none_shared() -> None:
    rows = two_tasks(300)
    assign_stages(rows, SHARES, seed=0)
    stages_of: dict[str, set[str]] = defaultdict(set)
    for one in rows:
        stages_of[one.pixels].add(one.stage)
    assert all(len(stages) == 1 for stages in stages_of.values())
    counts = Counter((one.task, one.label, one.stage) for one in rows)
    for task in ("FI-8", "FI-2", "EmoSet-8"):
        for label, n in (("a", 270), ("b", 30)):
            for stage, share in zip(STAGES, SHARES, strict=True):
                assert abs(counts[task, label, stage] - share * n) < 1


def test_strata_of_one_image_are_not_all_in_stage_1() -> None:
    rows = [row(number, f"task-{number}", "a", f"p{number}") for number in range(1000)]
    assign_stages(rows, SHARES, seed=0)
    counts = Counter(one.stage for one in rows)
    # Five standard deviations of a share of 1,000: below 78.
    assert all(abs(counts[stage] - 1000 * share) < 78 for stage, share in zip(STAGES, SHARES, strict=True))


def test_the_order_of_rows_does_not_matter_and_the_seed_does() -> None:
    def stages(rows: list[Row], seed: int) -> dict[str, str]:
        assign_stages(rows, SHARES, seed)
        return {one.id: one.stage for one in rows}

    assert stages(two_tasks(50), 1) == stages(two_tasks(50)[::-1], 1)
    assert stages(two_tasks(50), 1) != stages(two_tasks(50), 2)


@pytest.mark.parametrize(
    ("shares", "stages"), [((1, 0, 0), {"stage1"}), ((0, 0.5, 0.5), {"stage2", "stage3"})]
)
def test_a_stage_without_a_share_gets_nothing(shares: tuple[float, ...], stages: set[str]) -> None:
    rows = two_tasks(40)
    assign_stages(rows, shares, seed=3)
    assert {one.stage for one in rows} == stages
