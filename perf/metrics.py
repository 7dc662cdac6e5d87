"""Text metrics against the packages they stand for, 10,000 predictions a family, on one thread. Prints JSON.

Texts are drawn from a small vocabulary with a fixed seed: answers of up to 12 words, summaries of up to 80, Chinese of
up to 60 characters. Both sides score the same pairs, alternately, `--rounds` times; the best round of each counts, in
processor time.
For token F1 the other side is the usual script; class names and substrings have no usual package and stand alone.
`same` says that all values agree. A metric also makes a record of each score, about 2 µs, which the others do not.

    python perf/metrics.py [--n 10000] [--rounds 2] [--only rouge_l,bleu4]

Needs rouge, rouge_score, jieba, nltk and rapidfuzz.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

from loom_metric_text.gold import opened

from loom_core.api import Prompt, Sample

_VOCABULARY = "the report found that agency spent five million dollars on training and recommends better oversight"
WORDS = _VOCABULARY.split()
CHINESE = "会议讨论了明年的预算安排并决定下周进行表决公司发布第三季度财报营收增长百分之十"
CLASSES = ["Food", "Date", "Other location", "Other", "Individual", "City", "Other number"]
RIGHT = tuple(range(0, 96, 3))
Pair = tuple[str, str]
Family = tuple[str, Callable[[random.Random], Pair], Callable[[str, str], float] | None]


def answer(draw: random.Random) -> Pair:
    """A short answer and its reference."""
    return words(draw, 12), words(draw, 6)


def summary(draw: random.Random) -> Pair:
    """A summary in sentences and its reference."""
    return ". ".join(words(draw, 20) for _ in range(4)), ".\n".join(words(draw, 20) for _ in range(4))


def chinese(draw: random.Random) -> Pair:
    """Chinese text and its reference."""
    return tuple("".join(draw.choices(CHINESE, k=draw.randint(20, 60))) for _ in range(2))  # type: ignore[return-value]


def code(draw: random.Random) -> Pair:
    """Lines of code and the next line."""
    return f"# note\nvalue = f({words(draw, 8)})\n", f"value = g({words(draw, 8)})"


def named(draw: random.Random) -> Pair:
    """An answer that names classes, and the class."""
    return " ".join(draw.choices(CLASSES, k=3)), draw.choice(CLASSES)


def stars(draw: random.Random) -> Pair:
    """A list of 32 counts in JSON; the right ones are `RIGHT`."""
    return json.dumps({"little_penguin": draw.choices(range(99), k=32)}), ""


def words(draw: random.Random, most: int) -> str:
    """One to `most` words."""
    return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))


def textbook_f1(prediction: str, reference: str) -> float:
    """SQuAD's script as everyone has it."""

    def tokens(text: str) -> list[str]:
        bare = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return re.sub(r"\b(a|an|the)\b", " ", bare).split()

    return counted(tokens(prediction), tokens(reference))


def counted(a: list[str], b: list[str]) -> float:
    """F1 of two bags."""
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b)) if common else 0.0


def jieba_f1(prediction: str, reference: str) -> float:
    """jieba and the same script."""
    import jieba  # type: ignore[import-untyped]

    marks = set(string.punctuation + "！？。，；：、")

    def tokens(text: str) -> list[str]:
        bare = ("".join(c for c in word.lower() if c not in marks) for word in jieba.cut(text))
        return [word for word in bare if word.strip()]

    return counted(tokens(prediction), tokens(reference))


def package_rouge() -> Callable[[str, str], float]:
    """rouge 1.0.1, ROUGE-L alone."""
    from rouge import Rouge  # type: ignore[import-untyped]

    scorer = Rouge(metrics=["rouge-l"])
    return lambda a, b: float(scorer.get_scores([a], [b], avg=True)["rouge-l"]["f"])


def package_rouge_zh() -> Callable[[str, str], float]:
    """rouge 1.0.1 over jieba's words."""
    import jieba

    scored = package_rouge()
    return lambda a, b: scored(" ".join(jieba.cut(a)), " ".join(jieba.cut(b)))


def package_rouge_score(name: str, stem: bool) -> Callable[[str, str], float]:
    """rouge_score 0.1.2, one type."""
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    scorer = RougeScorer([name], use_stemmer=stem)
    return lambda a, b: float(scorer.score(b, a)[name].fmeasure)


def package_bleu4(prediction: str, reference: str) -> float:
    """nltk's sentence_bleu."""
    from nltk.translate.bleu_score import sentence_bleu  # type: ignore[import-untyped]

    return float(sentence_bleu([reference.split()], prediction.split(), weights=(0, 0, 0, 1)))


def package_ratio(prediction: str, reference: str) -> float:
    """rapidfuzz's ratio of the first code line, rounded."""
    from rapidfuzz import fuzz

    lines = [line for line in prediction.lstrip("\n").split("\n") if not any(m in line for m in ("`", "#", "//"))]
    return round(fuzz.ratio(lines[0] if lines else "", reference)) / 100


def package_stars(prediction: str, reference: str) -> float:
    """json_repair and a set."""
    import json_repair

    found: Any = json_repair.loads(prediction)
    numbers = set(found["little_penguin"][:32])
    return sum(star in numbers for star in RIGHT) / len(RIGHT)


def families() -> dict[str, Family]:
    """Name to our metric, its texts and the other side."""
    return {
        "token_f1": ("longbench_qa_f1", answer, textbook_f1),
        "token_f1_zh": ("longbench_qa_f1_zh", chinese, jieba_f1),
        "rouge_l": ("longbench_rouge", summary, package_rouge()),
        "rouge_l_zh": ("longbench_rouge_zh", chinese, package_rouge_zh()),
        "rouge_score_2": ("leval_rouge2", summary, package_rouge_score("rouge2", False)),
        "rouge_score_l": ("leval_rouge_l", summary, package_rouge_score("rougeL", False)),
        "rouge_score_lsum_stemmed": ("helmet_rouge_lsum_f1", summary, package_rouge_score("rougeLsum", True)),
        "bleu4": ("loogle_bleu4", summary, package_bleu4),
        "code_edit": ("longbench_code_sim", code, package_ratio),
        "classes": ("longbench_classification", named, None),
        "substring": ("ruler_match_all", summary, None),
        "stars": ("counting_stars_searching", stars, package_stars),
    }


def seconds(score: Callable[[int], float], n: int) -> tuple[float, list[float]]:
    """Processor time of scoring every pair, and the values."""
    begun = time.process_time()
    values = [score(i) for i in range(n)]
    return time.process_time() - begun, values


def measure(family: Family, n: int, rounds: int) -> dict[str, Any]:
    """Both sides on the same pairs, alternately."""
    name, texts, other = family
    draw = random.Random(0)
    pairs = [texts(draw) for _ in range(n)]
    metric = opened(name)
    samples = [
        Sample(
            id=str(i),
            task="perf",
            prompt=Prompt(segments=()),
            references=RIGHT if texts is stars else (wanted,),
            meta={"all_classes": CLASSES},
        )
        for i, (_, wanted) in enumerate(pairs)
    ]

    def ours(i: int) -> float:
        return metric.score(pairs[i][0], samples[i]).value or 0.0

    def theirs(i: int) -> float:
        return other(*pairs[i]) if other else 0.0

    ours(0), theirs(0)
    best, best_other, same = float("inf"), float("inf"), True
    for _ in range(rounds):
        spent, left = seconds(ours, n)
        best = min(best, spent)
        if other:
            spent, right = seconds(theirs, n)
            best_other = min(best_other, spent)
            same &= all(abs(x - y) <= 1e-9 for x, y in zip(left, right, strict=True))
    row: dict[str, Any] = {"metric": name, "n": n, "seconds": round(best, 4)}
    if other:
        row |= {"package_seconds": round(best_other, 4), "faster": round(best_other / best, 2), "same": same}
    return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="nltk")
    wanted = set(filter(None, arguments.only.split(",")))
    table = {
        name: measure(family, arguments.n, arguments.rounds)
        for name, family in families().items()
        if not wanted or name in wanted
    }
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
