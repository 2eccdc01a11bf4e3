"""A fault is named with its place; a file is whole or what it was; a torn last line is repaired."""

import gzip
import json
import math
import os
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emocaliber import jsonl
from emocaliber.records import JsonlAppender, RecordError, read_jsonl, write_jsonl_atomic, write_text_atomic

ROWS = [{"id": "1", "text": "Übermut\n😀"}, {"id": "2", "text": "\ud800"}, {"id": "3", "n": [1, None, 0.5]}]


def rows_of(path):
    return [row for _, row in read_jsonl(path)]


def test_lines_are_numbered_as_in_an_editor(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n   \n{"a": "\xc3\xa4"}')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (4, {"a": "ä"})]


def test_gzip_is_seen_by_content(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(gzip.compress(b'{"a": 1}\n'))
    assert list(read_jsonl(path)) == [(1, {"a": 1})]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pipe_is_read_from_its_first_byte(tmp_path, pack):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(pack(b'{"a": 1}\n{"a": 2}\n'),), daemon=True)
    writer.start()
    # What has been read from a pipe is gone: opening it twice waits for ever, or loses what was read.
    opened = []
    reader = threading.Thread(target=lambda: opened.extend(read_jsonl(pipe)), daemon=True)
    reader.start()
    reader.join(timeout=10)
    assert opened == [(1, {"a": 1}), (2, {"a": 2})]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_is_closed_after_reading(tmp_path, pack):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(pack(b'{"a": 1}\n{"a": 2}\n'))
    before = len(os.listdir("/dev/fd"))
    rows = read_jsonl(path)
    next(rows)
    assert len(os.listdir("/dev/fd")) == before + 1
    rows.close()
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("first", [b"", b"\n", b" \t\r\n"])
def test_a_line_of_a_byte_order_mark_only_is_blank(tmp_path, first):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + first + b'{"a": 1}\n' * bool(first))
    assert list(read_jsonl(path)) == [(2, {"a": 1})] * bool(first)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": ', "not JSON (Expecting value); write one JSON object a line"),
        (b"[1]", "a JSON list, not an object; write one JSON object a line"),
        (b"null", "a JSON NoneType, not an object; write one JSON object a line"),
        (b'{"a": NaN}', "not JSON (NaN is no JSON number); write one JSON object a line"),
        (b'{"a": -1e999}', "not JSON (-1e999 is no JSON number); write one JSON object a line"),
        (b'{"a": [1e400]}', "not JSON (1e400 is no JSON number); write one JSON object a line"),
        (b"[" * 200_000, "not JSON (RecursionError); write one JSON object a line"),
        (b'{"a": "\xff"}', "not UTF-8 text; save the file as UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    rows = read_jsonl(path)
    assert next(rows) == (1, {"a": 1})
    with pytest.raises(RecordError) as error:
        next(rows)
    assert str(error.value) == f"{path}:3: {message}"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    torn = tmp_path / "torn.gz"
    torn.write_bytes(gzip.compress(json.dumps({"a": os.urandom(1000).hex()}).encode())[:-50])
    garbled = tmp_path / "garbled.gz"
    garbled.write_bytes(gzip.compress(b'{"a": 1}\n' * 100)[:10] + b"\xff" * 50)
    for path, reason in [
        (tmp_path / "none.jsonl", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (torn, ""),
        (garbled, ""),
    ]:
        with pytest.raises(RecordError) as error:
            list(read_jsonl(path))
        assert str(error.value).startswith(f"{path}: cannot be read ({reason}")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_written_rows_are_read_back(tmp_path, name):
    path = tmp_path / "new folder" / name
    write_jsonl_atomic(path, ROWS)
    assert rows_of(path) == ROWS
    first = path.read_bytes()
    if name.endswith(".gz"):
        assert first[:2] == b"\x1f\x8b"
        assert first[4:8] == b"\0\0\0\0", "a time stamp would make every file differ"
    write_jsonl_atomic(path, iter(ROWS))
    assert path.read_bytes() == first
    assert os.listdir(path.parent) == [name]


def test_text_stays_readable(tmp_path):
    write_jsonl_atomic(tmp_path / "rows.jsonl", [{"text": "Übermut 😀"}])
    assert (tmp_path / "rows.jsonl").read_text(encoding="utf-8") == '{"text": "Übermut 😀"}\n'


def test_a_text_with_what_utf_8_cannot_hold_is_written_and_read_as_json(tmp_path):
    content = {"Übermut \udcff \\": ["\ud800"]}
    write_text_atomic(tmp_path / "a.json", json.dumps(content, ensure_ascii=False))
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == content and "Übermut \\udcff" in text


def failing_rows():
    yield {"id": "new"}
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("rows", "expected"), [(failing_rows(), KeyboardInterrupt), ([{"x": math.nan}], ValueError)]
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, rows, expected):
    path = tmp_path / "rows.jsonl"
    path.write_text("old")
    with pytest.raises(expected):
        write_jsonl_atomic(path, rows)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_the_new_file_takes_its_place_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "metric.log"
    path.write_text("old")
    moves = []

    def replace(source, target):
        # At this moment the old file is whole, and the new one is whole beside it.
        moves.append((source.parent, source.read_text(), target.read_text()))

    monkeypatch.setattr(jsonl.os, "replace", replace)
    write_text_atomic(path, "new ä")
    assert moves == [(tmp_path, "new ä", "old")]


def test_permissions_and_links_are_kept(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("x")
    write_text_atomic(tmp_path / "real", "old")
    assert (tmp_path / "real").stat().st_mode == plain.stat().st_mode
    (tmp_path / "link").symlink_to("real")
    write_text_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_appended_rows_are_there_before_close(tmp_path):
    path = tmp_path / "new folder" / "rows.jsonl"
    appender = JsonlAppender(path, fsync=True)
    for number, row in enumerate(ROWS, start=1):
        appender.write(row)
        assert rows_of(path) == ROWS[:number]
    appender.close()
    appender.close()
    with pytest.raises(ValueError, match="closed"):
        appender.write({})


def test_appending_goes_on_where_it_stopped(tmp_path):
    for row in ROWS:
        with JsonlAppender(tmp_path / "rows.jsonl") as appender:
            appender.write(row)
    assert rows_of(tmp_path / "rows.jsonl") == ROWS


def test_partial_writes_of_the_system_are_continued(tmp_path, monkeypatch):
    real_write = os.write
    monkeypatch.setattr(jsonl.os, "write", lambda file, data: real_write(file, bytes(data[:3])))
    with JsonlAppender(tmp_path / "rows.jsonl") as appender:
        appender.write(ROWS[0])
    assert rows_of(tmp_path / "rows.jsonl") == ROWS[:1]


@pytest.mark.parametrize(
    ("content", "repaired"),
    [
        (b"", b""),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"a": 2}', b'{"a": 1}\n{"a": 2}\n'),
        (b'{"a": 1}\n{"a": 2', b'{"a": 1}\n'),
        (b'{"a": 1}\n12', b'{"a": 1}\n'),
        (b'{"a": 1}\n\x00\x00\x00', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"a": "\xc3', b'{"a": 1}\n'),
        (b'{"a"', b""),
        (b'{"a": "' + b"x" * 200_000, b""),
        (b'{"a": 1}\n{"a": "' + b"x" * 200_000 + b'"}', b'{"a": 1}\n{"a": "' + b"x" * 200_000 + b'"}\n'),
    ],
)
def test_a_torn_last_line_is_repaired_on_opening(tmp_path, content, repaired):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    JsonlAppender(path).close()
    assert path.read_bytes() == repaired


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_killed_anywhere_no_whole_row_is_lost_and_every_line_is_json(tmp_path, data):
    path = tmp_path / "rows.jsonl"
    write_jsonl_atomic(path, ROWS)
    whole = path.read_bytes()
    length = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:length])
    with JsonlAppender(path) as appender:
        appender.write({"id": "next"})
    kept = rows_of(path)
    finished = whole[:length].count(b"\n")
    assert kept[-1] == {"id": "next"}
    # A row that lacks its line end only is kept too.
    assert kept[:-1] in (ROWS[:finished], ROWS[: finished + 1])
    assert all(json.loads(line) for line in path.read_bytes().splitlines())
