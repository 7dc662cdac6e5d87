"""A report served from its run folder on this machine: the page, and every question on demand.

No address names a file: a request chooses among three fixed answers, and questions by number. Knows HTTP.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loom_report.build import build
from loom_report.cells import metrics_of
from loom_report.ledger import Ledger
from loom_report.records import Report
from loom_report.render import html
from loom_report.render.samples import WHOLE, Asked, full_record, light_record, places_of, ranked_questions
from loom_report.render.text import visible

from loom_core.contract.errors import LoomError
from loom_core.contract.types import Json
from loom_core.run.store import RunFolder, Samples

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")


class Live:
    """A run folder as answers to a page; read again when its files have changed. Safe to ask from several threads."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._stamp: object = None
        self._report: Report
        self._ledger: Ledger
        self._samples: Samples
        self._places: list[tuple[Mapping[str, Any], str, list[Asked]]] = []
        self._read()

    def _read(self) -> None:
        """Read the folder where it has changed since. Raises RunError where it holds no plan."""
        folder = self._folder
        files = (folder.plan, folder.samples, folder.responses, *folder.path.glob("scores-*.jsonl"))
        stats = [path.stat() for path in files if path.exists()]
        stamp = [(found.st_mtime_ns, found.st_size) for found in stats]
        if stamp != self._stamp:
            self._report, self._ledger = build(self._folder)
            self._samples, self._stamp = self._folder.read_samples(), stamp
            self._places = [
                (task, level, ranked_questions(self._ledger, task["name"], level, metrics_of(self._ledger, task)[0]))
                for task, level in places_of(self._ledger)
            ]

    def page(self) -> str:
        """The report's page, without samples."""
        with self._lock:
            self._read()
            places = [{"task": task["name"], "level": level, "n": len(asked)} for task, level, asked in self._places]
            return "".join(html.page(self._report, (), places))

    def samples(self, task: str, level: str, words: str) -> Json:
        """Every question of a place whose question, references or answers hold the words; without any text."""
        with self._lock:
            found = []
            for planned, name, asked in self._places:
                if (planned["name"], name) == (task, level):
                    metric = metrics_of(self._ledger, planned)[0]
                    chosen = (one for one in asked if self._holds(one, words.lower()))
                    found += [light_record(self._ledger, one, metric) for one in chosen]
            return {"task": task, "level": level, "samples": found}

    def _holds(self, asked: Asked, words: str) -> bool:
        return not words or any(words in text.lower() for text in self._texts(asked))

    def _texts(self, asked: Asked) -> Iterator[str]:
        """What a search looks at: contexts are left out."""
        question, answers = asked
        yield visible(question.id)
        sample = self._samples.light(question.task, question.id)
        yield from (visible(segment.text) for segment in sample.prompt.segments)
        yield from (visible(str(reference)) for reference in sample.references)
        for _, answer in answers:
            for call in self._ledger.sources.of(answer.key) if self._ledger.sources else ():
                yield from (visible(str(call.get(name) or "")) for name in ("text", "answer", "error"))

    def sample(self, number: int) -> Json | None:
        """A whole question with all its answers; None where there is none of that number."""
        with self._lock:
            for task, _, places in self._places:
                for asked in places:
                    if asked[0].number == number:
                        metrics = metrics_of(self._ledger, task)
                        return full_record(self._ledger, self._samples, *asked, metrics, WHOLE)
        return None


class Server(ThreadingHTTPServer):
    """Serves one run on this machine alone. port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, live: Live, port: int = 0) -> None:
        self.live = live
        super().__init__((HOST, port), Handler)

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{HOST}:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    """Three answers to GET: the page, a list of questions, a question."""

    server: Server

    def do_GET(self) -> None:
        """Answer, or say why not."""
        host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host")
        if host not in NAMES:  # another site's name may lead here (DNS rebinding); it gets nothing
            self._send(403, "text/plain", "this server answers to its own address only")
            return
        asked = urlsplit(self.path)
        given = {name: values[-1] for name, values in parse_qs(asked.query, keep_blank_values=True).items()}
        try:
            self._answer(asked.path, given)
        except LoomError as error:
            self._send(500, "text/plain", str(error))

    def _answer(self, path: str, given: Mapping[str, str]) -> None:
        live = self.server.live
        if path == "/":
            self._send(200, "text/html", live.page())
        elif path == "/samples.json":
            self._json(live.samples(given.get("task", ""), given.get("level", ""), given.get("q", "")))
        elif path == "/sample.json" and given.get("number", "").isascii() and given.get("number", "").isdigit():
            self._json(live.sample(int(given["number"][:18])))
        else:
            self._send(404, "text/plain", "nothing is here")

    def _json(self, value: Any) -> None:
        if value is None:
            self._send(404, "text/plain", "there is no such question")
        else:
            self._send(200, "application/json", json.dumps(value, ensure_ascii=True, allow_nan=False))

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing of each request."""
