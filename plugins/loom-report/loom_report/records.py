"""report.json as types: a misspelt field is found by the type checker. `build.SCHEMA` says what the keys mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from loom_core.contract.records import OverlengthRow, PartRow, ServerRow, SystemRow, TaskFacts


class DeltaRow(TypedDict):
    """The paired difference of an arm to the baseline."""

    value: float
    low: float | None
    high: float | None
    interval: str
    p: float | None
    test: str
    n_pairs: int
    n_better: int
    n_worse: int
    within_noise: Any
    p_holm: NotRequired[float | None]
    family: NotRequired[int]
    significant: NotRequired[bool]


class ScoreRow(TypedDict):
    """A metric's mean over the answers of a row. bounds: with all unscored answers wrong, and right."""

    metric: str
    version: str
    primary: bool
    score: float | None
    low: float | None
    high: float | None
    interval: str
    n: int
    n_clusters: int
    n_unscored: int
    flag: str
    noise: Any
    span: float
    bounds: Any
    delta: DeltaRow | None


class CostRow(TypedDict):
    """What the answers of a row cost: seconds, tokens, bytes."""

    seconds_to_first_token: float | None
    seconds_per_token: float | None
    seconds: float | None
    seconds_shared: float | None
    n_timed: int
    batch: Any
    forked: Any
    comparable: bool
    conditions: list[Any]
    peak_bytes: float | None
    kv: Any
    rewriting: Any
    n_calls: int
    calls: Any
    several_calls: Any
    tokens_in: Any
    tokens_out: Any
    tokens_cached: Any


class CellRow(TypedDict):
    """Scores and cost of an arm on a task, at a level or (level None) over all."""

    task: str
    level: str | None
    arm: str
    n_planned: int
    n_answered: int
    n_error: int
    n_missing: int
    n_skipped: int
    n_truncated: int
    tokens_dropped: int
    n_cut_short: int
    n_unfinished: int
    n_empty: int
    n_empty_reasoned: int
    tokens_thinking: int
    example_error: str | None
    length: float | None
    scores: list[ScoreRow]
    cost: CostRow
    evidence: Any


class ReportLevel(TypedDict):
    """A level of a task as it was asked."""

    level: str
    n: int
    tokens_min: int | None
    tokens_max: int | None


class ReportTask(TaskFacts):
    """A task of a report: as planned, and what its n can find."""

    levels: list[ReportLevel]
    primary: str | None
    binary: bool | None
    span: float
    detectable_loss: float | None
    n_pairs: int


class ReportArm(TypedDict):
    """An arm of a report with its labels."""

    name: str
    baseline: bool
    system: str | None
    parts: list[PartRow]
    saves: str
    measured_saves: list[str]
    query_aware: bool
    extends_context: bool
    method: str
    family: str


class StateRow(TypedDict):
    """Counts of answers and tokens over the whole run."""

    n_planned: int
    n_answered: int
    n_error: int
    n_missing: int
    n_skipped: int
    n_truncated: int
    n_cut_short: int
    n_unfinished: int
    n_empty: int
    n_empty_reasoned: int
    tokens_thinking: int
    tokens_dropped: int
    n_unscored: int
    n_not_scored_yet: int
    n_invalid_scores: int
    complete: bool


class BannerRow(TypedDict):
    """What a reader must know before any number; kind: error, warning or note."""

    kind: str
    text: str


class Report(TypedDict):
    """report.json."""

    schema: int
    name: str
    run: Mapping[str, Any]
    config_digest: str | None
    model: Mapping[str, Any]
    server: ServerRow
    systems: list[SystemRow]
    protocol: str
    overlength: OverlengthRow
    bos: list[Mapping[str, int]]
    baseline: str
    state: StateRow
    banners: list[BannerRow]
    arms: list[ReportArm]
    tasks: list[ReportTask]
    cells: list[CellRow]
    totals: list[CellRow]
    effective_lengths: list[Any]
    grids: list[Any]
    official: Mapping[str, Any]
    anytime: Mapping[str, Any] | None
    judge: Mapping[str, Any] | None
    unscored: Mapping[str, Any]
    notes: list[str]
    told: list[str]
    pareto: list[Any]
    retention: list[Any]
    capabilities: list[Any]
    refused_arms: list[Any]
