"""The authors' process as seen from loom: asked one question at a time, started again when it dies or hangs."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from loom_core.contract.errors import PluginError, UsageError
from loom_core.contract.types import Json

OPENING_SECONDS = 300.0
"""Patience with the authors' imports."""
TAIL = 2000
"""Characters of what the process printed last that an error shows."""


class Died(Exception):
    """The process ended or went silent; the text says how."""


class Authors:
    """The authors' functions of one checkout. Use as a context manager.

    python: the interpreter. seconds: patience with one answer. restarts: how often it had to be started again.
    """

    def __init__(self, parity: str, root: Path, *, python: str = sys.executable, seconds: float = 60.0) -> None:
        self._parity, self._root, self._python, self._seconds = parity, root, python, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._rest = b""
        self.functions: frozenset[str] = frozenset()
        self.restarts = 0

    def __enter__(self) -> Authors:
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def ask(self, function: str, payload: Json) -> dict[str, Any]:
        """{"value": …}, or {"raises": kind, "at": place} where their code raised, died or went silent."""
        if self._process is None:
            self._start()
        try:
            said = self._exchange({"function": function, "payload": payload}, self._seconds)
        except Died as error:
            self._stop()
            self.restarts += 1
            return {"raises": str(error), "at": ""}
        if "broken" in said:
            raise PluginError("the adapter breaks its contract", where=self._parity, why=said["broken"])
        return said

    def files(self) -> list[str]:
        """The files of the checkout that the process has imported, by path."""
        if self._process is None:
            self._start()
        try:
            return [str(name) for name in self._exchange({"loaded": True}, self._seconds)["files"]]
        except Died:
            self._stop()
            return []

    def _start(self) -> None:
        environment = dict(os.environ)
        if self._python == sys.executable:
            environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _stop
        self._rest = b""
        try:
            self._process = subprocess.Popen(
                [self._python, "-P", "-m", "loom_parity.child", self._parity, str(self._root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                cwd=self._root,
                env=environment,
                bufsize=0,
            )
        except OSError as error:
            why = error.strerror or str(error)
            raise UsageError("this Python cannot be started", where=f"--python {self._python}", why=why) from error
        try:
            said = self._line(OPENING_SECONDS)
        except Died as error:
            tail = self._tail()
            self._stop()
            raise PluginError(
                "the authors' process ended before it could be asked",
                where=self._parity,
                why=f"{error}: {tail}" if tail else str(error),
                hint="see what it printed; --python names another interpreter (loom must be installed there)",
            ) from None
        if "cannot" in said:
            self._stop()
            raise self._refused(said)
        self.functions = frozenset(said["functions"])

    def _refused(self, said: dict[str, Any]) -> PluginError:
        if said["cannot"] == "import":
            name = str(said["module"])
            top = name.partition(".")[0]
            return PluginError(
                "the authors' code cannot be imported",
                where=str(self._root),
                why=f"it needs the module {name}, which is not installed here",
                hint=f"pip install what brings {top} (see the authors' requirements), or name an interpreter that has "
                "it: --python PATH",
            )
        place = f" ({said['at']})" if said.get("at") else ""
        return PluginError(
            "the authors' code cannot be opened",
            where=str(self._root),
            why=f"{said['why']}{place}",
            hint="is this the checkout that the adapter was written for? loom info names the commit",
        )

    def _exchange(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write((json.dumps(question) + "\n").encode("ascii"))
        except BrokenPipeError:
            raise Died(self._how()) from None
        return self._line(seconds)

    def _line(self, seconds: float) -> dict[str, Any]:
        """The next record that the process writes; raises Died where it ends or takes longer than `seconds`."""
        assert self._process is not None and self._process.stdout is not None
        pieces, deadline = [self._rest], time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in pieces[-1]:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise Died(f"no answer in {seconds:g} s")
                piece = os.read(self._process.stdout.fileno(), 1 << 20)
                if not piece:
                    raise Died(self._how())
                pieces.append(piece)
        line, _, self._rest = b"".join(pieces).partition(b"\n")
        record: dict[str, Any] = json.loads(line)
        return record

    def _how(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        return f"died by signal {-code}" if code < 0 else f"exited with {code}"

    def _tail(self) -> str:
        assert self._errors is not None
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace").strip()[-TAIL:]

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None
