"""The protocols that factories fulfil: benchmark, metric, server, session, augmentation, strategy, tokenizer.

Types only; the records they exchange are in `types`, what plugins register in `specs`. Optional methods have
their default on the base classes `BenchmarkBase` and `MetricBase`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from loom_core.contract.evidence import Rewritten
from loom_core.contract.types import (
    Arm,
    BadRecord,
    DataSource,
    Json,
    Prompt,
    Request,
    Response,
    Sample,
    Scored,
    Span,
    Task,
    Turn,
)

MOST_CALLS = 64
"""Calls one job may make; a strategy that asks for more is stopped with an error."""


class Tokenizer(Protocol):
    """Text to token ids of the evaluated model, and back. template_digest is empty where there is no chat template.

    A tokenizer may also have `lead_ids`, what it puts in front of a plain text where that is not BOS alone (`lead_ids`
    below), and `folds_system`, True where its template takes no system message and `chat` puts it into the user's turn.
    """

    digest: str
    template_digest: str
    bos_id: int | None
    adds_bos: bool

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids. special: add what the tokenizer adds by itself (usually BOS)."""

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids without specials, and the character span of each."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens."""

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """The messages through the chat template, up to where the assistant's turn begins; None without a template."""


def lead_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What the tokenizer's own convention puts in front of a plain text."""
    given: tuple[int, ...] | None = getattr(tokenizer, "lead_ids", None)
    if given is not None:
        return given
    return (tokenizer.bos_id,) if tokenizer.adds_bos and tokenizer.bos_id is not None else ()


class Data(Protocol):
    """The pinned files a benchmark may read: verified, cached, or taken from a mirror folder."""

    @property
    def bad(self) -> dict[BadRecord, None]:
        """The records left out so far, in the order they were met; `records.read_records` adds to it."""

    @property
    def notes(self) -> dict[str, None]:
        """What a benchmark must tell readers about its data (a stand-in it took); shown with plan and report."""

    def path(self, source: DataSource) -> Path:
        """A local file with the pinned content. Raises DataError when it is missing or altered."""

    def text(self, source: DataSource) -> str:
        """The file's text, UTF-8."""

    def used(self) -> Sequence[Any]:
        """What was read so far (`data.Used`): pins, digests, and whether a file was an extract."""

    def constants(self, source: DataSource, names: Iterable[str]) -> dict[str, Any]:
        """Constants of an upstream Python file, read through `ast` and never executed (see `literals.constants`)."""


class Metric(Protocol):
    """A scorer of one prediction."""

    def score(self, prediction: str, sample: Sample) -> Scored:
        """The score of `prediction` against the sample's references."""


Judging: TypeAlias = Generator[Turn, Response, Scored]
"""A score in the making: it yields turns for the judge, receives the responses, returns the score. Responses that
failed are never sent to it: they cost the value, with the reason."""


class JudgedMetric(Protocol):
    """A scorer that asks a model. What it raises over a reply (rubbish, a refusal) costs the value, not the sample."""

    def score(self, prediction: str, sample: Sample) -> Judging:
        """The turns for the judge. Samples of tasks with a `judge` come with their whole context."""


class Benchmark(Protocol):
    """A suite of tasks. Pure: the same options give the same samples, in the same order, in any process."""

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """The tasks that the options select. lengths: model tokens asked for by `--lengths`; empty = own levels."""

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """The samples of a task, lazily, seeded. Interleaved so that the first n are a fair subset."""

    def follow_up(self, sample: Sample, responses: Sequence[Response]) -> Turn | None:
        """The next turn after these responses; None when the job is done. It runs beside the server, so the sample
        comes without its references and negatives."""

    def score(
        self, sample: Sample, responses: Sequence[Response], metrics: Mapping[str, Metric]
    ) -> Mapping[str, Scored | Judging]:
        """One `Scored` for each metric of the task, by the official rule; a `Judging` where a model must be asked.

        responses: one for each turn, whose text is the strategy's answer where the arm has a strategy.
        """

    def score_group(self, rows: Sequence[Graded]) -> Sequence[Mapping[str, Scored]]:
        """The scores of samples that are scored together, given their single scores; same order and length."""

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        """The authors' own table of one arm, from every graded sample of the benchmark. Pure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A scored sample, as groups and official tables see it. task: the task's own name; answered: False where the
    job has no answer (values are then empty)."""

    task: str
    sample: Sample
    repeat: int
    scored: Mapping[str, Scored]
    answered: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One number of an official table, in the authors' scale. digits: decimals the authors print. n: samples in it.

    value is None where nothing was answered. missing: planned samples without an answer, which the rule leaves out.
    rows: what the number is made of, of the rows that `aggregate` was given; its interval is computed from these. A
    line that names none is taken to be made of whole tasks and levels, and has an interval where that is so.
    """

    name: str
    metric: str
    value: float | None
    n: int
    missing: int = 0
    digits: int = 2
    note: str = ""
    rows: Sequence[Graded] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenAnswer:
    """An answer that loom did not make. id: the sample's; task: the task's own name; text: one for each turn.

    repeat: which of several answers to one question. place: where it is ("line 7"), for messages.
    """

    id: str
    task: str
    texts: tuple[str, ...]
    repeat: int = 0
    place: str = ""


AnswerReader: TypeAlias = Callable[
    [Path, Sequence[Task], Callable[[Task], Iterator[Sample]]], Iterator[GivenAnswer] | None
]
"""Reads a file or folder in a layout of the benchmark's authors: (path, chosen tasks, the samples of a task in their
order) to answers, lazily; the samples are for layouts that name no id. None where the layout is not one of theirs: loom
then reads its own. Raises DataError for a broken file."""


class BenchmarkBase:
    """The defaults of a benchmark: one turn, every metric on the last response, plain means.

    Two further methods are looked for and have no default. `sources() -> Sequence[DataSource]`: every file that any
    of its options need (`loom data fetch NAME`), where that is more than its tasks with default options say.
    `score_gold(row) -> Json`: the official score of a gold row (`testing.gold`).
    """

    def follow_up(self, sample: Sample, responses: Sequence[Response]) -> Turn | None:
        """One turn only."""
        return None

    def score(
        self, sample: Sample, responses: Sequence[Response], metrics: Mapping[str, Metric]
    ) -> Mapping[str, Scored | Judging]:
        """Each metric on the text of the last response."""
        return {name: metric.score(responses[-1].text, sample) for name, metric in metrics.items()}

    def score_group(self, rows: Sequence[Graded]) -> Sequence[Mapping[str, Scored]]:
        """The scores of samples that are scored together (equal `Sample.group`), in their order: as they are."""
        return [row.scored for row in rows]

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        """The authors' table of one arm: here the mean of each task and metric, in the metric's own scale."""
        lines = []
        for task in dict.fromkeys(row.task for row in rows):
            of_task = [row for row in rows if row.task == task]
            for metric in dict.fromkeys(name for row in of_task for name in row.scored):
                given = [row.scored[metric].value for row in of_task if metric in row.scored]
                values = [value for value in given if value is not None]
                mean = sum(values) / len(values) if values else None
                missing = len(of_task) - len(values)
                lines.append(Line(name=task, metric=metric, value=mean, n=len(values), missing=missing, rows=of_task))
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What can be known of a model before its weights are loaded.

    digest: of configuration, tokenizer and weights. window: most tokens of prompt and answer together; None =
    unknown. kv_bytes_per_token: keys and values over all layers and KV heads. tokenizer: None where the server
    keeps it to itself. facts: for the manifest (architecture, parameters, dtype, …); `end_ids`, where it is there, are
    the tokens that end an answer, for every server that runs the model. notes: what every plan of it must say.
    """

    name: str
    path: str
    digest: str
    window: int | None
    tokenizer: Tokenizer | None
    kv_bytes_per_token: int | None = None
    facts: Mapping[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Session(Protocol):
    """One opened model."""

    card: ModelCard

    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Response]:
        """Answer the requests, in any order, each response as soon as it is finished.

        A request that fails is a response with `error` set; raising means that the session itself is lost.
        """


class SeesReferences(Session, Protocol):
    """A session that is shown reference answers: only of a server with the capability "references", which every report
    of it says. Any other worker gets its samples without references, negatives and oracle texts."""

    def see_samples(self, samples: Mapping[str, Sample]) -> None:
        """The samples of the jobs to come, by job key, whole."""


class Server(Protocol):
    """A way to run models; built with its options."""

    # Looked for, without a default: `check_arm(arm)`, which refuses methods that cannot stand in one arm.

    def describe(self, model: str, options: Any) -> ModelCard:
        """The model's card; loads no weights and needs no GPU. options: the spec's `model_options`."""

    def open(self, model: str, options: Any) -> AbstractContextManager[Session]:
        """Load the model once for all arms."""


class PromptAugmentation(Protocol):
    """Rewrites the context segments of a prompt, on the full context, and nothing else."""

    def open(self, tokenizer: Tokenizer | None) -> AbstractContextManager[None]:
        """Acquire what it holds: an index, an encoder, an endpoint."""

    def rewrite(
        self, prompt: Prompt, tokenizer: Tokenizer | None, *, chat: Literal["template", "completion"] = "template"
    ) -> Prompt | Rewritten:
        """The prompt with other context texts. chat: how it will be rendered, for those who count its tokens.

        `Rewritten` tells which spans were kept and what that took; the tokens that a plain prompt has lost count as
        dropped.
        """


class Strategy(Protocol):
    """Several calls for one answer; each call is a recorded request.

    One that must know the model's tokenizer or window has a method `open(card) -> AbstractContextManager[None]` as
    well, which is entered once before its first `solve`.
    """

    def solve(self, turn: Turn) -> Generator[Turn, Response, str]:
        """Yield turns, receive their responses, return the final answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A prompt as token ids (or as messages, where the server renders), with the spans of its segments.

    bos: how many BOS tokens lead it; expected_bos: what the tokenizer's own convention says. n_dropped: tokens that
    truncation removed; cut: which kinds of segment it removed them from.
    """

    token_ids: tuple[int, ...] | None
    spans: tuple[Span, ...]
    text: str
    bos: int = 0
    expected_bos: int = 0
    n_dropped: int = 0
    cut: tuple[str, ...] = ()


Responses = Iterable[Response]
