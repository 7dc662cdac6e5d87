"""What every KV-cache method must fulfil where questions share tokens (U9), and what its declarations mean.

Each check takes a `Subject`, or one and the method's spec, and raises AssertionError with what it found.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loom_core.api import AugmentationSpec
from loom_kv.testing.subject import Subject, assert_kept, kept_slots

QUESTION = 7
"""Tokens of a question in these checks."""


def u9_prefix(subject: Subject) -> None:
    """Questions that continue a prefix read once keep the slots, and give the logits, of prompts read alone."""
    prompts = asked(subject)
    engine, policy = subject.engine, subject.make(subject.budget)
    if not subject.host.may_share(engine, policy, max(map(len, prompts))):
        return
    prefix = subject.host.read(engine, prompts[0][: len(prompts[0]) - QUESTION])
    for chunk in (4096, 5):
        with subject.host.attached(subject.model):
            seeds = [100 + len(prompt) for prompt in prompts]
            batch = engine.start(prompts, seeds, subject.make(subject.budget), prefix=prefix, chunk=chunk)
            logits, failed = batch.prefill()
            assert not failed, failed
            kept = kept_slots(batch)
        for row, prompt in enumerate(prompts):
            alone = subject.run([prompt], subject.make(subject.budget))
            assert_kept(subject, kept[row], alone.kept[0], f"U9 row {row}")
            if subject.exact:
                subject.agree(logits[row], alone.logits[0, 0], f"U9 row {row}")


def u9_context_only(subject: Subject) -> None:
    """Questions asked of copies of one compressed cache get the answers of a cache of their own, in any order."""
    context = subject.prompts[0]
    one, other = (torch.tensor([prompt[-QUESTION:]]) for prompt in asked(subject)[:2])

    def answers(question: Tensor, copies: int) -> tuple[Tensor, Tensor]:
        """Logits after a question and one token more, of copies of a compressed context; then of the other question."""
        with subject.host.attached(subject.model):
            batch = subject.engine.start([context], [1], subject.make(subject.budget))
            failed = batch.prefill()[1]
            assert not failed, failed
            rows = []
            for ids in (question, other):
                fork = batch.fork(copies)
                first = fork.feed(ids.repeat(copies, 1))
                rows.append(torch.stack([first, fork.feed(torch.full((copies, 1), 9))], dim=1))
        return rows[0], rows[1]

    alone, expected = answers(one, 1)[0], answers(other, 1)[0]
    together, after = answers(one, 3)
    for name, mine, theirs in (("a copy", together, alone), ("a later copy", after, expected)):
        for row in mine:
            subject.agree(row, theirs[0], f"U9 context-only, {name}")


def asked(subject: Subject) -> list[tuple[int, ...]]:
    """Three prompts that begin with the subject's first one and end with other questions, one of them longer."""
    first, last = subject.prompts[0], tuple(reversed(subject.prompts[-1]))
    return [first, (*first[:-QUESTION], *last[:QUESTION]), (*first[:-QUESTION], *last[3 : 3 + 2 * QUESTION])]


def declares_query(subject: Subject, spec: AugmentationSpec) -> None:
    """A method that does not declare `query_aware` ranks the slots of a context alike, whatever is asked.

    Tokens of the question may take slots of the budget, so one kept set may be part of the other.
    """
    if spec.query_aware:
        return
    border = len(subject.prompts[0]) - QUESTION
    kept = []
    for prompt in asked(subject)[:2]:
        trace = subject.run([prompt], subject.make(subject.budget))
        kept.append([[[p for p in head if p < border] for head in layer] for layer in trace.kept[0]])
    for one, other in zip(*kept, strict=True):
        for a, b in ((set(mine), set(theirs)) for mine, theirs in zip(one, other, strict=True)):
            assert a <= b or b <= a, "query_aware=False is declared, but another question changes what is kept"


def declares_saving(subject: Subject, spec: AugmentationSpec) -> None:
    """The policy says what the spec says, and a real saving holds less than the dense cache."""
    policy, prompt = subject.make(subject.budget), max(subject.prompts, key=len)
    assert policy.saves == spec.saves, f"saves={spec.saves} is declared, and the method says {policy.saves}"
    held, dense = subject.run([prompt], policy).bytes_, len(prompt) * subject.engine.geometry.bytes_per_token
    assert spec.saves != "real" or held < dense, f"saves=real is declared, but {held} bytes are held, {dense} if dense"


def declares_phase(subject: Subject, spec: AugmentationSpec) -> None:
    """A method with phase=prefill evicts nothing while decoding."""
    if spec.phase != "prefill":
        return
    for prompt in subject.prompts:
        trace = subject.run([prompt], subject.make(subject.budget))
        last = [[[p for p in head if p < len(prompt)] for head in layer] for layer in trace.steps[-1][0]]
        assert last == trace.kept[0], "phase=prefill is declared, but slots of the prompt go while decoding"
