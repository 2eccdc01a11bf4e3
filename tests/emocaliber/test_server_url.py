"""A server's address and key as a user gives them: what is taken, and what is refused."""

import pytest

from emocaliber.jsonl import RecordError
from emocaliber.server_url import is_server_url, read_key


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("https://api.example.org/openai/v1/", True),
        ("ftp://h/v1", False),
        ("h:8000/v1", False),
        ("http:///v1", False),
        ("https://me:pw@h/v1", False),
        ("https://:pw@h/v1", False),
        ("http://h:port/v1", False),
        ("https://h/v1?key=k", False),
        ("http://[::1/v1", False),
        ("http://a host/v1", False),
        ("http://h\n/v1", False),
        ("http://h/\udcff", False),
        ("", False),
    ],
)
def test_addresses(url: str, good: bool) -> None:
    assert is_server_url(url) is good


@pytest.mark.parametrize(
    ("written", "key"),
    [("", ""), (" sk-1/+=\r\n", "sk-1/+="), ("sk-A\nsk-B", None), ("sk-A sk-B", None), ("schlüssel", None)],
)
def test_a_key_is_one_word_that_a_header_can_hold(
    monkeypatch: pytest.MonkeyPatch, written: str, key: str | None
) -> None:
    monkeypatch.setenv("SOME_KEY", written)
    if key is not None:
        assert read_key("SOME_KEY") == key
        return
    with pytest.raises(
        RecordError, match=r"^the environment variable SOME_KEY holds no key[^\n]*$"
    ) as caught:
        read_key("SOME_KEY")
    assert "sk-" not in str(caught.value) and "schl" not in str(caught.value)


def test_no_variable_is_no_key() -> None:
    assert read_key("EMOCALIBER_NO_SUCH_VARIABLE") == ""
