"""Registers the text metrics. Imports nothing but loom_core; each factory is imported on use.

A name says whose scorer it equals. Values are 0 to 1 whatever the authors' scale; a rule that has changed carries a
higher version than 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from loom_core.api import MetricSpec, hookimpl

PACKAGE = "loom_metric_text"

LONGBENCH = (
    ("longbench_qa_f1", "f1:longbench_qa_f1", "SQuAD token F1, best reference"),
    ("longbench_qa_f1_zh", "f1:longbench_qa_f1_zh", "token F1 over jieba's words, best reference"),
    ("longbench_rouge", "rouge:longbench_rouge", "ROUGE-L F of rouge 1.0.1, best reference"),
    ("longbench_rouge_zh", "rouge:longbench_rouge_zh", "the same over jieba's words"),
    (
        "longbench_classification",
        "classification:LongBenchClassification",
        "1/n if the class is among the n classes named",
    ),
    ("longbench_retrieval", "classification:longbench_retrieval", "share of numbers that are the paragraph's"),
    ("longbench_retrieval_zh", "classification:longbench_retrieval_zh", "share of numbers that are the 段落's"),
    ("longbench_count", "classification:longbench_count", "share of numbers that are the count"),
    ("longbench_code_sim", "edit:longbench_code_sim", "indel similarity of the first code line, whole hundredths"),
    ("longbench_v2_choice", "choice:longbench_v2_choice", 'letter after "The correct answer is"'),
    (
        "longbench_v2_choice_compensated",
        "choice:longbench_v2_choice_compensated",
        "the same; an answer without a letter counts 0.25",
    ),
    ("longbench_pro_accuracy", "ranked:longbench_pro_accuracy", "the answer's one line is the reference"),
    ("longbench_pro_f1", "ranked:longbench_pro_f1", "F1 of the sets of lines"),
    ("longbench_pro_members", "ranked:longbench_pro_members", "share of references that are a line (SubEM)"),
    ("longbench_pro_pairs", "ranked:longbench_pro_pairs", "share of ordered pairs kept"),
    ("longbench_pro_ndcg", "ranked:longbench_pro_ndcg", "NDCG of the lines, cut at the number of references"),
)

RETRIEVAL = (
    ("ruler_match_all", "classification:ruler_match_all", "share of references contained, any case"),
    ("ruler_match_any", "classification:ruler_match_any", "1 if one reference is contained, any case"),
    ("scbench_match_all", "classification:scbench_match_all", "share of references contained, output as it is"),
    ("babilong_labels", "babilong:LabelMatch", "exactly the target's labels in the first sentence"),
    ("babilong_whole_labels", "babilong:whole_labels", "the same with labels as whole words (not the authors' rule)"),
    ("counting_stars_searching", "stars:counting_stars_searching", "share of right counts collected"),
    ("counting_stars_reasoning", "stars:counting_stars_reasoning", "mean of 1 right, 0.5 both, 0.25 wrong, 0 none"),
    ("nolima_contains", "classification:nolima_contains", "a reference occurs, case-sensitive"),
    ("nolima_exact", "classification:nolima_exact", "the stripped answer is a reference"),
    ("nolima_last_line_contains", "classification:nolima_last_line_contains", "a reference occurs in the last line"),
    ("nolima_last_line_exact", "classification:nolima_last_line_exact", "the last line is a reference"),
    ("longins_f1", "listed:LongInsF1", "F1 of the set of numbers in brackets"),
)

LEVAL = (
    ("leval_choice", "leval:leval_choice", "the first letter A to D of the answer is the key's"),
    ("leval_choices", "leval:leval_choices", "letters of the answer equal the key; 0.25 for a part of several"),
    ("leval_math", "leval:leval_math", 'the number after "The answer is", or the last number, is equal'),
    ("leval_code", "leval:leval_code", "the final words hold the output, any case, without spaces"),
    ("leval_topic", "leval:leval_topic", "the topic occurs, any case, without spaces"),
    ("leval_loyalty", "leval:leval_loyalty", "judgement before [fact: equals"),
    ("leval_fact", "leval:leval_fact", "judgement after [fact: equals"),
    ("leval_f1", "f1:leval_f1", "SQuAD token F1, best reference"),
    ("leval_rouge1", "rouge_score:leval_rouge1", "ROUGE-1 F of rouge_score, no stemmer"),
    ("leval_rouge2", "rouge_score:leval_rouge2", "ROUGE-2 F of rouge_score, no stemmer"),
    ("leval_rouge_l", "rouge_score:leval_rouge_l", "ROUGE-L F of rouge_score, no stemmer"),
)

LCITEEVAL = (
    ("lciteeval_f1", "f1:lciteeval_f1", "F1 of the first line without citations, best reference"),
    ("lciteeval_precision", "f1:lciteeval_precision", "its precision, best reference"),
    ("lciteeval_recall", "f1:lciteeval_recall", "its recall, best reference"),
    ("lciteeval_rouge_l", "rouge:lciteeval_rouge_l", "ROUGE-L F of a summary's first line without citations"),
    ("lciteeval_niah", "rouge:lciteeval_niah", "ROUGE-1 recall of the first line without citations"),
    ("lciteeval_counting_stars", "stars:CitedStars", "hits of the collected list over the references"),
)

INFINITEBENCH = (
    ("infinitebench_kv", "infinitebench:infinitebench_kv", "the value is one of the words"),
    ("infinitebench_first_number", "infinitebench:infinitebench_first_number", "the first run of digits is the key"),
    ("infinitebench_code_run", "infinitebench:infinitebench_code_run", "the last word is the value"),
    ("infinitebench_code_debug", "infinitebench:CodeDebug", 'letter first, or letter or name after "answer is:"'),
    ("infinitebench_math_find", "infinitebench:infinitebench_math_find", "the first number is the value"),
    ("infinitebench_math_calc", "infinitebench:MathCalc", "length of the right beginning of the numbers"),
    ("infinitebench_dialogue", "infinitebench:Dialogue", "the name is one of the words, any case"),
    ("infinitebench_choice", "infinitebench:Choice", "first letter, else the whole, else after a phrase"),
    ("infinitebench_qa_f1", "f1:infinitebench_qa_f1", "SQuAD token F1, best reference"),
    ("infinitebench_qa_f1_zh", "f1:infinitebench_qa_f1_zh", "F1 over characters, best reference"),
    ("infinitebench_rouge_lsum", "rouge_score:infinitebench_rouge_lsum", "ROUGE-Lsum F of rouge_score, no stemmer"),
)

LOCAL = (
    ("lveval_qa_f1", "f1:lveval_qa_f1", "SQuAD token F1 with the first reference"),
    ("lveval_qa_f1_zh", "f1:lveval_qa_f1_zh", "F1 over jieba's words with the first reference"),
    ("lveval_gated_f1", "lveval:lveval_gated_f1", "F1, 0 where keyword recall is below 0.2"),
    ("lveval_gated_f1_zh", "lveval:lveval_gated_f1_zh", "Chinese F1, 0 where keyword recall is below 0.4"),
    ("lveval_rouge_zh", "lveval:BlacklistRouge", "ROUGE-L F over jieba's words without stop words"),
    ("clongeval_qa_f1", "f1:clongeval_qa_f1", "F1 over jieba's words of the first line"),
    ("clongeval_rouge", "rouge:clongeval_rouge", "ROUGE-L F over jieba's words"),
    ("clongeval_news", "clongeval:clongeval_news", "share of (number, class) pairs found"),
    ("clongeval_typos", "clongeval:clongeval_typos", "share of (paragraph, wrong character) pairs found"),
    ("clongeval_edit", "edit:clongeval_edit", "1 - edit distance / longer length, punctuation deleted"),
    ("clongeval_table", "clongeval:clongeval_table", "the cell occurs in the answer"),
    ("libra_match", "classification:libra_match", "a reference occurs, case-sensitive, less unwanted answers"),
    ("libra_f1", "f1:libra_f1", "token F1 that keeps articles, best reference"),
    ("libra_count", "classification:libra_count", "share of numbers that are the count"),
)

OTHERS = (
    ("loogle_bleu1", "bleu:loogle_bleu1", "BLEU with all weight on words"),
    ("loogle_bleu4", "bleu:loogle_bleu4", "BLEU with all weight on 4-grams"),
    ("loogle_rouge1", "rouge:loogle_rouge1", "ROUGE-1 recall of rouge 1.0.1"),
    ("loogle_rouge2", "rouge:loogle_rouge2", "ROUGE-2 recall of rouge 1.0.1"),
    ("loogle_rouge_l", "rouge:loogle_rouge_l", "ROUGE-L recall of rouge 1.0.1"),
    ("loogle_cloze_exact", "listed:loogle_cloze_exact", "share of masks with the same text"),
    ("loogle_cloze_partial", "listed:loogle_cloze_partial", "share of masks with a word in common"),
    ("bamboo_order", "listed:BambooOrder", "share of ordered pairs kept; another number of items is 0"),
    ("bamboo_exact", "listed:BambooExact", 'equal but for case, spaces and a final "."'),
    ("bamboo_choice", "choice:BambooChoice", "the first character is the letter"),
    ("bamboo_yes", "listed:BambooYes", '"yes" in the first three characters equals the truth'),
    ("ada_stackselect", "choice:AdaStackSelect", "the highest candidate number named is the answer's"),
    ("ada_textsort", "listed:AdaTextSort", "the order read equals, as far as the shorter list goes"),
    ("helmet_exact_match", "classification:helmet_exact_match", "equal after SQuAD's normalisation"),
    ("helmet_f1", "f1:helmet_f1", "SQuAD token F1 with a guard for yes and no"),
    ("helmet_substring_match", "classification:helmet_substring_match", "the reference occurs, both normalised"),
    ("helmet_rouge_l_f1", "rouge_score:helmet_rouge_l_f1", "ROUGE-L F of rouge_score, stemmed"),
    ("helmet_rouge_l_recall", "rouge_score:helmet_rouge_l_recall", "ROUGE-L recall of rouge_score, stemmed"),
    ("helmet_rouge_lsum_f1", "rouge_score:helmet_rouge_lsum_f1", "ROUGE-Lsum F of rouge_score, stemmed"),
    ("helmet_rouge_lsum_recall", "rouge_score:helmet_rouge_lsum_recall", "ROUGE-Lsum recall of rouge_score, stemmed"),
    ("helmet_ndcg10", "ranked:HelmetNdcg", "NDCG@10 of a ranking"),
    ("longwriter_length", "length:LongWriterLength", "nearness of the written to the wanted number of words"),
)


VERSIONS = {
    "leval_choice": "3",
    "leval_math": "2",
    "leval_code": "3",
    "leval_topic": "2",
    "leval_loyalty": "3",
    "leval_fact": "3",
    "lciteeval_counting_stars": "3",
    "lciteeval_rouge_l": "2",
}
"""Of the metrics whose rule has changed since version 1; the changelog says how."""


@hookimpl
def loom_metrics() -> Sequence[MetricSpec]:
    """Every text metric, 0 to 1."""
    return tuple(
        MetricSpec(name=name, version=VERSIONS.get(name, "1"), summary=summary, factory=f"{PACKAGE}.{factory}")
        for family in (LONGBENCH, RETRIEVAL, LEVAL, LCITEEVAL, INFINITEBENCH, LOCAL, OTHERS)
        for name, factory, summary in family
    )
