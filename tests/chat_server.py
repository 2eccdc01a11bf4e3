"""A loopback server that speaks the chat-completions protocol, with the faults that such servers have."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Status:
    """A status of HTTP with its headers. Like some servers, it repeats the key that it was given."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)


Reply = str | int | Status
"""What a request gets: a status (an int asks for a retry in 5 ms), or the text of an answer, or one of

`late` (answers after 1.5 s), `never`, `nothing` (closes without a byte), `half` (closes within the body),
`slowly` (a byte at a time, for 30 s), `not json`, `html`, `empty` (no choices).
"""


class ChatServer(ThreadingHTTPServer):
    """Replies to every question with `reply(its text, how often it was asked before)`.

    `models` is what it lists: names, or the status that it gives. `prompt_tokens` is what it counts.
    """

    daemon_threads = True
    request_queue_size = 128  # with the default of 5 a busy machine resets connections

    def __init__(self, reply: Callable[[str, int], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply = reply
        self.models: list[str] | int = ["m"]
        self.prompt_tokens: int | None = 100
        self.knows_n = True
        self.lock = threading.Lock()
        self.ends = threading.Event()
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.gets: list[str] = []
        self.keys: list[str] = []
        self.now = self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are used again
    disable_nagle_algorithm = True
    server: ChatServer

    def do_GET(self) -> None:
        self.server.gets.append(self.path)
        models = self.server.models
        if isinstance(models, int):
            self.send_status(Status(models, {"retry-after-ms": "5"}))
        else:
            self.send_content(200, json.dumps({"object": "list", "data": [{"id": name} for name in models]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[-1].get("text", "")
        with self.server.lock:
            before = self.server.asked.count(text)
            self.server.asked.append(text)
            self.server.bodies.append(body)
            self.server.keys.append(self.headers["Authorization"])
            self.server.now += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.now)
        try:
            self.send(self.server.reply(text, before), body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has gone
        finally:
            with self.server.lock:
                self.server.now -= 1

    def send(self, reply: Reply, body: dict[str, Any]) -> None:
        if isinstance(reply, int | Status):
            self.send_status(reply if isinstance(reply, Status) else Status(reply, {"retry-after-ms": "5"}))
        elif reply == "never":
            self.server.ends.wait(60)
            self.close_connection = True
        elif reply == "nothing":
            self.close_connection = True
        elif reply == "html":
            self.send_content(200, "<html>", "text/html")
        elif reply == "not json":
            self.send_content(200, '{"choices": [')
        elif reply in ("half", "slowly"):
            content = self.completion("yes", body)
            self.send_content(200, content[: len(content) // 2], length=len(content))
            for _ in range(60 if reply == "slowly" else 0):
                self.wfile.write(b" ")
                self.server.ends.wait(0.5)
            self.close_connection = True
        else:
            if reply == "late":
                time.sleep(1.5)
            self.send_content(200, self.completion(reply, body))

    def completion(self, text: str, body: dict[str, Any]) -> str:
        message = {"role": "assistant", "content": text}
        numbers = range(body.get("n", 1) if self.server.knows_n else 1)
        choices = [{"index": number, "message": message, "finish_reason": "stop"} for number in numbers]
        completion = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
        usage = {"prompt_tokens": self.server.prompt_tokens, "completion_tokens": 10}
        return json.dumps(completion | {"choices": [] if text == "empty" else choices, "usage": usage})

    def send_status(self, status: Status) -> None:
        said = json.dumps({"error": {"message": f"no: {self.headers['Authorization']}"}})
        self.send_content(status.code, said, more=status.headers)

    def send_content(
        self,
        status: int,
        content: str,
        kind: str = "application/json",
        length: int | None = None,
        more: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content.encode()) if length is None else length))
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def chat_server(reply: Callable[[str, int], Reply]) -> Iterator[ChatServer]:
    """Serve until the block ends."""
    server = ChatServer(reply)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ends.set()
        server.shutdown()
        server.server_close()
        thread.join()
