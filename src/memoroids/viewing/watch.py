"""A page that follows runs under way, served to this machine alone: `memoroids watch`."""

import json
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from memoroids.viewing.pages import page

ADDRESS = "127.0.0.1"
HERE = (ADDRESS, "localhost", "[::1]")
"""The names by which this machine may be asked; any other would be a page of somebody else that asks in a browser."""
INLINE = "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
NOTHING_ELSE = f"default-src 'none'; connect-src 'self'; {INLINE}"


class Server(ThreadingHTTPServer):
    """A server that says nothing of browsers which were closed before they had their answer."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints the error of a request, unless it is only that nobody waits for the answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def server(port: int, runs: Callable[[], list[dict[str, Any]]]) -> Server:
    """A server of the page, and of what `runs` returns as runs.json; port 0 is any free one.

    Raises `ValueError` if the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host", "").rsplit(":", 1)[0] not in HERE:
                self.send_error(HTTPStatus.FORBIDDEN, "only this machine may ask")
            elif self.path == "/":
                self._send("text/html", page("watch_page"))
            elif self.path == "/runs.json":
                self._send("application/json", json.dumps(runs(), allow_nan=False))
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def _send(self, kind: str, text: str) -> None:
            content = text.encode()
            self.send_response(HTTPStatus.OK)
            headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(content))}
            headers |= {"Cache-Control": "no-store", "Content-Security-Policy": NOTHING_ELSE}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass  # one request every two seconds is nothing to tell

    try:
        return Server((ADDRESS, port), Handler)
    except OSError as error:
        raise ValueError(
            f"port {port} cannot be used ({error.strerror}): --port chooses another, 0 a free one"
        ) from None
