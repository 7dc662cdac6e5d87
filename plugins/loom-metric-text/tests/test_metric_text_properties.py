"""Properties of every registered text metric, and equality with the packages that the authors' scorers call."""

from __future__ import annotations

import re
import string
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from loom_metric_text import bleu, lcs, rouge, rouge_score
from loom_metric_text.edit import fuzz_ratio
from loom_metric_text.f1 import squad_f1
from loom_metric_text.gold import opened
from loom_metric_text.plugin import loom_metrics

from loom_core.api import Prompt, Sample

SPECS = loom_metrics()
META: dict[str, Any] = {
    "stop_words": ["of", "the"],
    "all_classes": ["Food", "Other", "Other location"],
    "question": "Where is Mary?",
    "task": "qa1",
    "num_choice": 6,
    "wrong": [2, 4, 6],
    "length": 100,
    "keywords": "harbour town",
}
REFERENCES: dict[str, tuple[Any, ...]] = {
    "longbench_classification": ("Food",),
    "longbench_retrieval": ("Paragraph 3",),
    "longbench_retrieval_zh": ("段落3",),
    "longbench_count": ("7",),
    "longbench_v2_choice": ("The correct answer is (B)",),
    "longbench_v2_choice_compensated": ("The correct answer is (B)",),
    "longbench_pro_pairs": ("one", "two", "three"),
    "babilong_labels": ("garden",),
    "babilong_whole_labels": ("garden",),
    "counting_stars_searching": (1, 3, 5),
    "counting_stars_reasoning": (1, 3, 5),
    "lciteeval_counting_stars": (1, 3, 5),
    "longins_f1": (3, 5),
    "leval_choice": ("B",),
    "leval_choices": ("ABD",),
    "leval_math": ("18",),
    "leval_loyalty": ("True [fact: False]",),
    "leval_fact": ("True [fact: False]",),
    "infinitebench_first_number": ("71432",),
    "infinitebench_kv": ("abc-1",),
    "infinitebench_code_run": (42,),
    "infinitebench_code_debug": ("foo", "B"),
    "infinitebench_math_find": (88,),
    "infinitebench_math_calc": (1, 2, 3),
    "infinitebench_dialogue": ("ACE",),
    "infinitebench_choice": ("Tom", "B"),
    "lveval_gated_f1": ("harbour town of Port Amsel",),
    "clongeval_news": ("新闻 1：体育\n新闻 2：家居",),
    "clongeval_typos": ("0，阶，介\n1，澾，他",),
    "libra_count": ("7",),
    "loogle_cloze_exact": ({"<mask-1>": "Ine Marrow"},),
    "loogle_cloze_partial": ({"<mask-1>": "Ine Marrow"},),
    "bamboo_order": (0, 1, 2),
    "bamboo_choice": ("B",),
    "bamboo_yes": (True,),
    "ada_stackselect": ("A4",),
    "ada_textsort": (1, 2, 3, 4),
    "helmet_ndcg10": ("1", "2", "3"),
}
ORACLES: dict[str, str] = {
    "longbench_pro_pairs": "[Answer]\none\ntwo\nthree",
    "counting_stars_searching": '{"little_penguin": [1, 3, 5]}',
    "counting_stars_reasoning": '{"little_penguin": [1, 3, 5]}',
    "lciteeval_counting_stars": '{"little_penguin": [1, 3, 5]}',
    "longins_f1": "[3, 5]",
    "infinitebench_code_debug": "B.",
    "infinitebench_math_calc": "1, 2, 3",
    "loogle_cloze_exact": "{'<mask-1>': 'Ine Marrow'}",
    "loogle_cloze_partial": "{'<mask-1>': 'Ine Marrow'}",
    "bamboo_order": "0, 1, 2",
    "bamboo_yes": "Yes",
    "ada_textsort": "[1, 2, 3, 4]",
    "helmet_ndcg10": "1 > 2 > 3",
    "longwriter_length": "word " * 100,
}
"""Answers that deserve the full score, where that is not the first reference."""

NULLS = {"longbench_v2_choice_compensated": 0.25}
"""The value of an empty answer, where it is not 0. bamboo_yes: an empty answer says no, which is wrong here."""

PLAIN = ("the harbour town of Port Amsel in the north",)


def made(name: str) -> Sample:
    """A sample that fits a metric."""
    return Sample(id="s", task="t", prompt=Prompt(segments=()), references=REFERENCES.get(name, PLAIN), meta=dict(META))


PIECES = (
    *("a", "The", "answer is", ":", ".", "\n", " ", "[1]", "{", "}", '"little_penguin": [1', "3", "٣", "A", "B."),
    *("Paragraph 3", "garden", "北京", "。", "true [fact: ", "Answer:", ">", "，", "\ud800", "summary", "9" * 5000),
)
TEXTS = st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@pytest.mark.parametrize("name", [spec.name for spec in SPECS])
@settings(max_examples=40, deadline=None)
@given(prediction=TEXTS)
def test_any_text_scores_within_bounds_and_twice_the_same(name: str, prediction: str) -> None:
    metric, sample = opened(name), made(name)
    first = metric.score(prediction, sample)
    assert first.value is not None and 0.0 <= first.value <= 1.0
    assert metric.score(prediction, sample) == first


@pytest.mark.parametrize("name", [spec.name for spec in SPECS])
def test_oracle_is_high_and_empty_is_null(name: str) -> None:
    metric, sample = opened(name), made(name)
    oracle = ORACLES.get(name) or str(sample.references[0])
    assert metric.score(oracle, sample).value == pytest.approx(1.0, abs=1e-7)
    assert metric.score("", sample).value == NULLS.get(name, 0.0)


@pytest.mark.parametrize(
    "name", [spec.name for spec in SPECS if spec.name not in ("helmet_ndcg10", "longwriter_length")]
)
def test_a_sample_without_references_is_scored_and_says_so(name: str) -> None:
    sample = Sample(id="s", task="t", prompt=Prompt(segments=()), references=(), meta=dict(META))
    scored = opened(name).score("anything", sample)
    assert scored.value == 0


def test_names_say_whose_scorer_and_are_unique() -> None:
    names = [spec.name for spec in SPECS]
    assert len(set(names)) == len(names)
    assert all(spec.summary and len(spec.summary) < 100 for spec in SPECS)


def test_readme_describes_every_metric() -> None:
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
    assert [spec.name for spec in SPECS if f"| `{spec.name}` | {spec.summary} |" not in readme] == []


def test_registration_imports_no_scorer_package() -> None:
    packages = ("jieba", "nltk", "rapidfuzz", "json_repair", "numpy")
    code = "import sys, loom_metric_text.plugin as p; p.loom_metrics(); "
    code += f"print([m for m in {packages!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


WORDS = st.sampled_from(
    ["a", "b", "c", "d", ".", ". ", " .", "\n", "The", "running", "national", "é", "x-y", "", ",", "1"]
)
ODD = st.text("ab .,\t\r\n\x0b\x1c\x1f\x85\xa0\u2028\u3000，。《北京大学的İßΣς７3\u0301🙂", max_size=30)
LINES = st.lists(WORDS, max_size=14).map(" ".join) | st.lists(WORDS, max_size=14).map("".join) | ODD


def parts(found: Any) -> tuple[float, float, float]:
    """An Overlap as a tuple."""
    return found.precision, found.recall, found.f1


@settings(max_examples=300, deadline=None)
@given(prediction=LINES, reference=LINES)
def test_rouge_equals_the_package(prediction: str, reference: str) -> None:
    package = pytest.importorskip("rouge")
    try:
        scores = package.Rouge().get_scores([prediction], [reference], avg=True)
    except ValueError:
        scores = {name: {"p": 0.0, "r": 0.0, "f": 0.0} for name in ("rouge-1", "rouge-2", "rouge-l")}
    ours: dict[str, Any] = {
        "rouge-1": rouge.rouge_n(prediction, reference, 1),
        "rouge-2": rouge.rouge_n(prediction, reference, 2),
        "rouge-l": rouge.rouge_l(prediction, reference),
    }
    for name, found in ours.items():
        assert parts(found) == (scores[name]["p"], scores[name]["r"], scores[name]["f"])


@pytest.mark.parametrize("stem", [False, True])
@settings(max_examples=200, deadline=None)
@given(prediction=LINES, reference=LINES)
def test_rouge_score_equals_the_package(stem: bool, prediction: str, reference: str) -> None:
    package = pytest.importorskip("rouge_score.rouge_scorer")
    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    scores = package.RougeScorer(list(names), use_stemmer=stem).score(reference, prediction)
    ours = (
        rouge_score.rouge_n(prediction, reference, 1, stem),
        rouge_score.rouge_n(prediction, reference, 2, stem),
        rouge_score.rouge_l(prediction, reference, stem),
        rouge_score.rouge_lsum(prediction, reference, stem),
    )
    for name, found in zip(names, ours, strict=True):
        assert parts(found) == (scores[name].precision, scores[name].recall, scores[name].fmeasure)


@pytest.mark.parametrize(("n", "weights"), [(1, (1, 0, 0, 0)), (4, (0, 0, 0, 1))])
@settings(max_examples=150, deadline=None)
@given(prediction=LINES, reference=LINES)
@pytest.mark.filterwarnings("ignore")
def test_bleu_equals_nltk(n: int, weights: tuple[int, ...], prediction: str, reference: str) -> None:
    from nltk.translate.bleu_score import sentence_bleu  # type: ignore[import-untyped]

    text = prediction or "None"
    official = sentence_bleu([reference.split()], text.split(), weights=weights)
    assert bleu.bleu(text, reference, n) == pytest.approx(official, abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(a=st.text("abcd -_é", max_size=30), b=st.text("abcd -_é", max_size=30))
def test_fuzz_ratio_equals_fuzzywuzzy(a: str, b: str) -> None:
    pytest.importorskip("Levenshtein")
    fuzz = pytest.importorskip("fuzzywuzzy.fuzz")
    assert fuzz_ratio()(a, b) == fuzz.ratio(a, b) / 100


@settings(max_examples=150, deadline=None)
@given(prediction=LINES, reference=LINES)
def test_token_f1_equals_the_script(prediction: str, reference: str) -> None:
    """Against the definition, a character and a word at a time: lower case, punctuation out, articles out, bags."""

    def bag(text: str) -> Counter[str]:
        bare = "".join(c for c in text.lower() if c not in string.punctuation)
        return Counter(re.sub(r"\b(a|an|the)\b", " ", bare).split())

    left, right = bag(prediction), bag(reference)
    common = (left & right).total()
    wanted = 2 * common / (left.total() + right.total()) if common else 0.0
    assert squad_f1(prediction, reference) == pytest.approx(wanted, abs=1e-12)


def table_length(a: str, b: str) -> int:
    """The textbook table."""
    row = [0] * (len(b) + 1)
    for x in a:
        above = row[:]
        for j, y in enumerate(b):
            row[j + 1] = above[j] + 1 if x == y else max(above[j + 1], row[j])
    return row[-1]


@settings(max_examples=200, deadline=None)
@given(a=st.text("abc", max_size=20), b=st.text("abc", max_size=20))
def test_common_subsequence(a: str, b: str) -> None:
    pairs: list[tuple[int, int]] = lcs.walk(a, b)
    assert lcs.length(a, b) == len(pairs) == table_length(a, b)
    assert all(a[i] == b[j] for i, j in pairs)
    assert pairs == sorted(pairs, reverse=True)


def flat(prediction: str, reference: str) -> float:
    """F1 by the definition, on white-space words without any normaliser's effect."""
    left, right = prediction.split(), reference.split()
    common = sum(min(left.count(word), right.count(word)) for word in set(left))
    return 2 * common / (len(left) + len(right)) if common else 0.0


@settings(max_examples=100, deadline=None)
@given(
    prediction=st.lists(st.sampled_from(["rome", "oslo", "bern", "kyiv"]), max_size=8).map(" ".join),
    reference=st.lists(st.sampled_from(["rome", "oslo", "bern", "kyiv"]), max_size=8).map(" ".join),
)
def test_token_f1_is_symmetric_and_as_defined(prediction: str, reference: str) -> None:
    assert squad_f1(prediction, reference) == pytest.approx(squad_f1(reference, prediction))
    assert squad_f1(prediction, reference) == pytest.approx(flat(prediction, reference))
