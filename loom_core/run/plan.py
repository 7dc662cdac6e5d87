"""What would run: samples measured, jobs keyed, overlong prompts counted. Needs no GPU and loads no weights.

Streams: no more than one sample's context is in memory. Knows contracts and the selection, no benchmark and no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from math import isfinite

from loom_core.contract.errors import LoomError, PluginError, RunError, UsageError
from loom_core.contract.keys import job_key, plain, prompt_digest
from loom_core.contract.prompt import unfit_for_context_only
from loom_core.contract.protocols import ModelCard
from loom_core.contract.records import MetricRow, Plan, ServerRow, TaskRow
from loom_core.contract.specs import MetricSpec
from loom_core.contract.types import Job, Json, Sample, Task
from loom_core.data.access import DataDir, Unavailable
from loom_core.prompting.render import CHARACTERS_PER_TOKEN, render
from loom_core.registry.names import arm_identity
from loom_core.registry.plugins import Found
from loom_core.run.absent import drop, reason, refused_arm
from loom_core.run.config import RunConfig
from loom_core.run.manifest import redacted, secrets_of
from loom_core.run.refusals import refuse
from loom_core.run.selection import Chosen, Selection, plan_arm
from loom_core.run.sizes import Sizes, batch_of
from loom_core.run.store import RunFolder
from loom_core.run.stratify import subset
from loom_core.run.tally import Level, Tally
from loom_core.run.writing import write_json

BAD_SHOWN = 5
"""Bad records that a note names; all are counted."""


def make_plan(selection: Selection, card: ModelCard, data: DataDir, folder: RunFolder | None) -> Plan:
    """The plan as plan.json holds it. With a folder, samples, contexts and jobs are written to it, plan.json last.

    A task that cannot be asked (its data is not here, or it or the chat template refuses its prompts) is named and
    leaves the others alone. Raises UsageError when prompts are too long under `--overlength error`, DataError when no
    task is available, and a refusal where nothing else is left.
    """
    _refuse_unreachable(selection, card)
    tally = Tally(sizes=Sizes(card.window, batch_of(selection.server_options)))
    samples: Iterable[Sample] = _measured(selection, card, data, tally)
    if folder is not None:
        samples = folder.write_samples(samples)
    jobs = _jobs(selection, card, samples, tally)
    if folder is not None:
        folder.write_jobs(jobs)
        drop(folder, tally.partial)
    else:
        for _ in jobs:
            pass
    tally.bad, tally.told = tuple(data.bad), tuple(data.notes)
    tally.extracts = {used.pin for used in data.used() if used.extract}
    plan = _as_json(selection, card, tally)
    if folder is not None:
        refuse(plan)
        write_json(folder.plan, redacted(plan, secrets_of(selection.config)))
    return plan


def _refuse_unreachable(selection: Selection, card: ModelCard) -> None:
    """Raise UsageError where generated prompts were asked for at a length beyond the window, before any is made."""
    longest = max(selection.config.lengths, default=0)
    if card.window is None or longest <= card.window:
        return
    for chosen, task, name in selection.tasks():
        strict = overlength(selection.config, task) == "error" and task.truncation.scope == "context"
        if chosen.choice.found.spec.generated and strict:
            raise UsageError(
                f"prompts of {longest} tokens are longer than the model's window",
                where=f"--lengths, {name}",
                why=f"the window is {card.window}, answer included",
                hint="choose --overlength truncate or --overlength skip, or shorter --lengths",
            )


def _measured(selection: Selection, card: ModelCard, data: DataDir, tally: Tally) -> Iterator[Sample]:
    """Every sample of every task under its full task name, with its measured length."""
    for chosen, task, name in selection.tasks():
        before = deepcopy(tally)
        tally.levels[name] = {}
        try:
            yield from _measured_task(selection, chosen, task, name, card, data, tally)
        except Unavailable as error:
            tally.forget(before, name)
            tally.unavailable[name] = str(error.what) + (f" ({error.where})" if error.where else "")
        except RunError:
            raise
        except LoomError as error:
            tally.forget(before, name)
            tally.refused[name] = error


def _measured_task(
    selection: Selection, chosen: Chosen, task: Task, name: str, card: ModelCard, data: DataDir, tally: Tally
) -> Iterator[Sample]:
    seen: set[str] = set()
    for sample in _samples(selection, chosen, task, card, data):
        if sample.id in seen:
            raise PluginError(f"two samples are named {sample.id!r}", where=name, hint="report it to the author")
        seen.add(sample.id)
        if selection.config.protocol == "context-only" and (why := unfit_for_context_only(sample.prompt)):
            raise UsageError(
                f"{name} cannot be asked context-only",
                where=f"sample {sample.id}",
                why=why,
                hint="leave the task out, or use protocol query-aware",
            )
        sample = replace(sample, task=name, level=sample.level or "all")
        yield _measure(sample, task, card, tally, overlength(selection.config, task))


def _samples(selection: Selection, chosen: Chosen, task: Task, card: ModelCard, data: DataDir) -> Iterator[Sample]:
    config = selection.config

    def made() -> Iterator[Sample]:
        return chosen.benchmark.samples(task, data.for_benchmark(chosen.name), card.tokenizer, config.lengths)

    kept = made() if config.subset is None else subset(made, config.subset, config.subset_seed, task.name)
    return islice(chosen.prompted(task, kept), config.limit)


def overlength(config: RunConfig, task: Task) -> str:
    """What becomes of a task's too long prompts: a grid of sizes is asked as far as they fit, or as the user says."""
    return "skip" if task.grid and "overlength" not in config.origins else config.overlength


def _measure(sample: Sample, task: Task, card: ModelCard, tally: Tally, policy: str) -> Sample:
    if card.tokenizer is not None:
        rendered = render(sample.prompt, card.tokenizer, chat=task.chat)
        assert rendered.token_ids is not None
        length = len(rendered.token_ids)
        audit = (rendered.bos, rendered.expected_bos)
        asks_system = any(segment.role == "system" for segment in sample.prompt.segments)
        controls = getattr(card.tokenizer, "control_tokens", ())
        tally.n_control += any(name in segment.text for segment in sample.prompt.segments for name in controls)
        tally.n_folded += task.chat == "template" and asks_system and getattr(card.tokenizer, "folds_system", False)
        tally.bos[audit] = tally.bos.get(audit, 0) + 1
    else:
        length, tally.estimated = len(sample.prompt.text) // CHARACTERS_PER_TOKEN, True
    over = _over(length, task, card.window)
    tally.levels[sample.task].setdefault(sample.level or "all", Level()).add(length, over)
    tally.n_samples += 1
    if over:
        tally.n_over += 1
        tally.n_refused += policy == "error"
        tally.over_example = (tally.over_example if tally.n_refused != 1 else "") or (
            f"{sample.task}, sample {sample.id}: {length} + {task.generation.max_tokens} new tokens > {card.window}"
        )
    tally.longest = max(tally.longest, length)
    tally.sizes.measure(length, task.generation.max_tokens)
    return replace(sample, length=length)


def _jobs(selection: Selection, card: ModelCard, samples: Iterable[Sample], tally: Tally) -> Iterator[Job]:
    identities = {arm.name: arm_identity(arm) for arm in selection.arms}
    model = selection.model_identity(card)
    tasks = {name: (task, _task_identity(chosen, task)) for chosen, task, name in selection.tasks()}
    for sample in samples:
        task, identity = tasks[sample.task]
        source, group = prompt_digest(sample.prompt), sample.prompt.context_digest
        for arm in selection.arms:
            policy = overlength(selection.config, task)
            if skipped(sample, task, arm.of_kind("prompt") != (), card.window, policy):
                continue
            for repeat in range(task.generation.repeats):
                tally.sizes.ask(arm.name, sample.length or 0, task.generation.max_tokens)
                key = job_key(
                    sample=sample.id,
                    source_digest=source,
                    task=identity,
                    repeat=repeat,
                    model=model,
                    arm=identities[arm.name],
                    protocol=selection.config.protocol,
                )
                tally.n_jobs += 1
                yield Job(
                    key=key,
                    sample=sample.id,
                    task=sample.task,
                    arm=arm.name,
                    repeat=repeat,
                    group=group,
                    length=sample.length or 0,
                )


def skipped(sample: Sample, task: Task, rewritten: bool, window: int | None, policy: str) -> bool:
    """True if `--overlength skip` leaves this sample out; a rewritten prompt may yet fit and is never skipped here."""
    return policy == "skip" and _over(sample.length or 0, task, window) and not rewritten


def _over(length: int, task: Task, window: int | None) -> bool:
    """True if a prompt does not fit the window. A task whose own rule cuts always fits."""
    own_rule = task.truncation.scope != "context"
    return window is not None and not own_rule and length + task.generation.max_tokens > window


def _task_identity(chosen: Chosen, task: Task) -> dict[str, Json]:
    return {
        "benchmark": [chosen.name, chosen.choice.found.spec.version],
        "task": [task.name, task.version],
        "generation": plain(task.generation),
        "truncation": plain(task.truncation),
        "chat": task.chat,
    }


def _as_json(selection: Selection, card: ModelCard, tally: Tally) -> Plan:
    config = selection.config
    server: ServerRow = {
        "name": selection.server.spec.name,
        "version": selection.server.spec.version,
        "distribution": selection.server.distribution,
        "options": plain(selection.server_options),
        "model_options": plain(selection.model_options),
    }
    if "references" in selection.server.spec.capabilities:
        server["sees_references"] = True
    return {
        "config": config.identity,
        "config_digest": selection.digest,
        "model": {
            "name": selection.model_name,
            "path": card.path,
            "digest": card.digest,
            "window": card.window,
            "kv_bytes_per_token": card.kv_bytes_per_token,
            "tokenizer": card.tokenizer.digest if card.tokenizer else None,
            "template": card.tokenizer.template_digest if card.tokenizer else None,
            "facts": plain(card.facts),
        },
        "server": server,
        "protocol": config.protocol,
        "tasks": [_task_json(selection, chosen, task, name, tally) for chosen, task, name in selection.tasks()],
        "arms": [plan_arm(arm, selection.catalog, config.protocol) for arm in selection.arms],
        "refused_arms": [refused_arm(name, error) for name, error in selection.refused.items()],
        "overlength": {
            "policy": config.overlength,
            "n_over": tally.n_over,
            "n_refused": tally.n_refused,
            "longest": tally.longest,
            "example": tally.over_example,
            "estimated": tally.estimated,
        },
        "bos": [{"found": found, "expected": expected, "n": n} for (found, expected), n in tally.bos.items()],
        "n_jobs": tally.n_jobs,
        "n_samples": tally.n_samples,
        "sizes": tally.sizes.to_json(card.kv_bytes_per_token),
        "longest_kv_bytes": tally.longest * card.kv_bytes_per_token if card.kv_bytes_per_token else None,
        "told": list(tally.told),
        "notes": _notes(selection, card, tally),
    }


def metric_rows(found: Iterable[Found[MetricSpec]]) -> list[MetricRow]:
    """The metrics of a task as plan.json holds them, the primary one first; a range without an end has null there."""
    return [
        {
            "name": spec.name,
            "version": spec.version,
            "low": spec.low if isfinite(spec.low) else None,
            "high": spec.high if isfinite(spec.high) else None,
            "higher_is_better": spec.higher_is_better,
        }
        for spec in (one.spec for one in found)
    ]


def _task_json(selection: Selection, chosen: Chosen, task: Task, name: str, tally: Tally) -> TaskRow:
    levels, pins = tally.levels.get(name, {}), {source.pin for source in task.sources}
    return {
        "name": name,
        "benchmark": chosen.name,
        "benchmark_version": chosen.choice.found.spec.version,
        "distribution": f"{chosen.choice.found.distribution} {chosen.choice.found.distribution_version}",
        "options": plain(chosen.choice.options),
        "version": task.version,
        "capability": task.capability,
        "language": task.language,
        "metrics": metric_rows(selection.metric_specs(task)),
        "chance": task.chance,
        "judge": plain(task.judge),
        "chat": task.chat,
        "generation": plain(task.generation),
        "truncation": plain(task.truncation),
        "licence": task.licence,
        "own_prompt": chosen.template(task) is not None,
        "unavailable": tally.unavailable.get(name) or (reason(tally.refused[name]) if name in tally.refused else None),
        "refused": tally.refused[name].to_json() if name in tally.refused else None,
        "extract": any(pin in tally.extracts for pin in pins),
        "n_samples": sum(level.n for level in levels.values()),
        "n_bad_records": sum(bad.pin in pins for bad in tally.bad),
        "levels": [
            {
                "level": key,
                "n": level.n,
                "n_over": level.n_over,
                "n_skipped": level.n_over if overlength(selection.config, task) == "skip" else 0,
                "tokens_min": level.tokens_min,
                "tokens_max": level.tokens_max,
            }
            for key, level in levels.items()
        ],
    }


def _notes(selection: Selection, card: ModelCard, tally: Tally) -> list[str]:
    notes = [*tally.told, *card.notes]
    if tally.estimated:
        notes.append(
            f"lengths are estimates, {CHARACTERS_PER_TOKEN} characters a token: the server keeps its tokenizer"
        )
    templated = any(task.chat == "template" for _, task, _ in selection.tasks())
    if templated and card.tokenizer is not None and not card.tokenizer.template_digest:
        notes.append("the model has no chat template: prompts are plain text")
    if tally.n_control:
        notes.append(f"{tally.n_control} prompts hold texts that the tokenizer reads as its control tokens")
    if tally.n_folded:
        notes.append(f"the chat template takes no system message: in {tally.n_folded} prompts it heads the user's turn")
    for (found, expected), n in tally.bos.items():
        if found != expected:
            notes.append(f"{n} prompts start with {found} BOS tokens where the tokenizer's convention is {expected}")
    if tally.bad:
        shown = "; ".join(map(str, tally.bad[:BAD_SHOWN])) + ("; …" if len(tally.bad) > BAD_SHOWN else "")
        notes.append(f"{len(tally.bad)} records are left out: {shown}")
    for chosen, task, name in selection.tasks():
        n_over = sum(level.n_over for level in tally.levels.get(name, {}).values())
        if n_over and task.grid and overlength(selection.config, task) == "skip":
            notes.append(f"{name}: {n_over} samples are longer than the window and are skipped; its sizes are a grid")
        if chosen.template(task):
            notes.append(f"{name} asks with the user's own prompt: no score of it compares with the authors'")
    for name, why in tally.unavailable.items():
        notes.append(f"{name} is unavailable here: {why}")
    for name, error in (*tally.refused.items(), *((f"arm {n}", e) for n, e in selection.refused.items())):
        hint = f" (next: {error.hint})" if error.hint else ""
        notes.append(f"{name} is refused and does not run: {reason(error)}{hint}")
    notes += _without_retrieval(selection)
    return notes


def _without_retrieval(selection: Selection) -> list[str]:
    """A warning for each retrieval arm that meets tasks which need the whole context."""
    names = [name for _, task, name in selection.tasks() if not task.retrieval]
    specs = selection.catalog.augmentations
    arms = [arm.name for arm in selection.arms if any(specs.get(part.name).spec.retrieval for part in arm.parts)]
    if not names:
        return []
    return [f"{arm} retrieves parts of the context, which makes no sense for {', '.join(names)}" for arm in arms]
