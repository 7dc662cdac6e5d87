"""How far two runs of a prompt may differ in sixteen bits: scores and slots. Knows no single check."""

from __future__ import annotations

from loom_kv.testing.subject import Subject, Trace, spread


def assert_noise(subject: Subject, one: Trace, other: Trace, row: int, other_row: int, what: str) -> None:
    """In sixteen bits: two runs of a prompt differ in no slot whose score is clear of the cut, and in scores no more
    than rounding moves them.

    The noise of a head is the largest difference of its scores. Slots whose score is within twice that of the lowest
    kept one may change places. All noise together is held against what the number format alone does to the scores.
    """
    n = one.batch.session.n_valid[row]
    layers = len(one.kept[row])
    if subject.exact or subject.shared or not len(one.scores) == len(other.scores) == layers:
        return
    policy = one.batch.session.policy
    assert policy is not None
    first, last = policy.first, n - policy.newest(n)
    pairs = [
        (a[row, :, -n:].float(), b[other_row, :, -n:].float()) for a, b in zip(one.scores, other.scores, strict=True)
    ]
    for layer, (mine, theirs) in enumerate(pairs):
        noise = (mine - theirs)[:, first:last].abs().amax(dim=1)
        for head, (a, b) in enumerate(zip(one.kept[row][layer], other.kept[other_row][layer], strict=True)):
            line = head if mine.shape[0] > 1 else 0
            ranked = [slot for slot in a if first <= slot < last]
            moved = set(a) ^ set(b)
            if not moved:
                continue
            cut = min((float(mine[line, slot]) for slot in ranked), default=0.0)
            far = [slot for slot in moved if abs(float(mine[line, slot]) - cut) > 2 * float(noise[line]) + 1e-12]
            assert not far, f"{what}: layer {layer} head {head} differs in slots {far}, which are clear of the cut"
    limit = 2 * subject.score_rounding(tuple(one.batch.ids[row, -n:].tolist()))
    distance = max(spread(mine[:, first:last], theirs[:, first:last]) for mine, theirs in pairs)
    assert distance <= limit, f"{what}: scores differ by {distance:.1e} (at most {limit:.1e})"
