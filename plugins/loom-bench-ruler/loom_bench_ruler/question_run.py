"""The authors' generator of questions on documents, draw by draw.

Source: NVIDIA/RULER, scripts/data/synthetic/qa.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from loom_bench_ruler.questions import JOINT, Asked, spans_of, titled
from loom_bench_ruler.runs import Made, RedrawError, Search, order
from loom_bench_ruler.settings import Wording
from loom_core.api import Prompt, UsageError, segment

STEP = 10


def question_search(room: int, max_tokens: int, where: str) -> Search:
    """Documents in steps of ten."""
    return Search(room=room, step=STEP, first=STEP, extra=max_tokens, where=where)


@dataclass(frozen=True, slots=True)
class QuestionRun:
    """One run of a qa task: question `index` of the file, its documents among others."""

    wording: Wording
    seed: int
    stream: Random
    documents: Sequence[str]
    questions: Sequence[Asked]
    where: str

    def make(self, n: int, index: int) -> Made:
        """n documents: those needed, others of the same article, then drawn ones; all of them, and again, where there
        are too few. Raises UsageError past the last question."""
        if index >= len(self.questions):
            raise UsageError(
                "there are fewer questions than samples",
                where=f"ruler:{self.where}",
                why=f"the file has {len(self.questions)}",
                hint=f"ask for at most {len(self.questions)} samples: --limit {len(self.questions)}",
            )
        asked = self.questions[index]
        drawn = self._drawn(asked, n)
        held = [drawn[i] for i in order(self.seed, n)]
        rows = [titled(number, self.documents[i]) for number, i in enumerate(held, 1)]
        blanks = {"query": asked.query}
        return Made(
            prompt=Prompt(
                segments=(
                    segment("instruction", self.wording.before.format(**blanks)),
                    segment("context", JOINT.join(rows)),
                    segment("question", self.wording.after.format(**blanks)),
                    segment("prefill", self.wording.prefix.format(**blanks)),
                )
            ),
            references=asked.answers,
            units=n,
            spans=spans_of(asked.answers, asked.documents, held, rows),
            oracle=asked.answers[0],
        )

    def _drawn(self, asked: Asked, n: int) -> list[int]:
        documents, others = list(asked.documents), list(asked.others)
        total = len(self.documents)
        if n >= total:
            return [i % total for i in range(n)]
        missing = n - len(documents)
        if missing > len(others):
            taken = {*documents, *others}
            rest = [i for i in range(total) if i not in taken]
            wanted = max(0, missing - len(others))
            if wanted > len(rest):
                raise RedrawError
            return documents + others + self.stream.sample(rest, wanted)
        if missing < 0:
            raise RedrawError
        return documents + self.stream.sample(others, missing)
