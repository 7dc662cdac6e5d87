"""Doubles: a server that answers by rule and a tokenizer of bytes. They stand in for models where none is needed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from loom_core.contract import keys
from loom_core.contract.errors import UsageError
from loom_core.contract.protocols import ModelCard
from loom_core.contract.types import Arm, Json, Request, Response, Sample, Timing
from loom_core.doubles.plugin import DoubleOptions, ToyModelOptions

BOS = 256
ECHOED_WORDS = 8


def toy_model() -> Path:
    """The toy model has no files; its name is its content."""
    return Path("toy")


class ToyTokenizer:
    """One token a byte of UTF-8, a BOS in front, and a plain chat template."""

    digest = keys.digest("toy bytes")
    template_digest = keys.digest("toy template")
    bos_id: int | None = BOS
    adds_bos = True

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The bytes of the text."""
        return [BOS] * special + list(text.encode("utf-8", "surrogatepass"))

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The bytes, each with the span of its character."""
        if text.isascii():
            return list(text.encode()), [(i, i + 1) for i in range(len(text))]
        spans = [(i, i + 1) for i, char in enumerate(text) for _ in char.encode("utf-8", "surrogatepass")]
        return list(text.encode("utf-8", "surrogatepass")), spans

    def decode(self, ids: Sequence[int]) -> str:
        """The text; bytes that are none become replacement characters."""
        return bytes(i for i in ids if i < BOS).decode("utf-8", "replace")

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """Messages one after the other, named by role."""
        return "".join(f"[{m['role']}]{m['content']}\n" for m in messages) + "[assistant]"


class WordTokenizer:
    """One token a word, with the space before it, or a single other character; ids are numbered as they come."""

    digest = keys.digest("toy words")
    template_digest = keys.digest("no template")
    bos_id: int | None = None
    adds_bos = False
    _parts = re.compile(r" ?\w+|.", re.DOTALL)

    def __init__(self) -> None:
        self._words: list[str] = []
        self._ids: dict[str, int] = {}

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """An id for each part, numbered as they come."""
        return self.offsets(text)[0]

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids and where each part is."""
        found = list(self._parts.finditer(text))
        for match in found:
            if match[0] not in self._ids:
                self._ids[match[0]] = len(self._words)
                self._words.append(match[0])
        return [self._ids[match[0]] for match in found], [match.span() for match in found]

    def decode(self, ids: Sequence[int]) -> str:
        """The parts in a row."""
        return "".join(self._words[i] for i in ids)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """No template."""
        return None


class DoubleServer:
    """Answers by rule. See `DoubleOptions`."""

    capabilities = frozenset({"token_ids"})

    def __init__(self, options: DoubleOptions) -> None:
        self._options = options

    def describe(self, model: str, options: ToyModelOptions) -> ModelCard:
        """The toy model's card."""
        return ModelCard(
            name=model,
            path=model,
            digest=keys.digest(model),
            window=options.window,
            tokenizer=ToyTokenizer(),
            facts={"architecture": "double"},
        )

    @contextmanager
    def open(self, model: str, options: ToyModelOptions) -> Iterator[DoubleSession]:
        """A session that runs no model."""
        yield DoubleSession(self._options, self.describe(model, options))


class DoubleSession:
    """Answers requests in order."""

    def __init__(self, options: DoubleOptions, card: ModelCard) -> None:
        self.card, self._options = card, options
        self._samples: dict[str, Sample] = {}
        self._answered = 0
        self._script = read_script(Path(options.script)) if options.script else []
        self._draw = random.Random(f"{os.getpid()}-{time.time_ns()}")

    def see_samples(self, samples: Mapping[str, Sample]) -> None:
        """The samples of the jobs to come: only a double may look at references."""
        self._samples = dict(samples)

    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Response]:
        """Answer each request by the rule."""
        for request in requests:
            queued = time.perf_counter()
            if self._options.seconds:
                time.sleep(self._options.seconds)
            if self._options.die_after is not None and self._answered >= self._options.die_after:
                os.kill(os.getpid(), signal.SIGKILL)
            self._answered += 1
            error = "the double was told to fail" if self._draw.random() < self._options.errors else None
            rule = next((rule for rule in self._script if rule.get("if", "") in request.prompt.text), {})
            error = error or rule.get("fail")
            text = "" if error else rule.get("say", "") if self._script else self._text(request)
            failed = error is not None
            now = time.perf_counter()
            yield Response(
                key=request.key,
                text=text,
                finish="error" if failed else "stop",
                n_in=len(request.token_ids or ()),
                n_out=len(text.split()),
                n_dropped=request.n_dropped,
                timing=Timing(queued=queued, started=queued, first_token=None if failed else now, ended=now),
                error=error,
            )

    def _text(self, request: Request) -> str:
        if self._options.answers == "null":
            return ""
        if self._options.answers == "echo":
            return " ".join(request.prompt.text[-200:].split()[-ECHOED_WORDS:])
        if request.job not in self._samples:
            return ""  # a judge is shown no references
        return oracle_text(self._samples[request.job], request.step)


def read_script(path: Path) -> list[dict[str, str]]:
    """What a scripted double says; see `DoubleOptions.script`. Raises UsageError where the file is none."""
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        if not all(isinstance(row, dict) and row.keys() <= {"if", "say", "fail"} for row in rows):
            raise ValueError("a line is not an object with if, say and fail")
    except (OSError, ValueError) as error:
        raise UsageError("the double's script cannot be read", where=str(path), why=str(error)) from error
    return rows


def oracle_text(sample: Sample, step: int = 0) -> str:
    """The answer that deserves the full score: `meta["oracle"]` where a benchmark says what that is (several references
    asked for at once), else the first reference, as text. `meta["oracle_turns"]` gives one text for each call of a job.
    """
    if turns := sample.meta.get("oracle_turns"):
        return str(turns[min(step, len(turns) - 1)])
    reference: Json = sample.meta.get("oracle") or (sample.references[0] if sample.references else "")
    return reference if isinstance(reference, str) else json.dumps(reference, ensure_ascii=False)
