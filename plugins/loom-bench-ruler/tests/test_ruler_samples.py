"""Samples of loom's RULER: length under several tokenizers, evidence, independence of process and neighbours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from loom_bench_ruler.benchmark import NO_RETRIEVAL, Ruler
from loom_bench_ruler.counting import Numbers, zeta
from loom_bench_ruler.draft import insert
from loom_bench_ruler.meter import Meter, Pool, Strand
from loom_bench_ruler.needles import halves
from loom_bench_ruler.plugin import TASKS, RulerOptions
from loom_bench_ruler.words import own, own_book, prose
from loom_kit.tokenizers import embedded_tokenizer

from loom_core.api import DataDir, Response, Sample, Task, Timing, UsageError, build, digest, installed
from loom_core.api.doubles import ToyTokenizer
from loom_core.api.serving import render
from loom_core.contract.keys import plain

NOWHERE = DataDir(mirror=None, cache=Path("/nonexistent"), offline=True)


class TrainedTokenizer:
    """A byte-level BPE trained on some of loom's own prose: merges across spaces' left side, digits in any groups."""

    digest = "trained"
    template_digest = "trained template"
    bos_id: int | None = None
    adds_bos = False

    def __init__(self) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        self._inner = Tokenizer(models.BPE())
        self._inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._inner.decoder = decoders.ByteLevel()
        texts = [*prose(400), *(f"The code of {i * 7919} is {i * 104729 % 10**7}." for i in range(400))]
        self._inner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1200, show_progress=False))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return list(self._inner.encode(text).ids)

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        done = self._inner.encode(text)
        return list(done.ids), list(done.offsets)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._inner.decode(list(ids)))

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        return "".join(f"<{m['role']}>\n{m['content'].strip()}\n" for m in messages) + "<assistant>\n"


@cache
def tokenizer_of(name: str) -> Any:
    if name == "bytes":
        return ToyTokenizer()
    if name == "trained":
        pytest.importorskip("tokenizers")
        return TrainedTokenizer()
    return embedded_tokenizer() or pytest.skip("the embedded model is not installed")


def samples(task: str, lengths: tuple[int, ...], tokenizer: Any = None, **options: Any) -> list[Sample]:
    bench = Ruler(RulerOptions(**{"samples": 2, **options}))
    found = next(row for row in bench.tasks(lengths) if row.name == f"loom_{task}")
    return list(bench.samples(found, NOWHERE, tokenizer, lengths))


def tokens(sample: Sample, tokenizer: Any) -> int:
    return len(render(sample.prompt, tokenizer, chat="template").token_ids or ())


def test_tasks() -> None:
    tasks: Sequence[Task] = Ruler(RulerOptions()).tasks(())
    assert [task.name for task in tasks] == [f"loom_{name}" for name in TASKS]
    limits = {task.name.removeprefix("loom_"): task.generation.max_tokens for task in tasks}
    assert {limits[name] for name in TASKS[:8]} == {128}
    assert [limits[name] for name in TASKS[8:]] == [30, 120, 50, 32, 32]
    assert all(task.generation.temperature == 0 and task.chat == "template" and not task.sources for task in tasks)
    assert {task.name.removeprefix("loom_") for task in tasks if not task.retrieval} == set(NO_RETRIEVAL)


@pytest.mark.parametrize("name", ["bytes", "trained", "embedded"])
@pytest.mark.parametrize("task", TASKS)
def test_lengths_under_three_tokenizers(task: str, name: str) -> None:
    tokenizer = tokenizer_of(name)
    rows = samples(task, (2048, 6000, 16384), tokenizer, samples=3)
    assert len(rows) == 9
    for row in rows:
        wanted = int(row.id.split("-t")[1].split("-")[0])
        assert 0.98 * wanted <= tokens(row, tokenizer) <= wanted, row.id
        assert "length_estimated" not in row.meta


@pytest.mark.parametrize("task", TASKS)
def test_without_a_tokenizer_four_characters_count_as_a_token(task: str) -> None:
    for row in samples(task, (4096,)):
        assert row.meta["length_estimated"] is True
        assert 0.98 * 4096 <= len(row.prompt.text) / 4 <= 4096


@pytest.mark.parametrize("task", TASKS)
def test_evidence_holds_the_answers(task: str) -> None:
    for row in samples(task, (3000,), samples=4):
        assert len(row.evidence) == (0 if task in ("cwe", "fwe") else len(row.references))
        for evidence, reference in zip(row.evidence, row.references, strict=False):
            segment = row.prompt.segments[evidence.segment]
            assert segment.kind == "context"
            assert reference in segment.text[evidence.start : evidence.end]
        if task.startswith("niah"):
            assert all(row.prompt.context.count(reference) == 1 for reference in row.references)


@pytest.mark.parametrize("task", TASKS)
def test_oracle_and_null_answers(task: str) -> None:
    catalog = installed()
    bench = Ruler(RulerOptions(samples=1))
    found = next(row for row in bench.tasks(()) if row.name == f"loom_{task}")
    metrics = {name: catalog.load(catalog.metrics.get(name))() for name in found.metrics}
    for row in bench.samples(found, NOWHERE, None, (2500,)):
        for text, value in ((row.meta["oracle"], 1.0), ("", 0.0), ("\n", 0.0)):
            (scored,) = bench.score(row, [response(text)], metrics).values()
            assert scored.value == value


def response(text: str) -> Response:
    timing = Timing(queued=0, started=0, first_token=0, ended=0)
    return Response(key="", text=text, finish="stop", n_in=0, n_out=0, timing=timing)


def test_the_form_of_a_prompt() -> None:
    row = samples("niah_single_2", (700,))[0]
    assert [segment.kind for segment in row.prompt.segments] == ["instruction", "context", "question", "prefill"]
    assert row.prompt.segments[3].role == "assistant"
    (key,) = row.meta["keys"]
    assert row.prompt.segments[3].text == f"The secret code for {key} is"
    assert f"The secret code for {key} is {row.references[0]}." in row.prompt.context


def test_what_the_tasks_ask_for() -> None:
    def one(task: str) -> Sample:
        return samples(task, (4096,), samples=1)[0]

    assert one("niah_single_3").references[0].count("-") == 4
    assert one("niah_multikey_1").prompt.context.count("The secret code for") == 4
    assert one("niah_multikey_2").prompt.context.count("The secret code for") > 100
    values = one("niah_multivalue")
    assert len(values.references) == 4
    assert values.prompt.context.count(values.meta["keys"][0]) == 4
    queries = one("niah_multiquery")
    assert len(queries.meta["keys"]) == len(queries.references) == 4
    assert all(key in queries.prompt.segments[2].text for key in queries.meta["keys"])
    chain = one("vt")
    places = [evidence.start for evidence in chain.evidence]
    assert len(places) == 5
    assert places == sorted(places)


def test_common_words_are_the_most_common() -> None:
    for row in samples("cwe", (1500, 8192)):
        words = [entry for entry in row.prompt.context.split() if not entry[0].isdigit()]
        counts = {word: words.count(word) for word in set(words)}
        common = {counts.pop(word) for word in row.references}
        assert len(row.references) == 10
        assert len(common) == 1
        assert min(common) >= 3 * max(counts.values())
        assert [int(entry[:-1]) for entry in row.prompt.context.split()[::2]] == list(range(1, len(words) + 1))


def test_frequent_words_are_the_most_frequent() -> None:
    for row in samples("fwe", (1024, 4096)):
        words = row.prompt.context.split()
        counts = sorted({word: words.count(word) for word in set(words)}.items(), key=lambda pair: -pair[1])
        assert counts[0][0] == "..."
        assert [word for word, _ in counts[1:4]] == list(row.references)
        assert counts[3][1] > counts[4][1]


def test_questions_have_one_answer() -> None:
    for task in ("qa_1", "qa_2"):
        row = samples(task, (4096,))[0]
        numbers = [line for line in row.prompt.context.split("\n") if line.startswith("Document ")]
        assert numbers == [f"Document {i}:" for i in range(1, len(numbers) + 1)]
        question = row.prompt.segments[2].text
        name = (
            question.split("was ")[1].split(" born")[0]
            if task == "qa_1"
            else question.split("that ")[1].split(" works")[0]
        )
        assert row.prompt.context.count(f"{name} was born in") == 1


def test_same_bytes_in_another_process() -> None:
    code = (
        "from pathlib import Path\n"
        "from loom_bench_ruler.benchmark import Ruler\n"
        "from loom_bench_ruler.plugin import RulerOptions\n"
        "from loom_core.data.access import DataDir\n"
        "from loom_core.contract.keys import digest, plain\n"
        "from loom_core.doubles.server import ToyTokenizer\n"
        "bench = Ruler(RulerOptions(samples=2, seed=5))\n"
        "data = DataDir(mirror=None, cache=Path('nowhere'), offline=True)\n"
        "rows = [plain(s) for t in bench.tasks(()) for s in bench.samples(t, data, ToyTokenizer(), (4096,))]\n"
        "print(digest(rows))\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    here = [plain(row) for task in TASKS for row in samples(task, (4096,), ToyTokenizer(), seed=5)]
    assert digests == {digest(here)}


@pytest.mark.parametrize("task", TASKS)
def test_samples_do_not_depend_on_their_neighbours(task: str) -> None:
    alone = {row.id: row for row in samples(task, (2048,), ToyTokenizer())}
    among = {row.id: row for row in samples(task, (3000, 2048), ToyTokenizer(), samples=3)}
    assert all(among[name] == row for name, row in alone.items())
    other = {row.id: row for row in samples(task, (2048,), ToyTokenizer(), seed=1)}
    assert all(other[name].references != row.references for name, row in alone.items())


def test_lengths_come_in_turn_and_depths_evenly() -> None:
    rows = samples("niah_single_1", (1024, 2048), samples=16)
    assert [row.level for row in rows] == ["1k", "2k"] * 16
    for level in ("1k", "2k"):
        depths = [row.depth for row in rows if row.level == level]
        assert all(depth is not None for depth in depths)
        for n in (4, 8, 16):
            quarters = [sum(int((d or 0) * 3.999) == q for d in depths[:n]) for q in range(4)]
            assert max(quarters) - min(quarters) <= 2


def test_default_lengths_and_samples() -> None:
    bench = Ruler(RulerOptions())
    rows = list(bench.samples(bench.tasks(())[0], NOWHERE, None, ()))
    assert len(rows) == 40
    assert {row.level for row in rows} == {"4k", "8k"}


@pytest.mark.parametrize("task", TASKS)
def test_a_length_too_short(task: str) -> None:
    with pytest.raises(UsageError, match=rf"(?s)too short for the task.*loom_{task}, length 60.*ask for at least \d+"):
        samples(task, (60,), ToyTokenizer())


class StuckTokenizer(ToyTokenizer):
    """Gives no more than 1,500 tokens for any text."""

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids, spans = super().offsets(text)
        return ids[:1500], spans[:1500]


@pytest.mark.parametrize("task", ["niah_single_2", "qa_1", "fwe"])
def test_a_tokenizer_that_cannot_reach_the_length(task: str) -> None:
    with pytest.raises(UsageError, match=r"(?s)does not reach a length|cannot fill a prompt"):
        samples(task, (30000,), StuckTokenizer())


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"variant": "nvidia"}, "expected one of loom, official"),
        ({"samples": "0"}, "below the least value 1"),
        ({"levels": "{4k,4096}"}, "given twice"),
        ({"length": "4k"}, "unknown option"),
    ],
)
def test_options_that_cannot_be_meant(values: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        build(RulerOptions, values, owner="benchmark ruler")


@given(st.lists(st.floats(0.5, 40), min_size=1, max_size=30), st.floats(0, 5000))
def test_a_strand_holds_as_much_as_fits(costs: list[float], room: float) -> None:
    strand = Strand(Pool([str(i) for i in range(len(costs))], costs), None)
    n, cost = strand.fit(room)
    taken = [costs[int(piece)] for piece in strand.take(n + 1)]
    assert cost == pytest.approx(sum(taken[:n]))
    assert sum(taken[:n]) <= room + 1e-6
    assert sum(taken) >= room - 1e-6


@settings(deadline=None)
@given(
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=12),
    st.lists(st.tuples(st.integers(0, 12), st.text("XY", min_size=1, max_size=3)), max_size=4),
)
def test_inserting_keeps_every_piece_and_finds_the_inserts(pieces: list[str], inserts: list[tuple[int, str]]) -> None:
    inserts = [(min(place, len(pieces)), text) for place, text in inserts]
    body = insert(pieces, inserts, " ")
    assert [body.context[start:end] for start, end in body.spans] == [text for _, text in inserts]
    assert [word for word in body.context.split() if word.islower()] == pieces
    for (place, _), (start, _) in zip(inserts, body.spans, strict=True):
        assert sum(word.islower() for word in body.context[:start].split()) == place


@given(st.text("ab .\n", min_size=1), st.integers(0, 40))
def test_the_head_of_a_text_fits(text: str, room: int) -> None:
    head, cost = Meter(ToyTokenizer()).head(text, room)
    assert cost <= room
    assert text.startswith(head)
    assert len(head) + 1 <= room or not head


def test_costs_add_up() -> None:
    meter = Meter(ToyTokenizer())
    pieces = [f"piece {i}" * (i % 5 + 1) for i in range(9000)]
    assert meter.pieces(pieces, " ") == [len(piece) + 1 for piece in pieces]
    assert Numbers.of(meter).first(1234) == sum(len(f" {i}.") for i in range(1, 1235))


def test_zeta_and_halves() -> None:
    assert zeta(2.0) == pytest.approx(1.6449340668482264, abs=1e-12)
    assert zeta(3.5) == pytest.approx(1.1267338673170566, abs=1e-12)
    assert [halves(i) for i in range(5)] == [0, 0.5, 0.25, 0.75, 0.125]


def test_the_words() -> None:
    book = own_book()
    assert len(set(book.single)) == len(book.single) > 50000
    text = " ".join((*prose(2048), *own("noise")))
    assert not any(char.isdigit() for char in text)
    assert not {"secret", "code", "box", "holds"} & set(text.lower().replace(".", "").replace(",", "").split())
    assert "{" not in text
    assert len(set(prose(2048))) == 2048
