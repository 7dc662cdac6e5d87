"""What plugins register: small frozen records that import nothing heavy. The factory string is imported on use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from loom_core.contract.options import NoOptions
from loom_core.contract.types import Saves


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSpec:
    """A benchmark. factory: "package.module:Class" of a `Benchmark`, called with the options.

    version: changes when any sample, prompt or score changes. generated: samples are made for any `--lengths`.
    tasks: the names of all tasks it can have (options may choose among them). parity: "package.module:Class" of its
    `parity.Parity`, which compares it with the authors' own program. answers: "package.module:function" of a
    `contracts.AnswerReader`, which reads answers in the authors' own layouts. published: "package.module:function" from
    a `parity.ParityContext` to `reproduced.Cell`s: the authors' printed figures beside loom's from their raw outputs.
    """

    name: str
    version: str
    summary: str
    factory: str
    tasks: tuple[str, ...]
    options: type = NoOptions
    capability: str = ""
    generated: bool = False
    licence: str = ""
    parity: str = ""
    answers: str = ""
    published: str = ""
    status: str = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """A way to run models. capabilities: "local_model", "token_ids", "prefix_cache", "stream", "device", …;
    "references": it is shown the reference answers, as only a test double may be, and reports say so.

    oracle: "package.module:function" that checks methods against recorded results, where the server has one. kit: the
    same for any installed method: from a found `AugmentationSpec` to `testing.conformance.Row`s, one a rule.
    """

    name: str
    version: str
    summary: str
    factory: str
    capabilities: frozenset[str]
    options: type = NoOptions
    model_options: type = NoOptions
    oracle: str = ""
    kit: str = ""
    status: str = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationSpec:
    """A change of how a request is answered: a model, prompt or strategy augmentation.

    requires: server capabilities. saves: whether memory is really freed. query_aware: the question steers what is
    kept. phase: when it acts. extends_context: works beyond the trained length. shares_prefix: questions on one
    context may continue one prefix. retrieval: it answers from parts of the context that it looks up, so that tasks
    with `Task.retrieval=False` make no sense with it. stands_on: the option that names the retriever which is put
    before it where the arm has none. source: paper, formula, and repository path of the definition.
    oracle: "package.module:function", which maps an oracle row to options (`loom check --oracle`).
    """

    name: str
    version: str
    summary: str
    factory: str
    kind: Literal["model", "prompt", "strategy"]
    options: type = NoOptions
    requires: frozenset[str] = frozenset()
    saves: Saves = "none"
    query_aware: bool = False
    phase: Literal["prefill", "decode", "both", "prompt"] = "prefill"
    extends_context: bool = False
    shares_prefix: bool = False
    retrieval: bool = False
    stands_on: str = ""
    source: str = ""
    oracle: str = ""
    status: str = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """A metric. low, high: its range. factory: "package.module:Class" of a `Metric` or `JudgedMetric`.

    With options, the factory takes them as its one argument, which must have a default (`--metric-option`).
    """

    name: str
    version: str
    summary: str
    factory: str
    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool = True
    options: type = NoOptions
    status: str = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model that is installed as a package. factory: "package.module:function", which returns its folder."""

    name: str
    version: str
    summary: str
    factory: str
    server: str
    status: str = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSpec:
    """A named selection. factory: "package.module:function", which returns the path of its TOML file."""

    name: str
    version: str
    summary: str
    factory: str
    status: str = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSpec:
    """A further report format. factory: "package.module:function" from report.json's dict to text."""

    name: str
    version: str
    summary: str
    factory: str
    status: str = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReportSpec:
    """What is written after every run and shown for it. factory: "package.module:Class" of a `protocols.RunReport`,
    called without arguments. Core's own, `plain`, gives way to any other that is installed.
    """

    name: str
    version: str
    summary: str
    factory: str
    status: str = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSourceSpec:
    """A rule by which a run's jobs are asked. serves: settings of a run (`RunConfig`) of which one must be given for
    the rule to be taken. factory: "package.module:Class" of a `run.job_source.JobSource`, called with the run folder,
    the selection and a function that takes notes.
    """

    name: str
    version: str
    summary: str
    factory: str
    serves: tuple[str, ...]
    status: str = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSpec:
    """Where jobs are answered. factory: "package.module:Class" of a `run.executors.Executor`, which takes nothing."""

    name: str
    version: str
    summary: str
    factory: str
    status: str = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """A command of `loom`. factory: "package.module:command" of a click command, imported when it is called. summary:
    its line in `loom --help`.
    """

    name: str
    summary: str
    factory: str


Spec: TypeAlias = (
    BenchmarkSpec
    | ServerSpec
    | AugmentationSpec
    | MetricSpec
    | ModelSpec
    | SuiteSpec
    | ReportSpec
    | RunReportSpec
    | JobSourceSpec
    | ExecutorSpec
)
