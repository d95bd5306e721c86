"""What W&B gets of an offline run that is synced: by a server on this machine that notes what is sent."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sailctl.runs.wandb_mirror import WandbMirror

FILLER = {f"metric_{i}": 0.123456789 for i in range(400)}
"""Columns enough that a few rows fill a block of the offline file (32 KiB), which is written when full."""


class Server(ThreadingHTTPServer):
    """As much of W&B's server as syncing asks for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.rows: list[dict[str, Any]] = []
        """The run's history, a row in each line of it."""
        self.ends: list[int] = []
        """Exit codes that the run was said to have ended with."""
        self.runs: list[dict[str, Any]] = []
        """What was said about the run itself."""

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that the client resets is no fault."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *values: object) -> None:
        """Nothing is printed."""

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        reply: dict[str, Any] = {}
        if self.path == "/graphql":
            reply = {"data": self.data(json.loads(body))}
        elif self.path.endswith("/file_stream"):
            self.note(json.loads(body))
        text = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names that the base class looks for

    def data(self, asked: dict[str, Any]) -> dict[str, Any]:
        values = asked.get("variables") or {}
        if asked.get("operationName") == "UpsertBucket":
            self.server.runs.append(values)
            project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "b", "name": values["name"], "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if asked.get("operationName") == "CreateRunFiles":
            place = f"http://127.0.0.1:{self.server.server_port}/upload"
            files = [{"name": name, "uploadUrl": f"{place}/{name}"} for name in values["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if asked.get("operationName") == "RunResumeStatus" and self.server.rows:
            last = self.server.rows[-1]
            bucket = {
                "id": "b", "name": values["name"], "config": "{}", "summaryMetrics": "{}", "logLineCount": 0,
                "historyLineCount": len(self.server.rows), "historyTail": json.dumps([json.dumps(last)]),
                "eventsLineCount": 0, "eventsTail": "[]", "tags": [], "wandbConfig": "{}",
            }  # fmt: skip
            return {"model": {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}, "bucket": bucket}}
        return {"model": None}

    def note(self, sent: dict[str, Any]) -> None:
        if (history := sent.get("files", {}).get("wandb-history.jsonl")) is not None:
            self.server.rows[history["offset"] :] = [json.loads(row) for row in history["content"]]
        if sent.get("complete"):
            self.server.ends.append(sent["exitcode"])


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def begin(folder: Path, rows: int) -> WandbMirror:
    """An offline run that has logged so many rows, of which the first ones lie in its file."""
    init = {
        "mode": "offline", "resume": "allow", "id": "abc", "project": "p", "dir": str(folder),
        "name": "sail-x-s0", "group": "task/sail/x", "config": {"seed": 0},
    }  # fmt: skip
    mirror = WandbMirror(init, folder, "env_steps")
    log(mirror, range(1, rows + 1))
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size > 32768 for file in folder.glob("wandb/offline-run-*/*.wandb")):
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.2)
    return mirror


def log(mirror: WandbMirror, iterations: range) -> None:
    for i in iterations:
        mirror.log({"iteration": i, "env_steps": 100 * i, "eval_return": 0.5 * i, **FILLER})


def end(mirror: WandbMirror) -> None:
    mirror.outcome(0, {"final_return": 1.5})
    mirror.close()


def syncing(server: Server, folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
        "WANDB_API_KEY": "0" * 40,
        "WANDB_ERROR_REPORTING": "false",
        "HOME": str(folder),
    }
    (run,) = folder.glob("wandb/offline-run-*")
    command = [sys.executable, "-P", "-m", "wandb", *words, str(run)]
    return subprocess.Popen(
        command, env=environment, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finished(process: subprocess.Popen[str]) -> str:
    """What it printed."""
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    return text


def iterations(server: Server) -> list[int]:
    return [row["iteration"] for row in server.rows]


def test_a_finished_run_is_synced_whole(server: Server, tmp_path: Path):
    end(begin(tmp_path, rows=6))
    finished(syncing(server, tmp_path, "sync"))
    assert iterations(server) == [1, 2, 3, 4, 5, 6]
    assert [row["env_steps"] for row in server.rows] == [100, 200, 300, 400, 500, 600]
    assert [row["eval_return"] for row in server.rows] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert server.ends == [0]
    told = {key: value for values in server.runs for key, value in values.items() if value is not None}
    assert (told["project"], told["name"]) == ("p", "abc")
    assert (told["displayName"], told["groupName"]) == ("sail-x-s0", "task/sail/x")


@pytest.mark.slow
def test_a_run_that_is_synced_live_is_followed_to_its_end(server: Server, tmp_path: Path):
    mirror = begin(tmp_path, rows=12)
    live = syncing(server, tmp_path, "beta", "sync", "--live", "--yes")
    deadline = time.monotonic() + 60
    while not server.rows:
        assert time.monotonic() < deadline, "nothing came while the run went on"
        time.sleep(0.2)
    assert server.ends == []
    log(mirror, range(13, 19))
    end(mirror)
    finished(live)
    assert iterations(server) == list(range(1, 19)), "every row, once"
    assert server.ends == [0]


@pytest.mark.slow
def test_a_running_run_that_is_synced_once_shows_as_failed_until_it_is_synced_again(
    server: Server, tmp_path: Path
):
    mirror = begin(tmp_path, rows=12)
    finished(syncing(server, tmp_path, "sync"))
    first = iterations(server)
    assert first == list(range(1, len(first) + 1))
    assert 0 < len(first) < 12, "what had been written"
    assert server.ends == [1]
    log(mirror, range(13, 19))
    end(mirror)
    finished(syncing(server, tmp_path, "sync", "--include-synced"))
    assert iterations(server) == list(range(1, 19))
    assert server.ends == [1, 0]
