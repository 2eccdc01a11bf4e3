from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from emocaliber.prompts import SYSTEM_PROMPT
from inference.backends.backend import Refusal
from inference.backends.prepare import PixelBudget, Preparer, Request, RowError, chat_messages, row_seed

IMAGE, VIDEO, WORD = 7, 8, 1
ITEM = {"type": "image"}


def encode(messages: list[dict[str, Any]]) -> list[int]:
    """One token for each image, one for each word; the words IMAGE and VIDEO are the special tokens."""
    ids = []
    for message in messages:
        content = message["content"]
        for item in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            words = item.get("text", "").split()
            special = {"IMAGE": IMAGE, "VIDEO": VIDEO}
            ids += [IMAGE] if item["type"] == "image" else [special.get(word, WORD) for word in words]
    return ids


def render(request: Request) -> str:
    if "w9" in request.id:
        raise RowError("request_refused", "not taken")
    return f"rendered {request.id}, {len(request.images)} images"


@pytest.fixture
def preparer(tmp_path: Path) -> Preparer:
    Image.new("RGB", (112, 112), "red").save(tmp_path / "a.png")
    Image.new("RGB", (56, 56), "red").save(tmp_path / "b.png")
    return Preparer(
        encode=encode,
        render=render,
        image_token_id=IMAGE,
        forbidden_token_ids=frozenset([VIDEO]),
        max_model_len=100,
        budget=PixelBudget(3136, 12544, 28),
        image_root=tmp_path,
        seed=5,
    )


def test_a_request_holds_what_decides_the_response(preparer: Preparer, make_row: Callable[..., Any]) -> None:
    request = preparer.prepare(make_row("r", "a.png", "one two three"))
    assert isinstance(request, Request)
    n_system_words = len(SYSTEM_PROMPT.split())
    assert request.prompt_token_ids == [WORD] * n_system_words + [IMAGE] + [WORD] * 3
    assert request.n_image_tokens == 16
    assert [image.size for image in request.images] == [(112, 112)]
    assert request.seed == row_seed(5, "r")


def test_a_prompt_may_fill_all_but_one_token(preparer: Preparer, make_row: Callable[..., Any]) -> None:
    n_words = 99 - 16 - len(SYSTEM_PROMPT.split())
    assert isinstance(preparer.prepare(make_row("r", "a.png", "w " * n_words)), Request)
    refusal = preparer.prepare(make_row("r", "a.png", "w " * (n_words + 1)))
    assert isinstance(refusal, Refusal)
    assert (refusal.id, refusal.type) == ("r", "prompt_too_long")
    assert refusal.message == (
        "100 tokens (16 of images) and an answer do not fit in 100; "
        "raise --max-model-len or lower --max-pixels"
    )


@pytest.mark.parametrize("word", ["IMAGE", "VIDEO"])
def test_text_cannot_stand_for_an_image(word: str, preparer: Preparer, make_row: Callable[..., Any]) -> None:
    refusal = preparer.prepare(make_row("r", "a.png", f"look at {word}"))
    assert isinstance(refusal, Refusal)
    assert refusal.type == "prompt_invalid"


def test_a_missing_image_is_a_refusal(preparer: Preparer, make_row: Callable[..., Any]) -> None:
    refusal = preparer.prepare(make_row("r", "gone.png"))
    assert isinstance(refusal, Refusal)
    assert refusal.type == "image_missing"


def test_several_images_count_together(preparer: Preparer, make_row: Callable[..., Any]) -> None:
    content = [ITEM, {"type": "text", "text": "or"}, ITEM, {"type": "text", "text": "?"}]
    row = make_row("r", "", conversations=[{"role": "user", "content": content}], images=["a.png", "b.png"])
    request = preparer.prepare(row)
    assert isinstance(request, Request)
    assert request.n_image_tokens == 16 + 4


def test_rows_come_in_order_and_no_more_are_read_than_asked_for(
    preparer: Preparer, make_row: Callable[..., Any]
) -> None:
    read = []

    def rows() -> Any:
        for number in range(50):
            read.append(number)
            yield make_row(str(number), "a.png")

    prepared = preparer.prepare_ahead(rows(), threads=3, ahead=6)
    first = [next(prepared) for _ in range(10)]
    assert [row.id for row in first] == [str(number) for number in range(10)]
    assert [row.rendered for row in first if isinstance(row, Request)] == [
        f"rendered {number}, 1 images" for number in range(10)
    ]
    assert not any(row.images for row in first if isinstance(row, Request))  # they would fill the memory
    assert len(read) == 16
    prepared.close()


def test_what_the_engine_refuses_is_a_refusal(preparer: Preparer, make_row: Callable[..., Any]) -> None:
    rows = [make_row(identity, "a.png") for identity in ("w8", "w9", "w10")]
    prepared = list(preparer.prepare_ahead(rows, threads=2, ahead=3))
    assert [type(row) for row in prepared] == [Request, Refusal, Request]
    assert prepared[1] == Refusal("w9", "request_refused", "not taken")


def messages(*contents: tuple[str, Any], **fields: Any) -> dict[str, Any]:
    conversation = [{"role": role, "content": content} for role, content in contents]
    return {"conversations": conversation, "image": "a.png", **fields}


def test_the_published_form_gets_a_system_message() -> None:
    content = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]
    assert chat_messages(messages(("user", content))) == [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": [ITEM, {"type": "text", "text": "What?"}]},
    ]


@pytest.mark.parametrize("content", ["<image>What?", "What?", [{"type": "text", "text": "What?"}]])
def test_a_row_whose_message_is_a_text_has_its_image_first(content: Any) -> None:
    rendered = chat_messages(messages(("system", "Be brief."), ("user", content), ("assistant", "awe")))
    assert rendered == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [ITEM, {"type": "text", "text": "What?"}]},
    ]


@pytest.mark.parametrize(
    "row",
    [
        messages(("user", [ITEM, ITEM, {"type": "text", "text": "?"}])),
        messages(("user", [{"type": "video"}, {"type": "text", "text": "?"}])),
        messages(("user", [{"type": "text", "text": 3}])),
        messages(("user", None)),
        messages(("assistant", "awe")),
    ],
)
def test_messages_that_cannot_be_asked(row: dict[str, Any]) -> None:
    with pytest.raises(RowError) as caught:
        chat_messages(row)
    assert caught.value.type == "prompt_invalid"


def test_seeds_depend_on_run_and_row_only() -> None:
    assert row_seed(0, "r1") == 1_361_313_819  # sha256 of "0:r1", the first 31 bits
    assert len({row_seed(run, f"r{row}") for run in range(3) for row in range(100)}) == 300
    assert row_seed(0, "\ud800") < 2**31
