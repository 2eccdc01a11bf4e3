"""What the teacher is asked: an image and a text, told the label or not, and the hash of both."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from vec_cot_rows import Row

from emocaliber.images import inspect_image, open_rgb
from emocaliber.jsonl import RecordError
from emocaliber.prompts import SYSTEM_PROMPT, user_prompt
from emocaliber.response import SECTIONS

STUDENT, OWN = "student", "own"
PLACES = ("{task}", "{candidates}", "{label}", "{format}")
SENT_AS_THEY_ARE = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}

_PARTS = {
    "element": "objects, colours, light and composition that carry emotion",
    "human": "people, their faces, postures and gestures; say so if there is nobody",
    "context": "place, time, weather and situation",
    "interaction": "how people, objects and surroundings act on one another",
    "analysis": "what these signs suggest together, where they disagree, and the emotion that follows",
}
FORMAT = (
    "<think>"
    + "".join(f"<{name}>{_PARTS[name]}</{name}>" for name in SECTIONS)
    + "</think><answer>one of the labels, as written in the list</answer>"
)
CONFIDENCE = (
    "<confidence>from 0 to 1, how likely it is that a viewer chosen at random names this label</confidence>"
)

BLIND = """\
Which emotion might this image evoke in people who look at it? Choose the most likely one from {candidates}.

Describe only what can be seen and what follows from it, in one to three sentences for each part. Write \
exactly this, with your text in place of the explanations, and nothing before or after it:
{format}
"""
GIVEN_LABEL = """\
People who looked at this image were asked which emotion it evokes. Of {candidates}, {label} was named most.

Write down how an attentive viewer comes to {label} from the image alone: describe only what can be seen and \
what follows from it, in one to three sentences for each part. The reader knows nothing of this message, so \
never mention that an answer was known, given or expected. Write exactly this, with your text in place of \
the explanations, and nothing before or after it:
{format}
"""


def read_template(name: str, *, blind: bool) -> str | None:
    """The teacher's text with its places to fill in, None for the student's own prompt.

    `name`: `own`, `student`, or a file. Raises RecordError for a file that does not fit the mode.
    """
    if name == STUDENT:
        if not blind:
            raise RecordError(
                "--teacher-prompt student: it cannot tell the label; give --blind, or a template"
            )
        return None
    if name == OWN:
        return BLIND if blind else GIVEN_LABEL
    try:
        template = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise RecordError(f"--teacher-prompt {name}: cannot be read ({reason}); give a text file") from None
    if "{candidates}" not in template:
        raise RecordError(f"--teacher-prompt {name}: no {{candidates}} in it; put it where the labels belong")
    if ("{label}" in template) == blind:
        remedy = "take it out, or give --given-label" if blind else "put it in, or give --blind"
        raise RecordError(f"--teacher-prompt {name}: {'a' if blind else 'no'} {{label}} in it; {remedy}")
    return template


def question_text(template: str | None, row: Row, *, with_confidence: bool) -> str:
    """The text that the teacher is asked about this row."""
    if template is None:
        return user_prompt(row.candidates, with_confidence=with_confidence)
    filled = {
        "{task}": row.task,
        "{candidates}": ", ".join(row.candidates),
        "{label}": row.label,
        "{format}": FORMAT + (CONFIDENCE if with_confidence else ""),
    }
    for place in PLACES:
        template = template.replace(place, filled[place])
    return template


def prompt_hash(row: Row, text: str, request: dict[str, Any], max_pixels: int | None) -> str:
    """SHA-256 of everything that the answer hangs on: image, texts, model and how it samples."""
    asked = [row.pixels, max_pixels, SYSTEM_PROMPT, text, request]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def messages(image: Path, text: str, max_pixels: int | None) -> list[dict[str, Any]]:
    """The chat in the form of the chat-completions protocol, the image in it. Raises ImageFault."""
    content = [
        {"type": "image_url", "image_url": {"url": data_url(image, max_pixels)}},
        {"type": "text", "text": text},
    ]
    return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": content}]


def data_url(path: Path, max_pixels: int | None) -> str:
    """The image as a `data:` address: the file as it is where every reader sees the same in it.

    Other formats, rotated, animated, CMYK or transparent ones, and those of more than `max_pixels` (width x
    height) are drawn as a viewer sees them, scaled down, and sent as JPEG. Raises ImageFault.
    """
    facts = inspect_image(path, decode=False)
    too_large = max_pixels is not None and facts.width * facts.height > max_pixels
    plain = facts.mode in ("RGB", "L") and facts.n_frames == 1 and not facts.exif_rotated
    plain = plain and not facts.has_transparency  # which RGB and L have by a colour of the header
    if facts.format in SENT_AS_THEY_ARE and plain and not too_large:
        return _as_url(SENT_AS_THEY_ARE[facts.format], path.read_bytes())
    image = open_rgb(path)
    if max_pixels is not None and too_large:
        scale = (max_pixels / (facts.width * facts.height)) ** 0.5
        image = image.resize((max(1, int(facts.width * scale)), max(1, int(facts.height * scale))))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=95)
    return _as_url("image/jpeg", written.getvalue())


def _as_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
