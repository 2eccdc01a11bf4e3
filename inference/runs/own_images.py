"""One's own images as records: a folder or a list of files, with a task's labels or any others, no truth."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from emocaliber.prompts import conversation
from emocaliber.records import Record, RecordError, record_candidates
from emocaliber.taxonomy import TASKS, canonical_task
from inference.backends.prepare import URL

SUFFIXES = frozenset(
    {
        *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
        *(".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    }
)
"""Names of files that are taken for images; whether they are shows when they are read."""

OWN_TASK = "own images"
"""The task of images that are asked about with labels of one's own."""


def records_of_images(
    source: Path,
    *,
    task: str | None = None,
    candidates: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> tuple[list[Record], Path]:
    """Make a record of every image, without a truth, its id being its path relative to the image root.

    Args:
        source: a folder, looked through with those below it (links to folders are not followed), an image,
            or a text file that lists paths, one a line, relative to its own folder or absolute.
        task: one of the nine, for its labels. Or:
        candidates: the labels to choose from, at least two.
        say: told in one line what was left out: hidden files, files with no image's suffix, repeated paths.

    Returns:
        The records, and the image root: the folder, or the deepest one that holds the list and all it names.

    Raises:
        RecordError: no images, an unknown task, or labels that cannot be told apart.
    """
    labels, name = _labels(task, candidates)
    if source.is_dir():
        root, images, left_out = source, *_images_below(source)
    elif source.suffix.lower() in SUFFIXES and source.is_file():
        root, images, left_out = source.parent, [source.name], ""
    else:
        root, images, left_out = _images_listed(source)
    if not images:
        raise RecordError(
            f"{source}: no images{left_out}; give a folder of {', '.join(sorted(SUFFIXES))} files"
        )
    if left_out:
        say(f"{source}: {len(images)} images{left_out}")
    records = [
        {
            "id": image,
            "image": image,
            "task": name,
            "candidates": labels,
            "conversations": conversation(image, labels),
        }
        for image in images
    ]
    return records, root


def _labels(task: str | None, candidates: Sequence[str] | None) -> tuple[list[str], str]:
    if (task is None) == (candidates is None):
        raise RecordError("own images need either a task or a list of candidates; give one of them")
    if candidates is None:
        name = canonical_task(str(task))
        if name not in TASKS:
            raise RecordError(
                f"task {str(task)[:80]!r} is none of {', '.join(TASKS)}; give one, or candidates"
            )
        return list(TASKS[name].labels), name
    labels = record_candidates({"candidates": list(candidates)})
    if len(labels) < 2:
        raise RecordError(f"candidates are only {labels[0]!r}; give at least two labels to choose from")
    return labels, OWN_TASK


def _images_below(folder: Path) -> tuple[list[str], str]:
    """Give the images below a folder, by their relative paths, and what was left out."""
    images, n_hidden, n_others = [], 0, 0

    def refuse(error: OSError) -> None:
        raise RecordError(
            f"{error.filename}: cannot be read ({error.strerror}); make it readable, or move it"
        )

    for place, folders, files in os.walk(folder, onerror=refuse):
        n_hidden += sum(name.startswith(".") for name in (*folders, *files))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                if Path(name).suffix.lower() in SUFFIXES:
                    path = os.path.relpath(os.path.join(place, name), folder)
                    images.append(f"./{path}" if URL.search(path) else path)  # `data:x.png` is a file here
                else:
                    n_others += 1
    return sorted(images), _left_out({"hidden": n_hidden, "without an image's suffix": n_others})


def _images_listed(source: Path) -> tuple[Path, list[str], str]:
    """Give the image root, what a text file lists by its paths relative to that, and what was left out."""
    try:
        lines = source.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise RecordError(
            f"{source}: no such folder or file; give a folder of images or a list of paths"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise RecordError(
            f"{source}: cannot be read ({reason}); give a folder or a text file of paths"
        ) from None
    folder = os.path.abspath(source.parent)
    paths = []
    for number, line in enumerate(lines, start=1):
        if URL.search(line) or "\0" in line:
            raise RecordError(
                f"{source}:{number}: {line[:80]!r} is not a path; download it and give its path"
            )
        if line.strip():
            paths.append(os.path.normpath(os.path.join(folder, line.strip())))
    distinct = list(dict.fromkeys(paths))
    if distinct and not any(map(os.path.exists, distinct)):
        raise RecordError(
            f"{source}: none of the {len(distinct)} paths that it lists is there, the first is "
            f"{distinct[0][:200]}; give a folder of images, or paths relative to the list's own folder"
        )
    # Who lists a file means it: the root is as high as it has to be.
    root = os.path.commonpath([folder, *map(os.path.dirname, distinct)])
    left_out = _left_out({"listed more than once": len(paths) - len(distinct)})
    return Path(root), [os.path.relpath(path, root) for path in distinct], left_out


def _left_out(counts: dict[str, int]) -> str:
    named = [f"{count} {why}" for why, count in counts.items() if count]
    return f"; left out: {', '.join(named)}" if named else ""
