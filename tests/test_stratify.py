"""Stratified subsets: the same in every process, fair over levels, groups whole; and suites that name them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, strategies as st

from loom_core.api import Catalog, Prompt, Sample, SuiteSpec, hookimpl
from loom_core.run.config import RunConfig
from loom_core.run.selection import select
from loom_core.run.stratify import shares, subset

TOY = ("--model", "toy")
SIZES = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 50), min_size=1, max_size=8)


def samples(sizes: dict[str, int], group: int = 1) -> list[Sample]:
    """That many samples of each level; `group` of them at a time are scored together."""
    return [
        Sample(
            id=f"{level}-{i}",
            task="t",
            prompt=Prompt(segments=()),
            references=(),
            level=level,
            group=f"{level}-{i // group}" if group > 1 else None,
        )
        for level, size in sizes.items()
        for i in range(size)
    ]


@given(SIZES, st.integers(1, 400))
def test_shares_are_fair(sizes: dict[str, int], n: int) -> None:
    given, total = shares(sizes, n), sum(sizes.values())
    assert sum(given.values()) == min(n, total)
    assert all(0 <= given[level] <= size for level, size in sizes.items())
    if n >= len(sizes):
        assert min(given.values()) >= 1
        # The guarantee of one each moves a share by no more than the number of levels.
        assert all(abs(given[level] - size * min(n, total) / total) <= len(sizes) for level, size in sizes.items())
    else:
        assert all(abs(given[level] - size * n / total) < 1 for level, size in sizes.items())


@given(SIZES, st.integers(1, 60), st.integers(0, 5), st.randoms(use_true_random=False))
def test_a_subset_does_not_hang_on_the_order(sizes: dict[str, int], n: int, seed: int, draw: Any) -> None:
    rows = samples(sizes)
    first = {sample.id for sample in subset(lambda: rows, n, seed, "t")}
    mixed = draw.sample(rows, len(rows))
    assert len(first) == min(n, len(rows))
    counts = Counter(sample.level for sample in rows if sample.id in first)
    assert counts == Counter({level: k for level, k in shares(sizes, n).items() if k})
    if len(set(shares(sizes, n).values())) == 1 or n >= len(rows):
        assert first == {sample.id for sample in subset(lambda: mixed, n, seed, "t")}


def test_another_seed_draws_others_and_order_is_kept() -> None:
    rows = samples({"4k": 40, "8k": 40})
    first, other = ([sample.id for sample in subset(lambda: rows, 10, seed, "t")] for seed in (0, 1))
    assert first != other
    assert first == [sample.id for sample in rows if sample.id in set(first)]


def test_groups_stay_whole() -> None:
    rows = samples({"4k": 40, "8k": 20}, group=2)
    taken = Counter(sample.group for sample in subset(lambda: rows, 15, 0, "t"))
    assert set(taken.values()) == {2} and 12 <= sum(taken.values()) <= 15


def asked(loom: Any, *more: str) -> list[str]:
    """The ids of the planned samples of a run."""
    loom("run", "fable:tell", *TOY, "--subset", "6", *more, "--out", "run")
    found = sorted({row["sample"] for row in loom.records(loom.cwd / "run")})
    return found


def test_another_process_draws_the_same(loom: Any, tmp_path: Path) -> None:
    first = asked(loom)
    (loom.cwd / "run").rename(tmp_path / "first")
    assert asked(loom, "--workers", "2") == first and len(first) == 6
    (loom.cwd / "run").rename(tmp_path / "second")
    assert asked(loom, "--subset-seed", "7") != first


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite's file."""
    path = tmp_path / "tales.toml"
    path.write_text('benchmarks = ["fable:tell"]\nsubset = 4\nsubset_seed = 3\nlengths = "1k"\n', "utf-8")
    return path


def _with_suite(catalog: Catalog, path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    module = ModuleType("loom_suite_tales")

    @hookimpl
    def loom_suites() -> Any:
        return (SuiteSpec(name="tales", version="1", summary="tales", factory="loom_suite_tales:where"),)

    vars(module).update(loom_suites=loom_suites, where=lambda: path)
    monkeypatch.setitem(sys.modules, "loom_suite_tales", module)
    catalog.register(module, "tales", "loom-suite-tales", "0.1.0")
    return catalog


def test_a_suite_names_tasks_lengths_and_a_subset(
    catalog: Catalog, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig().merged({"suite": "tales", "model": "toy", "subset_seed": 5}, "command line")
    chosen = select(config, _with_suite(catalog, suite, monkeypatch))
    assert chosen.config.benchmarks == ("fable:tell",) and chosen.config.lengths == (1024,)
    assert (chosen.config.subset, chosen.config.subset_seed) == (4, 5)
    assert chosen.config.origins["subset"] == "suite tales" and chosen.config.origins["subset_seed"] == "command line"


def test_an_unknown_task_of_a_suite_is_named(catalog: Catalog, suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite.write_text('benchmarks = ["fable:tall"]\n', "utf-8")
    config = RunConfig().merged({"suite": "tales", "model": "toy"}, "command line")
    with pytest.raises(Exception, match="unknown task 'tall' of benchmark fable") as caught:
        select(config, _with_suite(catalog, suite, monkeypatch))
    assert "suite tales" in json.dumps(str(caught.value))
