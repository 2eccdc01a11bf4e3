"""The files of a VEC-CoT: chats for ms-swift, records and Parquet for RL, statistics, card, manifest."""

from __future__ import annotations

import json
import random
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.vec_cot import rl_rows
from data.vec_cot.filters import REASONS, WITHOUT_LABEL, Chain
from data.vec_cot.rows import STAGES, Row
from emocaliber.jsonl import write_jsonl_atomic, write_text_atomic
from emocaliber.prompts import conversation, training_chat, user_prompt
from emocaliber.provenance import file_sha256
from emocaliber.response import render
from emocaliber.taxonomy import task_sort_key

Kept = dict[str, list[tuple[Row, Chain | None]]]
STAGE_FILES = {
    "stage1": ("stage1.jsonl",),
    "stage2": ("stage2.jsonl",),
    "stage3": ("stage3.jsonl", "stage3.parquet", "stage3_chats.jsonl"),
}

CARD_HEAD = """\
# A VEC-CoT of our own

Image, label and five-part reasoning, written by a teacher model and filtered, for the three training stages.
The teacher, the filter and the confidence targets of the published VEC-CoT (143,446 rows) are not public.
This set follows its form and its 60/30/10 split; how the rest was done is stated below. It is not meant as a
reconstruction.
"""


def write_stages(kept: Kept, args: Namespace) -> list[str]:
    """Write the files of every stage that has rows, and give their names; those of others are removed."""
    names: list[str] = []
    folder: Path = args.output_dir
    for stage, files in STAGE_FILES.items():
        rows = kept.get(stage)
        if not rows:
            for name in files:
                (folder / name).unlink(missing_ok=True)
            continue
        # Tasks in turn would teach one after the other.
        random.Random(f"VEC-CoT/{args.seed}/{stage}").shuffle(rows)
        is_rl = stage == "stage3"
        write_jsonl_atomic(
            folder / files[0],
            (chat(row, chain) if chain and not is_rl else rl_record(row) for row, chain in rows),
        )
        if is_rl:
            write_parquet(folder, args)
        names += files
    return names


def chat(row: Row, chain: Chain) -> dict[str, Any]:
    """A row of fine-tuning, asked with a confidence if the chain has one."""
    question = user_prompt(row.candidates, with_confidence=chain.confidence is not None)
    answer = render(chain.reasoning, chain.label, chain.confidence)
    named = {"id": row.id, "task": row.task, "ground_truth": row.label}
    return named | training_chat(row.image, question, answer)


def rl_record(row: Row, *, with_confidence: bool = True) -> dict[str, Any]:
    """A record as inference and build_rl_parquet.py read it."""
    return {
        "id": row.id,
        "image": row.image,
        "conversations": conversation(row.image, row.candidates, with_confidence=with_confidence),
        "task": row.task,
        "ground_truth": row.label,
        "candidates": list(row.candidates),
    } | row.truth


def write_parquet(folder: Path, args: Namespace) -> None:
    """Stage 3 as verl and as ms-swift's GRPO read it, by build_rl_parquet.py. Raises RecordError."""
    rl_rows.build(
        Namespace(
            records=folder / "stage3.jsonl",
            output=folder / "stage3.parquet",
            chats=folder / "stage3_chats.jsonl",
            image_root=args.image_root,
            image_paths=args.image_paths,
            min_pixels=args.rl_min_pixels,
            max_pixels=args.rl_max_pixels,
            split="train",
            limit=None,
            seed=args.seed,
            max_rejected=0.0,
        )
    )


def statistics(kept: Kept, rejected: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts per stage, task and label, of the rejected per reason and task, and the stage-2 confidences."""
    by_reason: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rejected:
        by_reason[row["reason"]][str(row["task"])] += 1
    labels = {
        stage: {
            task: dict(Counter(row.label for row, _ in rows if row.task == task).most_common())
            for task in sorted({row.task for row, _ in rows}, key=task_sort_key)
        }
        for stage, rows in kept.items()
    }
    chains = [chain for _, chain in kept.get("stage2", [])]
    stated = [float(chain.confidence) for chain in chains if chain and chain.confidence is not None]
    tenths = Counter(min(int(confidence * 10 + 1e-9), 9) for confidence in stated)
    return {
        "kept": {stage: dict(Counter(row.task for row, _ in rows)) for stage, rows in kept.items()},
        "images": {stage: len({row.pixels for row, _ in rows}) for stage, rows in kept.items()},
        "labels": labels,
        "rejected": {
            reason: dict(counts)
            for reason, counts in sorted(by_reason.items(), key=lambda item: -item[1].total())
        },
        "stage2_confidence": {
            "n": len(stated),
            "mean": round(sum(stated) / len(stated), 4) if stated else None,
            "per_tenth": [tenths[tenth] for tenth in range(10)],
        },
    }


def label_agreement(stats: Mapping[str, Any]) -> float | None:
    """The share of answers with the true label among those with one; None where there is none."""
    lost = {reason: sum(counts.values()) for reason, counts in stats["rejected"].items()}
    with_label = stats["teacher"]["answers"] - sum(lost.get(reason, 0) for reason in WITHOUT_LABEL)
    wrong = lost.get("wrong_label", 0) + lost.get("label_disagrees", 0)
    return round(1 - wrong / with_label, 4) if with_label else None


def card(stats: Mapping[str, Any], args: Namespace) -> str:
    """The README of the set."""
    mode = "asked blind, kept where its label is the true one" if args.blind else "told the label"
    stage3 = "filtered as the others" if args.filter_stage3 else "not asked about and not filtered"
    teacher, mean = stats["teacher"], stats["stage2_confidence"]["mean"]
    lines = [
        CARD_HEAD,
        f"- Teacher: `{args.teacher_model}`, {mode}; prompt `{args.teacher_prompt}`, request "
        f"`{json.dumps({name: value for name, value in args.request.items() if name != 'model'})}`.",
        f"- Of its answers that name a label, {teacher['label_agreement'] or 0:.1%} name the true one.",
        f"- Stage-2 confidence: {stated_method(args)}."
        + (f" Their mean is {mean:.3f}." if mean is not None else ""),
        f"- Stages: images split {'/'.join(f'{share:.0%}' for share in args.stage_shares)} by seed "
        f"{args.seed}, stratified over task and label, no image (told by its pixels) in two; "
        f"stage 3 is {stage3}.",
        f"- Images are relative to `{args.image_root}` (IMAGE_ROOT of the training scripts).",
        f"- {teacher['answers']:,} answers of {teacher['questions']:,}: {teacher['tokens_in']:,} tokens in, "
        f"{teacher['tokens_out']:,} out; at {args.price_in:g} and {args.price_out:g} per million that is "
        f"{teacher['cost']:,.4f}."
        + (
            f" {teacher['answers_without_usage']:,} came without usage."
            if teacher["answers_without_usage"]
            else ""
        ),
        "",
        *_stage_table(stats),
        "",
        f"{stats['rows_read']:,} rows were read"
        + (f", of which --limit drew {stats['rows_drawn']:,}" if args.limit else "")
        + ". Left out, each listed in `rejected.jsonl`:",
        "",
        "| reason | rows | meaning |",
        "|---|---|---|",
        *(
            f"| {reason} | {sum(counts.values()):,} | {REASONS.get(reason, 'the record or its image')} |"
            for reason, counts in stats["rejected"].items()
        ),
    ]
    return "\n".join(lines) + "\n"


def stated_method(args: Namespace) -> str:
    """The confidence method in words."""
    return {
        "constant": f"the constant {args.constant}",
        "teacher": "what the teacher states",
        "agreement": "agreement of a stage-1 model's samples, by the rule of build_confidence_targets.py",
    }[str(args.confidence_method)]


def _stage_table(stats: Mapping[str, Any]) -> list[str]:
    kept: Mapping[str, Mapping[str, int]] = stats["kept"]
    # A task of which nothing is left is a column too.
    counted = (*kept.values(), *stats["rejected"].values())
    tasks = sorted({task for counts in counted for task in counts}, key=task_sort_key)
    rows = {stage: [kept[stage].get(task, 0) for task in tasks] for stage in STAGES if stage in kept}
    rows["total"] = [sum(counts.get(task, 0) for counts in kept.values()) for task in tasks]
    table = [f"| stage | {' | '.join(tasks)} | total |", "|---" * (len(tasks) + 2) + "|"]
    for name, counts in rows.items():
        table.append(f"| {name} | {' | '.join(f'{count:,}' for count in counts)} | {sum(counts):,} |")
    return table


def write_manifest(folder: Path, names: Sequence[str], args: Namespace, facts: Mapping[str, Any]) -> None:
    """Arguments, versions, and the sums of what was read and written. The key is not among them."""
    manifest = {
        "arguments": {name: _plain(value) for name, value in sorted(vars(args).items())},
        **facts,
        "read": {
            str(path): file_sha256(path)
            for path in [*args.records, *([args.samples] if args.samples else [])]
        },
        "written": {name: file_sha256(folder / name) for name in names},
    }
    write_text_atomic(folder / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | dict | None) else str(value)
