"""Where a server is, and the key for it, as a user gives them: judged before anything is asked."""

import os
import re
from urllib.parse import urlsplit

from emocaliber.jsonl import RecordError


def is_server_url(url: str) -> bool:
    """Is this http(s)://HOST[:PORT]/PATH without a name, a password or a query, which would be a secret?"""
    if not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port  # read, so that one that is no number is met
    except ValueError:
        return False
    is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    return is_address and not ("@" in parts.netloc or parts.query)


def read_key(variable: str) -> str:
    """Read a server's key from an environment variable, white space around it aside; "" for none.

    Raises RecordError for what no header of a request can hold, such as two keys on two lines. The message is
    one line and does not repeat the value: the HTTP library's own would, in every failure that it tells.
    """
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch("[!-~]*", key):
        raise RecordError(
            f"the environment variable {variable} holds no key, which is printable ASCII without white space "
            "in it; export it again"
        )
    return key
