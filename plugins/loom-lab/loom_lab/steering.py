"""Jobs in batches by the rule of `anytime`, scored on the way: the job source behind --budget and --until.

Knows the run folder and its manifest, which records every batch before it is asked: a killed run finishes the batch it
was in, and decides from there. Knows no worker.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from loom_report import anytime
from loom_report.anytime import Asked, Standing, Stratum
from loom_report.statistics import stats

from loom_core.contract.errors import UsageError
from loom_core.contract.protocols import Graded
from loom_core.contract.types import Job, Json, Scored
from loom_core.run.config import RunConfig
from loom_core.run.manifest import secrets_of
from loom_core.run.selection import Selection
from loom_core.run.store import Responses, RunFolder, read_json, read_lines
from loom_core.run.writing import write_json
from loom_core.score.scoring import answers_of, scores_alone, scores_together


class Steering:
    """Batches by the widest interval, until the time is spent or every interval is as narrow as is wanted."""

    def __init__(self, folder: RunFolder, selection: Selection, note: Callable[[str], None]) -> None:
        self._folder, self._selection, self._note = folder, selection, note
        self._samples, self._hidden = folder.read_samples(), secrets_of(selection.config)
        self._jobs: dict[tuple[str, str], list[Job]] = {}
        for job in folder.read_jobs():
            self._jobs.setdefault((job.task, job.sample), []).append(job)
        self.total, self.more = sum(map(len, self._jobs.values())), True
        self._strata = anytime.strata_of(self._questions(), selection.config.seed)
        self._metrics = {name: selection.metrics(task) for _, task, name in selection.tasks()}
        self._values: dict[str, float | None] = {}
        self._record = self._begin(selection.config)
        self._taken, self._began, self._caught_up = anytime.taken_of(self._record), time.monotonic(), False
        self._spent = float(self._record["spent_seconds"])
        self._refuse_unbounded()

    def _questions(self) -> Iterable[Asked]:
        for _, row in read_lines(self._folder.samples):
            if (row["task"], row["id"]) in self._jobs:
                yield Asked(row["task"], row["id"], row.get("level"), row.get("cluster"), row.get("group"))

    def _begin(self, config: RunConfig) -> dict[str, Json]:
        """The record of this run's batches: read from its manifest, or begun."""
        record: dict[str, Json] = read_json(self._folder.manifest).get("anytime") or {
            "rule": anytime.RULE,
            "order": "sha256 of seed, task and the names of a unit's samples",
            "seed": config.seed,
            "strata": [self._described(stratum) for stratum in self._strata],
            "batches": [],
            "spent_seconds": 0.0,
        }
        return {**record, "budget_seconds": config.budget, "until": config.until, "stopped": None, "given_up": False}

    def _described(self, stratum: Stratum) -> dict[str, Json]:
        n = sum(map(len, stratum.units))
        return {"task": stratum.task, "level": stratum.level, "n_units": len(stratum.units), "n_questions": n}

    def _refuse_unbounded(self) -> None:
        """Intervals of scores without bounds cannot be compared with others: such tasks get their pilot alone."""
        open_ = [name for _, _, name in self._selection.tasks() if not math.isfinite(self._span(name))]
        for name in open_:
            self._note(f"{name}: its scores have no bounds and decide nothing; only its pilot is asked")
        if len(open_) == sum(1 for _ in self._selection.tasks()):
            raise UsageError(
                "no task of this run can be steered by its intervals",
                where="--budget, --until",
                why="the scores of all tasks are without bounds",
                hint="use --limit",
            )

    def _span(self, task: str) -> float:
        spec = self._selection.metric_specs(self._selection.task(task)[1])[0].spec
        return spec.high - spec.low

    # --- batches -----------------------------------------------------------------------------------------------------

    def next(self, recorded: Responses) -> list[Job]:
        """The next batch; first what an earlier pass was asked for and did not finish."""
        self._spent = float(self._record["spent_seconds"]) + time.monotonic() - self._began
        left = [] if self._caught_up else [job for job in self.asked() if not recorded.ended(job.key)]
        self._caught_up = True
        if left:
            return left
        self._score(recorded)
        if self._record["batches"] and self._record["batches"][-1]["seconds"] is None:
            done = sum(batch["seconds"] or 0.0 for batch in self._record["batches"])
            self._record["batches"][-1]["seconds"] = round(max(0.0, self._spent - done), 3)
        standings = [self._standing(stratum, k) for stratum, k in zip(self._strata, self._taken, strict=True)]
        widest = anytime.widest(self._strata, standings)
        added, stopped = self._decide(standings)
        if stopped:
            self.more, self._record["stopped"] = False, stopped
            self._write(widest)
            self._note(f"anytime: {stopped}; {self._told(widest)}")
            return []
        self._record["batches"].append({"added": added, "widest": widest, "seconds": None})
        before, self._taken = self._taken, anytime.taken_of(self._record)
        self._write(widest)
        if widest:
            self._note(f"anytime: batch {len(self._record['batches'])}; {self._told(widest)}")
        return [
            job
            for stratum, start, end in zip(self._strata, before, self._taken, strict=True)
            for job in self._of(stratum, start, end)
        ]

    def asked(self) -> list[Job]:
        """The jobs of every unit taken so far."""
        return [job for stratum, k in zip(self._strata, self._taken, strict=True) for job in self._of(stratum, 0, k)]

    def end(self) -> None:
        """Remember the time of a batch that was interrupted."""
        self._spent = float(self._record["spent_seconds"]) + time.monotonic() - self._began
        self._write(self._record.get("widest"))

    def _of(self, stratum: Stratum, start: int, end: int) -> list[Job]:
        return [job for unit in stratum.units[start:end] for name in unit for job in self._jobs[stratum.task, name]]

    def _decide(self, standings: Sequence[Standing]) -> tuple[list[int], str]:
        """The next batch, or why there is none."""
        config = self._selection.config
        least = max(1, self._busy_units())
        added = anytime.allot(standings, until=config.until, least=least)
        if not any(added):
            return added, _why_over(standings)
        if config.budget is None:
            return added, ""
        left, needed = config.budget - self._spent, self._predicted_seconds(added)
        if left > 0 and needed > left:
            added = anytime.allot(standings, until=config.until, least=least, most=sum(added) * left / needed)
        return added, "" if left > 0 and any(added) else "the time is spent"

    def _busy_units(self) -> int:
        """Units that keep every worker busy with one bundle of each arm."""
        batch = getattr(self._selection.server_options, "batch", 1)
        size = batch if isinstance(batch, int) else 1
        units = sum(len(stratum.units) for stratum in self._strata)
        a_unit = len(self._jobs) / max(1, units)
        return round(self._selection.config.workers * size / a_unit)

    def _predicted_seconds(self, added: Sequence[int]) -> float:
        """What so many more units will take, by the tokens of the batches so far; the first, in which the model was
        opened, only counts while it is the only one.
        """
        reach, seconds, tokens = [0] * len(self._strata), 0.0, 0
        for i, batch in enumerate(self._record["batches"]):
            ends = [a + b for a, b in zip(reach, batch["added"], strict=True)]
            if batch["seconds"] is not None and (i or len(self._record["batches"]) == 1):
                seconds, tokens = seconds + batch["seconds"], tokens + self._tokens(reach, ends)
            reach = ends
        wanted = self._tokens(reach, [a + b for a, b in zip(reach, added, strict=True)])
        return wanted * seconds / tokens if tokens else 0.0

    def _tokens(self, starts: Sequence[int], ends: Sequence[int]) -> int:
        return sum(
            job.length
            for stratum, start, end in zip(self._strata, starts, ends, strict=True)
            for job in self._of(stratum, start, end)
        )

    def _told(self, widest: Mapping[str, Json] | None) -> str:
        n = sum(1 for _ in self.asked())
        text = f"{n} of {self.total} answers asked, {self._spent:.0f} s spent"
        if widest is None:
            return text
        where = widest["task"] + (f" at {widest['level']}" if widest["level"] is not None else "")
        return f"{text}, widest interval ±{100 * widest['half_width']:.1f} ({where})"

    def _write(self, widest: Mapping[str, Json] | None) -> None:
        """The record into the manifest, before the batch is asked."""
        self._record |= {"widest": widest, "spent_seconds": round(self._spent, 3)}
        self._began = time.monotonic()
        write_json(self._folder.manifest, {**read_json(self._folder.manifest), "anytime": self._record})

    # --- scores ------------------------------------------------------------------------------------------------------

    def _score(self, recorded: Responses) -> None:
        """Score what ended since the last time; groups are whole, for a unit holds whole groups."""
        groups: dict[tuple[str, ...], list[tuple[Job, Graded]]] = {}
        for job in self.asked():
            if job.key in self._values or not recorded.ended(job.key):
                continue
            chosen, task = self._selection.task(job.task)
            sample = self._samples.light(job.task, job.sample)
            answers = answers_of(recorded.of(job.key))
            given = scores_alone(chosen, sample, answers, self._metrics[job.task], self._hidden)
            scored = {name: one for name, one in given.items() if isinstance(one, Scored)}
            row = Graded(task=task.name, sample=sample, repeat=job.repeat, scored=scored)
            if sample.group is None:
                self._keep(job, row.scored)
            else:
                groups.setdefault((job.task, job.arm, str(job.repeat), sample.group), []).append((job, row))
        for members in groups.values():
            benchmark = self._selection.task(members[0][0].task)[0].benchmark
            values_of = scores_together(benchmark, [row for _, row in members], self._hidden)
            for (job, _), values in zip(members, values_of, strict=True):
                self._keep(job, values)

    def _keep(self, job: Job, scored: Mapping[str, Scored]) -> None:
        primary = next(iter(self._metrics[job.task]))
        self._values[job.key] = scored[primary].value if primary in scored else None

    def _standing(self, stratum: Stratum, taken: int) -> Standing:
        """How far a stratum is; its width is that of the widest arm."""
        rows: dict[str, tuple[list[float], list[int]]] = {}
        for number, unit in enumerate(stratum.units[:taken]):
            for job in (job for name in unit for job in self._jobs[stratum.task, name]):
                value = self._values.get(job.key)
                if value is not None:
                    values, units = rows.setdefault(job.arm, ([], []))
                    values.append(value)
                    units.append(number)
        span = self._span(stratum.task)
        widths = [_half_width(values, units, self._bounds(stratum.task)) for values, units in rows.values()]
        known = [width / span for width in widths if width is not None] if math.isfinite(span) else []
        return Standing(len(stratum.units), taken, max(known, default=None))

    def _bounds(self, task: str) -> tuple[float, float]:
        spec = self._selection.metric_specs(self._selection.task(task)[1])[0].spec
        return spec.low, spec.high


def _why_over(standings: Sequence[Standing]) -> str:
    """Why there is nothing left to ask."""
    if all(standing.exhausted for standing in standings):
        return "every question was asked"
    blind = sum(not standing.exhausted and standing.half_width is None for standing in standings)
    if blind:
        return f"{blind} of {len(standings)} strata gave no score to go by, the others are as narrow as was asked for"
    return "every interval is as narrow as was asked for"


def _half_width(values: Sequence[float], units: Sequence[int], bounds: tuple[float, float]) -> float | None:
    found = stats.mean_interval(values, units, bounds=bounds)
    return None if found is None else (found.high - found.low) / 2
