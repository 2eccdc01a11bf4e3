"""The numbers of a description: rows, labels, image sizes and token lengths by split and task."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from data.inspection.rows import Row
from emocaliber.images import ImageFault, inspect_image
from emocaliber.jsonl import RecordError
from emocaliber.prompts import SYSTEM_PROMPT
from emocaliber.report.tables import free_table, printable
from emocaliber.taxonomy import task_group, task_sort_key

Form = tuple[int, int, str, str]
"""Width and height in pixels as shown, format and mode."""
_QUANTILES = {"min": 0, "p5": 5, "median": 50, "p95": 95, "max": 100}


def image_facts(path: str) -> dict[str, Any]:
    """Size, format and mode of an image from its header; raises ImageFault."""
    facts = inspect_image(path, decode=False)
    return {"width": facts.width, "height": facts.height, "format": facts.format, "mode": facts.mode}


def form_of(facts: Mapping[str, Any]) -> Form:
    """What `image_facts` gives, as it is held in memory."""
    return facts["width"], facts["height"], facts["format"], facts["mode"]


def is_chat(record: Mapping[str, Any]) -> bool:
    """Does a row hold what the model is to answer, as the rows of training do?"""
    messages = record.get("messages") or record.get("conversations")
    messages = messages if isinstance(messages, list) else []
    return any(isinstance(message, dict) and message.get("role") == "assistant" for message in messages)


@dataclass
class Description:
    """Counts per split, then task. `sizes`: (width, height) of each row's images; `tokens`: split -> part."""

    rows: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    chats: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    labels: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    images: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    sizes: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    formats: dict[str, Counter[str]] = field(default_factory=dict)
    tokens: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    def add(self, row: Row, record: Mapping[str, Any]) -> None:
        """Count a row."""
        self.rows[row.split][row.task] += 1
        if is_chat(record):
            self.chats[row.split][row.task] += 1
        self.labels.setdefault(row.task, {}).setdefault(row.split, Counter())[row.label] += 1
        self.images[row.split].update(row.files)

    def add_images(self, rows: Sequence[Row], facts: Mapping[str, Form]) -> None:
        """Take in what is known of the images, each once a split."""
        for split, files in self.images.items():
            known = [facts[file] for file in sorted(files) if file in facts]
            self.sizes[split] = [(width, height) for width, height, _, _ in known]
            self.formats[split] = Counter(f"{format_} {mode}" for _, _, format_, mode in known)

    def content(self, left_out: Mapping[str, int]) -> dict[str, Any]:
        """What summary.json holds."""
        return {
            "rows": {split: _by_task(tasks) for split, tasks in self.rows.items()},
            "chats": {split: _by_task(tasks) for split, tasks in self.chats.items()},
            "groups": {split: _by_group(tasks) for split, tasks in self.rows.items()},
            "labels": {
                task: {split: dict(sorted(counts.items())) for split, counts in self.labels[task].items()}
                for task in sorted(self.labels, key=task_sort_key)
            },
            "images": {split: self._images_of(split) for split in self.rows},
            "tokens": {
                split: {part: quantiles(values) for part, values in parts.items()}
                for split, parts in self.tokens.items()
            },
            "left_out": dict(left_out),
        }

    def _images_of(self, split: str) -> dict[str, Any]:
        sizes = self.sizes[split]
        return {
            "n": len(self.images[split]),
            "width_pixels": quantiles([width for width, _ in sizes]),
            "height_pixels": quantiles([height for _, height in sizes]),
            "megapixels": quantiles([width * height / 1e6 for width, height in sizes]),
            "formats": dict(self.formats[split].most_common()),
        }


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Smallest, 5 %, median, 95 %, largest and mean; empty for no values."""
    if not values:
        return {}
    import numpy as np

    found = np.percentile(values, list(_QUANTILES.values()), method="inverted_cdf")
    named = {name: float(value) for name, value in zip(_QUANTILES, found, strict=True)}
    return named | {"mean": round(float(np.mean(values)), 4)}


def _by_task(tasks: Mapping[str, int]) -> dict[str, int]:
    return {task: tasks[task] for task in sorted(tasks, key=task_sort_key)}


def _by_group(tasks: Mapping[str, int]) -> dict[str, int]:
    groups: Counter[str] = Counter()
    for task, n in _by_task(tasks).items():
        groups[task_group(task) or "other tasks"] += n
    return dict(groups)


def unreadable(rows: Sequence[Row], faults: Mapping[str, ImageFault]) -> list[dict[str, Any]]:
    """One entry for every image that cannot be read: the first row that names it, how many do, and why."""
    first: dict[str, Row] = {}
    n_rows: Counter[str] = Counter()
    for row in rows if faults else ():
        for file in row.files:
            if file in faults:
                first.setdefault(file, row)
                n_rows[file] += 1
    return [
        {"where": row.where, "id": row.id, "n_rows": n_rows[file]}
        | {"reason": faults[file].reason, "message": faults[file].message}
        for file, row in first.items()
    ]


def summary_text(content: Mapping[str, Any]) -> str:
    """The summary as tables."""
    lines = ["Rows per task", _task_table(content["rows"])]
    if content["chats"]:
        title = "Chains of thought per task (rows with an answer to learn)"
        lines += ["", title, _task_table(content["chats"])]
    lines += ["", "Labels, in % of the rows of a task", _label_table(content["labels"])]
    lines += ["", "Images (pixels: 5 %, median, 95 %)", _image_table(content["images"])]
    if content["tokens"]:
        lines += ["", "Tokens per row (5 %, median, 95 %, largest)", _token_table(content["tokens"])]
    if content["left_out"]:
        reasons = ", ".join(f"{reason} {n}" for reason, n in content["left_out"].items())
        lines += ["", f"Left out: {reasons} (see left_out.jsonl)"]
    return "\n".join(lines)


def _task_table(counts: Mapping[str, Mapping[str, int]]) -> str:
    tasks = sorted({task for of_split in counts.values() for task in of_split}, key=task_sort_key)
    lines = [
        [split, *(f"{of_split.get(task, 0):,}" for task in tasks), f"{sum(of_split.values()):,}"]
        for split, of_split in counts.items()
    ]
    totals = [sum(of_split.get(task, 0) for of_split in counts.values()) for task in tasks]
    total = ["total", *(f"{n:,}" for n in totals), f"{sum(totals):,}"]
    return free_table(["", *map(printable, tasks), "total"], [lines, [total]])


def _label_table(labels: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    splits = list(dict.fromkeys(split for of_task in labels.values() for split in of_task))
    blocks = []
    for task, of_task in labels.items():
        names = sorted({label for counts in of_task.values() for label in counts})
        blocks.append(
            [[task, printable(name), *(_share(of_task, s, name) for s in splits)] for name in names]
        )
    return free_table(["Task", "Label", *map(printable, splits)], blocks)


def _share(of_task: Mapping[str, Mapping[str, int]], split: str, label: str) -> str:
    counts = of_task.get(split)
    return "-" if counts is None else f"{100 * counts.get(label, 0) / sum(counts.values()):.1f}"


def _image_table(images: Mapping[str, Any]) -> str:
    lines = []
    for split, found in images.items():
        formats = ", ".join(f"{name} {n:,}" for name, n in found["formats"].items())
        sizes = [_spread(found[f"{side}_pixels"], ("p5", "median", "p95")) for side in ("width", "height")]
        lines.append([split, f"{found['n']:,}", *sizes, formats])
    return free_table(["", "Images", "Width", "Height", "Formats"], [lines])


def _token_table(tokens: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    parts = list(next(iter(tokens.values())))
    names = ("p5", "median", "p95", "max")
    lines = [
        [split, *(_spread(of_split[part], names) for part in parts)] for split, of_split in tokens.items()
    ]
    return free_table(["", *parts], [lines])


def _spread(found: Mapping[str, float], names: Sequence[str]) -> str:
    return ", ".join(f"{found[name]:,.0f}" for name in names) if found else "-"


PARTS = ("image", "question", "answer", "all")
"""question: everything but images and answer, with the marks of the chat template around both."""
_PLACEHOLDER = "<image>"


class TokenCounter:
    """Counts with the chat template, tokenizer and image processor of a checkpoint; decodes no image."""

    def __init__(self, checkpoint: str, min_pixels: int | None, max_pixels: int | None) -> None:
        from transformers import AutoProcessor

        try:
            self._processor: Any = AutoProcessor.from_pretrained(checkpoint)
            self._images = self._processor.image_processor
            self._merge = self._images.merge_size**2
        except (OSError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RecordError(
                f"{checkpoint}: no processor of Qwen2-VL's kind ({reason}); give --checkpoint another folder"
            ) from None
        limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        self._limits = {name: value for name, value in limits.items() if value is not None}

    def lengths(
        self,
        rows: Iterable[tuple[Row, Mapping[str, Any]]],
        facts: Mapping[str, Form],
    ) -> dict[str, dict[str, list[int]]]:
        """Split -> part -> tokens of each row whose images could all be read."""
        found: dict[str, dict[str, list[int]]] = {}
        for row, record in tqdm(rows, desc="tokens", unit="row"):
            if not all(file in facts for file in row.files):
                continue
            n_image = sum(self._of_image(*facts[file][:2]) for file in row.files)
            chat, answer = as_chat(record)
            text = self._processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=not answer)
            n_text = self._of_text(text) - len(row.files)  # each image stands as one mark in the text
            n_answer = self._of_text(answer)
            of_split = found.setdefault(row.split, {part: [] for part in PARTS})
            counts = (n_image, n_text - n_answer, n_answer, n_text + n_image)
            for part, count in zip(PARTS, counts, strict=True):
                of_split[part].append(count)
        return found

    def _of_text(self, text: str) -> int:
        return len(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _of_image(self, width: int, height: int) -> int:
        n_patches = int(self._images.get_number_of_image_patches(height, width, self._limits))
        return n_patches // int(self._merge)


def as_chat(record: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The messages as a chat template takes them, an item for each image, and the last answer in them."""
    messages = [m for m in record.get("messages") or record.get("conversations") or () if isinstance(m, dict)]
    if not any(message.get("role") == "system" for message in messages):
        messages = [{"role": "system", "content": SYSTEM_PROMPT}, *messages]
    chat, answer = [], ""
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            pieces = content.split(_PLACEHOLDER)
            items: list[dict[str, Any]] = [{"type": "text", "text": pieces[0]}] if pieces[0] else []
            for piece in pieces[1:]:
                items += [{"type": "image"}, {"type": "text", "text": piece}]
        else:
            items = [item for item in content or () if isinstance(item, dict)]
        chat.append({"role": message.get("role"), "content": items})
        if message.get("role") == "assistant":
            answer = "".join(str(item.get("text", "")) for item in items)
    return chat, answer
