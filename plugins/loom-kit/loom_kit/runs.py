"""Run folders without a run: for tests of reports, of whatever reads run folders, and for pictures in docs.

Writes what a real run writes, through the store, from a function that says how each arm answers each question. Knows
the store's files; knows no runner, no server and no benchmark.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loom_core.contract.keys import digest, plain
from loom_core.contract.prompt import segment
from loom_core.contract.types import Evidence, Job, Json, KVUse, Prompt, Response, Sample, Saves, Score, Timing
from loom_core.run.store import RunFolder
from loom_core.run.writing import to_line, write_json

KV_BYTES_PER_TOKEN = 4096


@dataclass(frozen=True)
class MadeTask:
    """A task to make up. levels: label → tokens; per level: depths × repeats questions; per_document: cluster size.

    metrics: name → (low, high); the first is the primary one.
    """

    name: str = "passkey:loom"
    levels: Mapping[str, int] = field(default_factory=lambda: {"1k": 1024, "2k": 2048, "4k": 4096})
    depths: Sequence[float | None] = (0.0, 0.25, 0.5, 0.75, 1.0)
    repeats: int = 6
    metrics: Mapping[str, tuple[float | None, float | None]] = field(
        default_factory=lambda: {"exact_match": (0.0, 1.0)}
    )
    chance: float | None = 0.0
    per_document: int = 1
    answers: int = 1
    capability: str = "retrieval"
    unavailable: str | None = None
    higher_is_better: bool = True


@dataclass(frozen=True)
class MadeArm:
    """An arm to make up: what it declares, and the share of the cache it keeps."""

    name: str
    kept: float = 1.0
    saves: Saves = "real"
    query_aware: bool = False

    @property
    def budget(self) -> str:
        """The compression as a factor, as users write it."""
        return f"{1 / self.kept:g}x"


@dataclass(frozen=True)
class Made:
    """How one question is answered: a text and values by metric, or an error. None in place of it: not asked yet."""

    text: str = ""
    values: Mapping[str, float | None] = field(default_factory=dict)
    error: str | None = None
    n_dropped: int = 0
    finish: str = "stop"
    batch: int = 1
    forked: bool = False


Answerer = Callable[[Sample, MadeArm, int, random.Random], Made | None]
"""(sample, arm, repeat, random numbers of this answer) → how it is answered."""

DENSE = MadeArm("dense", saves="none")


def retrieves(rates: Mapping[str, float]) -> Answerer:
    """An answerer that is right with a rate per arm, the same luck for every arm: answers of arms are correlated."""

    def answer(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made:
        luck = random.Random(f"{sample.id} {repeat}").random()
        right = luck < rates.get(arm.name, 1.0)
        text = f" {sample.references[0]}." if right else " I could not find it in the text."
        return Made(text=text, values={"exact_match": float(right)})

    return answer


HOSTILE = (
    "<script>document.title='pwned'</script>",
    "</textarea></script><script>document.title='pwned'</script><!--",
    "[click](javascript:alert(1)) <a href='javascript:alert(1)'>x</a>",
    "<img src=x onerror=\"document.title='pwned'\"><iframe srcdoc='x'></iframe>",
    "\u202eevil\u202c \u2066x\u2069 \x00\x07\x1b[31mred\x1b[0m \ud800 \u2028 \u2029",
    "[bold red]markup[/] | pipe | `code` *star* &lt;b&gt;",
    "long " + "x" * 1_000_000,
)
"""What a model may say: script, markup, links, control and direction characters, a lone surrogate, an endless line."""


def hostile(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made:
    """An answerer that says each of `HOSTILE`; other arms than dense are wrong, and their first answer is an error."""
    number = int(sample.id.rpartition("-")[2])
    said = HOSTILE[number % len(HOSTILE)]
    if arm.name != "dense" and number == 0:
        return Made(error=said)
    return Made(text=said, values={"exact_match": float(arm.name == "dense")})


def make_run(
    path: Path,
    answer: Answerer,
    *,
    tasks: Sequence[MadeTask] = (MadeTask(),),
    arms: Sequence[MadeArm] = (DENSE, MadeArm("snapkv:budget=4x", 0.25, query_aware=True)),
    protocol: str = "query-aware",
    seed: int = 0,
    scored: bool = True,
) -> RunFolder:
    """Write a run folder and return it."""
    folder = RunFolder(path)
    folder.path.mkdir(parents=True, exist_ok=True)
    samples = list(folder.write_samples(s for task in tasks for s in made_samples(task, seed)))
    by_task = {task.name: task for task in tasks}
    jobs = [
        Job(
            key=digest([s.task, s.id, arm.name, repeat]),
            sample=s.id,
            task=s.task,
            arm=arm.name,
            repeat=repeat,
            group=s.prompt.context_digest,
            length=s.length or 0,
        )
        for s in samples
        for arm in arms
        for repeat in range(by_task[s.task].answers)
    ]
    folder.write_jobs(jobs)
    write_json(folder.manifest, _manifest(seed))
    write_json(folder.plan, _plan(tasks, arms, samples, len(jobs), protocol))
    _answer_all(folder, answer, {(s.task, s.id): s for s in samples}, {a.name: a for a in arms}, jobs, by_task, scored)
    return folder


def made_samples(task: MadeTask, seed: int) -> Iterator[Sample]:
    """The questions of a made-up task: a number hidden in filler text, with its place recorded."""
    if task.unavailable:
        return
    number = 0
    for level, tokens in task.levels.items():
        for depth in task.depths:
            for repeat in range(task.repeats):
                generator = random.Random(f"{seed} {task.name} {level} {depth} {repeat}")
                key = str(generator.randrange(10**6, 10**7))
                needle = f"The pass key is {key}. Remember it. "
                filler = ["The river keeps its own calendar. ", "Nobody counted the lamps twice. "]
                lines = [generator.choice(filler) for _ in range(max(2, tokens // 8))]
                lines.insert(round((depth or 0.0) * len(lines)), needle)
                context = "".join(lines)
                start = context.index(needle)
                parts = (
                    segment("instruction", "A number is hidden in the text. Find it.\n\n"),
                    segment("context", context),
                    segment("question", "\n\nWhat is the pass key?"),
                    segment("prefill", "The pass key is"),
                )
                yield Sample(
                    id=f"{level}-{depth}-{repeat}",
                    task=task.name,
                    prompt=Prompt(segments=parts),
                    references=(key,),
                    level=level,
                    length=tokens + generator.randrange(16),
                    depth=depth,
                    evidence=(Evidence(segment=1, start=start, end=start + len(needle)),),
                    cluster=f"document {number // task.per_document}" if task.per_document > 1 else None,
                )
                number += 1


def _answer_all(
    folder: RunFolder,
    answer: Answerer,
    samples: Mapping[tuple[str, str], Sample],
    arms: Mapping[str, MadeArm],
    jobs: Sequence[Job],
    tasks: Mapping[str, MadeTask],
    scored: bool,
) -> None:
    scores: dict[str, list[str]] = {name: [] for task in tasks.values() for name in task.metrics}
    with folder.responses.open("w", encoding="ascii") as file:
        for number, job in enumerate(jobs):
            sample, arm = samples[job.task, job.sample], arms[job.arm]
            made = answer(sample, arm, job.repeat, random.Random(job.key))
            if made is None:
                continue
            file.write(to_line(_record(job, sample, arm, made, float(number))))
            for name in tasks[job.task].metrics if made.error is None else ():
                detail = {"extracted": made.text.strip()[:40]}
                value = made.values.get(name)
                scores[name].append(
                    to_line(plain(Score(key=job.key, metric=name, metric_version="1", value=value, detail=detail)))
                )
    for name, lines in scores.items():
        if scored:
            folder.scores(name, "1").write_text("".join(lines), "ascii")


def _record(job: Job, sample: Sample, arm: MadeArm, made: Made, clock: float) -> dict[str, Json]:
    """A response record with times and bytes that follow simple laws of length and kept share."""
    tokens, jitter = sample.length or 0, random.Random(f"{job.key} time").uniform(0.97, 1.05)
    dense, n_out = tokens * KV_BYTES_PER_TOKEN, max(1, len(made.text) // 4)
    first = clock + (0.02 + tokens * 5e-5 * (1.1 if arm.kept < 1 else 1.0)) * jitter
    held = int(dense * arm.kept) if arm.saves == "real" else dense
    use = KVUse(bytes_dense=dense, bytes_held=held, kept=arm.kept, saves=arm.saves, asked=arm.budget)
    ended = first + n_out * (0.004 + held / 4e9) * jitter
    failed = made.error is not None
    response = Response(
        key=digest([job.key, 0]),
        text=made.text,
        finish="error" if failed else "length" if made.finish == "length" else "stop",
        n_in=tokens - made.n_dropped,
        n_out=0 if failed else n_out,
        timing=Timing(
            queued=clock,
            started=clock,
            first_token=None if failed else first,
            ended=ended,
            batch=made.batch,
            forked=made.forked,
        ),
        n_dropped=made.n_dropped,
        kv=None if failed else use,
        peak_bytes=None if failed else held + 12_000_000,
        error=made.error,
    )
    where = {"sample": job.sample, "task": job.task, "arm": job.arm, "repeat": job.repeat}
    rest: dict[str, Json] = {"prompt_digest": None, "bos": None, "cut": [], "answer": None, "prepared_seconds": 0.001}
    return {"job": job.key, "step": 0, "turn": 0, "last": True, **where, **rest, **plain(response)}


def _manifest(seed: int) -> dict[str, Json]:
    return {
        "loom": "0.1.0",
        "created": "2026-01-02T03:04:05Z",
        "command": ["loom", "run", "passkey", "--accel", "snapkv:budget=4x"],
        "config": {},
        "config_digest": digest("made up"),
        "seed": seed,
        "versions": {"python": "3.12.3", "loom-core": "0.1.0", "torch": "2.13.0"},
        "git": None,
        "hardware": {"system": "Linux", "cpu": "a made-up processor", "cores": 2, "memory_bytes": 8 << 30},
        "data": [],
        "workers": [],
        "trust_remote_code": False,
    }


def _plan(
    tasks: Sequence[MadeTask], arms: Sequence[MadeArm], samples: Sequence[Sample], n_jobs: int, protocol: str
) -> dict[str, Json]:
    return {
        "config": {},
        "config_digest": digest("made up"),
        "model": {
            "name": "made-up-model",
            "path": "",
            "digest": digest("model"),
            "window": 8192,
            "kv_bytes_per_token": KV_BYTES_PER_TOKEN,
            "facts": {"architecture": "LlamaForCausalLM", "parameters": 1_970_000, "dtype": "float32"},
        },
        "server": {"name": "hf", "version": "1", "options": {"batch": 1}, "model_options": {}},
        "protocol": protocol,
        "tasks": [_task(task, samples) for task in tasks],
        "arms": [_arm(arm) for arm in arms],
        "overlength": {"policy": "error", "n_over": 0, "longest": 4111, "example": "", "estimated": False},
        "bos": [{"found": 1, "expected": 1, "n": len(samples)}],
        "n_jobs": n_jobs,
        "n_samples": len(samples),
        "notes": [],
    }


def _task(task: MadeTask, samples: Sequence[Sample]) -> dict[str, Json]:
    benchmark = task.name.partition(":")[0]
    levels = []
    for level in task.levels:
        lengths = [s.length or 0 for s in samples if s.task == task.name and s.level == level]
        if lengths:
            row = {"level": level, "n": len(lengths), "n_over": 0, "n_skipped": 0}
            levels.append(row | {"tokens_min": min(lengths), "tokens_max": max(lengths)})
    metrics = [
        {"name": name, "version": "1", "low": low, "high": high, "higher_is_better": task.higher_is_better}
        for name, (low, high) in task.metrics.items()
    ]
    return {
        "name": task.name,
        "benchmark": benchmark,
        "benchmark_version": "1",
        "distribution": f"loom-bench-{benchmark} 0.1.0",
        "options": {},
        "version": "1",
        "capability": task.capability,
        "language": "en",
        "metrics": metrics,
        "chance": task.chance,
        "chat": "template",
        "generation": {"max_tokens": 32, "temperature": 0.0, "top_p": 1.0, "stop": [], "repeats": task.answers},
        "truncation": {"scope": "context", "side": "middle", "limit": None},
        "licence": "Apache-2.0",
        "unavailable": task.unavailable,
        "extract": False,
        "n_samples": sum(row["n"] for row in levels),
        "levels": levels,
    }


def _arm(arm: MadeArm) -> dict[str, Json]:
    if arm.name == "dense":
        return {"name": "dense", "parts": []}
    name = arm.name.partition(":")[0]
    part = {"name": name, "version": "1", "kind": "model", "options": {"budget": arm.budget}, "text": arm.name}
    declared = {"saves": arm.saves, "query_aware": arm.query_aware, "phase": "prefill", "extends_context": False}
    return {"name": arm.name, "parts": [part | declared]}
