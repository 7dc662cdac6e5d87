"""Where answers were lost: evidence that never reached the model, against a model that had it and failed.

Knows ledger rows and values; reads no file and prints nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from loom_core.contract.types import Json
from loom_report.ledger import Answer, EvidenceLeft

CAUSES = ("retrieval", "truncation", "model")


def evidence_of(answer: Answer) -> EvidenceLeft | None:
    """What of the evidence the last call of an answer saw; None where that is not known."""
    return answer.calls[-1].evidence if answer.state == "answered" and answer.calls else None


def cause(left: EvidenceLeft) -> str:
    """Why an answer is wrong: the first step that did not hand all evidence on; the model where it saw all of it."""
    return "retrieval" if left.rewritten < left.n else "truncation" if left.final < left.n else "model"


def evidence(answers: Iterable[Answer], scored: Sequence[tuple[Answer, float]], best: float) -> dict[str, Json] | None:
    """Recall of evidence beside the primary score, over the answers whose evidence can be followed; None without any.

    n: these answers. recall: mean share of their pieces of evidence that the model saw whole. retrieved: the same
    before truncation. share: mean share of evidence characters seen. n_whole: answers that saw all of it. lost: what is
    missing to the best possible mean score, by cause ("retrieval" stands for any rewriting of the prompt), and n_lost
    the answers below the best score; best minus score is the sum of lost. score_with, score_without: mean scores of
    answers that saw all evidence, and of the others. scored: (answer, value of the primary metric).
    """
    known = [left for answer in answers if (left := evidence_of(answer)) is not None]
    if not known:
        return None
    rows = [(value, left) for answer, value in scored if (left := evidence_of(answer)) is not None]
    lost: dict[str, float | None] = dict.fromkeys(CAUSES)
    n_lost: dict[str, int | None] = dict.fromkeys(CAUSES)
    if rows and math.isfinite(best):
        for name in CAUSES:
            missing = [best - value for value, left in rows if cause(left) == name]
            lost[name] = math.fsum(missing) / len(rows)
            n_lost[name] = sum(value != 0 for value in missing)
    return {
        "n": len(known),
        "n_whole": sum(left.final == left.n for left in known),
        "recall": fmean(left.final / left.n for left in known),
        "retrieved": fmean(left.rewritten / left.n for left in known),
        "share": fmean(left.share for left in known),
        "lost": lost,
        "n_lost": n_lost,
        "score_with": _mean([value for value, left in rows if left.final == left.n]),
        "score_without": _mean([value for value, left in rows if left.final < left.n]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
