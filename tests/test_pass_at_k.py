"""pass@k: the estimator against its definition, and its line over repeated answers."""

from __future__ import annotations

from itertools import combinations

import pytest

from loom_core.api import Graded, Prompt, Sample, Scored, pass_at_k_line
from loom_core.score.tables import pass_at_k


@pytest.mark.parametrize(("n", "correct", "k"), [(5, 0, 2), (5, 2, 1), (5, 2, 3), (5, 2, 4), (6, 1, 3), (4, 4, 4)])
def test_the_estimator_is_the_share_of_draws_with_a_right_answer(n: int, correct: int, k: int) -> None:
    draws = list(combinations([1] * correct + [0] * (n - correct), k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(any(draw) for draw in draws) / len(draws))


@pytest.mark.parametrize(("n", "correct", "k"), [(2, 1, 3), (2, 3, 1), (2, 1, 0)])
def test_impossible_draws_are_refused(n: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match="cannot be computed"):
        pass_at_k(n, correct, k)


def test_the_line_is_over_questions() -> None:
    def rows(name: str, *values: float | None) -> list[Graded]:
        sample = Sample(id=name, task="t", prompt=Prompt(segments=()), references=())
        return [Graded(task="t", sample=sample, repeat=i, scored={"m": Scored(value=v)}) for i, v in enumerate(values)]

    graded = [*rows("a", 1.0, 0.0), *rows("a", 1.0, 0.0), *rows("b", 0.0, 0.0), *rows("c", 1.0, None)]
    line = pass_at_k_line("t", "m", graded, 2)
    assert (line.value, line.n, line.missing) == (pytest.approx(200 / 3), 3, 1)
    line = pass_at_k_line("t", "m", graded, 1)
    assert (line.value, line.n) == (pytest.approx(50.0), 4)
    assert pass_at_k_line("t", "m", [], 1).value is None
