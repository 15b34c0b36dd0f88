"""Servers on this machine: a real MLflow server, and one between it and us that is slow, broken or silent when told to be."""

from __future__ import annotations

import base64
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

Behaviour = Literal["pass", "refuse", "refuse files", "hang"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class MlflowServer:
    """An `mlflow server` process with an sqlite store and artifacts in a folder; it can be killed and started again at its address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), "--host", "127.0.0.1", "--port", str(self.port)]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # no job queue beside it
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=environment)
        for _ in range(1800):
            assert self._process.poll() is None, f"the MLflow server ended with {self._process.returncode}"
            if self._healthy():
                return
            time.sleep(0.1)
        raise AssertionError("the MLflow server did not start")

    def kill(self) -> None:
        """Nobody listens at the address any more when this returns: its workers are other processes, and die in their own time."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for _ in range(600):
                with socket.socket() as trial:
                    if trial.connect_ex(("127.0.0.1", self.port)) != 0:
                        return
                time.sleep(0.1)
            raise AssertionError("a killed MLflow server still listens")

    def _healthy(self) -> bool:
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            asked.request("GET", "/health")
            return asked.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            asked.close()


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    """A started server, killed at the end."""
    server = MlflowServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Proxy:
    """Between a client and a server, at an address of its own.

    upstream   the server's address; None: there is none behind it
    seconds    how long each call waits before it is handed on
    behaviour  "pass" hands calls on, "refuse" answers 500 to all but /health, "refuse files" to artifacts alone, "hang" answers
               nothing; it may be changed at any time
    password   "user:password", without which a call is answered 401; None: nobody is asked for one
    calls      what was asked, such as ("GET", "/api/2.0/mlflow/runs/get?run_id=abc")
    """

    def __init__(self, upstream: str | None = None, *, seconds: float = 0.0, behaviour: Behaviour = "pass", password: str | None = None) -> None:
        self.upstream, self.seconds, self.behaviour = upstream, seconds, behaviour
        expected = None if password is None else "Basic " + base64.b64encode(password.encode()).decode()
        self.calls: list[tuple[str, str]] = []
        self.released = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, TimeoutError):  # the client or the server behind has gone
                    self.close_connection = True

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                proxy.calls.append((self.command, self.path))
                proxy.released.wait(proxy.seconds)
                if proxy.behaviour == "hang":
                    proxy.released.wait()
                    self.close_connection = True
                elif expected is not None and self.headers.get("Authorization") != expected:
                    self.reply(401, {"Content-Type": "text/plain"}, b"who are you?")
                elif proxy.behaviour == "refuse" or proxy.upstream is None or (proxy.behaviour == "refuse files" and "artifacts" in self.path):
                    self.reply(200 if self.path == "/health" else 500, {"Content-Type": "text/plain"}, b"no")
                else:
                    self.reply(*proxy.forwarded(self.command, self.path, body, dict(self.headers)))

            def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://{f'{password}@' if password else ''}127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def forwarded(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        assert self.upstream is not None
        dropped = ("host", "connection", "content-length", "accept-encoding", "authorization")
        kept = {name: value for name, value in headers.items() if name.lower() not in dropped}
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=60)
        try:
            connection.request(method, path, body, kept)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def proxy(upstream: str | None = None, *, seconds: float = 0.0, behaviour: Behaviour = "pass", password: str | None = None) -> Iterator[Proxy]:
    """A started `Proxy`, closed at the end: `with proxy(server.uri, seconds=0.2) as slow: train(slow.uri)`."""
    between = Proxy(upstream, seconds=seconds, behaviour=behaviour, password=password)
    try:
        yield between
    finally:
        between.close()
