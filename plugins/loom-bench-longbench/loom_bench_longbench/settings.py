"""Facts about LongBench's tasks that loom must know before it reads a file. No prompt, no record.

Source: THUDM/LongBench, folder LongBench: pred.py (chat rule, truncation), eval.py (metrics, first line, buckets),
config/dataset2maxlen.json (limits, checked against the file on use). The six groups of 15 tasks: "KV Cache
Compression, But What Must We Give in Return?" (arXiv 2407.01527), which leaves passage_count out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One task. max_tokens: of the answer. chat: whether the chat template is applied. first_line: only the answer's
    first line is scored. retrieval: whether retrieving parts of the context makes sense."""

    metric: str
    max_tokens: int
    language: str = "en"
    chat: bool = True
    first_line: bool = False
    retrieval: bool = True


_F1, _ROUGE, _CLASSES, _CODE = "longbench_qa_f1", "longbench_rouge", "longbench_classification", "longbench_code_sim"
_ROUGE_ZH = "longbench_rouge_zh"

SETTINGS: Mapping[str, Settings] = {
    "narrativeqa": Settings(metric=_F1, max_tokens=128),
    "qasper": Settings(metric=_F1, max_tokens=128),
    "multifieldqa_en": Settings(metric=_F1, max_tokens=64),
    "multifieldqa_zh": Settings(metric="longbench_qa_f1_zh", max_tokens=64, language="zh"),
    "hotpotqa": Settings(metric=_F1, max_tokens=32),
    "2wikimqa": Settings(metric=_F1, max_tokens=32),
    "musique": Settings(metric=_F1, max_tokens=32),
    "dureader": Settings(metric=_ROUGE_ZH, max_tokens=128, language="zh"),
    "gov_report": Settings(metric=_ROUGE, max_tokens=512, retrieval=False),
    "qmsum": Settings(metric=_ROUGE, max_tokens=512),
    "multi_news": Settings(metric=_ROUGE, max_tokens=512, retrieval=False),
    "vcsum": Settings(metric=_ROUGE_ZH, max_tokens=512, language="zh", retrieval=False),
    "trec": Settings(metric=_CLASSES, max_tokens=64, chat=False, first_line=True, retrieval=False),
    "triviaqa": Settings(metric=_F1, max_tokens=32, chat=False, first_line=True),
    "samsum": Settings(metric=_ROUGE, max_tokens=128, chat=False, first_line=True, retrieval=False),
    "lsht": Settings(metric=_CLASSES, max_tokens=64, language="zh", chat=False, first_line=True, retrieval=False),
    "passage_count": Settings(metric="longbench_count", max_tokens=32, retrieval=False),
    "passage_retrieval_en": Settings(metric="longbench_retrieval", max_tokens=32, retrieval=False),
    "passage_retrieval_zh": Settings(metric="longbench_retrieval_zh", max_tokens=32, language="zh", retrieval=False),
    "lcc": Settings(metric=_CODE, max_tokens=64, chat=False, retrieval=False),
    "repobench-p": Settings(metric=_CODE, max_tokens=64, chat=False, retrieval=False),
}
LAST_LINE_ENDS = ("samsum",)
"""Tasks whose answer also ends at a line feed, and has at least one token."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "single-document QA": ("narrativeqa", "qasper", "multifieldqa_en"),
    "multi-document QA": ("hotpotqa", "2wikimqa", "musique"),
    "summarisation": ("gov_report", "qmsum", "multi_news"),
    "few-shot": ("trec", "triviaqa", "samsum"),
    "synthetic": ("passage_retrieval_en",),
    "code": ("lcc", "repobench-p"),
}
EXTENDED = "_e"
BUCKETS = ((4000, "0-4k"), (8000, "4-8k"))
"""Lengths in words below which a sample of an `_e` task falls into the bucket; the others are "8k+"."""
LAST_BUCKET = "8k+"

SCORERS: Mapping[str, str] = {
    "qa_f1_score": _F1,
    "qa_f1_zh_score": "longbench_qa_f1_zh",
    "rouge_score": _ROUGE,
    "rouge_zh_score": _ROUGE_ZH,
    "classification_score": _CLASSES,
    "retrieval_score": "longbench_retrieval",
    "retrieval_zh_score": "longbench_retrieval_zh",
    "count_score": "longbench_count",
    "code_sim_score": _CODE,
}
"""The authors' functions, as gold rows name them."""


def base(task: str) -> str:
    """A task's name without `_e`."""
    return task.removesuffix(EXTENDED)


def bucket(words: float) -> str:
    """The length bucket of an `_e` sample."""
    return next((name for below, name in BUCKETS if words < below), LAST_BUCKET)
