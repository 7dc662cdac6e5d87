"""BABILong beside its authors' program: prompts, scores of answers, and the table. Knows both sides' forms.

Upstream's functions run in a process of their own (`loom parity babilong --upstream FOLDER`): get_formatted_input,
TaskDataset, compare_answers, and the two functions of collect_results that make the average.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from loom_parity import Case, ParityContext, answer_variants, upstream

from loom_bench_babilong.benchmark import METRIC, Babilong
from loom_bench_babilong.plugin import EVALUATED, LONG, TASKS, BabilongOptions
from loom_bench_babilong.stories import Story, made, read_stories
from loom_bench_babilong.wording import read_prompt
from loom_core.api import Graded, Json, Prompt, Sample, Scored, Unavailable, segment

PUBLISHED = "babilong_evals"
"""Outputs that the authors publish in their repository: MODEL/TASK_LENGTH_….csv."""
SHAPES = (
    "{label}.",
    "{label}. Or {other}.",
    "{label}, {other}",
    "{other} and {label}",
    "{label}<context>{other}",
    "{label}\n<example>\n{other}",
    "{label} Question: {other}",
    "not {label}",
    "I know: {label}",
    "{label}s",
)
TABLES = 60


class Parity:
    """Wording, scoring and averages of booydar/babilong."""

    commit = "7a6efee29f5cac03c3c410e6799c80fd2ffe3610"
    files = (
        "babilong/prompts.py",
        "babilong/metrics.py",
        "babilong/babilong_utils.py",
        "babilong/collect_results.py",
    )
    differences: Mapping[str, str] = {}

    def authors(self, root: Path) -> Mapping[str, Callable[[Json], Json]]:
        """ask, score, story and average."""
        prompts = upstream.module(root, "babilong/prompts.py", name="babilong_prompts")
        metrics = upstream.module(root, "babilong/metrics.py", name="babilong_metrics")
        utils = upstream.module(
            root, "babilong/babilong_utils.py", name="babilong_utils", absent=("nltk", "torch", "datasets")
        )
        drawing = ("matplotlib", "seaborn", "tqdm", "IPython")
        results = upstream.module(root, "babilong/collect_results.py", name="babilong_results", absent=drawing)
        return {
            "ask": partial(_ask, prompts),
            "score": partial(_score, metrics),
            "stories": partial(_stories, utils),
            "average": partial(_average, results),
        }

    def cases(self, context: ParityContext) -> Iterator[Case]:
        """Prompts of the stories and records at hand, published and generated answers, drawn tables."""
        yield from self._prompts(context)
        yield from self._stories_of(context)
        yield from self._published(context)
        yield from self._answers(context)
        yield from self._tables(context)

    def explain(self, case: Case, theirs: Json, ours: Json) -> str | None:
        """No difference is known."""
        return None

    def _prompts(self, context: ParityContext) -> Iterator[Case]:
        """loom's own stories in every prompt of the authors' (their templates are what is compared), full and bare."""
        bench = Babilong(BabilongOptions())
        for task in TASKS:
            for bare in (False, True):
                authors = read_prompt(context.data, bench.prompts_source, task, bare=bare)
                for number, story in enumerate(self._texts(context, task)):
                    text = " ".join(story.facts)
                    yield Case(
                        kind="prompt",
                        name=task,
                        id=f"{'bare' if bare else 'full'} {number}",
                        function="ask",
                        payload=[task, text, story.question, bare],
                        ours=partial(lambda a, t, q: a.ask(t, q).text, authors, text, story.question),
                    )

    def _texts(self, context: ParityContext, task: str) -> Iterator[Story]:
        draw = context.random(f"stories {task}")
        n = min(25, context.limit or 25)
        for number in range(n):
            yield made(EVALUATED[number % len(EVALUATED)], draw)
        odd = " \n A {fact} with <braces> {instruction}.\u2028\x1f", "Where is {context}? "
        yield Story((odd[0],), odd[1], "x", ())

    def _stories_of(self, context: ParityContext) -> Iterator[Case]:
        """bAbI's files at hand, question by question."""
        bench = Babilong(BabilongOptions(variant="babi"))
        for task in TASKS:
            source = bench.stories_source(task)
            try:
                path = context.data.path(source)
            except Unavailable as error:
                context.missing[f"stories of {task}"] = str(error.what)
                continue
            found = [
                [" ".join(story.facts), story.question, story.answer]
                for story in read_stories(context.data.text(source), where=source.pin)
            ]
            # Upstream's __len__ leaves the last question out, which the indices never name.
            yield Case(
                kind="samples",
                name=task,
                id="all",
                function="stories",
                payload=str(path),
                ours=partial(lambda rows: rows, found),
            )

    def _published(self, context: ParityContext) -> Iterator[Case]:
        for path in sorted((context.root / PUBLISHED).rglob("*.csv")):
            task, length = path.stem.split("_")[:2]
            with path.open(encoding="utf-8", newline="") as file:
                for number, row in enumerate(csv.DictReader(file)):
                    if context.limit is not None and number >= context.limit:
                        break
                    name = f"{path.parent.name} {length} {'bare' if '_no_' in path.stem[:60] else 'full'} {number}"
                    yield self._case(context, task, f"{name}", row["target"], row["output"], row["question"])

    def _case(
        self, context: ParityContext, task: str, name: str, target: str, output: str, question: str, kind: str = "score"
    ) -> Case:
        sample = Sample(
            id=name,
            task=task,
            prompt=Prompt(segments=(segment("question", question),)),
            references=(target,),
            meta={"question": question, "task": task},
        )
        metric = context.metrics[METRIC]
        return Case(
            kind=kind,
            name=task,
            id=name,
            function="score",
            payload=[task, target, output, question],
            ours=lambda: bool(metric.score(output, sample).value),
        )

    def _answers(self, context: ParityContext) -> Iterator[Case]:
        labels = {
            "qa5": ("Bill", "Fred", "Jeff", "Mary", "apple", "football", "milk"),
            "qa6": ("no", "yes"),
            "qa7": ("none", "one", "three", "two"),
            "qa8": ("apple", "football", "milk", "nothing", "apple,milk", "football,apple,milk"),
            "qa10": ("maybe", "no", "yes"),
            "qa15": ("cat", "mouse", "sheep", "wolf"),
            "qa19": ("e,e", "e,n", "s,w", "n,w"),
            "qa20": ("bedroom", "bored", "garden", "hungry", "thirsty"),
        }
        for task in TASKS:
            own = labels.get(task, ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office"))
            draw = context.random(f"answers {task}")
            for label in own[: context.limit]:
                question = draw.choice((f"Where is {draw.choice(own)}?", "What is it? ", f"Not the {draw.choice(own)}"))
                for shape, text in answer_variants(label, draw, others=own):
                    yield self._case(context, task, f"{label} {shape}", label, text, question, "generated")
                for number, form in enumerate(SHAPES):
                    text = form.format(label=label, other=draw.choice(own))
                    yield self._case(context, task, f"{label} own {number}", label, text, question, "generated")

    def _tables(self, context: ParityContext) -> Iterator[Case]:
        """Random sets of tasks by lengths, some cells missing."""
        draw = context.random("tables")
        for number in range(min(TABLES, context.limit or TABLES)):
            tasks = [name for name in LONG if draw.random() < 0.7] or [LONG[0]]
            lengths = ["0k", "4k", "16k"][: draw.randint(1, 3)]
            cells: dict[str, dict[str, float | None]] = {
                task: {at: None if draw.random() < 0.1 else float(draw.randint(0, 100)) for at in lengths}
                for task in tasks
            }
            cells = {task: row for task, row in cells.items() if any(value is not None for value in row.values())}
            if not cells:
                continue
            yield Case(
                kind="table",
                name="average of the first five tasks",
                id=str(number),
                function="average",
                payload=[cells, lengths],
                ours=partial(_loom_average, cells, lengths),
                tolerance=1e-9,
            )


def _loom_average(cells: Mapping[str, Mapping[str, float | None]], lengths: list[str]) -> list[float]:
    rows = []
    for task, row in cells.items():
        for at, value in row.items():
            # A cell's accuracy from a hundred answers.
            for number in range(100 if value is not None else 0):
                sample = Sample(
                    id=f"{task}{at}{number}", task=task, prompt=Prompt(segments=()), references=("x",), level=at
                )
                given = Scored(value=float(number < (value or 0.0)))
                rows.append(Graded(task=task, sample=sample, repeat=0, scored={METRIC: given}))
    lines = {line.name: line.value for line in Babilong(BabilongOptions(variant="official")).aggregate(rows)}
    found = [lines.get(f"avg {at}") for at in lengths]
    return [-1.0 if value is None else value for value in found]


# --- the authors' side ----------------------------------------------------------------------------------------------


def _ask(prompts: Any, payload: Json) -> Json:
    task, text, question, bare = payload
    parts = {
        name: "" if bare else prompts.DEFAULT_PROMPTS[task][name] for name in ("examples", "instruction", "post_prompt")
    }
    return prompts.get_formatted_input(text, question, **parts, template=prompts.DEFAULT_TEMPLATE)


def _score(metrics: Any, payload: Json) -> Json:
    task, target, output, question = payload
    return bool(
        metrics.compare_answers(target=target, output=output, question=question, task_labels=metrics.TASK_LABELS[task])
    )


def _stories(utils: Any, path: Json) -> Json:
    found = utils.TaskDataset(path)
    rows = [found[i] for i in range(len(found) + 1)]
    return [[" ".join(row["facts"]), row["question"], row["answer"]] for row in rows]


def _average(results: Any, payload: Json) -> Json:
    cells, lengths = payload
    tasks = [name for name in results.TASKS if name in cells]
    table = results.np.array([[-1.0 if cells[t].get(at) is None else cells[t][at] for at in lengths] for t in tasks])
    best = results.get_results_table("m", {"c": table}, tasks, lengths, to_display=False)
    return [float(best.loc["avg", at]) for at in lengths]
