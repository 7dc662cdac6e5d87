"""Every task of the benchmarks that have official scores is scored by rows, on its own metric. Needs no shared rows."""

from __future__ import annotations

from typing import Any

import pytest
from loom_kit import score_gold_row

from loom_core.api import UsageError

STARS = list(range(1, 33))
CLASSES = ["Food", "Date", "City"]


def row(benchmark: str, task: str, metric: str, prediction: Any, references: Any, **extra: Any) -> dict[str, Any]:
    return {
        "benchmark": benchmark,
        "task": task,
        "metric": metric,
        "prediction": prediction,
        "references": references,
        "extra": extra,
    }


F1_TASKS = (
    "narrativeqa",
    "qasper",
    "multifieldqa_en",
    "hotpotqa",
    "2wikimqa",
    "musique",
    "triviaqa",
    "multifieldqa_zh",
)
SUMMARIES = ("gov_report", "qmsum", "multi_news", "samsum", "dureader", "vcsum")
LONGBENCH: list[tuple[str, str, str, float]] = [
    # Half of the words are right: F1 2/3. ROUGE has 1e-8 in its denominator, so a task of one answer is 100 rounded.
    *((task, "Ulm now", "Ulm", 66.67) for task in F1_TASKS),
    *((task, "Ulm", "Ulm", 100.0) for task in SUMMARIES),
    *((task, "\nFood\nDate", "Food", 100.0) for task in ("trec", "lsht")),
    ("passage_retrieval_en", "3 of 30", "Paragraph 3", 50.0),
    ("passage_retrieval_zh", "3 of 30", "段落3", 50.0),
    ("passage_count", "3 of 30", "3", 50.0),
    *((task, "# note\nx = 1", "x = 1", 100.0) for task in ("lcc", "repobench-p")),
]
FIRST = ("qasper", "hotpotqa", "2wikimqa", "gov_report", "multi_news", "trec", "triviaqa", "samsum", "lcc")
EXTENDED = (*FIRST, "multifieldqa_en", "passage_count", "passage_retrieval_en", "repobench-p")


@pytest.mark.parametrize(("task", "prediction", "reference", "wanted"), LONGBENCH)
def test_longbench(task: str, prediction: str, reference: str, wanted: float) -> None:
    whole = row("longbench", task, "scorer", [prediction], [[reference]], all_classes=CLASSES)
    assert score_gold_row(whole) == wanted
    one = row("longbench", task, "score", prediction, [reference], all_classes=CLASSES)
    assert score_gold_row(one) == pytest.approx(wanted / 100, abs=1e-4)
    if task in EXTENDED:
        found = score_gold_row(
            {**whole, "task": f"{task}_e", "metric": "scorer_e", "extra": {**whole["extra"], "lengths": [5000]}}
        )
        assert found == {"0-4k": None, "4-8k": wanted, "8k+": None}


def test_longbench_has_21_tasks_here_and_13_extended() -> None:
    assert len({task for task, *_ in LONGBENCH}) == 21 and len(set(EXTENDED)) == 13
    with pytest.raises(UsageError, match="no task of LongBench is called 'hotpot'"):
        score_gold_row(row("longbench", "hotpot", "scorer", [], []))


@pytest.mark.parametrize(
    "task", ["natural_question", "financial_qa", "legal_contract_qa", "multidoc_qa", "narrative_qa", "scientific_qa"]
)
def test_leval_f1(task: str) -> None:
    assert score_gold_row(row("leval", task, "f1", "Ulm now", ["Ulm"])) == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    "task",
    ["gov_report_summ", "meeting_summ", "news_summ", "paper_assistant", "patent_summ", "review_summ", "tv_show_summ"],
)
def test_leval_rouge(task: str) -> None:
    found = score_gold_row(row("leval", task, "rouge", "the bill", ["the bill"]))
    assert found == {"rouge1": 100.0, "rouge2": 100.0, "rougeL": 100.0, "geometric_mean": 100.0}


@pytest.mark.parametrize(
    ("task", "prediction", "reference", "wanted"),
    [
        ("quality", "(C) It rained.", "(C) It rained.", 100.0),
        ("tpo", "D.", "D", 100.0),
        ("coursera", "A", "AC", 25.0),
        ("gsm100", "So 3. The answer is 8,000.", "8000", 100.0),
        ("codeU", "the final output is 5", "5", 100.0),
        ("topic_retrieval_longchat", 'It was "The role of art".', "The role of art", 100.0),
        ("sci_fi", "True [fact: False]", "True [fact: True]", [100.0, 0.0]),
        ("sci_fi", "True", "True [fact: True]", [0.0, 0.0]),
    ],
)
def test_leval_exams(task: str, prediction: str, reference: str, wanted: Any) -> None:
    assert score_gold_row(row("leval", task, "exact_match", prediction, [reference])) == wanted


NIAH = [f"niah_{kind}_{i}" for kind in ("single", "multikey") for i in (1, 2, 3)]


@pytest.mark.parametrize("task", [*NIAH, "niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2"])
def test_ruler(task: str) -> None:
    part = task.startswith("qa")
    metric = "string_match_part" if part else "string_match_all"
    wanted = 100.0 if part else 33.33
    assert score_gold_row(row("ruler", task, metric, "A", ["a", "b", "c"])) == wanted
    assert score_gold_row(row("ruler", task, "", "A", ["a", "b", "c"])) == wanted
    assert score_gold_row(row("ruler", task, metric, ["A", ""], [["a"], ["b"]])) == 50.0


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        *((f"qa{i}", "garden") for i in (1, 2, 3, 4, 11, 12, 13)),
        ("qa5", "Bill"),
        *((f"qa{i}", "yes") for i in (6, 9, 10, 17, 18)),
        ("qa7", "two"),
        ("qa8", "apple,milk"),
        ("qa14", "cinema"),
        ("qa15", "wolf"),
        ("qa16", "gray"),
        ("qa19", "n,e"),
        ("qa20", "bored"),
    ],
)
def test_babilong(task: str, answer: str) -> None:
    assert score_gold_row(row("babilong", task, "compare_answers", f"{answer}.", [answer], question="What?")) == 1
    assert score_gold_row(row("babilong", f"{task}_4k", "compare_answers", "", [answer], question="What?")) == 0


@pytest.mark.parametrize("language", ["EN", "ZH"])
@pytest.mark.parametrize(
    ("kind", "wanted"), [("Acquisition", 0.5), ("searching", 0.5), ("Reasoning", 0.625), ("reasoning", 0.625)]
)
def test_counting_stars(language: str, kind: str, wanted: float) -> None:
    key = "little_penguin" if language == "EN" else "小企鹅"
    references = {"reference_counting_results": STARS, "r_stars": [100 + n for n in STARS]}
    # The first half right, the second half the mistaken counts: 16/32, and a quarter for each mistaken one.
    answer = f'{{"{key}": {[*STARS[:16], *references["r_stars"][16:]]}}}'
    assert score_gold_row(row("counting_stars", f"{language} {kind}", "accuracy", answer, references)) == wanted
    assert score_gold_row(row("Counting-Stars", f"{language} {kind}", "accuracy", "", references)) == 0


@pytest.mark.parametrize(
    "task", ["narrativeqa", "natural_questions", "hotpotqa", "2wikimultihopqa", "locomo", "dialsim"]
)
def test_lciteeval_answers(task: str) -> None:
    found = score_gold_row(row("l_citeeval", task, "f1/precision/recall", "Ulm now [1].\nNo", "Ulm"))
    assert found == pytest.approx({"f1": 2 / 3, "precision": 0.5, "recall": 1.0})


@pytest.mark.parametrize("task", ["gov_report", "multi_news", "qmsum"])
@pytest.mark.parametrize("metric", ["rouge-l f", "rouge-l"])
def test_lciteeval_summaries(task: str, metric: str) -> None:
    assert score_gold_row(row("l_citeeval", task, metric, "Summary: the bill [2]", "the bill")) == pytest.approx(1)
    assert score_gold_row(row("l_citeeval", task, metric, "", "the bill")) == 0


def test_lciteeval_others() -> None:
    assert score_gold_row(row("l_citeeval", "niah", "rouge-1 r", "eat it", "eat a sandwich now")) == 0.25
    answer = '{"little_penguin": [3, 9], "passage_id": [1]}'
    assert score_gold_row(row("l_citeeval", "counting_stars", "accuracy", answer, [3, 4])) == 0.5
    documents = ["Rome is old.", "The Seine is long."]
    cited = row("l_citeeval", "locomo", "citation recall/precision/f1/num", "Rome is old [1][2].", [], docs=documents)
    assert score_gold_row(cited) == {"recall": [1.0], "precision": [0.5], "f1": [pytest.approx(2 / 3)], "num": [2]}


def test_longbench_v2_reads_the_letter_without_a_key() -> None:
    assert score_gold_row(row("longbench_v2", "all", "extract_answer", "The correct answer is **C**", [])) == "C"
    assert score_gold_row(row("LongBench v2", "all", "accuracy", "The correct answer is (C)", ["C"])) == 1


def test_longsafety_and_passkey() -> None:
    assert score_gold_row(row("longsafety", "all", "unsafe front/end/final", {"judgment_end": "1"}, [])) == {
        "front": False,
        "end": True,
        "final": True,
    }
    name = "exact_match/partial_match"
    missed = {"exact_match": [], "partial_match": [0.0]}
    assert score_gold_row(row("passkey", "paulgraham_passkey", name, "", ["1234567"])) == missed
    assert score_gold_row(row("passkey", "paulgraham_passkey", name, "", [["1234567"]])) == {
        **missed,
        "exact_match": [0],
    }


def test_rows_that_lack_something() -> None:
    with pytest.raises(UsageError, match="the row has no 'prediction'"):
        score_gold_row({"benchmark": "ruler"})
    assert score_gold_row({"benchmark": "ruler", "prediction": "x"}) == 0
    assert score_gold_row({"benchmark": "leval", "task": "quality", "metric": "exact_match", "prediction": None}) == 0
