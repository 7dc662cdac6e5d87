"""The text metrics by hand: normalisers, edge cases, quirks that the authors' scorers have. No shared data needed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from loom_metric_text import normalise
from loom_metric_text.gold import metric_for, opened, score
from loom_metric_text.leval import chosen_letters, code_output, number
from loom_metric_text.ranked import ndcg
from loom_metric_text.rouge import sentences

from loom_core.api import PluginError, Prompt, Sample

STARS = tuple(range(1, 33))
CLASSES = ["Other location", "Other", "Other number", "City"]


def sample(*references: Any, task: str = "t", negatives: tuple[str, ...] = (), **meta: Any) -> Sample:
    """A sample with nothing but what metrics read."""
    return Sample(id="s", task=task, prompt=Prompt(segments=()), references=references, negatives=negatives, meta=meta)


def value(name: str, prediction: str, *references: Any, **rest: Any) -> float:
    """The value that a metric gives."""
    found = opened(name).score(prediction, sample(*references, **rest)).value
    assert found is not None
    return found


CASES: list[tuple[str, str, tuple[Any, ...], dict[str, Any], float]] = [
    # SQuAD's normaliser: ASCII punctuation is deleted, not spaced; articles go; other scripts' marks stay.
    ("longbench_qa_f1", "The well-known U.S. law", ("wellknown us law",), {}, 1.0),
    ("longbench_qa_f1", "It’s", ("Its",), {}, 0.0),
    ("longbench_qa_f1", "the", ("the",), {}, 0.0),
    ("longbench_qa_f1", "Rome", ("Paris", "Rome"), {}, 1.0),
    ("longbench_qa_f1", "Paris Paris", ("Paris",), {}, 2 / 3),
    ("longbench_qa_f1", "\n\nParis\nRome", ("Paris",), {"first_line_only": True}, 1.0),
    ("longbench_qa_f1", "\n\nParis\nRome", ("Paris",), {}, 2 / 3),
    ("longbench_qa_f1", "42", (42,), {}, 1.0),
    ("lveval_qa_f1", "Rome", ("Paris", "Rome"), {}, 0.0),
    ("infinitebench_qa_f1_zh", "《上海》", ("上海",), {}, 0.8),
    ("libra_f1", "the дом", ("дом",), {}, 2 / 3),
    ("helmet_f1", "yes it is", ("yes",), {}, 0.0),
    ("helmet_f1", "Yes.", ("yes",), {}, 1.0),
    # Keyword gate: stop words do not count as recalled but count in the denominator.
    ("lveval_gated_f1", "of Lew", ("Lew",), {"keywords": "of Lew", "stop_words": ["of"]}, 2 / 3),
    ("lveval_gated_f1", "of", ("of",), {"keywords": "of Lew", "stop_words": ["of"]}, 0.0),
    ("lveval_gated_f1", "Lew", ("Lew",), {"keywords": "...", "stop_words": ["of"]}, 0.0),
    # ROUGE of rouge 1.0.1: sets, sentences at full stops, 1e-8 in the denominator.
    ("longbench_rouge", ".", ("a",), {}, 0.0),
    ("longbench_rouge", "a", ("",), {}, 0.0),
    ("longbench_rouge", "a a a a", ("a",), {}, 1.0),
    ("lciteeval_niah", "eat a sandwich [3].", ("eat a sandwich in the park",), {}, 0.5),
    ("loogle_rouge1", "", ("None of it",), {}, 1 / 3),
    ("infinitebench_rouge_lsum", "中文", ("中文",), {}, 0.0),
    # Classes, numbers, substrings.
    ("longbench_classification", "Other number", ("Other number",), {"all_classes": CLASSES}, 1.0),
    ("longbench_classification", "City\nOther", ("Other",), {"all_classes": CLASSES, "first_line_only": True}, 0.0),
    ("longbench_retrieval", "3 of 30", ("Paragraph 3",), {}, 0.5),
    ("longbench_retrieval", "3", ("no number",), {}, 0.0),
    ("longbench_count", "03", ("3",), {}, 0.0),
    ("ruler_match_all", "a\x00B", ("a\nb", "c"), {}, 0.5),
    ("ruler_match_any", "paris", ("Rome", "PARIS"), {}, 1.0),
    ("libra_match", "Анна, Пётр, Иван", ("Анна",), {"negatives": ("Пётр", "Иван")}, 0.0),
    ("libra_match", "Анна", ("Анна",), {"negatives": ("Пётр", "Иван")}, 1.0),
    ("nolima_contains", "yuki", ("Yuki",), {}, 0.0),
    ("nolima_last_line_contains", "Ada\nis it Yuki?\n", ("Yuki",), {}, 1.0),
    ("nolima_last_line_exact", "Ada\nYuki \n", ("Yuki",), {}, 1.0),
    # BABILong: substring labels, first sentence only, labels of the question put aside.
    ("babilong_labels", "I know. Yes.", ("no",), {"question": "Is it?", "task": "qa6"}, 1.0),
    ("babilong_labels", "south, south", ("s,s",), {"question": "How?", "task": "qa19"}, 0.0),
    ("babilong_labels", "s,s", ("s,s",), {"question": "How?", "task": "qa19"}, 1.0),
    ("babilong_labels", "den", ("den",), {"question": "Where?", "labels": ["den", "attic"]}, 1.0),
    # Edit similarity in whole hundredths: 8/15 is 53.3, and rounding is half to even.
    ("longbench_code_sim", "# only a comment", ("x",), {}, 0.0),
    ("longbench_code_sim", "", ("",), {}, 1.0),
    ("longbench_code_sim", "abcdefgh", ("abcdexyzuvw",), {}, 0.53),
    ("clongeval_edit", "", ("",), {}, 0.0),
    ("clongeval_edit", "ab。", ("a，b",), {}, 1.0),
    # Choices.
    ("longbench_v2_choice", "**The correct answer is (B)**", ("B",), {}, 1.0),
    ("longbench_v2_choice", "The correct answer is B or (C)", ("B",), {}, 1.0),
    ("longbench_v2_choice", "The correct answer is (B)", ("The correct answer is (B)",), {}, 1.0),
    ("longbench_v2_choice_compensated", "I give up", ("B",), {}, 0.25),
    ("bamboo_choice", "", ("B",), {}, 0.0),
    ("ada_stackselect", "A14", ("A1",), {"num_choice": 20}, 0.0),
    ("ada_stackselect", "A14", ("A1",), {"num_choice": 9}, 1.0),
    ("ada_textsort", "[]", (1, 2, 3, 4), {}, 1.0),
    ("ada_textsort", "[1, 2]", (1, 2, 3, 4), {}, 1.0),
    ("ada_textsort", "1 2 3 4 1", (1, 2, 3, 4), {}, 0.0),
    # InfiniteBench.
    ("infinitebench_choice", "Because", ("Tom", "B"), {}, 1.0),
    ("infinitebench_choice", "It says the answer is Tom", ("Tom", "B"), {}, 1.0),
    ("infinitebench_code_debug", "B. foo", ("foo", "B"), {}, 1.0),
    ("infinitebench_code_debug", "answer is:", ("foo", "B"), {}, 0.0),
    ("infinitebench_code_run", "It is `-17`.", (-17,), {}, 1.0),
    ("infinitebench_math_find", "88.0", (88,), {}, 0.0),
    ("infinitebench_math_find", "88.0", (88.0,), {}, 1.0),
    ("infinitebench_math_calc", "9 1 2", (1, 2, 3, 4), {"model_name": "gpt4"}, 0.5),
    ("infinitebench_dialogue", "It is ace!", ("ACE",), {}, 1.0),
    ("infinitebench_dialogue", "space", ("ACE",), {}, 0.0),
    ("infinitebench_kv", '"k": "abc"', ("abc",), {}, 1.0),
    # L-Eval.
    ("leval_choices", "ABD", ("ABD",), {}, 1.0),
    ("leval_choices", "AB", ("ABD",), {}, 0.25),
    ("leval_choices", "AC", ("ABD",), {}, 0.0),
    ("leval_choices", "A. x\nB. y\nD. z", ("ABD",), {}, 1.0),
    ("leval_choices", "A, B, D", ("ABD",), {}, 0.25),
    ("leval_choices", "(B) Creative City", ("B",), {}, 1.0),
    ("leval_choices", "D) An article", ("D",), {}, 1.0),
    ("leval_choices", "B. y\nQuestion 2. A. x", ("AB",), {}, 0.25),
    ("leval_choices", "It must be C; surely", ("C",), {}, 1.0),
    ("leval_choices", 'I\'d say "BD"!', ("BCD",), {}, 0.25),
    ("leval_choices", "say DCB!", ("BCD",), {}, 0.25),
    ("leval_choice", "", ("A",), {}, 0.0),
    ("leval_choice", "no idea", ("(A) He left",), {}, 1.0),
    ("leval_choice", "(D) Chelsea", ("D. Chelsea",), {}, 1.0),
    ("leval_choice", "They Are Alone. B", ("B",), {}, 0.0),
    ("leval_choice", "AB", ("A",), {}, 0.0),
    ("leval_choice", "CB", ("C",), {}, 1.0),
    ("leval_choice", "A", ("",), {}, 0.0),
    ("leval_topic", "\u201cthe role of  ART\u201d", ("The role of art",), {}, 1.0),
    ("leval_topic", "art of role The", ("The role of art",), {}, 0.0),
    ("leval_topic", "nan", ("nan",), {}, 0.0),
    ("leval_math", "", ("18",), {}, 0.0),
    ("leval_math", "The answer is 007", ("7",), {}, 1.0),
    ("leval_loyalty", "true", ("True [fact: True]",), {}, 0.0),
    ("leval_loyalty", "It is False, not True [fact: True]", ("False [fact: True]",), {}, 1.0),
    ("leval_fact", "true [fact: false] [fact: true]", ("True [fact: False]",), {}, 1.0),
    ("leval_fact", "true [fact: true", ("True [fact: True]",), {}, 0.0),
    ("leval_code", "the list is 5", ("lt 5",), {}, 1.0),
    ("leval_code", "the final output is\narray([6, 15])", ("[6 15]",), {}, 1.0),
    ("leval_code", "the final output is [2 1]", ("[1 2]",), {}, 0.0),
    ("leval_code", "it gives [ [1.0, 2.0] ]", ("[[1. 2.]]",), {}, 0.0),
    ("leval_code", "it gives [ ['1', '2'] ]", ("[[1 2]]",), {}, 1.0),
    ("leval_code", "It gives 5 and more ends\n", ("5",), {}, 0.0),
    # Lists.
    ("longins_f1", "3, [4]", (3,), {}, 0.0),
    ("longins_f1", "[]", (), {}, 0.0),
    ("longins_f1", "[1, 2]", (2, 3), {}, 0.5),
    ("bamboo_order", "0, 2, 1", (0, 1, 2), {}, 2 / 3),
    ("bamboo_yes", "Yes.", (True,), {}, 1.0),
    ("loogle_cloze_partial", "{'<mask-1>': 'Robert Picardo'}", ({"<mask-1>": "Picardo"},), {}, 1.0),
    ("loogle_cloze_exact", "__import__('os')", ({"<mask-1>": "Picardo"},), {}, 0.0),
    ("clongeval_news", "1，体育", ("新闻 1：体育\n新闻 2：家居",), {}, 0.5),
    ("longbench_pro_members", "[Answer]\ndoc  1", ("Doc 1", "Doc 2"), {}, 0.5),
    ("helmet_ndcg10", "[2] > [1]", ("1", "2"), {"relevance": {"1": 1, "2": 0}}, 0.6309297535714575),
    ("longwriter_length", "word " * 4, (), {"length": 2}, 2 / 3),
    ("longwriter_length", "", (), {"length": 2}, 0.0),
]


@pytest.mark.parametrize(("name", "prediction", "references", "rest", "wanted"), CASES)
def test_value_by_hand(
    name: str, prediction: str, references: tuple[Any, ...], rest: dict[str, Any], wanted: float
) -> None:
    assert value(name, prediction, *references, **rest) == pytest.approx(wanted, abs=1e-7)


def test_classes_are_removed_while_they_are_gone_through() -> None:
    # "Other" is removed at once; "Other l…" then stands where the walk has been, so it stays and halves the score.
    classes = ["Other", "Other l", "Other location"]
    assert value("longbench_classification", "Other location", "Other location", all_classes=classes) == 0.5


def test_what_the_official_scorer_raises_on_is_said() -> None:
    scored = opened("infinitebench_math_find").score("88.0", sample(88))
    assert scored.value == 0 and "ValueError" in str(scored.detail["official"])


def test_missing_meta_is_named() -> None:
    with pytest.raises(PluginError, match="all_classes"):
        opened("longbench_classification").score("City", sample("City"))
    with pytest.raises(PluginError, match="question"):
        opened("babilong_labels").score("garden", sample("garden", task="qa1"))


def stars(found: list[Any], key: str = "little_penguin") -> str:
    """An answer as the prompt asks for it."""
    return json.dumps({key: found}, ensure_ascii=False)


def test_stars_searching() -> None:
    assert value("counting_stars_searching", stars(list(STARS)), *STARS) == 1
    assert value("counting_stars_searching", f"```json\n{stars(list(STARS[:16]))}\n```", *STARS) == 0.5
    assert value("counting_stars_searching", stars([str(n) for n in STARS]), *STARS) == 0
    assert value("counting_stars_searching", stars([0] * 32 + list(STARS)), *STARS) == 0
    assert value("counting_stars_searching", stars(list(STARS), "小企鹅"), *STARS) == 1
    assert value("counting_stars_searching", stars(list(STARS), "小企鹅"), *STARS, key="little_penguin") == 0
    assert value("counting_stars_searching", '{"little_penguin": [1, 2, 3', *STARS) == pytest.approx(3 / 32)
    assert value("counting_stars_searching", stars([[1]]), *STARS) == 0
    # A count that is right for two stars hits twice.
    assert value("counting_stars_searching", stars([7, 9]), 7, 7, 8) == pytest.approx(2 / 3)
    assert value("counting_stars_searching", stars([1, 2]), {"little_penguin": [1, 2]}) == 1
    for empty in ("", "no", "[1, 2]", '{"little_penguin": 3}'):
        assert value("counting_stars_searching", empty, *STARS) == 0


def test_stars_reasoning() -> None:
    wrong = [n + 100 for n in STARS]
    assert value("counting_stars_reasoning", stars(list(STARS)), *STARS, wrong=wrong) == 1
    assert value("counting_stars_reasoning", stars(wrong), *STARS, wrong=wrong) == 0.25
    assert value("counting_stars_reasoning", stars([*STARS[:16], *wrong[:16]]), *STARS, wrong=wrong) == 0.25
    assert value("counting_stars_reasoning", stars([1, 101]), *STARS, wrong=wrong) == pytest.approx(0.5 / 32)


def test_cited_stars_count_twice_what_is_collected_twice() -> None:
    answer = 'text {"little_penguin": [16, 16, 91], "passage_id": [1]} {"x": 1}'
    assert value("lciteeval_counting_stars", answer, 16, 91) == 1
    assert value("lciteeval_counting_stars", '{"little_penguin": ["16", 91]}', 16, 91) == 0.5
    assert value("lciteeval_counting_stars", '} {"little_penguin": [16, 91]}', 16, 91) == 0
    assert value("lciteeval_counting_stars", "[16]", 16, 91) == 0


def test_cited_answers() -> None:
    assert value("lciteeval_recall", "Paris, France [1][2]\nRome", "Paris") == 1
    assert value("lciteeval_precision", "Paris, France [1][2]\nRome", "Paris") == 0.5
    # Each part takes its own best reference.
    assert value("lciteeval_precision", "a1 b1", "a1 b1 c1 d1", "a1") == 1
    assert value("lciteeval_recall", "a1 b1", "a1 b1 c1 d1", "a1") == 1
    assert value("lciteeval_rouge_l", "Here is my summary: the bill [1].\nMore", "the bill") == pytest.approx(1)
    assert value("lciteeval_rouge_l", "A summary of the bill", "A summary of the bill") == 0


def test_leval_cleaning() -> None:
    assert chosen_letters("The correct options are B and D.") == "BD"
    assert chosen_letters("DBA") == "ABD"
    assert chosen_letters("the CAB") == "CAB"
    assert number("The answer is $1,234.50 in all") == "1234"
    assert number("3 cats\n\n4 dogs") == "3"
    assert code_output("the final output is:\n[1,\n 2]\n[3]", 2) == " : [1 2][3]"


def test_normalisers_differ_where_they_should() -> None:
    assert normalise.squad("The  A-team, “an” é") == "ateam “ ” é"
    assert normalise.squad_with_case("A the B.") == "A B"
    assert normalise.chinese("《Ａ 》，b。") == "《ａb"
    assert normalise.without_citations("so [12], and[3] on |") == "so, and on"
    assert sentences("a. .b..") == [["a"], [""], ["b"]]


def test_ndcg_takes_a_repeated_name_once() -> None:
    assert ndcg(["a", "a", "b"], {"a": 2.0, "b": 1.0}, 10) == 1


def test_rows_of_a_whole_task() -> None:
    row: dict[str, Any] = {
        "benchmark": "lveval",
        "task": "factrecall_en_16k",
        "metric": "scorer",
        "prediction": ["Rome", "Oslo"],
        "references": [["Rome"], ["Paris", "Oslo"]],
        "extra": {},
    }
    assert score(row) == 50.0


def test_rows_name_their_metric() -> None:
    row = {
        "benchmark": "ruler",
        "task": "vt",
        "metric": "string_match_all",
        "prediction": "ABCDE",
        "references": ["ABCDE", "FGHIJ", "KLMNO"],
    }
    name, made = metric_for(row)
    assert name == "ruler_match_all" and made.references == ("ABCDE", "FGHIJ", "KLMNO")
    assert score(row) == 33.33
