"""The agenda: every job is handed out exactly once, whatever dies; long before short; whole groups; fair shares."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, strategies as st

from loom_core.api import Job
from loom_core.run.agenda import Agenda, Bundle


def made(rows: list[tuple[int, int, int]]) -> list[Job]:
    """Jobs of (group, arm, length)."""
    return [
        Job(key=f"k{i}", sample=f"s{i}", task="t", arm=f"arm{arm}", repeat=0, group=f"g{group}", length=length)
        for i, (group, arm, length) in enumerate(rows)
    ]


rows = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2), st.integers(1, 30)), max_size=40)


@given(rows, st.integers(1, 20), st.integers(1, 6), st.data())
def test_every_job_is_handed_out_exactly_once_whatever_dies(
    shape: list[tuple[int, int, int]], size: int, workers: int, data: st.DataObject
) -> None:
    jobs = made(shape)
    agenda = Agenda(jobs, size=size, workers=workers)
    done: Counter[str] = Counter()
    held: list[Bundle] = []
    deaths = 0
    assert len(agenda) == len(jobs)
    while len(agenda) or held:
        bundle = agenda.take() if len(held) < workers else None
        if bundle is not None:
            assert bundle.left and {job.arm for job in bundle.left.values()} == {bundle.arm}
            held.append(bundle)
            continue
        bundle = held.pop(data.draw(st.integers(0, len(held) - 1)))
        dies = deaths < 30 and data.draw(st.booleans())
        finished = list(bundle.left)[: data.draw(st.integers(0, len(bundle.left)))] if dies else list(bundle.left)
        for key in finished:
            done[key] += 1
            del bundle.left[key]
        if dies and bundle.left:
            deaths += 1
            agenda.give_back(bundle)
    assert done == Counter(job.key for job in jobs)
    assert agenda.take() is None


def all_of(agenda: Agenda) -> list[Bundle]:
    """Everything, in order."""
    return list(iter(agenda.take, None))


@given(rows, st.integers(1, 20), st.integers(1, 6))
def test_a_group_is_split_only_when_it_is_larger_than_a_fair_share(
    shape: list[tuple[int, int, int]], size: int, workers: int
) -> None:
    jobs = made(shape)
    agenda = Agenda(jobs, size=size, workers=workers)
    sizes, share = Counter((job.group, job.arm) for job in jobs), 0
    while len(agenda):
        if not agenda._ready:  # a new chunk is cut into bundles now
            share = -(-len(agenda) // workers)
        bundle = agenda.take()
        assert bundle is not None
        for place, n in Counter((job.group, job.arm) for job in bundle.jobs).items():
            assert n == sizes[place] or sizes[place] > share


def test_whole_groups_stay_together_although_their_questions_differ_in_length() -> None:
    jobs = made([(group, 0, 100 - group + (i % 2)) for i in range(5) for group in range(3)])
    bundles = all_of(Agenda(jobs, size=1, workers=1))
    assert [{job.group for job in bundle.jobs} for bundle in bundles] == [{"g0"}, {"g1"}, {"g2"}]
    assert all(len(bundle.jobs) == 5 for bundle in bundles)


def test_the_longest_group_goes_first() -> None:
    jobs = made([(0, 0, 5), (1, 0, 50), (2, 0, 20), (0, 0, 30)])
    order = [job.group for bundle in all_of(Agenda(jobs, size=1, workers=1)) for job in bundle.jobs]
    assert order == ["g1", "g0", "g0", "g2"]


def test_the_arms_of_a_chunk_follow_each_other() -> None:
    jobs = made([(group, arm, 9) for group in range(4) for arm in range(3)])
    arms = [bundle.arm for bundle in all_of(Agenda(jobs, size=2, workers=1))]
    assert arms == ["arm0", "arm1", "arm2"] * 2


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_one_large_group_is_shared_fairly(workers: int) -> None:
    jobs = made([(0, 0, 9)] * 30)
    bundles = all_of(Agenda(jobs, size=64, workers=workers))
    assert len(bundles) == workers and all(len(bundle.jobs) == 30 // workers for bundle in bundles)


def test_small_groups_are_packed_but_not_torn() -> None:
    jobs = made([(i // 3, 0, 9) for i in range(12)])
    bundles = all_of(Agenda(jobs, size=64, workers=3))
    assert [len(bundle.jobs) for bundle in bundles] == [3, 3, 3, 3]


def test_a_deadly_job_ends_up_alone_and_first_in_line() -> None:
    jobs = made([(0, 0, 9)] * 8)
    agenda = Agenda(jobs, size=64, workers=1)
    sizes = []
    bundle = agenda.take()
    while bundle is not None and len(bundle.left) > 1:
        sizes.append(len(bundle.left))
        agenda.give_back(bundle)
        bundle = agenda.take()
    assert sizes == [8, 4, 2] and bundle is not None and bundle.attempts == 3 and bundle.jobs[0].key == "k0"


def test_progress_forgives_earlier_deaths() -> None:
    agenda = Agenda(made([(0, 0, 9)] * 4), size=64, workers=1)
    bundle = agenda.take()
    assert bundle is not None
    bundle.left.pop("k0")
    agenda.give_back(bundle)
    rest = agenda.take()
    assert rest is not None and rest.attempts == 0 and list(rest.left) == ["k1", "k2", "k3"]
