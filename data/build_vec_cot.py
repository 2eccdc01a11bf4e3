"""Builds a VEC-CoT: a teacher writes five-part reasoning for image, task and label; what passes is kept.

    python data/build_vec_cot.py --records data/VECBench/train.jsonl --output-dir data/VEC-CoT \\
        --teacher-url http://127.0.0.1:8000/v1 --teacher-model NAME --given-label \\
        --confidence-method agreement

The teacher is any OpenAI-compatible server; a local one is `vllm serve MODEL` (without a reasoning parser).
Told the label (--given-label) it explains it; asked --blind it counts only where it names the true label.
Every answer is appended to raw_answers.jsonl by row and prompt, so that the same command asks only for what
is missing, and other filters ask for nothing. What is left out is listed in rejected.jsonl with its reason.

Writes stage1.jsonl and stage2.jsonl (ms-swift chats), stage3.jsonl (records), stage3.parquet (verl) and
stage3_chats.jsonl (ms-swift GRPO), stats.json, README.md, and manifest.json last.

--confidence-method agreement takes two calls. The first, without --samples, writes stage 1, stage 3 and
stage2_records.jsonl. Train stage 1, sample it on those rows (inference/infer.py --n-samples 16
--temperature 1) and give the same command again with --samples PREDICTIONS.
"""

from __future__ import annotations

import json
import random
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data.vec_cot import outputs, teacher
from data.vec_cot.arguments import parse_arguments
from data.vec_cot.confidence import AGREEMENT, read_samples, with_confidence
from data.vec_cot.filters import Chain, Limits, Repeats, chain_of, read_leak_patterns
from data.vec_cot.outputs import Kept
from data.vec_cot.rl_rows import reasons
from data.vec_cot.rows import STAGES, Row, assign_stages, read_rows, rejection, with_pixels
from data.vec_cot.teacher import Cost, Question, Teacher, ask_all
from emocaliber.chat_server import ChatServer
from emocaliber.command_line import read_key, run_command
from emocaliber.jsonl import RecordError, write_jsonl_atomic, write_text_atomic
from emocaliber.provenance import commit, installed_versions
from emocaliber.records import Unusable

Rejections = list[dict[str, Any]]

RAW_ANSWERS, KNOWN_IMAGES, REJECTED = "raw_answers.jsonl", "known_images.jsonl", "rejected.jsonl"
STAGE2_RECORDS, MANIFEST = "stage2_records.jsonl", "manifest.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    return run_command(
        lambda: build(parse_arguments(__doc__, argv)),
        if_interrupted="the same command continues",
        if_no_memory="give fewer --threads and --concurrency, or free memory; the same command continues",
    )


def build(args: Namespace) -> None:
    """Read, split, ask, filter, write. Raises RecordError."""
    started = time.monotonic()
    # What may be wrong with the settings is said before the first image is read.
    template = teacher.read_template(args.teacher_prompt, blind=args.blind)
    lengths = (args.min_words, args.max_words, args.max_characters)
    limits = Limits(args.blind, *lengths, read_leak_patterns(args.leak_patterns))
    samples = read_samples(args.samples) if args.samples else {}
    awaits_samples = args.confidence_method == AGREEMENT and not args.samples
    rejected: Rejections = []
    rows, counts = usable_rows(args, rejected)
    assign_stages(rows, args.stage_shares, args.seed)
    cost = Cost(args.price_in, args.price_out)
    answers = ask(args, rows, template, cost)
    kept = filtered(args, rows, answers, limits, samples, awaits_samples, rejected)
    facts = {
        **counts,
        "teacher": teacher_facts(answers, cost),
        "wall_s": round(time.monotonic() - started, 1),
    }
    write(args, kept, rejected, facts, awaits_samples)


def usable_rows(args: Namespace, rejected: Rejections) -> tuple[list[Row], dict[str, int]]:
    """The rows whose record and image are sound; the others are put into `rejected`. Raises RecordError.

    Given with them: how many rows were read, and how many --limit drew of those with a sound record.
    """
    rows = read_rows(args.records, rejected)
    n_read = len(rows) + len(rejected)
    if args.limit is not None and args.limit < len(rows):
        rows = random.Random(args.seed).sample(rows, args.limit)
    n_drawn = len(rows)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    rows = with_pixels(rows, args.image_root, args.output_dir / KNOWN_IMAGES, args.threads, rejected)
    if not rows:
        write_rejected(args.output_dir, rejected)
        raise RecordError(
            f"{args.records[0]}: no row can be used ({reasons(rejected)}; listed in "
            f"{args.output_dir / REJECTED}); mend them, or set --image-root"
        )
    return rows, {"rows_read": n_read, "rows_drawn": n_drawn}


def write_rejected(folder: Path, rejected: Rejections) -> None:
    """List what is left out. From here on the folder is not finished: what an earlier build wrote goes with
    another list, so its manifest is taken away first."""
    (folder / MANIFEST).unlink(missing_ok=True)
    write_jsonl_atomic(folder / REJECTED, rejected)


def ask(args: Namespace, rows: list[Row], template: str | None, cost: Cost) -> dict[str, dict[str, Any]]:
    """The teacher's answers by row id; stage 3 is asked only where it is filtered."""
    key = read_key(args.api_key_variable)
    server = ChatServer(args.teacher_url, key, args.timeout_s, args.max_retries, args.concurrency)
    asked_of = Teacher(server, args.request, args.max_failures_in_a_row)
    questions = []
    for row in rows:
        if row.stage != "stage3" or args.filter_stage3:
            with_confidence = args.confidence_method == "teacher"
            text = teacher.question_text(template, row, with_confidence=with_confidence)
            asked = teacher.prompt_hash(row, text, args.request, args.max_pixels)
            chat = partial(teacher.messages, args.image_root / row.image, text, args.max_pixels)
            questions.append(Question(row.id, asked, chat))
    answers = ask_all(questions, asked_of, args.output_dir / RAW_ANSWERS, cost)
    return {identity: answer for (identity, _), answer in answers.items()}


def filtered(
    args: Namespace,
    rows: list[Row],
    answers: dict[str, dict[str, Any]],
    limits: Any,
    samples: dict[str, list[str]],
    awaits_samples: bool,
    rejected: Rejections,
) -> Kept:
    """The rows of each stage with their chains; the others are put into `rejected`."""
    kept: Kept = {}
    repeats = Repeats(args.max_images_per_text)
    for row in rows:
        chain: Chain | None = None
        try:
            if row.id in answers:
                chain = chain_of(answers[row.id], row.label, row.candidates, limits)
                repeats.check(chain, row.pixels)
                if row.stage == "stage1":
                    chain = Chain(chain.reasoning, chain.label, None)
                elif row.stage == "stage2" and not awaits_samples:
                    taught = chain.reasoning
                    chain = with_confidence(
                        args.confidence_method,
                        row,
                        chain,
                        constant=args.constant,
                        samples=samples,
                        limits=limits,
                    )
                    if chain.reasoning != taught:  # a sample's words, which may be those of other images
                        repeats.check(chain, row.pixels)
        except Unusable as error:
            rejected.append(rejection(row.where, row.id, row.task, error.reason, str(error)))
        else:
            kept.setdefault(row.stage, []).append((row, chain))
    return {stage: kept[stage] for stage in sorted(kept)}


def teacher_facts(answers: dict[str, dict[str, Any]], cost: Cost) -> dict[str, Any]:
    """What was asked and what it cost, in the currency of the prices."""
    return {
        "questions": len(answers),
        "answers": sum("error" not in answer for answer in answers.values()),
        "tokens_in": cost.tokens_in,
        "tokens_out": cost.tokens_out,
        "answers_without_usage": cost.answers_without_usage,
        "cost": round(cost.total, 4),
    }


def write(
    args: Namespace, kept: Kept, rejected: Rejections, facts: dict[str, Any], awaits_samples: bool
) -> None:
    """Check that there is a set to write, write it, and say what is in it. Raises RecordError."""
    folder = args.output_dir
    write_rejected(folder, rejected)
    failed = sum(row["reason"] == "teacher_error" for row in rejected)
    if failed > args.max_errors * facts["teacher"]["questions"]:
        raise RecordError(
            f"{folder / REJECTED}: {failed} of {facts['teacher']['questions']} questions have no answer; "
            "give the same command again, or allow more by --max-errors"
        )
    for stage, share in zip(STAGES, args.stage_shares, strict=True):
        if share and not kept.get(stage):
            raise RecordError(
                f"{folder / REJECTED}: no row is left for {stage} ({reasons(rejected)}); "
                "look at the messages there, give more rows, or a --stage-shares of 0 for it"
            )
    stats = outputs.statistics(kept, rejected) | facts
    stats["teacher"]["label_agreement"] = outputs.label_agreement(stats)
    names = [REJECTED]
    if awaits_samples and "stage2" in kept:
        waiting = [outputs.rl_record(row, with_confidence=False) for row, _ in kept.pop("stage2")]
        write_jsonl_atomic(folder / STAGE2_RECORDS, waiting)
        names.append(STAGE2_RECORDS)
    names += outputs.write_stages(kept, args)
    write_text_atomic(folder / "stats.json", json.dumps(stats, indent=1, ensure_ascii=False) + "\n")
    write_text_atomic(folder / "README.md", outputs.card(stats, args))
    made_by = {"commit": commit(), "versions": installed_versions(["openai", "pillow", "pyarrow"])}
    outputs.write_manifest(folder, [*names, "stats.json", "README.md"], args, made_by)
    sizes = ", ".join(f"{stage} {sum(counts.values())}" for stage, counts in stats["kept"].items())
    print(f"{folder}: {sizes}; left out: {reasons(rejected)}; cost {facts['teacher']['cost']:,.4f}")
    if STAGE2_RECORDS in names:
        print(f"{folder / STAGE2_RECORDS}: sample a stage-1 model on it, then give --samples")


if __name__ == "__main__":
    sys.exit(main())
