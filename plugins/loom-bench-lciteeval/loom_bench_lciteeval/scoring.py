"""The authors' table, and gold rows through the installed metrics. Knows metric names; computes no metric itself.

Source: ZetangForward/L-CITEEVAL@6e49326, script/eval_correct.py and eval_citation.py, as facts: means over samples
times 100, two decimals, of each bucket of length and of the task. The two scripts bucket otherwise: citations with
`lower <= length < upper`, and a record beyond the last bucket is in no total; correctness with `lower < length < upper`
(its names repaired: it cannot run as published), and a record in no bucket counts 0 in the total. Answers without a
sentence are left out of the means of citations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from loom_bench_lciteeval.passages import AT_MOST, LEFT_OUT, Part, Passages, needle_passage, star_passages
from loom_bench_lciteeval.prompts import passage_text, passage_title
from loom_core.api import Graded, Json, Line, Prompt, Sample, build, by_task, gold_scored, installed, mean_line

COUNTS = ("citation_count", "lciteeval_passage_count")
CITED = ("citation_", "lciteeval_passage_")
BUCKETS = (8, 16, 24, 32, 40, 48)
LENGTH_BUCKETS = (8, 16, 32)
"""Upper bounds in thousands of the record's own length; the second of the collection graded by length."""
LONG_NEWS = 40
"""The bucket of every longer record of multi_news."""
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
PARTS: tuple[Part, ...] = ("recall", "precision", "f1")
ONE_TEXT = ("lciteeval_rouge_l", "lciteeval_niah")


def bucket(length: float, task: str, *, strict: bool = False) -> str | None:
    """The bucket of a record's length, as "8k"; None beyond the last one. strict: a bound itself is in none."""
    bounds = LENGTH_BUCKETS if task.endswith("_length") else BUCKETS
    if task == "multi_news" and length > 1000 * LONG_NEWS:
        return f"{LONG_NEWS}k"
    for lower, upper in zip((0, *bounds), bounds, strict=False):
        if (1000 * lower < length if strict else 1000 * lower <= length) and length < 1000 * upper:
            return f"{upper}k"
    return None


def table(rows: Sequence[Graded]) -> list[Line]:
    """A line for each task and metric, and one for each of its levels where there are several."""
    lines = []
    for task, found in by_task(rows).items():
        for metric in dict.fromkeys(name for row in found for name in row.scored):
            lines += _lines(task, metric, found)
    return lines


def _lines(task: str, metric: str, rows: Sequence[Graded]) -> list[Line]:
    """The total of a metric, then its levels."""
    scale, cited = 1.0 if metric in COUNTS else 100.0, metric.startswith(CITED)
    kept = [row for row in rows if not _left_out(row, metric)]
    levels = [_level(row, strict=not cited) for row in kept]
    by_length = all(row.sample.meta.get("length") is not None for row in rows) and not task.endswith("_hardness")
    beyond = levels.count(None) if by_length else 0
    within = [row for row, level in zip(kept, levels, strict=True) if level is not None or not by_length]
    notes = [f"{len(rows) - len(kept)} answers without citations to judge left out"] if len(kept) < len(rows) else []
    if cited:
        notes += [f"{beyond} records beyond the buckets left out"] if beyond else []
        total = mean_line(task, metric, within, scale=scale, note="; ".join(notes))
    else:
        notes += [f"{beyond} records in no bucket count 0"] if beyond else []
        total = _with_zeros(mean_line(task, metric, within, scale=scale, note="; ".join(notes)), beyond)
    names = dict.fromkeys(level for level in levels if level not in (None, "all"))
    lines = [total]
    for name in sorted(map(str, names), key=_order) if len(names) > 1 else ():
        members = [row for row, level in zip(kept, levels, strict=True) if level == name]
        lines.append(mean_line(f"{task} {name}", metric, members, scale=scale))
    return lines


def _level(row: Graded, *, strict: bool) -> str | None:
    length = row.sample.meta.get("length")
    if length is None or row.task.endswith("_hardness"):
        return row.sample.level
    return bucket(length, row.task, strict=strict)


def _left_out(row: Graded, metric: str) -> bool:
    scored = row.scored.get(metric)
    return scored is not None and str(scored.detail.get("official", "")).startswith(LEFT_OUT)


def _with_zeros(line: Line, n: int) -> Line:
    """The line with `n` more samples of the value 0."""
    if not n:
        return line
    value = (line.value or 0.0) * line.n / (line.n + n)
    return replace(line, value=value, n=line.n + n)


_DIFFICULTY = {"easy": 0, "medium": 1, "hard": 2}


def _order(level: str) -> tuple[int, str]:
    return (_DIFFICULTY.get(level, int(level[:-1]) if level[:-1].isdigit() else 0), level)


def gold_score(row: Mapping[str, Json]) -> Json:
    """The official score of a row, in the shape of its official score; a metric of another name is the task's."""
    metric, task = str(row.get("metric")), str(row.get("task"))
    if metric.startswith("citation"):
        return _gold_citations(row)
    if metric.startswith("known passage"):
        return _gold_passages(row)
    if metric == "f1/precision/recall":
        return {part: gold_scored(f"lciteeval_{part}", row).value for part in ("f1", "precision", "recall")}
    name = GOLD.get(metric, GOLD_TASKS.get(task, "lciteeval_f1"))
    if name in ONE_TEXT and isinstance(row["references"], list):
        # The authors' scorer raises for a list of references.
        return 0.0
    return gold_scored(name, row).value


def _gold_citations(row: Mapping[str, Json]) -> dict[str, list[float]]:
    """Lists of one value, or empty ones where the authors leave the answer out; by the double that the row names."""
    catalog, extra = installed(), row.get("extra") or {}
    text = _text(row)
    documents, titles = _passages(extra.get("docs") or ())
    sample = _sample(row, documents, {"titles": titles})
    chosen = {"model": "words", "sentences": "rule", "at_most": str(extra.get("at_most_citations") or 10**6)}
    scores: dict[str, list[float]] = {}
    for ours, theirs in (*((f"citation_{part}", part) for part in PARTS), ("citation_count", "num")):
        found = catalog.metrics.get(ours)
        options = build(found.spec.options, chosen, owner=f"metric {ours}")
        scored = catalog.load(found)(options).score(text, sample)
        scores[theirs] = [] if "official" in scored.detail else [scored.value]
    return {name: values if name != "num" else [int(value) for value in values] for name, values in scores.items()}


def _gold_passages(row: Mapping[str, Json]) -> list[float]:
    """Recall, precision and F1 of a row whose right passages are known."""
    extra, task = row.get("extra") or {}, str(row.get("task"))
    documents, _ = _passages(extra.get("docs") or ())
    references = row["references"]
    answer = references[0] if isinstance(references, list) and references else references
    stars = task == "counting_stars"
    gold = star_passages(documents) if stars else needle_passage(str(answer), documents)
    sample = _sample(row, documents, {"passages": gold, "cited_as": "json" if stars else "line"})
    text, at_most = _text(row), int(extra.get("at_most_citations") or AT_MOST)
    return [Passages(part, at_most).score(text, sample).value or 0.0 for part in PARTS]


def _passages(docs: Sequence[Json]) -> tuple[tuple[str, ...], list[str | None]]:
    return tuple(map(passage_text, docs)), list(map(passage_title, docs))


def _text(row: Mapping[str, Json]) -> str:
    return row["prediction"] if isinstance(row["prediction"], str) else ""


def _sample(row: Mapping[str, Json], documents: tuple[str, ...], meta: Mapping[str, Json]) -> Sample:
    task = str(row.get("task"))
    return Sample(id="gold", task=task, prompt=Prompt(segments=()), references=(), documents=documents, meta=meta)
