"""The records of a run folder as types: the type checker finds a misspelt field. docs/run-folder.md explains them.

Only types; what is read of a folder is checked by `run.runfiles` when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict


class MetricRow(TypedDict):
    """A metric of a planned task; low and high are None where it has no bounds."""

    name: str
    version: str
    low: float | None
    high: float | None
    higher_is_better: bool


class LevelRow(TypedDict):
    """A length level of a task, in tokens of the model."""

    level: str
    n: int
    n_over: int
    n_skipped: int
    tokens_min: int | None
    tokens_max: int | None


class TaskFacts(TypedDict):
    """What plan.json and report.json both say of a task. unavailable: why it is not asked; refused: the error that
    refused it.
    """

    name: str
    benchmark: str
    benchmark_version: str
    distribution: str
    options: Mapping[str, Any]
    version: str
    capability: str
    language: str
    metrics: list[MetricRow]
    chance: float | None
    judge: Any
    chat: str
    generation: Mapping[str, Any]
    truncation: Mapping[str, Any]
    licence: str
    own_prompt: bool
    unavailable: str | None
    refused: Any
    extract: bool
    n_samples: int
    n_bad_records: int
    scored_version: NotRequired[str]


class TaskRow(TaskFacts):
    """A planned task."""

    levels: list[LevelRow]


class PartRow(TypedDict):
    """One method of an arm."""

    name: str
    version: str
    kind: str
    options: Mapping[str, Any]
    text: str
    extends_context: bool
    retrieval: bool
    saves: str
    query_aware: bool
    phase: str


class ArmRow(TypedDict):
    """An arm; system: of a study, whose it is."""

    name: str
    parts: list[PartRow]
    system: NotRequired[str]


class ModelRow(TypedDict):
    """The evaluated model as its server described it."""

    name: str
    path: str
    digest: str
    window: int | None
    kv_bytes_per_token: int | None
    tokenizer: str | None
    template: str | None
    facts: Mapping[str, Any]


class ServerRow(TypedDict):
    """The server that runs the model."""

    name: str
    version: str
    distribution: str
    options: Mapping[str, Any]
    model_options: Mapping[str, Any]
    sees_references: NotRequired[bool]


class SystemRow(TypedDict):
    """A system of a study."""

    name: str
    model: str
    server: str


class OverlengthRow(TypedDict):
    """Prompts that are longer than the window, and what became of them."""

    policy: str
    n_over: int
    n_refused: int
    longest: int
    example: str
    estimated: bool


class Plan(TypedDict):
    """plan.json."""

    config: Mapping[str, Any]
    config_digest: str
    model: ModelRow
    server: ServerRow
    protocol: str
    tasks: list[TaskRow]
    arms: list[ArmRow]
    overlength: OverlengthRow
    bos: list[Mapping[str, int]]
    n_jobs: int
    n_samples: int
    sizes: Mapping[str, Any]
    longest_kv_bytes: int | None
    told: list[str]
    notes: list[str]
    systems: NotRequired[list[SystemRow]]
    refused_arms: NotRequired[Any]


class Manifest(TypedDict):
    """manifest.json."""

    loom: str
    created: str
    command: list[str]
    config: Mapping[str, Any]
    config_digest: str
    seed: int
    versions: Mapping[str, str]
    git: Mapping[str, Any] | None
    hardware: Mapping[str, Any]
    data: list[Any]
    workers: list[Any]
    events: list[str]
    trust_remote_code: bool
    seal: NotRequired[str | None]
    anytime: NotRequired[Mapping[str, Any]]
    environments: NotRequired[list[Any]]
    systems: NotRequired[Mapping[str, Any]]
    refused_arms: NotRequired[Any]


class TimingRow(TypedDict):
    """Moments of a call, in seconds of one clock; first_token is None where the server does not tell."""

    queued: float
    started: float
    first_token: float | None
    ended: float
    batch: NotRequired[int]
    forked: NotRequired[bool]
    shared_seconds: NotRequired[float]


class KVRow(TypedDict):
    """The KV cache of a call; kept and saves as in `types.KVUse`."""

    bytes_dense: int | None
    bytes_held: int | None
    kept: float
    saves: str
    asked: str
    notes: list[str]
    tokens_held: NotRequired[float | None]
    tokens_asked: NotRequired[float | None]
    kept_asked: NotRequired[float | None]
    bytes_asked: NotRequired[int | None]


class ResponseRecord(TypedDict):
    """A line of responses.jsonl: one call to the model."""

    job: str
    step: int
    turn: int | None
    last: bool
    sample: str
    task: str
    arm: str
    repeat: int
    protocol: str
    prompt_digest: str | None
    bos: Any
    cut: list[Any]
    answer: str | None
    prepared_seconds: float
    rewriting: Mapping[str, Any] | None
    rewriting_cost: Mapping[str, Any] | None
    evidence: Mapping[str, Any] | None
    key: str
    text: str
    finish: str
    n_in: int
    n_out: int
    timing: TimingRow
    token_ids: list[int] | None
    reasoning: str | None
    n_reasoning: int | None
    n_cached: int
    n_dropped: int
    cost: float | None
    kv: KVRow | None
    peak_bytes: int | None
    error: str | None
    notes: list[str]
    given: NotRequired[bool]


class ScoreRecord(TypedDict):
    """A line of a scores file."""

    key: str
    metric: str
    metric_version: str
    value: float | None
    detail: Mapping[str, Any]
