"""Recorded responses to scores, by the benchmark's official rule. Reads the store, writes one file a metric version.

A scorer that raises costs its sample the value, never the sample: the reason stands in the score's detail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TextIO, TypeAlias, cast

from loom_core.contract import border
from loom_core.contract.errors import LoomError, PluginError, RunError
from loom_core.contract.guard import guarded, reason
from loom_core.contract.keys import plain
from loom_core.contract.prompt import without_contexts
from loom_core.contract.protocols import Benchmark, Graded, Judging, Metric
from loom_core.contract.types import Job, Json, Response, Sample, Score, Scored, Task
from loom_core.run.conversation import response_from
from loom_core.run.manifest import redact, secrets_of
from loom_core.run.plan import metric_rows
from loom_core.run.selection import Chosen, Selection
from loom_core.run.store import Responses, RunFolder, read_json
from loom_core.run.writing import to_line, whole_file, write_json
from loom_core.score.judging import Case, Judge

LONGEST_REASON = 300
MISSING = Scored(value=None, detail={"error": "the benchmark gave no value for this metric"})
JUDGED_AT_ONCE = 64
"""Judged values in the making at a time; each may hold a whole context."""


def score_run(
    folder: RunFolder,
    selection: Selection,
    progress: Callable[[], None] = lambda: None,
    note: Callable[[str], None] = lambda text: None,
) -> int:
    """Score every ended job again; returns how many answers were scored. Each scores file is replaced whole.

    Metrics that ask a model are settled by the selection's judge (see `judging`). Writes why values are missing beside
    the scores (`unscored.json`: by metric, reasons with their counts), and hands the graded rows to the hook
    `loom_graded`, from which loom-report makes the authors' own tables.
    """
    _refuse_lost_tasks(folder, selection)
    writers: dict[Path, TextIO] = {}
    tables: dict[tuple[str, str], list[Graded]] = {}
    missing: dict[str, Counter[str]] = {}
    n = 0
    hidden = secrets_of(selection.config)
    with (
        ExitStack() as files,
        Judge(folder, selection.judge, selection.catalog, note, hidden=hidden) as judge,
    ):
        for chosen, task, job, graded in _graded(folder, selection, judge):
            row = _within_ranges(selection, task, graded)
            tables.setdefault((chosen.name, job.arm), []).append(row)
            if not row.answered:
                continue
            for score in _scores(selection, task, job, row.scored):
                path = folder.scores(score.metric, score.metric_version)
                if path not in writers:
                    writers[path] = files.enter_context(whole_file(path, encoding="ascii"))
                writers[path].write(to_line(plain(score)))
                if score.value is None:
                    missing.setdefault(score.metric, Counter())[_why(score)] += 1
            n += 1
            progress()
    judge.write_summary()
    _remember_scorers(folder, selection)
    write_json(folder.unscored, {name: dict(reasons.most_common()) for name, reasons in sorted(missing.items())})
    selection.catalog.every("loom_graded", folder=folder, selection=selection, graded=tables)
    return n


def _within_ranges(selection: Selection, task: Task, row: Graded) -> Graded:
    """The row without values outside the range that their metric declares."""
    ends = {f.spec.name: (f.spec.low, f.spec.high, f.distribution) for f in selection.metric_specs(task)}
    scored = {
        name: border.in_range(one, name, *ends[name]) if name in ends else one for name, one in row.scored.items()
    }
    return replace(row, scored=scored)


def _refuse_lost_tasks(folder: RunFolder, selection: Selection) -> None:
    """Raise RunError where the installed benchmarks no longer have a task that was asked."""
    known = {name for _, _, name in selection.tasks()}
    if lost := [row for row in read_json(folder.plan)["tasks"] if row["name"] not in known]:
        raise RunError(
            f"{lost[0]['name']} cannot be scored: the installed {lost[0]['benchmark']} has no such task",
            where=str(folder.path),
            why=f"{len(lost)} tasks of this run are gone; it was asked with {lost[0]['distribution']}",
            hint=f"install {lost[0]['distribution']} to score it; its recorded scores can be reported as they are",
        )


def _remember_scorers(folder: RunFolder, selection: Selection) -> None:
    """Let the plan name the metrics and the benchmark version that made these scores: reports show those and no others.

    What was asked, and by which version, stays as it was planned.
    """
    plan = read_json(folder.plan)
    rows = {row["name"]: row for row in plan["tasks"]}
    for chosen, task, name in selection.tasks():
        if name in rows:
            rows[name]["metrics"] = metric_rows(selection.metric_specs(task))
            rows[name]["scored_version"] = chosen.choice.found.spec.version
    write_json(folder.plan, plan)


def _why(score: Score) -> str:
    """Why a score has no value, in the words of whoever gave none."""
    return str(score.detail.get("error") or score.detail.get("why") or "no reason given")[:LONGEST_REASON]


Place: TypeAlias = tuple[Chosen, Task, Job, Graded]


def _graded(folder: RunFolder, selection: Selection, judge: Judge) -> Iterator[Place]:
    """Every planned job with its scores, streaming; samples of a group are held until the group is whole."""
    hidden = secrets_of(selection.config)
    groups: dict[tuple[str, str, int, str], list[Place]] = {}
    for place in _settled(selection, judge, _alone(folder, selection, hidden)):
        _, _, job, row = place
        if row.sample.group is None:
            yield place
        else:
            groups.setdefault((job.task, job.arm, job.repeat, row.sample.group), []).append(place)
    for members in groups.values():
        chosen = members[0][0]
        together = scores_together(chosen.benchmark, [row for *_, row in members], hidden)
        for (_, task, job, row), given in zip(members, together, strict=True):
            yield chosen, task, job, replace(row, scored=given)


def _alone(folder: RunFolder, selection: Selection, hidden: list[str]) -> Iterator[tuple[Place, dict[str, Judging]]]:
    """Every planned job with the scores of its sample alone, and those that a judge must settle."""
    responses, samples = Responses(folder.responses), folder.read_samples()
    metrics = {name: selection.metrics(task) for _, task, name in selection.tasks()}
    sample: Sample | None = None
    for job in folder.read_jobs():
        chosen, task = selection.task(job.task)
        # The arms and repeats of a sample follow each other in the plan: they share one record.
        if sample is None or (sample.task, sample.id) != (job.task, job.sample):
            # A judge may have to read what the evaluated model read; other metrics need no context.
            sample = (samples.full if task.judge else samples.light)(job.task, job.sample)
        given: dict[str, Scored | Judging] = {}
        if answered := responses.ended(job.key):
            answers = answers_of(responses.of(job.key))
            given = scores_alone(chosen, sample, answers, metrics[job.task], hidden)
        scored = {name: one for name, one in given.items() if isinstance(one, Scored)}
        judged = {name: one for name, one in given.items() if not isinstance(one, Scored)}
        yield (
            (
                chosen,
                task,
                job,
                Graded(task=task.name, sample=sample, repeat=job.repeat, scored=scored, answered=answered),
            ),
            judged,
        )


def _settled(selection: Selection, judge: Judge, rows: Iterable[tuple[Place, dict[str, Judging]]]) -> Iterator[Place]:
    """The rows with the judge's scores filled in, in their order; so many at a time that a judge is kept busy."""
    held: list[tuple[Place, list[Case]]] = []
    n_open = 0
    for place, judged in rows:
        chosen, task, job, row = place
        if task.judge:
            place = chosen, task, job, replace(row, sample=without_contexts(row.sample))
        versions = {found.spec.name: found.spec.version for found in selection.metric_specs(task)} if judged else {}
        cases = [Case(job, name, versions[name], judging) for name, judging in judged.items()]
        n_open += len(cases)
        if not n_open:
            yield place
            continue
        held.append((place, cases))
        if n_open >= JUDGED_AT_ONCE:
            yield from _settle(judge, held)
            held, n_open = [], 0
    yield from _settle(judge, held)


def _settle(judge: Judge, held: list[tuple[Place, list[Case]]]) -> Iterator[Place]:
    judge.settle([case for _, cases in held for case in cases])
    for (chosen, task, job, row), cases in held:
        results = {case.metric: border.scored(case.result, case.metric) for case in cases if case.result is not None}
        yield chosen, task, job, replace(row, scored={**row.scored, **results})


def scores_together(benchmark: Benchmark, rows: list[Graded], hidden: list[str]) -> list[Mapping[str, Scored]]:
    """The scores of a group; where its scorer raises, each sample loses its values and says why."""
    try:
        given = list(benchmark.score_group(rows))
        with guarded("score_group()"):
            fits = len(given) == len(rows) and all(isinstance(one, Mapping) for one in given)
            own = [dict(one) for one in given] if fits else []
        if not fits:
            raise PluginError(f"score_group gave {len(given)} results for {len(rows)} samples, or other than mappings")
    except LoomError as error:  # as for a single sample
        without = Scored(value=None, detail={"error": redact(reason(error), hidden)})
        return [dict.fromkeys(row.scored, without) for row in rows]
    # A metric that the group's rule does not touch keeps the value of the sample alone.
    return [
        {name: border.scored(value, name) for name, value in {**row.scored, **one}.items()}
        for row, one in zip(rows, own, strict=True)
    ]


def _scores(selection: Selection, task: Task, job: Job, scored: Mapping[str, Scored]) -> list[Score]:
    return [
        Score(
            key=job.key,
            metric=found.spec.name,
            metric_version=found.spec.version,
            value=scored[found.spec.name].value,
            detail={"extracted": scored[found.spec.name].extracted, **scored[found.spec.name].detail},
        )
        for found in selection.metric_specs(task)
    ]


def answers_of(records: Iterable[Mapping[str, Json]]) -> list[Response]:
    """One response for each turn of the benchmark: that of the call which ended it."""
    closing = {record.get("turn", record["step"]): record for record in records}
    return [answer_of(record) for record in closing.values()]


def answer_of(record: Mapping[str, Json]) -> Response:
    """The response as scored: with the strategy's answer where one was made of it."""
    response = response_from(record)
    answer = record.get("answer")
    return response if answer is None else replace(response, text=answer)


def scores_alone(
    chosen: Chosen, sample: Sample, answers: list[Response], metrics: Mapping[str, Metric], hidden: list[str]
) -> dict[str, Scored | Judging]:
    try:
        given = chosen.benchmark.score(sample, answers, metrics)
        with guarded(f"benchmark {chosen.name}", "score()"):  # what it gave may raise when it is looked at
            if not isinstance(given, Mapping):
                raise PluginError(f"benchmark {chosen.name} returned {type(given).__name__}, not scores by metric")
            found: dict[str, object] = {name: given.get(name, MISSING) for name in metrics}
    except LoomError as error:  # a scorer's failure is a fact about this sample, recorded with it
        without = Scored(value=None, detail={"error": redact(reason(error), hidden)})
        return dict.fromkeys(metrics, without)
    # By its type alone: a value may raise whatever else is asked of it.
    return {n: cast(Judging, one) if _judging(one) else border.scored(one, n) for n, one in found.items()}


def _judging(given: object) -> bool:
    """True for what a judge must settle."""
    return issubclass(type(given), Generator)
