"""The authors' table, and gold rows through the installed metrics. Knows metric names; computes no metric itself.

Source: ZetangForward/L-CITEEVAL, script/eval_correct.py and eval_citation.py: means over samples times 100, two
decimals, of the task and of each length bucket. What fails there (an undefined bound of the buckets, an empty summary
that is left out but counted) is 0 here, and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loom_bench_lciteeval.prompts import passage_text
from loom_core.contracts import Graded, Line
from loom_core.options import build
from loom_core.plugins import installed
from loom_core.tables import by_task, mean_line
from loom_core.testing.gold import gold_scored
from loom_core.types import Json, Prompt, Sample

UNSCALED = "citation_count"
GOLD = {
    "f1": "lciteeval_f1",
    "precision": "lciteeval_precision",
    "recall": "lciteeval_recall",
    "rouge-l f": "lciteeval_rouge_l",
    "rouge-1 r": "lciteeval_niah",
    "accuracy": "lciteeval_counting_stars",
}
GOLD_TASKS = {
    **dict.fromkeys(("gov_report", "multi_news", "qmsum"), "lciteeval_rouge_l"),
    "niah": "lciteeval_niah",
    "counting_stars": "lciteeval_counting_stars",
}
PARTS = ("recall", "precision", "f1")


def table(rows: Sequence[Graded]) -> list[Line]:
    """A line for each task and metric, and one for each of its levels where there are several."""
    lines = []
    for task, found in by_task(rows).items():
        for metric in dict.fromkeys(name for row in found for name in row.scored):
            scale = 1.0 if metric == UNSCALED else 100.0
            lines.append(mean_line(task, metric, found, scale=scale))
            levels = dict.fromkeys(row.sample.level for row in found if row.sample.level not in (None, "all"))
            for level in sorted(map(str, levels), key=_order) if len(levels) > 1 else ():
                members = [row for row in found if row.sample.level == level]
                lines.append(mean_line(f"{task} {level}", metric, members, scale=scale))
    return lines


def _order(level: str) -> tuple[int, str]:
    return (int(level[:-1]) if level[:-1].isdigit() else 0, level)


def gold_score(row: Mapping[str, Json]) -> Json:
    """The official score of a row, in the shape of its official score; a metric of another name is the task's."""
    metric = str(row.get("metric"))
    if metric.startswith("citation"):
        return _gold_citations(row)
    if metric == "f1/precision/recall":
        return {part: gold_scored(f"lciteeval_{part}", row).value for part in ("f1", "precision", "recall")}
    of_task = GOLD_TASKS.get(str(row.get("task")), "lciteeval_f1")
    return gold_scored(GOLD.get(metric, of_task), row).value


def _gold_citations(row: Mapping[str, Json]) -> dict[str, list[float]]:
    """Lists of one value, or empty ones where the authors leave the answer out; by the double that the row names."""
    catalog, extra = installed(), row.get("extra") or {}
    text = row["prediction"] if isinstance(row["prediction"], str) else ""
    documents = tuple(map(passage_text, extra.get("docs") or ()))
    sample = Sample(id="gold", task="", prompt=Prompt(segments=()), references=(), documents=documents)
    chosen = {"model": "words", "sentences": "rule", "at_most": str(extra.get("at_most_citations") or 10**6)}
    scores: dict[str, list[float]] = {}
    for ours, theirs in (*((f"citation_{part}", part) for part in PARTS), (UNSCALED, "num")):
        found = catalog.metrics.get(ours)
        options = build(found.spec.options, chosen, owner=f"metric {ours}")
        scored = catalog.load(found)(options).score(text, sample)
        scores[theirs] = [] if "official" in scored.detail else [scored.value]
    return {name: values if name != "num" else [int(value) for value in values] for name, values in scores.items()}
