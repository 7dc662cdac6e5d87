"""The words of loom as frozen records. Knows only the standard library; nothing here reads a file or runs a model.

Units are in the names: `*_bytes`, `seconds`; a length without a unit is in tokens of the evaluated model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from loom_core.contract.budget import Budget as Budget

Json: TypeAlias = Any
"""A value that `json` can write."""

SegmentKind: TypeAlias = Literal["system", "instruction", "context", "question", "prefill"]
Role: TypeAlias = Literal["system", "user", "assistant"]
Finish: TypeAlias = Literal["stop", "length", "error"]
Saves: TypeAlias = Literal["real", "simulated", "none"]
Protocol: TypeAlias = Literal["query-aware", "context-only"]
PROTOCOLS: tuple[Protocol, ...] = ("query-aware", "context-only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One named part of a prompt. `role` says whose turn it belongs to; consecutive equal roles form one message, but
    for one that stands `apart`."""

    kind: SegmentKind
    text: str
    role: Role = "user"
    apart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The parts of a prompt, in order. A completion prompt is their plain concatenation."""

    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The concatenated text of all segments."""
        return "".join(segment.text for segment in self.segments)

    @property
    def context(self) -> str:
        """The concatenated text of the `context` segments."""
        return "".join(segment.text for segment in self.segments if segment.kind == "context")

    @property
    def context_digest(self) -> str:
        """sha256 of everything up to and including the last context segment: what questions may share."""
        last = max((i for i, s in enumerate(self.segments) if s.kind == "context"), default=-1)
        digest = hashlib.sha256()
        for segment in self.segments[: last + 1]:
            digest.update(f"{segment.kind}\0{segment.role}\0{len(segment.text)}\0".encode())
            digest.update(segment.text.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Where an answer lies: characters `start` to `end` of the segment with index `segment`."""

    segment: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One question with its context and references; plain data, stable under repetition.

    level: the benchmark's own length level ("16k", "512 words"). length: measured tokens, filled in by the plan.
    depth: relative position of the evidence, 0 to 1. cluster: samples of one document (clustered errors, shared
    prefix). group: samples scored together."""

    id: str
    task: str
    prompt: Prompt
    references: tuple[Json, ...]
    negatives: tuple[str, ...] = ()
    level: str | None = None
    length: int | None = None
    depth: float | None = None
    evidence: tuple[Evidence, ...] = ()
    documents: tuple[str, ...] = ()
    cluster: str | None = None
    group: str | None = None
    meta: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How an answer is generated. Temperature 0 means greedy; `repeats` asks the same question again."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    repeats: int = 1
    min_tokens: int = 0  # so many before the end; an end of sequence or a stop string that is a token is none of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """What may be cut from a prompt that is too long, and where.

    scope "context": only context segments shrink, where the user allows it (`--overlength truncate`). "document": the
    same, but always, because the benchmark's authors cut documents that are too long. "prompt": the tokenised raw
    prompt is cut, always, as several authors do. side: the part that is removed. limit: tokens, read for "prompt" only;
    None = window - max_tokens. decoded "parts": each half is read alone; "whole": both as one, an odd token last."""

    scope: Literal["context", "document", "prompt"] = "context"
    side: Literal["middle", "left", "right"] = "middle"
    limit: int | None = None
    decoded: Literal["parts", "whole"] = "parts"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """A pinned upstream file: `github:owner/repo@commit:path` or `hf:dataset@revision:path[#member of an archive]`.

    folder: the folder of a mirror that holds it (`FOLDER/path`). What is not pinned is "" or None. git_blob: git's id
    of the content (hex). archive: the pin of a member's whole archive. places: other paths in a mirror's folder."""

    pin: str
    folder: str
    sha256: str = ""
    n_bytes: int | None = None
    licence: str = ""
    git_blob: str = ""
    archive: DataSource | None = None
    places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecord:
    """A record of an upstream file that cannot be used.

    place: "line 7" or "item 7". field: "" where the record as a whole is wrong."""

    pin: str
    place: str
    field: str
    why: str

    def __str__(self) -> str:
        field = f", field {self.field!r}" if self.field else ""
        return f"{self.pin}, {self.place}{field}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSpec:
    """The language model that must score a task: the prompt and parser versions, and how many agents."""

    name: str
    version: str
    agents: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The static description of one sub-task of a benchmark. `metrics[0]` is the primary metric.

    chance: the score of guessing, in the metric's own scale; None where it has no meaning.
    retrieval: False where retrieving parts of the context makes no sense (sorting, counting, summaries).
    grid: True where the samples are a fixed grid of sizes, asked as far as a model's window reaches: unless the user
    gives `--overlength`, those that do not fit are skipped and counted."""

    name: str
    version: str
    capability: str
    metrics: tuple[str, ...]
    generation: Generation
    language: str = "en"
    truncation: Truncation = Truncation()
    chat: Literal["template", "completion"] = "template"
    chance: float | None = None
    sources: tuple[DataSource, ...] = ()
    licence: str = ""
    judge: JudgeSpec | None = None
    retrieval: bool = True
    grid: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One augmentation of an arm, resolved: its name, behaviour version, kind and options (a frozen dataclass)."""

    name: str
    version: str
    kind: Literal["model", "prompt", "strategy"]
    options: Any
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """An augmentation stack, e.g. `bm25:k=5+snapkv:budget=1024`. The arm without parts is `dense`, the baseline."""

    name: str
    parts: tuple[Part, ...] = ()

    def of_kind(self, kind: str) -> tuple[Part, ...]:
        """The parts of one kind, in the order of the stack."""
        return tuple(part for part in self.parts if part.kind == kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One planned answer: a sample, an arm and a repeat. It may take several calls.

    group: digest of the context, equal for jobs that may share a prefix. length: the source prompt's tokens.
    """

    key: str
    sample: str
    task: str
    arm: str
    repeat: int
    group: str
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Token positions `start` to `end` of a rendered prompt that belong to one kind of segment."""

    kind: SegmentKind | Literal["template"]
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call to a model.

    key: content key of the call. group: digest of the context, equal for requests that may share a prefix.
    seed: derived from the job, so that no batch, worker or order changes what is drawn. n_dropped: tokens that
    truncation removed before the call. token_ids is None where the server renders the prompt itself. protocol: whether
    a method may see the question before it compresses; only servers that can are asked for context-only. marks: texts
    that stay in the answer's text even where they are special tokens, which decoding drops (marks of thinking).
    """

    key: str
    job: str
    step: int
    prompt: Prompt
    generation: Generation
    group: str
    seed: int
    chat: Literal["template", "completion"] = "completion"
    token_ids: tuple[int, ...] | None = None
    spans: tuple[Span, ...] = ()
    n_dropped: int = 0
    protocol: Protocol = "query-aware"
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds on the worker's monotonic clock; only differences have a meaning.

    started: when the request's batch began. batch: how many requests ran together (never compare times across
    batch sizes). forked: tokens of the prompt were read before, for all requests that share them; first_token is None
    where it is not known. shared_seconds: what reading the shared tokens took, once for all of them; it lies before
    `started` and is part of no request's time.
    """

    queued: float
    started: float
    first_token: float | None
    ended: float
    batch: int = 1
    forked: bool = False
    shared_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KVUse:
    """What the KV cache cost, measured from tensor storages.

    bytes_dense: what a dense cache of the same tokens takes. bytes_held: what is held. kept: share of the valid
    prompt tokens kept per KV head, after compression. asked: the budget as the user wrote it. notes: fall-backs
    taken, e.g. "dense: the prompt is shorter than the budget". The same three ways: tokens_held per KV head (mean over
    layers and heads), kept, bytes_held; and what the budget asked for this prompt: tokens_asked per KV head,
    kept_asked, bytes_asked, None where nothing was asked.
    """

    bytes_dense: int
    bytes_held: int
    kept: float
    saves: Saves
    asked: str = ""
    notes: tuple[str, ...] = ()
    tokens_held: float | None = None
    tokens_asked: float | None = None
    kept_asked: float | None = None
    bytes_asked: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What came back for one request. `error` is set exactly when `finish` is "error".

    notes: what a reader must know of this answer beyond its text (a limit the server ignored, an estimated count), as
    fixed phrases; a run reports each phrase once. n_reasoning: tokens of `reasoning`, which are part of n_out.
    """

    key: str
    text: str
    finish: Finish
    n_in: int
    n_out: int
    timing: Timing
    token_ids: tuple[int, ...] | None = None
    reasoning: str | None = None
    n_reasoning: int | None = None
    n_cached: int = 0
    n_dropped: int = 0
    cost: float | None = None
    kv: KVUse | None = None
    peak_bytes: int | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A prompt to be answered, with the limits of its answer: a job's first call, a follow-up, a strategy's step.

    augment: whether the arm's prompt augmentations rewrite it; a strategy may ask some calls on the whole context.
    notes: what the record of a judge's call says of how its prompt was made.
    """

    prompt: Prompt
    generation: Generation
    augment: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The result of one metric on one sample. value is None where it cannot be had (the detail says why)."""

    value: float | None
    extracted: Json = None
    detail: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A stored score: the job's key, the metric and its version, and the value."""

    key: str
    metric: str
    metric_version: str
    value: float | None
    detail: Mapping[str, Json] = field(default_factory=dict)
