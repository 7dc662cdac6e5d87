"""Rows of official scores to our metrics, and back to the official shape and scale. Knows the rows' format only.

A row: {benchmark, task, metric, prediction, references, extra, official_score, scorer}. `metric_for` says which metric
scores it on which sample; `score` gives what the official function gave (numbers scaled and rounded as there, lists and
mappings with the same entries). Of `official_score` only the names of a mapping are read, never a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loom_core.api import Json, Metric, Prompt, Sample, Scored, UsageError, nearest, resolve
from loom_metric_text.length import count_words, length_score
from loom_metric_text.plugin import loom_metrics
from loom_metric_text.ranked import marked_answer, ranking_scores

Row = Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How one kind of row is scored.

    metrics: the official name of each part to our metric; a single part "" is a plain value. scale, digits: of the
    official number. keys: entry of `extra` to the name in `meta`. shape: what the parts are put together to.
    """

    metrics: Mapping[str, str]
    scale: float = 1.0
    digits: int | None = None
    keys: Mapping[str, str] | None = None
    shape: Callable[[Mapping[str, Scored], Rule], Json] | None = None

    def number(self, scored: Scored) -> float:
        """A value in the official scale and rounding."""
        value = (scored.value or 0.0) * self.scale
        return value if self.digits is None else round(value, self.digits)


def _one(name: str, **rest: Any) -> Rule:
    return Rule(metrics={"": name}, **rest)


def _list(parts: Mapping[str, Scored], rule: Rule) -> Json:
    return [rule.number(scored) for scored in parts.values()]


def _extracted(parts: Mapping[str, Scored], rule: Rule) -> Json:
    found = {name: scored.extracted for name, scored in parts.items()}
    return found.get("", found)


def _leval_rouge(parts: Mapping[str, Scored], rule: Rule) -> Json:
    from loom_metric_text.rouge_score import geometric_mean

    values = {name: rule.number(scored) for name, scored in parts.items()}
    means = [100 * (scored.value or 0.0) for scored in parts.values()]
    return {**values, "geometric_mean": round(geometric_mean(*means), 4)}


def _order(parts: Mapping[str, Scored], rule: Rule) -> Json:
    return [rule.number(parts[""]), parts[""].detail["format_error"]]


_LONGBENCH = {"first_line_only": "first_line_only", "all_classes": "all_classes"}
_STOP_WORDS = {"stop_words": "stop_words"}
_KEYWORDS = {"gold_ans": "keywords", **_STOP_WORDS}
_MODEL = {"model_name": "model_name"}
_ROUGE_PARTS = {"rouge1": "leval_rouge1", "rouge2": "leval_rouge2", "rougeL": "leval_rouge_l"}

RULES: dict[tuple[str, str], Rule] = {
    ("longbench", "qa_f1_score"): _one("longbench_qa_f1", keys=_LONGBENCH),
    ("longbench", "qa_f1_zh_score"): _one("longbench_qa_f1_zh", keys=_LONGBENCH),
    ("longbench", "rouge_score"): _one("longbench_rouge", keys=_LONGBENCH),
    ("longbench", "rouge_zh_score"): _one("longbench_rouge_zh", keys=_LONGBENCH),
    ("longbench", "classification_score"): _one("longbench_classification", keys=_LONGBENCH),
    ("longbench", "retrieval_score"): _one("longbench_retrieval"),
    ("longbench", "retrieval_zh_score"): _one("longbench_retrieval_zh"),
    ("longbench", "count_score"): _one("longbench_count"),
    ("longbench", "code_sim_score"): _one("longbench_code_sim"),
    ("longbench_v2", "extract_answer"): _one("longbench_v2_choice", shape=_extracted),
    ("ruler", "string_match_all"): _one("ruler_match_all", scale=100, digits=2),
    ("ruler", "string_match_part"): _one("ruler_match_any", scale=100, digits=2),
    ("scbench", "string_match_all"): _one("scbench_match_all"),
    ("babilong", "compare_answers"): _one("babilong_labels", keys={"question": "question"}),
    ("leval", "f1"): _one("leval_f1", scale=100),
    ("leval", "rouge"): Rule(metrics=_ROUGE_PARTS, scale=100, digits=4, shape=_leval_rouge),
    ("leval", "exact_match(loyalty,fact)"): Rule(
        metrics={"loyalty": "leval_loyalty", "fact": "leval_fact"}, scale=100, shape=_list
    ),
    ("l_citeeval", "f1/precision/recall"): Rule(
        metrics={"f1": "lciteeval_f1", "precision": "lciteeval_precision", "recall": "lciteeval_recall"}
    ),
    ("l_citeeval", "rouge-l f"): _one("lciteeval_rouge_l"),
    ("l_citeeval", "rouge-1 r"): _one("lciteeval_niah"),
    ("lveval", "qa_f1_score"): _one("lveval_qa_f1"),
    ("lveval", "qa_f1_zh_score"): _one("lveval_qa_f1_zh"),
    ("lveval", "qa_f1_score_with_gold_ans"): _one("lveval_gated_f1", keys=_KEYWORDS),
    ("lveval", "qa_f1_zh_score_with_gold_ans"): _one("lveval_gated_f1_zh", keys=_KEYWORDS),
    ("lveval", "rouge_zh_score_blacklist"): _one("lveval_rouge_zh", keys=_STOP_WORDS),
    ("clongeval", "qa_f1_zh_score"): _one("clongeval_qa_f1"),
    ("clongeval", "rouge_zh_score"): _one("clongeval_rouge"),
    ("clongeval", "news_labeling_zh_score"): _one("clongeval_news"),
    ("clongeval", "typo_detection_zh_score"): _one("clongeval_typos"),
    ("clongeval", "retrieval_zh_edit_score"): _one("clongeval_edit"),
    ("clongeval", "table_querying_match_score"): _one("clongeval_table"),
    ("libra", "em"): _one("libra_match"),
    ("libra", "f1"): _one("libra_f1"),
    ("libra", "count_score"): _one("libra_count"),
    ("nolima", "metric EM"): _one("nolima_exact"),
    ("nolima", "metric contains"): _one("nolima_contains"),
    ("nolima", "metric lastline_EM"): _one("nolima_last_line_exact"),
    ("nolima", "metric lastline_contains"): _one("nolima_last_line_contains"),
    ("bamboo", "concordance index, format error"): _one("bamboo_order", shape=_order),
    ("bamboo", "altqa_accuracy"): _one("bamboo_exact"),
    ("bamboo", "qa_accuracy"): _one("bamboo_choice"),
    ("longins", "f1"): _one("longins_f1"),
    ("helmet", "calculate_metrics"): Rule(
        metrics={
            "exact_match": "helmet_exact_match",
            "f1": "helmet_f1",
            "substring_exact_match": "helmet_substring_match",
            "rougeL_f1": "helmet_rouge_l_f1",
            "rougeL_recall": "helmet_rouge_l_recall",
            "rougeLsum_f1": "helmet_rouge_lsum_f1",
            "rougeLsum_recall": "helmet_rouge_lsum_recall",
        }
    ),
    ("longbench_pro", "Accuracy"): _one("longbench_pro_accuracy"),
    ("longbench_pro", "F1_Score"): _one("longbench_pro_f1"),
    ("longbench_pro", "SubEM"): _one("longbench_pro_members"),
    ("longbench_pro", "NDCG"): _one("longbench_pro_ndcg"),
    ("longbench_pro", "Pairwise_Accuracy"): _one("longbench_pro_pairs"),
}
"""By benchmark and the row's metric."""

TASK_RULES: dict[tuple[str, str], Rule] = {
    **{("leval", task): _one("leval_choice", scale=100) for task in ("quality", "tpo")},
    ("leval", "coursera"): _one("leval_choices", scale=100),
    ("leval", "gsm100"): _one("leval_math", scale=100),
    ("leval", "codeU"): _one("leval_code", scale=100),
    ("leval", "topic_retrieval_longchat"): _one("leval_topic", scale=100),
    ("libra", "ru_qasper"): _one("libra_f1"),
    ("l_citeeval", "counting_stars"): _one("lciteeval_counting_stars"),
    ("ada_leval", "stackselect"): _one("ada_stackselect", scale=100, keys={"num_choice": "num_choice"}),
    ("ada_leval", "textsort"): _one("ada_textsort", scale=100),
    ("infinitebench", "kv_retrieval"): _one("infinitebench_kv"),
    ("infinitebench", "passkey"): _one("infinitebench_first_number"),
    ("infinitebench", "number_string"): _one("infinitebench_first_number"),
    ("infinitebench", "code_run"): _one("infinitebench_code_run"),
    ("infinitebench", "code_debug"): _one("infinitebench_code_debug"),
    ("infinitebench", "math_find"): _one("infinitebench_math_find"),
    ("infinitebench", "math_calc"): _one("infinitebench_math_calc", keys=_MODEL),
    ("infinitebench", "longdialogue_qa_eng"): _one("infinitebench_dialogue"),
    ("infinitebench", "longbook_choice_eng"): _one("infinitebench_choice"),
    ("infinitebench", "longbook_qa_eng"): _one("infinitebench_qa_f1"),
    ("infinitebench", "longbook_qa_chn"): _one("infinitebench_qa_f1_zh"),
    ("infinitebench", "longbook_sum_eng"): _one("infinitebench_rouge_lsum"),
    ("loogle", "shortdep_cloze"): Rule(
        metrics={"exact": "loogle_cloze_exact", "partial": "loogle_cloze_partial"}, shape=_extracted
    ),
}
"""By benchmark and task, where the row's metric does not tell."""

LOOGLE = {
    "bleu1": "loogle_bleu1",
    "bleu4": "loogle_bleu4",
    "rouge1": "loogle_rouge1",
    "rouge2": "loogle_rouge2",
    "rougel": "loogle_rouge_l",
}
"""LooGLE's rows ask for some of these parts by name."""

TASK_SCORERS = {
    ("longbench", "triviaqa"): ("longbench_qa_f1", True),
    ("longbench", "samsum"): ("longbench_rouge", True),
    ("longbench", "trec"): ("longbench_classification", True),
    ("longbench", "lsht"): ("longbench_classification", True),
    **{
        ("longbench", task): ("longbench_qa_f1", False)
        for task in ("narrativeqa", "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "musique")
    },
    ("longbench", "multifieldqa_zh"): ("longbench_qa_f1_zh", False),
    **{("longbench", task): ("longbench_rouge", False) for task in ("gov_report", "qmsum", "multi_news")},
    **{("longbench", task): ("longbench_rouge_zh", False) for task in ("dureader", "vcsum")},
    ("longbench", "passage_retrieval_en"): ("longbench_retrieval", False),
    ("longbench", "passage_retrieval_zh"): ("longbench_retrieval_zh", False),
    ("longbench", "passage_count"): ("longbench_count", False),
    **{("longbench", task): ("longbench_code_sim", False) for task in ("lcc", "repobench-p")},
    **{
        ("lveval", f"{task}_mixup"): ("lveval_gated_f1", False)
        for task in ("hotpotwikiqa", "loogle_SD", "loogle_CR", "loogle_MIR", "multifieldqa_en")
    },
    **{("lveval", f"{task}_mixup"): ("lveval_gated_f1_zh", False) for task in ("multifieldqa_zh", "cmrc", "lic")},
    ("lveval", "dureader_mixup"): ("lveval_rouge_zh", False),
    ("lveval", "factrecall_en"): ("lveval_qa_f1", False),
    ("lveval", "factrecall_zh"): ("lveval_qa_f1_zh", False),
}
"""For rows of a whole task: the metric, and whether only the first line counts."""

FUNCTIONS: dict[tuple[str, str], Callable[[Row], Json]] = {
    ("helmet", "parse_output"): lambda row: marked_answer(row["prediction"]),
    ("helmet", "parse_rankings"): lambda row: ranking_scores(row["prediction"]),
    ("longwriter", "S_l"): lambda row: 100 * length_score(row["prediction"]["required"], row["prediction"]["length"]),
    ("longwriter", "count_words"): lambda row: count_words(row["prediction"]),
}
"""Rows of a step that is not a metric by itself."""


def known(row: Row) -> bool:
    """True where this plugin can score the row."""
    return (row["benchmark"], row["metric"]) in FUNCTIONS or _whole_task(row) or _rule(row) is not None


def metric_for(row: Row) -> tuple[str, Sample]:
    """The metric that scores the row, and the sample it reads; for a row of several parts, the first part's metric.

    Raises UsageError for a row that no metric of this plugin scores, or that is a whole task or a mere step.
    """
    rule = _rule(row)
    if rule is None:
        raise UsageError(
            f"no text metric scores {row['metric']!r} of {row['benchmark']}",
            where=f"{row['benchmark']}, {row['task']}",
            hint=nearest(str(row["benchmark"]), {benchmark for benchmark, _ in (*RULES, *TASK_RULES)}),
        )
    return next(iter(rule.metrics.values())), sample_for(row, rule)


def score(row: Row) -> Json:
    """What the official scorer says of the row, in its own shape and scale; never raises on a prediction.

    Where the official scorer raises, the values are 0, as the metrics say. Raises UsageError for an unknown row.
    """
    function = FUNCTIONS.get((row["benchmark"], row["metric"]))
    if function is not None:
        return function(row)
    if _whole_task(row):
        return _task_score(row)
    _, sample = metric_for(row)
    rule = _rule(row)
    assert rule is not None
    text = _text(row["prediction"])
    parts = {
        part: Scored(value=0.0, detail={"note": "the prediction is no text"}) if text is None else m.score(text, sample)
        for part, m in ((part, opened(name)) for part, name in rule.metrics.items())
    }
    if rule.shape is not None:
        return rule.shape(parts, rule)
    values = {part: rule.number(scored) for part, scored in parts.items()}
    return values.get("", values)


def sample_for(row: Row, rule: Rule) -> Sample:
    """The row as a sample: references as a tuple, entries of `extra` under the names that the metric reads."""
    extra = row.get("extra") or {}
    meta = {ours: extra[theirs] for theirs, ours in (rule.keys or {}).items() if theirs in extra}
    references, task = row["references"], str(row["task"])
    if row["benchmark"] == "counting_stars":
        meta = {"wrong": references.get("r_stars"), "key": "小企鹅" if task.startswith("ZH") else "little_penguin"}
        references = references["reference_counting_results"]
    return Sample(
        id="gold",
        task=task,
        prompt=Prompt(segments=()),
        references=tuple(references) if isinstance(references, list) else (references,),
        negatives=tuple(extra.get("negative_outputs") or ()),
        meta=meta,
    )


def opened(name: str) -> Metric:
    """The metric of that name."""
    spec = next(spec for spec in loom_metrics() if spec.name == name)
    metric: Metric = resolve(spec.factory)()
    return metric


def _text(prediction: Json) -> str | None:
    """A prediction as text: a list of whole numbers as such a list reads, None for anything else that is not a text."""
    if isinstance(prediction, list) and all(isinstance(item, int) for item in prediction):
        return " ".join(map(str, prediction))
    return prediction if isinstance(prediction, str) else None


def _rule(row: Row) -> Rule | None:
    benchmark, task = str(row["benchmark"]), str(row["task"])
    if str(row["metric"]).startswith("known passage"):
        return None  # citations of a task whose answers a text metric does score: the benchmark's own
    found = RULES.get((benchmark, str(row["metric"]))) or TASK_RULES.get((benchmark, task))
    if found is not None:
        return found
    if benchmark == "counting_stars":
        return _stars(row)
    if benchmark == "loogle":
        return _loogle(row)
    return None


def _stars(row: Row) -> Rule:
    kind = "reasoning" if "reasoning" in str(row["task"]).lower() else "searching"
    return _one(f"counting_stars_{kind}", digits=3)


def _loogle(row: Row) -> Rule | None:
    """The parts that the official mapping names, or that the row's metric names."""
    official = row.get("official_score")
    names = list(official) if isinstance(official, dict) else str(row["metric"]).split("/")
    wanted = {name: LOOGLE.get(str(name).lower().replace("-", "").replace("_", "")) for name in names}
    metrics = {name: ours for name, ours in wanted.items() if ours}
    if metrics:
        return Rule(metrics=metrics)
    return None


def _whole_task(row: Row) -> bool:
    return row["metric"] == "scorer" and (row["benchmark"], _base(row["task"])) in TASK_SCORERS


def _base(task: Json) -> str:
    """A task's name without its length: hotpotwikiqa_mixup_16k is hotpotwikiqa_mixup."""
    name, _, length = str(task).rpartition("_")
    return name if name and length.rstrip("k").isdigit() and length.endswith("k") else str(task)


def _task_score(row: Row) -> float:
    """The mean over a task's predictions, times 100, two decimals."""
    name, first_line_only = TASK_SCORERS[str(row["benchmark"]), _base(row["task"])]
    extra, metric, values = row.get("extra") or {}, opened(name), []
    keywords = extra.get("gold_ans") or [None] * len(row["prediction"])
    for prediction, references, words in zip(row["prediction"], row["references"], keywords, strict=True):
        meta = {"first_line_only": first_line_only, "all_classes": extra.get("all_classes"), "keywords": words}
        sample = Sample(
            id="gold", task=str(row["task"]), prompt=Prompt(segments=()), references=tuple(references), meta=meta
        )
        values.append(metric.score(prediction, sample).value or 0.0)
    return round(100 * sum(values) / len(values), 2) if values else 0.0
