"""loom's public interface: the one import of plugins. Everything else of `loom_core` may change without notice.

`from loom_core.api import BenchmarkSpec, hookimpl, …`; server authors also `loom_core.api.serving`, benchmark authors
`loom_core.api.records` and `loom_core.api.templates`. Names are imported on first use, so that registering a
plugin stays light. A name that is here stays for the whole of API {API}; docs/plugins.md says how one goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom_core.contract.lazy import lazily as lazily

API = "1"
"""The version of this interface; `loom-core` has it as its major version."""

if TYPE_CHECKING:
    from loom_core.contract.budget import Budget as Budget
    from loom_core.contract.errors import (
        DataError as DataError,
        LoomError as LoomError,
        ModelError as ModelError,
        PluginError as PluginError,
        RunError as RunError,
        UsageError as UsageError,
        nearest as nearest,
    )
    from loom_core.contract.evidence import Kept as Kept, Rewritten as Rewritten
    from loom_core.contract.hookspecs import hookimpl as hookimpl
    from loom_core.contract.keys import canonical as canonical, digest as digest, seed_of as seed_of
    from loom_core.contract.lazy import lazily as lazily
    from loom_core.contract.options import (
        NoOptions as NoOptions,
        build as build,
        number as number,
        option as option,
        table as table,
    )
    from loom_core.contract.prompt import (
        context_indices as context_indices,
        from_parts as from_parts,
        segment as segment,
        with_texts as with_texts,
    )
    from loom_core.contract.protocols import (
        MOST_CALLS as MOST_CALLS,
        AnswerReader as AnswerReader,
        Benchmark as Benchmark,
        BenchmarkBase as BenchmarkBase,
        Data as Data,
        GivenAnswer as GivenAnswer,
        Graded as Graded,
        JudgedMetric as JudgedMetric,
        Judging as Judging,
        Line as Line,
        Metric as Metric,
        ModelCard as ModelCard,
        PromptAugmentation as PromptAugmentation,
        Rendered as Rendered,
        Responses as Responses,
        SeesReferences as SeesReferences,
        Server as Server,
        Session as Session,
        Strategy as Strategy,
        Tokenizer as Tokenizer,
        lead_ids as lead_ids,
    )
    from loom_core.contract.records import (
        Manifest as Manifest,
        Plan as Plan,
        ResponseRecord as ResponseRecord,
        ScoreRecord as ScoreRecord,
    )
    from loom_core.contract.specs import (
        AugmentationSpec as AugmentationSpec,
        BenchmarkSpec as BenchmarkSpec,
        CommandSpec as CommandSpec,
        ExecutorSpec as ExecutorSpec,
        JobSourceSpec as JobSourceSpec,
        MetricSpec as MetricSpec,
        ModelSpec as ModelSpec,
        ReportSpec as ReportSpec,
        RunReportSpec as RunReportSpec,
        ServerSpec as ServerSpec,
        Spec as Spec,
        SuiteSpec as SuiteSpec,
    )
    from loom_core.contract.tomlfile import read_toml as read_toml
    from loom_core.contract.types import (
        PROTOCOLS as PROTOCOLS,
        Arm as Arm,
        BadRecord as BadRecord,
        DataSource as DataSource,
        Evidence as Evidence,
        Finish as Finish,
        Generation as Generation,
        Job as Job,
        Json as Json,
        JudgeSpec as JudgeSpec,
        KVUse as KVUse,
        Part as Part,
        Prompt as Prompt,
        Protocol as Protocol,
        Request as Request,
        Response as Response,
        Role as Role,
        Sample as Sample,
        Saves as Saves,
        Score as Score,
        Scored as Scored,
        Segment as Segment,
        SegmentKind as SegmentKind,
        Span as Span,
        Task as Task,
        Timing as Timing,
        Truncation as Truncation,
        Turn as Turn,
    )
    from loom_core.data.access import DataDir as DataDir, Unavailable as Unavailable, read_pins as read_pins
    from loom_core.data.pins import Pinned as Pinned
    from loom_core.python import plan as plan, run as run
    from loom_core.registry.names import is_description as is_description, parse_arms as parse_arms
    from loom_core.registry.plugins import (
        Catalog as Catalog,
        Found as Found,
        installed as installed,
        resolve as resolve,
    )
    from loom_core.run.executors import Executor as Executor, Worker as Worker
    from loom_core.run.opened import Answer as Answer, Mean as Mean, Run as Run, open_run as open_run
    from loom_core.run.reporting import RunReport as RunReport
    from loom_core.score.defusing import Defused as Defused, defused as defused
    from loom_core.score.gold import gold_scored as gold_scored
    from loom_core.score.tables import (
        by_task as by_task,
        macro_line as macro_line,
        mean_line as mean_line,
        pass_at_k_line as pass_at_k_line,
        rows_of as rows_of,
    )

_HOMES = {
    "loom_core.contract.budget": "Budget",
    "loom_core.contract.errors": "DataError LoomError ModelError PluginError RunError UsageError nearest",
    "loom_core.contract.evidence": "Kept Rewritten",
    "loom_core.contract.hookspecs": "hookimpl",
    "loom_core.contract.keys": "canonical digest seed_of",
    "loom_core.contract.lazy": "lazily",
    "loom_core.contract.options": "NoOptions build number option table",
    "loom_core.contract.prompt": "context_indices from_parts segment with_texts",
    "loom_core.contract.protocols": (
        "AnswerReader Benchmark BenchmarkBase Data GivenAnswer Graded JudgedMetric Judging lead_ids Line "
        "Metric ModelCard MOST_CALLS PromptAugmentation Rendered Responses SeesReferences Server Session "
        "Strategy Tokenizer"
    ),
    "loom_core.contract.records": "Manifest Plan ResponseRecord ScoreRecord",
    "loom_core.contract.specs": (
        "AugmentationSpec BenchmarkSpec CommandSpec ExecutorSpec JobSourceSpec MetricSpec ModelSpec "
        "ReportSpec RunReportSpec ServerSpec Spec SuiteSpec"
    ),
    "loom_core.contract.tomlfile": "read_toml",
    "loom_core.contract.types": (
        "Arm BadRecord DataSource Evidence Finish Generation Job Json JudgeSpec KVUse Part Prompt "
        "Protocol PROTOCOLS Request Response Role Sample Saves Score Scored Segment SegmentKind Span Task "
        "Timing Truncation Turn"
    ),
    "loom_core.data.access": "DataDir Unavailable read_pins",
    "loom_core.data.pins": "Pinned",
    "loom_core.registry.names": "is_description parse_arms",
    "loom_core.registry.plugins": "Catalog Found installed resolve",
    "loom_core.run.reporting": "RunReport",
    "loom_core.python": "plan run",
    "loom_core.run.executors": "Executor Worker",
    "loom_core.run.opened": "Answer Mean Run open_run",
    "loom_core.score.defusing": "Defused defused",
    "loom_core.score.gold": "gold_scored",
    "loom_core.score.tables": "by_task macro_line mean_line pass_at_k_line rows_of",
}
"""Where names live, by module. A test holds it equal to the imports above, which type checkers read."""

__getattr__, __dir__, __all__ = lazily(__name__, _HOMES)
