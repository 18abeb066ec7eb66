"""HTTP for those who watch a node: /metrics, /stats, /health.

Owns the pages, on the standard library's server, in threads of its own. It is imported when the
first visitor connects: what it needs takes a tenth of the broker's memory. Only tells: no request
changes anything. Must not touch the node but by the two calls it is given.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ottla.console import exposition

_IDLE_S = 10.0
_REQUESTS_MAX = 8
_INDEX = "ottla: /metrics for Prometheus, /stats as JSON, /health\n"


def serve(
    listening: socket.socket,
    report: Callable[[], Mapping[str, Any]],
    alive: Callable[[], None],
    on_start: Callable[[Callable[[], None]], None],
) -> None:
    """Answer visitors of `listening` until what `on_start` is given is called, from elsewhere.

    `report` and `alive` raise TimeoutError or RuntimeError where the node does not answer.
    """
    room = threading.BoundedSemaphore(_REQUESTS_MAX)

    class Handler(BaseHTTPRequestHandler):
        timeout = _IDLE_S
        server_version = "ottla"
        sys_version = ""

        def do_GET(self) -> None:
            if not room.acquire(blocking=False):
                self.send_error(503, "too many ask at once")
                return
            try:
                _answer(self, report, alive)
            finally:
                room.release()

        def log_message(self, *_: Any) -> None:
            """Who looks is not written down."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A visitor who hangs up is no event."""

    server = Server(listening.getsockname()[:2], Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    on_start(server.shutdown)
    server.serve_forever(poll_interval=0.2)


def _answer(
    request: BaseHTTPRequestHandler,
    report: Callable[[], Mapping[str, Any]],
    alive: Callable[[], None],
) -> None:
    path = request.path.partition("?")[0]
    try:
        if path == "/metrics":
            body, kind = exposition.text(report()), exposition.CONTENT_TYPE
        elif path == "/stats":
            body, kind = json.dumps(report()) + "\n", "application/json"
        elif path == "/health":
            alive()
            body, kind = "ok\n", "text/plain"
        elif path == "/":
            body, kind = _INDEX, "text/plain"
        else:
            request.send_error(404, "there are /metrics, /stats and /health")
            return
    except (TimeoutError, RuntimeError):
        request.send_error(503, "the broker's loop does not answer")
        return
    data = body.encode()
    request.send_response(200)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)
