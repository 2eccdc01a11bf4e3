"""Records into verl's Parquet and ms-swift's chats: every row there or listed, read by verl's own dataset."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from in_process import Result, run
from PIL import Image

from data import build_rl_parquet as script
from data.vec_cot import rl_rows
from emocaliber.jsonl import read_jsonl
from emocaliber.prompts import SYSTEM_PROMPT, conversation
from emocaliber.records import read_records

ROOT = Path(__file__).parents[2]
CANDIDATES = ["amusement", "awe", "fear"]


def record(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "id": f"row-{number}",
        "image": f"{number}.png",
        "conversations": conversation(f"{number}.png", CANDIDATES),
        "task": "EmoSet-8",
        "ground_truth": CANDIDATES[number % 3],
        "candidates": CANDIDATES,
    }
    return {name: value for name, value in (row | changes).items() if value is not None}


def write_records(folder: Path, records: list[dict[str, Any]]) -> Path:
    for number in range(len(records)):
        Image.new("RGB", (112, 112), (number, 0, 0)).save(folder / f"{number}.png")
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in records))
    return path


def build(records: Path, output: Path, *flags: str) -> Result:
    return run(script.main, "--records", records, "--output", output, *flags)


def test_the_columns_that_verl_reads(tmp_path: Path) -> None:
    records = write_records(tmp_path, [record(0), record(1)])
    result = build(records, tmp_path / "out.parquet", "--split", "val")
    assert result.returncode == 0, result.stderr
    assert "2 rows (EmoSet-8 2), 0 left out" in result.stdout
    first, second = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert first["data_source"] == "EmoSet-8" and first["ability"] == "visual emotion"
    assert first["prompt"][0] == {"role": "system", "content": SYSTEM_PROMPT}
    question = record(0)["conversations"][0]["content"][1]["text"]
    assert first["prompt"][1] == {"role": "user", "content": f"<image>{question}"}
    assert len(first["prompt"]) == 2
    assert first["reward_model"] == {"style": "rule", "ground_truth": "amusement"}
    assert first["extra_info"] == {
        "index": 0,
        "id": "row-0",
        "task": "EmoSet-8",
        "candidates": CANDIDATES,
        "split": "val",
    }
    assert second["extra_info"]["index"] == 1
    assert first["images"] == [{"bytes": (tmp_path / "0.png").read_bytes()}]
    assert not (tmp_path / "out.rejected.jsonl").exists()


def test_paths_pixel_limits_and_chats(tmp_path: Path) -> None:
    records = write_records(tmp_path, [record(0, ground_truth="Awe.")])
    flags = ["--image-paths", "--max-pixels", "3136", "--chats", str(tmp_path / "chats.jsonl")]
    assert build(records, tmp_path / "out.parquet", *flags).returncode == 0
    row = pq.read_table(tmp_path / "out.parquet").to_pylist()[0]
    assert row["images"] == [{"image": str(tmp_path / "0.png"), "max_pixels": 3136}]
    (chat,) = (chat for _, chat in read_jsonl(tmp_path / "chats.jsonl"))
    assert chat == {
        "id": "row-0",
        "task": "EmoSet-8",
        "ground_truth": "awe",
        "candidates": CANDIDATES,
        "messages": row["prompt"],
        "images": [str(tmp_path / "0.png")],
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ground_truth": None}, "no_truth"),
        ({"ground_truth": "sadness"}, "truth_not_a_candidate"),
        ({"candidates": None}, "candidates"),
        ({"candidates": ["awe", "Awe"]}, "candidates"),
        ({"task": None}, "no_task"),
        ({"conversations": []}, "question"),
        ({"conversations": [{"role": "user", "content": "Which? <image>"}]}, "question"),
        ({"image": "absent.png", "images": None}, "image_missing"),
        ({"image": "records.jsonl"}, "image_unreadable"),
        ({"id": "row-0"}, "repeated_id"),
    ],
)
def test_a_bad_row_is_counted_listed_and_refused(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    records = write_records(tmp_path, [record(0), record(1, **changes), record(2)])
    output = tmp_path / "out.parquet"
    refused = build(records, output)
    assert refused.returncode == 2
    assert not output.exists()
    assert f"1 of 3 rows cannot be used ({reason} 1; listed in" in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("error: ")
    (listed,) = (row for _, row in read_jsonl(tmp_path / "out.rejected.jsonl"))
    assert listed["reason"] == reason and listed["where"] == f"{records}:2" and listed["detail"]

    allowed = build(records, output, "--max-rejected", "0.4")
    assert allowed.returncode == 0 and "2 rows (EmoSet-8 2), 1 left out" in allowed.stdout
    assert [row["extra_info"]["index"] for row in pq.read_table(output).to_pylist()] == [0, 2]


def test_a_row_without_an_id_has_the_same_one_in_every_file_and_as_inference_gives_it(tmp_path: Path) -> None:
    rows = [record(0, id=None), record(1), record(0, id=None)]
    records = write_records(tmp_path, rows)
    chats = tmp_path / "chats.jsonl"
    assert build(records, tmp_path / "out.parquet", "--split", "val", "--chats", str(chats)).returncode == 0
    ids = [row["id"] for _, row in read_jsonl(chats)]
    assert ids == [row["id"] for row in read_records(records)]
    assert ids[2] == f"{ids[0]}-2"


def test_a_truncated_picture_is_unreadable(tmp_path: Path) -> None:
    records = write_records(tmp_path, [record(0)])
    whole = io.BytesIO()
    Image.effect_noise((112, 112), 50).save(whole, "PNG")
    (tmp_path / "0.png").write_bytes(whole.getvalue()[:2000])
    result = build(records, tmp_path / "out.parquet", "--max-rejected", "1")
    assert result.returncode == 2 and "image_unreadable 1" in result.stderr
    assert not (tmp_path / "out.parquet").exists(), "a file without rows is not written, whatever is allowed"


def test_a_refusal_leaves_an_earlier_file_as_it_was(tmp_path: Path) -> None:
    records = write_records(tmp_path, [record(0)])
    output = tmp_path / "out.parquet"
    assert build(records, output).returncode == 0
    before = output.read_bytes()
    records.write_text("")
    assert "no rows" in build(records, output).stderr
    write_records(tmp_path, [record(0, task=None)])
    assert build(records, output).returncode == 2
    assert output.read_bytes() == before
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_sample_hangs_on_its_seed_only(tmp_path: Path) -> None:
    records = write_records(tmp_path, [record(number) for number in range(30)])

    def ids(seed: str) -> list[str]:
        output = tmp_path / f"{seed}.parquet"
        assert build(records, output, "--limit", "10", "--seed", seed).returncode == 0
        return [row["extra_info"]["id"] for row in pq.read_table(output).to_pylist()]

    first = ids("0")
    assert first == ids("0") and len(set(first)) == 10
    assert first != ids("1")


def test_a_bad_row_ends_a_sampled_build_whatever_the_seed_or_not_at_all(tmp_path: Path) -> None:
    """One of 101 rows is under 1 %: every sample of 64 is whole, also one that would have drawn it."""
    rows = [record(number) for number in range(100)]
    records = write_records(tmp_path, [*rows[:50], record(100, ground_truth="sadness"), *rows[50:]])
    output = tmp_path / "out.parquet"
    for seed in range(4):
        result = build(records, output, "--limit", "64", "--seed", str(seed))
        assert result.returncode == 0, result.stderr
        assert "64 rows (EmoSet-8 64), 1 left out, a sample of 100" in result.stdout
        assert len(list(read_jsonl(tmp_path / "out.rejected.jsonl"))) == 1
        drawn = [row["extra_info"]["index"] for row in pq.read_table(output).to_pylist()]
        assert len(drawn) == 64 and drawn == sorted(drawn) and 50 not in drawn
    write_records(tmp_path, [*rows[:98], record(98, ground_truth="joy"), record(99, ground_truth="joy")])
    refusals = [build(records, output, "--limit", "10", "--seed", str(seed)) for seed in range(4)]
    assert all("2 of 100 rows cannot be used" in refused.stderr for refused in refusals)


def test_every_usable_row_is_as_likely_in_a_sample() -> None:
    draws = [rl_rows.sample(((number, {}) for number in range(6)), 2, seed) for seed in range(3000)]
    counts = [sum(any(number == row for row, _ in draw) for draw in draws) for number in range(6)]
    # 1000 expected, with a standard deviation of 26.
    assert all(870 < count < 1130 for count in counts) and sum(counts) == 6000


def test_files_are_reused_only_whole_and_of_the_same_records(tmp_path: Path) -> None:
    records = write_records(tmp_path, [record(0), record(1)])
    output, chats = tmp_path / "out.parquet", tmp_path / "chats.jsonl"

    def built(*flags: str) -> bool:
        result = build(records, output, "--reuse", "--chats", str(chats), *flags)
        assert result.returncode == 0, result.stderr
        assert chats.is_file() and [row["id"] for _, row in read_jsonl(chats)] == [
            row["extra_info"]["id"] for row in pq.read_table(output).to_pylist()
        ]
        return "is there, of the same records" not in result.stdout

    assert [built(), built()] == [True, False]
    chats.unlink()  # as after a stop between the two
    assert [built(), built()] == [True, False]
    chats.write_text("")
    assert built()
    assert [built("--max-pixels", "3136"), built("--max-pixels", "3136"), built()] == [True, False, True]
    stamp = output.stat()
    write_records(tmp_path, [record(0), record(1, id="another")])
    os.utime(records, ns=(0, 0))
    assert built() and "another" in chats.read_text() and output.stat() != stamp
    records.write_text("")
    assert build(records, output, "--reuse").returncode == 2
    assert not (tmp_path / "out.built.json").exists(), "what a refusal leaves is not taken for these records"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max-rejected", "2"], "give a share between 0 and 1"),
        (["--limit", "0"], "give at least 1"),
        (["--image-root", "/no/where"], "image_missing 1"),
    ],
)
def test_wrong_arguments(tmp_path: Path, flags: list[str], message: str) -> None:
    result = build(write_records(tmp_path, [record(0)]), tmp_path / "out.parquet", *flags)
    assert result.returncode == 2 and message in result.stderr


def test_the_output_has_to_be_named_as_verl_knows_it(tmp_path: Path) -> None:
    result = build(write_records(tmp_path, [record(0)]), tmp_path / "out.json")
    assert result.returncode == 2 and "give one in .parquet" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("form", ["--embed-images", "--image-paths"])
def test_verl_reads_it(tmp_path: Path, form: str) -> None:
    """verl's dataset, collation and prompt builder: the image's tokens are those that its pixels make."""
    from omegaconf import OmegaConf
    from verl.trainer.ppo.utils import create_rl_dataset
    from verl.utils import hf_processor, hf_tokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    records = write_records(tmp_path, [record(number) for number in range(4)])
    assert build(records, tmp_path / "out.parquet", form).returncode == 0
    model = str(ROOT / "models" / "EmoCaliber-mini")
    tokenizer, processor = hf_tokenizer(model), hf_processor(model)
    config = OmegaConf.create(
        {"max_prompt_length": 384, "cache_dir": str(tmp_path), "custom_cls": {"path": None}}
        # In this process: a fork of one that has used torch's threads may wait for them for ever.
        | {"filter_overlong_prompts_workers": None}
    )
    dataset = create_rl_dataset(str(tmp_path / "out.parquet"), config, tokenizer, processor, is_train=True)
    rows = [dataset[index] for index in range(len(dataset))]
    assert len(rows) == 4, "none was left out as too long or unreadable"
    batch = collate_fn(rows)
    assert list(batch["data_source"]) == ["EmoSet-8"] * 4
    assert [row["ground_truth"] for row in batch["reward_model"]] == [CANDIDATES[n % 3] for n in range(4)]
    assert [list(row["candidates"]) for row in batch["extra_info"]] == [CANDIDATES] * 4
    images, _, _ = RLHFDataset._process_multi_modal_info(rows[2]["raw_prompt"], 14, config)
    assert [image.size for image in images] == [(112, 112)] and images[0].getpixel((5, 5)) == (2, 0, 0)
    builder = create_continuous_token_builder(
        tokenizer,
        hf_model_type="qwen2_5_vl",
        chat_template_kwargs={},
        mm_processor_kwargs={},
        processor=processor,
    )
    ids = builder.build_initial_tokens(rows[2]["raw_prompt"], images=images, mm_inputs_out={})
    assert ids.count(processor.image_token_id) == 112 * 112 // 28**2
    text = tokenizer.decode(ids)
    assert text.count("Which emotion might this image evoke?") == 1 and text.endswith("assistant\n")
