"""The adapter's own side: prompts that both sides are asked for, and what it hears from a program of their shape."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loom_bench_longbench.asking import WHOLE, _asked, cases
from loom_bench_longbench.benchmark import LongBench
from loom_bench_longbench.plugin import TASKS, LongBenchOptions
from loom_bench_longbench.settings import SETTINGS
from loom_parity import ParityContext

from loom_core.api import DataDir

CONFIG = "LongBench/config"


@pytest.fixture
def context(tmp_path: Path) -> ParityContext:
    """The authors' two files with words of our own; a record of one task."""
    texts = {
        f"{CONFIG}/dataset2prompt.json": json.dumps(dict.fromkeys(TASKS, "Read.\n{context}\nAsked: {input}\nSay:")),
        f"{CONFIG}/dataset2maxlen.json": json.dumps({task: SETTINGS[task].max_tokens for task in TASKS}),
        "data/samsum.jsonl": json.dumps(
            {"input": "Who?", "context": "c", "answers": ["x"], "length": 1, "_id": "1", "all_classes": None}
        ),
    }
    rows = []
    for path, text in texts.items():
        file = tmp_path / "longbench" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        rows.append(f'[[file]]\npath = "{path}"\nsha256 = "{hashlib.sha256(text.encode()).hexdigest()}"\n')
    (tmp_path / "longbench" / "EXTRACT.toml").write_text("\n".join(rows), "utf-8")
    data = DataDir(mirror=tmp_path, cache=tmp_path / "cache", offline=True).for_benchmark("longbench")
    bench = LongBench(LongBenchOptions())
    return ParityContext(benchmark=bench, tasks=tuple(bench.tasks(())), data=data, root=tmp_path / "longbench")


def get_pred(made: Any, *given: Any) -> None:
    """A program of their shape that cuts from the right and sets no line feed."""
    _, _, data, most, n, template, task, device, model, paths, _ = given
    chosen, tokenizer = made.load_model_and_tokenizer(paths[model], model, device)
    for row in made.tqdm(data):
        prompt = template.format(**row)
        ids = tokenizer(prompt, truncation=False, return_tensors="pt").input_ids[0]
        prompt = tokenizer.decode(ids[:most], skip_special_tokens=True)
        prompt = made.build_chat(tokenizer, prompt, model) if task == "qasper" else prompt
        read = tokenizer(prompt, truncation=False, return_tensors="pt").to(device)
        length = read.input_ids.shape[-1]
        ends = [tokenizer.eos_token_id, tokenizer.encode("\n", add_special_tokens=False)[-1]]
        more = {"min_length": length + 1, "eos_token_id": ends} if task == "samsum" else {}
        answer = chosen.generate(**read, max_new_tokens=n, num_beams=1, do_sample=False, temperature=1.0, **more)[0]
        tokenizer.decode(answer[length:], skip_special_tokens=True)


def test_cases_are_named_once_and_the_same_twice(context: ParityContext) -> None:
    found = list(cases(context))
    assert not [name for name, n in Counter((one.kind, one.name, one.id) for one in found).items() if n > 1]
    assert [one.payload for one in found] == [one.payload for one in cases(context)]
    assert {one.name for one in found} == set(TASKS)
    assert {one.id for one in found if one.name == "samsum"} > {f"record 1 {WHOLE} words", "record 1 64 bytes"}
    assert "prompts of all records of samsum" in context.missing
    assert "prompts of the records of trec" in context.missing


def test_a_program_of_their_shape_is_heard(context: ParityContext) -> None:
    """What it asks, with its chat rule and its limits, beside loom's own."""
    made: Any = SimpleNamespace(tqdm=iter)
    made.get_pred = lambda *given: get_pred(made, *given)
    found = {(one.name, one.id): one for one in cases(context)}
    for task, chat in (("qasper", True), ("samsum", False)):
        case = found[task, f"made 0 {WHOLE} words"]
        heard = _asked(made, context.root, case.payload)
        assert heard == case.ours() and heard["chat"] is chat
        assert (heard["min_tokens"], heard["ends at a line feed"]) == ((1, True) if task == "samsum" else (0, False))
    cut = found["samsum", "record 1 64 bytes"]
    assert cut.ours()["text"] == "Read.\nc\nAsked: Who?\nSay:"
