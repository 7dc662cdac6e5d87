"""The adapter's own side: its tokenizers, its cases, and what it reads from a program of the authors' shape."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loom_bench_longbench_v2.benchmark import ACCURACY, COMPENSATED, FOLDER, LongBenchV2
from loom_bench_longbench_v2.parity import MODEL, Parity, _asked, _loom_table, _table
from loom_bench_longbench_v2.plugin import LongBenchV2Options
from loom_parity import TOKENIZERS, Case, ParityContext

from loom_core.api import DataDir, installed
from loom_core.api.doubles import WordTokenizer

TEMPLATE = "Read.\n$DOC$\nAsked: $Q$ A $C_A$ B $C_B$ C $C_C$ D $C_D$\n"


@pytest.fixture
def context(tmp_path: Path) -> ParityContext:
    """The templates' places with words of our own; no records."""
    bench, rows = LongBenchV2(LongBenchV2Options()), []
    for source in bench.pins.values():
        path = source.pin.rpartition(":")[2]
        if path.endswith(".txt"):
            text = (TEMPLATE + ("Thought: $COT$" if path.endswith("cot_ans.txt") else "")).encode()
            file = tmp_path / FOLDER / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
            rows.append(
                f'[[file]]\npath = "{path}"\nsha256 = "{hashlib.sha256(text).hexdigest()}"\nbytes = {len(text)}\n'
            )
    (tmp_path / FOLDER / "EXTRACT.toml").write_text("\n".join(rows), "utf-8")
    metrics = {name: installed().load(installed().metrics.get(name))() for name in (ACCURACY, COMPENSATED)}
    data = DataDir(mirror=tmp_path, cache=tmp_path / "cache", offline=True).for_benchmark("longbench-v2")
    return ParityContext(
        benchmark=bench, tasks=tuple(bench.tasks(())), data=data, root=tmp_path, metrics=metrics, limit=2
    )


def made_cases(context: ParityContext) -> list[Case]:
    return list(Parity().cases(context))


def test_cases_are_named_once_the_same_twice_and_have_values(context: ParityContext) -> None:
    found = made_cases(context)
    assert not [name for name, n in Counter((case.kind, case.name, case.id) for case in found).items() if n > 1]
    assert [case.payload for case in found] == [case.payload for case in made_cases(context)]
    assert set(context.missing) == {"prompts of the records", "prompts of rag"}
    for case in found:
        json.dumps([case.payload, case.ours()])
    thought = next(case for case in found if (case.kind, case.name) == ("prompt", "cot"))
    assert [call[1:] for call in thought.ours()] == [[0.1, 1024], [0.1, 128]]


def test_a_cut_is_in_the_tokens_of_the_case(context: ParityContext) -> None:
    cut = [case for case in made_cases(context) if case.kind == "prompt, cut" and case.name == "direct"]
    for case in cut:
        _, _, limit, name, _ = case.payload
        (text, _, _) = case.ours()[0]
        # A border in a character of several bytes leaves one U+FFFD of three bytes on each side.
        assert len(TOKENIZERS[name]().encode(text, special=True)) <= limit + (0 if name == "words" else 6)


def test_words_give_their_text_back() -> None:
    words, text = WordTokenizer(), " It's  40 m,\n塔 🗼."
    assert words.decode(words.encode(text)) == text
    assert "".join(text[start:end] for start, end in words.offsets(text)[1]) == text


def test_a_program_of_their_shape_is_heard() -> None:
    """What it sends is kept with its settings, and its limit is that of the case."""
    made: Any = SimpleNamespace(maxlen_map={})

    def get_pred(rows: list[Any], asking: Any, out: Any) -> None:
        client, tokenizer = (
            made.OpenAI(base_url="", api_key=""),
            made.AutoTokenizer.from_pretrained("x", trust_remote_code=True),
        )
        for row in made.tqdm(rows):
            ids = tokenizer.encode(row["context"])[: made.maxlen_map[asking.model]]
            text = tokenizer.decode(ids, skip_special_tokens=True)
            message = {"role": "user", "content": text}
            reply = client.chat.completions.create(model="m", messages=[message], temperature=0.1, max_tokens=128)
            out.write(reply.choices[0].message.content)
            out.flush()

    made.get_pred = get_pred
    assert _asked(made, ["direct", {"context": "abcdef"}, 4, "bytes", ["x"]]) == [["abc", 0.1, 128]]
    assert made.maxlen_map == {MODEL: 4}


def test_their_table_is_run_where_it_writes(tmp_path: Path) -> None:
    script = (
        "import json\ncompensated = False\n"
        "rows = [json.loads(line) for line in open('results/m.jsonl')]\n"
        "n = sum(0.25 if compensated and row['pred'] is None else row['judge'] for row in rows)\n"
        "open('result.txt', 'w').write('Model\\tOverall\\nm\\t' + str(n))\n"
    )
    (tmp_path / "result.py").write_text(script, "utf-8")
    rows = [["easy", "short", "A", "A"], ["hard", "long", None, "B"]]
    assert _table(tmp_path, [rows, False]) == [1.0]
    assert _table(tmp_path, [rows, True]) == [1.25]


def test_a_figure_between_two_is_rounded_as_theirs(context: ParityContext) -> None:
    """5.75 of 20 are 28.75 per cent: 28.8 where the sum is multiplied first, 28.7 where the mean is."""
    answers = ["A"] * 5 + [None] * 3 + ["B"] * 12
    rows: list[list[Any]] = [["easy" if i % 2 else "hard", "long", answer, "A"] for i, answer in enumerate(answers)]
    rows += [["easy", length, "A", "A"] for length in ("short", "medium")]
    assert _loom_table(context, rows, COMPENSATED)[-1] == 28.8
