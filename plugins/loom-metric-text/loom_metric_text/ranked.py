"""Rankings and answer lists: NDCG, HELMET's readers, LongBench Pro's metrics. Knows lists of names only.

NDCG here is trec_eval's: gain is the relevance itself, discount log2(rank + 1), the ideal order taken from the
references.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from loom_core.api import Metric, Sample, Scored
from loom_metric_text.reference import as_text, no_reference

_AREA = re.compile(r"\[Answer\]|\[答案\]")
_RANKING = re.compile(r"(\d+)(?:\s*>\s*(\d+))*")


def ndcg(ranking: Sequence[str], relevance: Mapping[str, float], cut: int) -> float:
    """NDCG of the first `cut` names; a name that is ranked twice counts at its first place."""
    gains = [relevance.get(name, 0.0) for name in dict.fromkeys(ranking)][:cut]
    ideal = sorted((gain for gain in relevance.values() if gain > 0), reverse=True)[:cut]
    best = sum(gain / math.log2(i + 2) for i, gain in enumerate(ideal))
    return sum(gain / math.log2(i + 2) for i, gain in enumerate(gains)) / best if best else 0.0


def marked_answer(output: str, mark: str = "Answer:") -> str:
    """HELMET's parse_output: what follows the first mark (any case) on its line, else the first line."""
    found = re.search(f"{re.escape(mark)}(.*)(?:\n|$)", output, re.IGNORECASE) or re.search(r"^(.*)(?:\n|$)", output)
    text = found[1].strip() if found else ""
    return re.sub(f"^{re.escape(mark)}", "", text, flags=re.IGNORECASE).strip()


def ranking_scores(output: str) -> dict[str, int]:
    """HELMET's parse_rankings: the names of the longest "3 > 1 > 2" with falling scores, the last one 1.

    Brackets, colons and "id" are put aside; without a number the whole text is one name; a name that is ranked twice
    keeps its first score.
    """
    text = re.sub(r"[\[\]:]", "", output).lower().replace("id", "")
    longest = max((found[0] for found in _RANKING.finditer(text)), key=len, default="")
    names = [part.strip() for part in longest.split(">") if part.strip().isdigit()] if longest else [text]
    scores: dict[str, int] = {}
    for i, name in enumerate(names):
        scores.setdefault(name, len(names) - i)
    return scores


class HelmetNdcg:
    """HELMET's NDCG@10 of a ranking "3 > 1 > 2" (msmarco).

    meta: relevance (mapping of id to number). Without it the references are relevant by their order, the last one 1.
    """

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        given = sample.meta.get("relevance")
        relevance = {str(k): float(v) for k, v in given.items()} if given else by_order(list(sample.references))
        if not relevance:
            return no_reference()
        found = list(ranking_scores(prediction))
        return Scored(value=ndcg(found, relevance, 10), extracted=found)


def by_order(references: Sequence[object]) -> dict[str, float]:
    """Relevances n, n - 1, … 1 in the order of the references."""
    names = list(dict.fromkeys(as_text(r) for r in references))
    return {name: float(len(names) - i) for i, name in enumerate(names)}


def listed_answer(prediction: str) -> list[str]:
    """LongBench Pro's answer: the lines after the last [Answer] or [答案] (all lines without one), in lower case.

    Runs of white space count as one space; empty lines are dropped.
    """
    area = _AREA.split(prediction)[-1]
    return [line for line in (plain_line(line) for line in area.split("\n")) if line]


def plain_line(text: str) -> str:
    """Lower case, white space joined."""
    return " ".join(text.lower().split())


@dataclass(frozen=True, slots=True)
class Pro:
    """One of LongBench Pro's metrics on the lists of answer and references. meta: nothing."""

    compare: Callable[[list[str], list[str]], float]

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1."""
        if not sample.references:
            return no_reference()
        found = listed_answer(prediction)
        return Scored(value=self.compare(found, [plain_line(as_text(r)) for r in sample.references]), extracted=found)


def _accuracy(found: list[str], wanted: list[str]) -> float:
    return float(bool(found) and found[0] == wanted[0] and len(found) == len(wanted) == 1)


def _f1(found: list[str], wanted: list[str]) -> float:
    common = len(set(found) & set(wanted))
    return 2 * common / (len(set(found)) + len(set(wanted))) if common else 0.0


def _members(found: list[str], wanted: list[str]) -> float:
    return sum(item in found for item in wanted) / len(wanted)


def _pairs(found: list[str], wanted: list[str]) -> float:
    place = {name: i for i, name in reversed(list(enumerate(found)))}
    pairs = list(combinations(wanted, 2))
    right = sum(a in place and b in place and place[a] < place[b] for a, b in pairs)
    return right / len(pairs) if pairs else 0.0


def longbench_pro_accuracy() -> Metric:
    """LongBench Pro's Accuracy: the one line is the one reference."""
    return Pro(_accuracy)


def longbench_pro_f1() -> Metric:
    """LongBench Pro's F1_Score over sets of lines."""
    return Pro(_f1)


def longbench_pro_members() -> Metric:
    """LongBench Pro's SubEM: the share of references that are a line of the answer."""
    return Pro(_members)


def longbench_pro_pairs() -> Metric:
    """LongBench Pro's Pairwise_Accuracy: the share of ordered pairs kept."""
    return Pro(_pairs)


def longbench_pro_ndcg() -> Metric:
    """LongBench Pro's NDCG, cut at the number of references, which are relevant by their order."""
    return Pro(lambda found, wanted: ndcg(found, by_order(wanted), len(wanted)))
