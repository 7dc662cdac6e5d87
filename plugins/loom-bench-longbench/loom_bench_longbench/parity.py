"""LongBench beside its authors' program: prompts (`asking`), single answers of every task, and tables by length.

Upstream's functions run in a process of their own (`loom parity longbench --upstream FOLDER`), which needs their
libraries (jieba, fuzzywuzzy, rouge) and python-Levenshtein: without it fuzzywuzzy falls back to difflib, silently, and
gives other scores. Knows both sides' forms.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from loom_parity import Case, ParityContext, answer_variants, upstream

from loom_bench_longbench import asking
from loom_bench_longbench.benchmark import LongBench
from loom_bench_longbench.plugin import TASKS
from loom_bench_longbench.settings import SETTINGS
from loom_core.api import Json

FOLDER = "LongBench"
CLASSES = ("Food", "Date", "Other location", "Definition of something", "Individual", "Date and time")
CLASSES_ZH = ("体育", "财经", "社会新闻", "科技")
CODE = ("return self.value + 1", "for i in range(10):", "self.assertEqual(a, b)  # done")
REFERENCES: Mapping[str, tuple[str, ...]] = {
    "longbench_qa_f1": (
        "the old lighthouse",
        "Anna Karenina",
        "42",
        "No, it was not the captain's fault.",
        "1,234.5 km",
    ),
    "longbench_qa_f1_zh": ("北京大学", "他在1998年离开了上海。", "三", "Linux 内核"),
    "longbench_rouge": (
        "The committee met in May. It agreed on a budget.",
        "A short one.",
        "Nobody came, so they left.",
    ),
    "longbench_rouge_zh": ("委员会在五月开会，通过了预算。", "今天天气很好。我们去公园。", "无"),
    "longbench_classification": CLASSES,
    "longbench_retrieval": ("Paragraph 12", "Paragraph 3", "Paragraph 30"),
    "longbench_retrieval_zh": ("段落12", "段落3", "段落30"),
    "longbench_count": ("12", "3", "0"),
    "longbench_code_sim": CODE,
}
TABLES = 40


class Parity:
    """Prompts and scores of THUDM/LongBench, folder LongBench."""

    commit = "2e00731f8d0bff23dc4325161044d0ed8af94c1e"
    files = (
        f"{FOLDER}/eval.py",
        f"{FOLDER}/metrics.py",
        asking.PREDICTING,
        f"{FOLDER}/config/dataset2prompt.json",
        f"{FOLDER}/config/dataset2maxlen.json",
    )
    differences: Mapping[str, str] = {
        "recursion": "rouge 1.0.1 gives up on very long texts and scores 0 there; loom scores them; no option",
    }

    def authors(self, root: Path) -> Mapping[str, Callable[[Json], Json]]:
        """asked: the prompt of one record; scorer and scorer_e: a task, or one answer of it, in per cent."""
        importlib.import_module("Levenshtein")
        upstream.module(root, f"{FOLDER}/metrics.py", name="metrics")
        made = upstream.module(root, f"{FOLDER}/eval.py", name="longbench_eval")
        return {
            "asked": asking.asked(root.resolve()),
            "scorer": partial(_scorer, made),
            "scorer_e": partial(_scorer_e, made),
        }

    def cases(self, context: ParityContext) -> Iterator[Case]:
        """Prompts; generated answers of every task alone, and drawn lists of them."""
        yield from asking.cases(context)
        for task in TASKS:
            given = list(self._answers(context, task))
            for name, row in given:
                yield self._case("score", task, name, "scorer", [row], [0])
            draw = context.random(f"tables {task}")
            for number in range(min(TABLES, context.limit or TABLES)):
                rows = [row for _, row in draw.sample(given, 9)]
                words = [draw.choice((0, 3999, 4000, 7999, 8000, 20000)) for _ in rows]
                yield self._case("table", task, str(number), "scorer", rows, words)
                # Every length has a row: the mean of none is not a number there.
                yield self._case("table by length", task, str(number), "scorer_e", rows[:3], [10, 4000, 9000])

    def explain(self, case: Case, theirs: Json, ours: Json) -> str | None:
        """Very long answers, where upstream's ROUGE has no value."""
        if case.function == "asked":
            return None
        long = any(len(text) > 2000 for text, _, _ in case.payload[1])
        lost = case.kind != "score" or theirs == 0.0
        return "recursion" if long and lost and "rouge" in SETTINGS[case.name].metric else None

    def _answers(self, context: ParityContext, task: str) -> Iterator[tuple[str, list[Json]]]:
        metric = SETTINGS[task].metric
        known = CLASSES_ZH if task == "lsht" else REFERENCES[metric]
        draw = context.random(f"answers {task}")
        for number, reference in enumerate(known):
            classes = list(known) if metric == "longbench_classification" else None
            answers = [reference] if draw.random() < 0.6 or classes else [reference, draw.choice(known)]
            own = (
                ("lines before", f"\n\n{reference}\nmore"),
                ("code fence", f"```python\n{reference}\n```\n# {reference}"),
                ("comment first", f"# note\n// other\n{reference}"),
                ("numbers", f"{reference} 12 3 12"),
                ("two classes", f"{known[0]} {known[-1]}"),
            )
            for shape, text in (*answer_variants(reference, draw, others=known), *own):
                yield f"{number} {shape}", [text, answers, classes]

    def _case(self, kind: str, task: str, at: str, function: str, rows: list[Json], words: list[int]) -> Case:
        row = {
            "benchmark": "longbench",
            "task": task,
            "metric": function,
            "prediction": [text for text, _, _ in rows],
            "references": [answers for _, answers, _ in rows],
            "extra": {"lengths": words, "all_classes": rows[0][2]},
        }
        return Case(
            kind=kind,
            name=task,
            id=at,
            function=function,
            payload=[task, rows, words],
            ours=partial(LongBench.score_gold, row),
            tolerance=1e-6,
        )


# --- the authors' side ----------------------------------------------------------------------------------------------


def _scorer(made: Any, payload: Json) -> Json:
    task, rows, _ = payload
    return float(made.scorer(task, [text for text, _, _ in rows], [answers for _, answers, _ in rows], rows[0][2]))


def _scorer_e(made: Any, payload: Json) -> Json:
    task, rows, words = payload
    texts, answers = [text for text, _, _ in rows], [given for _, given, _ in rows]
    return {name: float(value) for name, value in made.scorer_e(task, texts, answers, words, rows[0][2]).items()}
