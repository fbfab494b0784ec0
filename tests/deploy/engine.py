"""Where an engine would be: takes the build context that the real client sends, and builds nothing."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from deploy.recipe import compose


def send_context(tree: Path, to: Path) -> None:
    """What the compose binary sends to an engine when it builds this tree, unpacked: `.dockerignore` is its business,
    not ours."""
    with _engine() as (address, contexts):
        told = compose("--project-directory", str(tree), "build", "api", engine=address, DOCKER_BUILDKIT="0")
    assert len(contexts) == 1, told.stderr
    with tarfile.open(fileobj=io.BytesIO(contexts[0])) as archive:
        archive.extractall(to, filter="data")


@contextlib.contextmanager
def _engine() -> Generator[tuple[str, list[bytes]]]:
    contexts: list[bytes] = []

    class Engine(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(b"{}")

        def do_POST(self) -> None:
            contexts.append(b"".join(iter(self._chunk, b"")))
            self._answer(json.dumps({"aux": {"ID": "sha256:" + "0" * 64}}).encode())

        def _chunk(self) -> bytes:
            chunk = self.rfile.read(int(self.rfile.readline(), 16))
            self.rfile.readline()
            return chunk

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Api-Version", "1.44")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"tcp://127.0.0.1:{server.server_address[1]}", contexts
        server.shutdown()
        thread.join()
