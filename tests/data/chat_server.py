"""A loopback server that speaks the chat-completions protocol, with the faults that such servers have."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | int
"""What a request gets: a status, `late`, `not json`, `html`, `empty`, or else the text of an answer."""


class ChatServer(ThreadingHTTPServer):
    """Replies to every request with `reply(text of the question, how often it was asked before)`."""

    daemon_threads = True
    request_queue_size = 128  # with the default of 5 a busy machine resets connections

    def __init__(self, reply: Callable[[str, int], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply = reply
        self.lock = threading.Lock()
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.now = self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"][-1]["text"]
        with self.server.lock:
            before = self.server.asked.count(text)
            self.server.asked.append(text)
            self.server.bodies.append(body)
            self.server.now += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.now)
        try:
            self.send(self.server.reply(text, before), body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client has gone
        finally:
            with self.server.lock:
                self.server.now -= 1

    def send(self, reply: Reply, body: dict[str, Any]) -> None:
        status, kind = 200, "application/json"
        if reply == "late":
            time.sleep(1.5)
        if isinstance(reply, int):
            # Some servers repeat the key that they were given.
            status = reply
            content = json.dumps({"error": {"message": f"no: {self.headers['Authorization']}"}})
        elif reply in ("not json", "html"):
            content = "<html>" if reply == "html" else '{"choices": ['
            kind = "text/html" if reply == "html" else kind
        else:
            message = {"role": "assistant", "content": reply}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            completion = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
            completion |= {"choices": [] if reply == "empty" else choices}
            content = json.dumps(completion | {"usage": {"prompt_tokens": 100, "completion_tokens": 10}})
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("retry-after-ms", "5")
        self.send_header("Content-Length", str(len(content)))
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
        server.shutdown()
        server.server_close()
        thread.join()
