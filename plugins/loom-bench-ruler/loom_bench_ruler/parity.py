"""RULER beside its authors' program: prompts of their generators, scores of their evaluator.

Their functions run in a process of their own (`loom parity ruler@variant=official --upstream FOLDER`). Lengths are
counted by one rule on both sides, four characters a token, so that no model is needed. Where their scripts open the
essays, SQuAD or HotpotQA, they get the file that loom reads: none of them is in their repository.
"""

from __future__ import annotations

import builtins
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from loom_parity import Case, ParityContext, answer_variants, upstream

from loom_bench_ruler.benchmark import Ruler
from loom_bench_ruler.official import QUESTIONS, Official
from loom_bench_ruler.plugin import RulerOptions
from loom_bench_ruler.settings import FAMILIES, LOOM_SETTINGS, MAX_TOKENS, Needles, Questions, family
from loom_core.api import Data, Json, Task, Unavailable, UsageError, read_pins

DATA, EVAL = "scripts/data/synthetic", "scripts/eval"
SEED, LENGTHS, SAMPLES, REFERENCES = 42, (2048, 4096, 16384), 10, 12
CHARACTERS_PER_TOKEN = 4
UNNEEDED = ("nemo", "nltk", "pandas", "tqdm", "yaml")


class Parity:
    """Prompts and scores of NVIDIA/RULER."""

    commit = "c3f5e3b4f87f97e048793bb510a3a6b19a46bf3a"
    files = (*[f"{DATA}/{name}.py" for name in FAMILIES], f"{EVAL}/evaluate.py", f"{EVAL}/synthetic/constants.py")
    differences: Mapping[str, str] = {}

    def authors(self, root: Path) -> Mapping[str, Callable[[Json], Json]]:
        """prompt and score."""
        sys.argv = ["evaluate.py", "--data_dir", ".", "--benchmark", "synthetic"]
        evaluate = upstream.module(root, f"{EVAL}/evaluate.py", absent=UNNEEDED)
        metrics = upstream.module(root, f"{EVAL}/synthetic/constants.py", name="eval_constants").TASKS
        return {"prompt": Generators(root).prompt, "score": partial(_score, evaluate, metrics)}

    def cases(self, context: ParityContext) -> Iterator[Case]:
        """The first samples of every chosen task at three lengths; generated answers under both metrics."""
        bench = Ruler(RulerOptions(variant="official", seed=SEED + context.seed))
        chosen = {task.name for task in context.tasks}
        with TemporaryDirectory() as folder:
            for task in bench.tasks(()):
                if task.name not in chosen:
                    continue
                try:
                    yield from self._prompts(bench, task, context, Path(folder))
                except Unavailable as error:
                    context.missing[task.name] = str(error.what)
        yield from self._scores(context)

    def _prompts(self, bench: Ruler, task: Task, context: ParityContext, folder: Path) -> Iterator[Case]:
        n = min(SAMPLES, context.limit or SAMPLES)
        settings = {**_arguments(task.name), "files": _files(task.name, context.data, folder)}
        for length in LENGTHS:
            try:
                made = list(islice(bench.samples(task, context.data, None, (length,)), n))
            except UsageError as error:
                # The authors' program goes on for ever where no prompt fits.
                context.missing[f"{task.name} at {length}"] = f"{error.what}: {error.why}"
                continue
            for i, sample in enumerate(made):
                yield Case(
                    kind="prompt",
                    name=task.name,
                    id=f"{length} {i}",
                    function="prompt",
                    payload={**settings, "length": length, "seed": SEED + context.seed, "n": n, "index": i},
                    ours=partial(list, [sample.prompt.text, list(sample.references)]),
                )

    def explain(self, case: Case, theirs: Json, ours: Json) -> str | None:
        """No difference is known."""
        return None

    def _scores(self, context: ParityContext) -> Iterator[Case]:
        draw = context.random("answers")
        for number in range(min(REFERENCES, context.limit or REFERENCES)):
            others = [str(draw.randint(10**6, 10**7 - 1)) for _ in range(3)]
            for shape, text in answer_variants(others[0], draw, others=others[1:]):
                for name in ("niah", "qa"):
                    row = {
                        "task": name,
                        "metric": "string_match_part" if name == "qa" else "string_match_all",
                        "prediction": [text],
                        "references": [others[: 1 + number % 3]],
                    }
                    yield Case(
                        kind="score",
                        name=name,
                        id=f"{number} {shape}",
                        function="score",
                        payload=row,
                        ours=partial(Ruler.score_gold, row),
                    )


def _arguments(task: str) -> dict[str, Json]:
    """A task's generator and its arguments."""
    kind = family(LOOM_SETTINGS[task])
    script = next(upstream_name for upstream_name, name in FAMILIES.items() if name == kind)
    return {"task": task, "script": script, "max_tokens": MAX_TOKENS[kind]}


def _files(task: str, data: Data, folder: Path) -> dict[str, str]:
    """The files that the task's script opens, by name: what loom reads, written below `folder`.

    english_words.json lies in git-lfs: no run at the lengths compared takes words from it, and an empty one is given.
    """
    settings, official = LOOM_SETTINGS[task], Official(read_pins(Path(__file__)))
    if isinstance(settings, Needles):
        if settings.haystack != "essay":
            return {}
        return _written(folder, "PaulGrahamEssays.json", json.dumps({"text": official.essays_text(data)}))
    if isinstance(settings, Questions):
        assert settings.dataset in QUESTIONS
        return _written(folder, f"{settings.dataset}.json", official.questions_text(data, settings.dataset)[0])
    return _written(folder, "english_words.json", "{}")


def _written(folder: Path, name: str, text: str) -> dict[str, str]:
    (folder / name).write_text(text, "utf-8", newline="")
    return {name: str(folder / name)}


# --- the authors' side ----------------------------------------------------------------------------------------------


def _score(evaluate: Any, metrics: Any, row: Json) -> Json:
    answers = [evaluate.postprocess_pred(text, {}) for text in row["prediction"]]
    return metrics[row["task"]]["metric_fn"](answers, row["references"])


@dataclass
class Generators:
    """The authors' scripts in `root`. Held: the script of the task asked for last, and the lines of its last run."""

    root: Path
    _task: tuple[str, int] | None = None
    _script: Any = None
    _run: tuple[int, int] | None = None
    _lines: tuple[Any, ...] = ()

    def prompt(self, payload: Json) -> Json:
        """One line of a run: the prompt with the start of its answer, and the references."""
        if self._task != (task := (payload["task"], payload["seed"])):
            self._script, self._run = None, None  # a needle script's keys take a gigabyte: it goes before the next one
            self._script, self._task = self._imported(payload), task
        if self._run != (run := (payload["length"], payload["n"])):
            self._lines, self._run = tuple(_lines(self._script, payload)), run
        row = self._lines[payload["index"]]
        return [row["input"] + row["answer_prefix"], row["outputs"]]

    def _imported(self, payload: Json) -> Any:
        name = payload["script"]
        base = upstream.module(self.root, f"{DATA}/constants.py", name="constants").TASKS[name]
        arguments = _arguments_of((self.root / "scripts/synthetic.yaml").read_text("utf-8"), payload["task"])
        given = {
            "save_dir": ".",
            "save_name": name,
            "tokenizer_path": "none",
            "max_seq_length": payload["length"],
            "tokens_to_generate": payload["max_tokens"],
            "num_samples": payload["n"],
            "random_seed": payload["seed"],
            "template": base["template"] + base["answer_prefix"],
            **arguments,
        }
        sys.argv = [name, *(str(part) for option, value in given.items() for part in (f"--{option}", value))]
        sys.modules["tokenizer"] = _tokenizer()
        with opened_instead(payload["files"]):
            return upstream.module(self.root, f"{DATA}/{name}.py", absent=("nemo",), name=f"ruler_{name}")


def _lines(script: Any, payload: Json) -> list[Any]:
    """The lines that a run of the script writes, its random streams begun as at its start."""
    import numpy

    name, n, length = payload["script"], payload["n"], payload["length"]
    script.args.max_seq_length, script.args.num_samples = length, n
    random.seed(payload["seed"])
    numpy.random.seed(payload["seed"])
    if name == "variable_tracking":
        chains = {"num_chains": script.args.num_chains, "num_hops": script.args.num_hops}
        (example,) = script.sys_vartrack_w_noise_random(num_samples=1, max_seq_length=500, incremental=5, **chains)
        return list(
            script.sys_vartrack_w_noise_random(
                num_samples=n, max_seq_length=length, icl_example=example, final_output=True, **chains
            )
        )
    if name == "freq_words_extraction":
        return list(script.sys_kwext(num_samples=n, max_seq_length=length, incremental=10))
    make = script.sys_word_pair_random if name == "common_words_extraction" else script.generate_samples
    return list(make(num_samples=n, max_seq_length=length, save_dir="."))


@contextmanager
def opened_instead(files: Mapping[str, str]) -> Iterator[None]:
    """While it is open, `open` of a file of one of these names, in whatever folder, opens the one that is given."""
    real = builtins.open

    def opened(file: Any, *arguments: Any, **named: Any) -> Any:
        known = isinstance(file, (str, Path)) and files.get(Path(file).name)
        return real(known or file, *arguments, **named)

    builtins.open = opened
    try:
        yield
    finally:
        builtins.open = real


def _arguments_of(text: str, task: str) -> dict[str, str]:
    """A task's arguments from their settings: the lines that are indented twice."""
    lines = text[text.index(f"\n{task}:\n") :].splitlines()[2:]
    rows = (line.strip().partition(": ") for line in takewhile(lambda line: line.startswith("  "), lines))
    return {name: value for name, _, value in rows if value and name != "task"}


def _tokenizer() -> ModuleType:
    """What the scripts take a tokenizer from: one that knows four characters a token."""

    class Quarter:
        def text_to_tokens(self, text: str) -> range:
            return range(-(-len(text) // CHARACTERS_PER_TOKEN))

    made = ModuleType("tokenizer")
    made.select_tokenizer = lambda kind, path: Quarter()  # type: ignore[attr-defined]
    return made
