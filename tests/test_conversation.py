"""A job as a conversation: turns, strategies, replay, and what is recorded when a plugin misbehaves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from loom_core.api import (
    MOST_CALLS,
    Arm,
    Catalog,
    DataDir,
    ModelCard,
    Request,
    Response,
    Sample,
    Truncation,
    parse_arms,
)
from loom_core.contract.keys import plain
from loom_core.doubles.plugin import DoubleOptions
from loom_core.doubles.server import DoubleSession
from loom_core.run.config import RunConfig
from loom_core.run.conversation import Conversations, response_from
from loom_core.run.plan import skipped
from loom_core.run.selection import Selection, select
from loom_core.score.scoring import answers_of

Record = dict[str, Any]


class Watched(DoubleSession):
    """A double that remembers what it was asked, and may fail or keep silent at some calls."""

    def __init__(self, card: ModelCard, answers: Any = "oracle") -> None:
        super().__init__(DoubleOptions(answers=answers), card)
        self.asked: list[Request] = []
        self.failing: set[int] = set()
        self.silent: set[int] = set()
        self.changed: dict[int, dict[str, Any]] = {}

    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Response]:
        """Answer, fail or say nothing, by the number of the call."""
        for request in requests:
            number = len(self.asked)
            self.asked.append(request)
            for response in super().generate(iter([request]), arm):
                if number in self.failing:
                    yield replace(response, finish="error", text="", error="out of memory")
                elif number not in self.silent:
                    yield replace(response, **self.changed.get(number, {}))


class Setting:
    """A selection, a session, and the jobs of its samples."""

    def __init__(self, catalog: Catalog, benchmark: str, arm: str = "dense", **config: Any) -> None:
        self.selection: Selection = select(
            RunConfig().merged({"benchmarks": [benchmark], "model": "toy", "accel": [arm], **config}, "test"), catalog
        )
        self.arm = parse_arms([arm], catalog)[-1]
        self.session = Watched(self.selection.describe())

    def samples(self) -> Iterator[Sample]:
        """The samples of all tasks."""
        data = DataDir.from_environment(offline=True)
        for chosen, task, name in self.selection.tasks():
            for sample in chosen.benchmark.samples(task, data, None, ()):
                yield replace(sample, task=name)

    def run(
        self, replay: dict[str, list[Record]] | None = None, stopping: threading.Event | None = None
    ) -> list[Record]:
        """The records of all jobs."""
        jobs = [
            {
                "job": {
                    "key": f"{s.task} {s.id}",
                    "sample": s.id,
                    "task": s.task,
                    "arm": self.arm.name,
                    "repeat": 0,
                    "group": "",
                    "length": 0,
                },
                "sample": plain(s),
                "replay": (replay or {}).get(f"{s.task} {s.id}", []),
            }
            for s in self.samples()
        ]
        with Conversations(self.selection, self.session) as conversations:
            return list(conversations.run(self.arm, jobs, stopping or threading.Event()))


def by_job(records: list[Record]) -> dict[str, list[Record]]:
    """Records by job, in their order."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["job"], []).append(record)
    return found


def test_a_plain_question_is_one_recorded_call(catalog: Catalog) -> None:
    setting = Setting(catalog, "fable@n=2:tell")
    records = setting.run()
    assert [(r["sample"], r["step"], r["last"], r["text"], r["answer"]) for r in records] == [
        ("q0", 0, True, "0", None),
        ("q1", 0, True, "7", None),
    ]
    assert all(r["bos"] == 1 and r["prompt_digest"] and r["cut"] == [] for r in records)
    assert plain(response_from(records[0])) == {k: records[0][k] for k in plain(response_from(records[0]))}


def test_turns_follow_each_other_and_each_is_recorded(catalog: Catalog) -> None:
    setting = Setting(catalog, "fable@n=3,turns=3:tell")
    jobs = by_job(setting.run())
    assert len(jobs) == 3
    for records in jobs.values():
        assert [(r["step"], r["last"]) for r in records] == [(0, False), (1, False), (2, True)]
    third = [r for r in setting.session.asked if r.step == 2][1]
    assert third.prompt.text.endswith("7. Again, turn 2? ") and third.generation.max_tokens == 8
    assert len({request.key for request in setting.session.asked}) == 9


def test_replay_asks_nothing_again(catalog: Catalog) -> None:
    setting = Setting(catalog, "fable@n=3,turns=3")
    first = by_job(setting.run())
    n_asked = len(setting.session.asked)
    assert setting.run(replay=first) == [] and len(setting.session.asked) == n_asked


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_replay_asks_only_what_is_missing(catalog: Catalog, kept: int) -> None:
    setting = Setting(catalog, "fable@n=2,turns=3:tell", "fable_again:calls=2")
    whole = by_job(setting.run())
    setting.session.asked.clear()
    again = by_job(setting.run(replay={job: records[:kept] for job, records in whole.items()}))
    assert len(setting.session.asked) == 2 * (6 - kept)
    times = ("timing", "prepared_seconds", "rewriting_cost")
    for job, records in again.items():
        for old, new in zip(whole[job][kept:], records, strict=True):
            assert {k: v for k, v in new.items() if k not in times} == {k: v for k, v in old.items() if k not in times}


def test_a_recorded_error_or_another_prompt_is_asked_again(catalog: Catalog) -> None:
    setting = Setting(catalog, "fable@n=1:tell")
    ((record,),) = by_job(setting.run()).values()
    key = record["job"]
    assert len(setting.run(replay={key: [{**record, "finish": "error", "error": "x"}]})) == 1
    assert len(setting.run(replay={key: [{**record, "key": "of another prompt"}]})) == 1


def test_a_strategy_is_several_recorded_calls_and_one_answer(catalog: Catalog) -> None:
    setting = Setting(catalog, "fable@n=2:tell", "fable_again:calls=3")
    for records in by_job(setting.run()).values():
        assert [r["step"] for r in records] == [0, 1, 2] and [r["last"] for r in records] == [False, False, True]
        text = records[0]["text"]
        assert [r["answer"] for r in records] == [None, None, f"{text}|{text}|{text}"]


def test_a_strategy_gives_score_one_response_for_each_turn(catalog: Catalog) -> None:
    """Two turns of three calls each: the scorer sees two responses, each with the strategy's answer."""
    for records in by_job(Setting(catalog, "fable@n=2,turns=2:tell", "fable_again:calls=3").run()).values():
        assert [r["turn"] for r in records] == [0, 0, 0, 1, 1, 1]
        assert [r["answer"] is None for r in records] == [True, True, False, True, True, False]
        seen = answers_of(records)
        assert [response.text for response in seen] == [records[2]["answer"], records[5]["answer"]]
        assert [response.key for response in seen] == [records[2]["key"], records[5]["key"]]
        old = [{name: value for name, value in r.items() if name != "turn"} for r in records]
        assert len(answers_of(old)) == 6, "records of before turns were told: every call a turn, as then"


def test_a_strategy_that_never_asks_or_never_ends_is_an_error_of_the_job(catalog: Catalog) -> None:
    (record,) = Setting(catalog, "fable@n=1:tell", "fable_again:calls=0").run()
    assert record["finish"] == "error" and record["last"] and "Again answered without asking" in record["error"]
    endless = Setting(catalog, "fable@n=1:tell", "fable_again:calls=100").run()
    assert len(endless) == MOST_CALLS + 1 and f"the limit is {MOST_CALLS}" in endless[-1]["error"]


@pytest.mark.parametrize(
    ("benchmark", "arm", "error"),
    [
        ("fable@n=3,raising=1:tell", "dense", "ValueError: this fable has no moral"),
        ("fable@n=3:tell", "fable_stuck", "KeyError: 'second step'"),
        ("fable@n=3:tell", "fable_leak", "RuntimeError: refused with key "),
        ("fable@n=3:tell", "fable_meddle", "fable_meddle changed more than the context\n  where: arm fable_meddle"),
    ],
)
def test_a_plugin_that_raises_costs_its_jobs_and_not_the_worker(
    catalog: Catalog, benchmark: str, arm: str, error: str
) -> None:
    jobs = by_job(Setting(catalog, benchmark, arm).run())
    assert len(jobs) == 3
    failed = [records[-1] for records in jobs.values() if records[-1]["finish"] == "error"]
    assert len(failed) == (1 if "raising" in benchmark else 3)
    for record in failed:
        assert record["error"] == error and record["last"]
        assert all(r["finish"] == "stop" and not r["last"] for r in jobs[record["job"]][:-1]), "what was answered stays"


def test_failed_and_missing_answers_are_recorded_errors(catalog: Catalog) -> None:
    setting = Setting(catalog, "fable@n=4,turns=2:tell")
    setting.session.failing, setting.session.silent = {1}, {2}
    jobs = by_job(setting.run())
    ends = {job: records[-1] for job, records in jobs.items()}
    errors = [ends[f"fable:tell q{i}"]["error"] for i in range(4)]
    assert errors == [None, "out of memory", "the server gave no answer to this request", None]
    assert all(record["last"] for record in ends.values())


def test_a_response_that_is_none_is_a_recorded_error_and_costs_no_other(catalog: Catalog) -> None:
    setting = Setting(catalog, "fable@n=4:tell")
    setting.session.changed = {0: {"text": None}, 1: {"n_in": -5}, 2: {"finish": "stop", "error": "x"}}
    records = setting.run()
    assert [(r["finish"], r["text"] != "", r["last"]) for r in records] == [("error", False, True)] * 3 + [
        ("stop", True, True)
    ]
    assert all(f"(sample {r['sample']})" in r["error"] for r in records[:3])


def test_prompt_augmentations_change_the_context_alone_and_what_they_drop_is_counted(catalog: Catalog) -> None:
    dense, head = Setting(catalog, "fable@n=2:tell"), Setting(catalog, "fable@n=2:tell", "fable_head:keep=0.25")
    for whole, part in zip(dense.run(), head.run(), strict=True):
        assert part["n_in"] < whole["n_in"] and part["n_dropped"] == whole["n_in"] - part["n_in"] > 0
        assert whole["n_dropped"] == 0
    full, cut = dense.session.asked[0].prompt, head.session.asked[0].prompt
    assert full.context.startswith(cut.context) and full.segments[-1] == cut.segments[-1]


def test_stacked_augmentations_see_each_others_work(catalog: Catalog) -> None:
    one = Setting(catalog, "fable@n=1:tell", "fable_head:keep=0.25")
    two = Setting(catalog, "fable@n=1:tell", "fable_head:keep=0.5+fable_again:calls=2")
    head, again = two.arm.parts
    two.arm = replace(two.arm, parts=(head, head, again))  # which no command line could write
    (first,) = one.run()
    assert len(two.run()) == 2
    assert abs(len(two.session.asked[0].prompt.context) - len(one.session.asked[0].prompt.context)) <= 1
    assert first["n_dropped"] > 0


def test_a_prompt_that_is_too_long_is_an_error_or_cut(catalog: Catalog) -> None:
    options: Any = {"model_options": {"window": "120"}}
    (record,) = Setting(catalog, "fable@n=1:tell", **options).run()
    assert "longer than the model's window" in record["error"] and "+ 16 new > 120" in record["error"]
    (record,) = Setting(catalog, "fable@n=1:tell", **options, overlength="truncate").run()
    assert record["n_in"] == 104 and record["n_dropped"] > 0 and record["cut"] == ["context"]


def test_stopping_finishes_the_record_in_hand(catalog: Catalog) -> None:
    setting, stopping = Setting(catalog, "fable@n=5,turns=2:tell"), threading.Event()
    stopping.set()
    assert setting.run(stopping=stopping) == []

    class Stopper(Watched):
        def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Response]:
            for response in super().generate(requests, arm):
                stopping.set()
                yield response

    stopping.clear()
    setting.session = Stopper(setting.selection.describe())
    assert [record["step"] for record in setting.run(stopping=stopping)] == [0]


def test_seeds_belong_to_the_job_and_not_to_the_order(catalog: Catalog) -> None:
    one, other = Setting(catalog, "fable@n=4"), Setting(catalog, "fable@n=4,per_context=3")
    one.run()
    other.run()
    assert {r.key: r.seed for r in one.session.asked} == {r.key: r.seed for r in other.session.asked}
    assert len({r.seed for r in one.session.asked}) == 8


def test_a_task_that_cuts_its_own_prompts_is_never_too_long(catalog: Catalog) -> None:
    """The authors' rule makes every prompt fit, so that no `--overlength` policy has a say."""
    setting = Setting(catalog, "fable@n=1:tell")
    (sample,) = setting.samples()
    task = setting.selection.chosen[0].tasks[0]
    own = replace(task, truncation=Truncation(scope="prompt"))
    long = replace(sample, length=1000)
    assert skipped(long, task, False, 500, "skip") and not skipped(long, own, False, 500, "skip")
    assert not skipped(long, task, True, 500, "skip") and not skipped(long, task, False, 500, "truncate")
