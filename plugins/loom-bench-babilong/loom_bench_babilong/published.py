"""BABILong's published averages beside what loom makes of the outputs in the authors' repository. Figures alone.

Printed: the table of the README's picture, booydar/babilong@7a6efee, images/babilong_evals_all.png: mean accuracy of
qa1 to qa5 at each length. Raw outputs: babilong_evals/ of the branch predictions_06_2024 (94a73a3), laid beside the
checkout as the folder of that name; where it is absent, babilong_evals/ of the checkout, which has one of the models.

How the table was made is in the branch's notebooks/draw_evals.ipynb: each task's accuracies by length in whole per
cent, of the prompt with instructions and examples or of the bare one, whichever has the higher mean over the lengths.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from loom_parity import Cell, ParityContext

from loom_bench_babilong.benchmark import METRIC
from loom_bench_babilong.plugin import EVALUATED
from loom_core.api import Metric, Prompt, Sample, segment

PICTURE = "github:booydar/babilong@7a6efee29f5cac03c3c410e6799c80fd2ffe3610:images/babilong_evals_all.png"
TABLE = "Mean accuracy of qa1 to qa5"
BRANCH = "predictions_06_2024"
LENGTHS = ("0k", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k")
LONGER = ("512k", "1M", "10M")
PROMPTS = ("instruction_yes_examples_yes_post_prompt_yes", "instruction_no_examples_no_post_prompt_no")
"""Full and bare; the first stands where both have one mean."""
RUNS = ("_chat_template_no", "", "_chat_template_yes")
"""Of several runs of a model the one that the table has: without a chat template."""
ABSENT = -1.0
"""What a length without outputs counts in the choice of the prompt, as in the notebook."""
PRINTED: Mapping[str, str] = {
    "gpt2": "27 15 avg 21",
    "NousResearch/Meta-Llama-3-8B-Instruct": "64 60 58 50 44 avg 55",
    "togethercomputer/LLaMA-2-7B-32K": "41 53 45 40 39 32 3 avg 36",
    "lmsys/longchat-7b-v1.5-32k": "46 42 40 41 42 39 5 avg 36",
    "Yukang/LongAlpaca-13B": "48 47 46 43 40 36 4 avg 38",
    "togethercomputer/Llama-2-7B-32K-instruct": "49 52 49 43 40 35 5 avg 39",
    "01-ai/Yi-34B": "72 52 43 37 38 31 4 avg 40",
    "mistralai/Mistral-7B-Instruct-v0.2": "60 56 52 49 45 42 37 avg 49",
    "mistralai/Mixtral-8x7B-Instruct-v0.1": "65 63 60 55 50 46 40 avg 54",
    "01-ai/Yi-34B-200k": "65 59 56 54 52 50 48 48 avg 54",
    "mistralai/Mixtral-8x22B-Instruct-v0.1": "75 73 70 65 58 51 43 35 avg 59",
    "namespace-Pt/activation-beacon-llama2-7b-chat": "55 52 47 43 36 23 16 8 6 avg 32",
    "NousResearch/Yarn-Mistral-7b-128k": "51 52 43 40 38 30 16 10 9 avg 32",
    "THUDM/chatglm3-6b-128k": "56 55 51 48 46 41 36 21 13 avg 41",
    "namespace-Pt/activation-beacon-mistral-7b": "59 56 51 48 43 37 36 27 14 avg 41",
    "01-ai/Yi-9B-200k": "52 55 48 46 45 36 37 29 24 avg 41",
    "microsoft/Phi-3-mini-128k-instruct": "64 57 55 51 50 46 42 37 7 avg 45",
    "ai21labs/Jamba-v0.1": "65 53 50 48 46 45 41 40 34 avg 47",
    "CohereForAI/c4ai-command-r-v01": "64 64 63 61 59 52 51 46 38 avg 55",
    "microsoft/Phi-3-medium-128k-instruct": "72 70 67 62 60 57 53 45 30 avg 58",
    "openai/gpt-4-0125-preview": "87 81 77 74 71 64 53 43 36 avg 65",
    "RAG_Llama-3": "48 48 47 46 45 45 44 42 45 42 39 37 avg 44",
}
"""Folder of a model's outputs to its figures, by `LENGTHS` and `LONGER`, and the mean of these."""
CUT = ("01-ai/Yi-34B", "ai21labs/Jamba-v0.1", "microsoft/Phi-3-mini-128k-instruct")
"""Models whose figures come out where an answer ends at its first line feed."""
FIRST_LINE = (
    "the figures printed come out where an answer ends at its first line feed (table below); metrics.py of this commit "
    "and of the branch, and loom with them, reads the first sentence, line feeds included."
)

UNKNOWN: Mapping[tuple[str, str], str] = {
    (
        "RAG_Llama-3",
        "128k",
    ): "unknown: by task, the files there make 56, 7, 17, 59 and 77 with the better prompt, and the "
    "figures on both sides of this one come out."
}


@dataclass(frozen=True, slots=True)
class _Row:
    """Accuracy of one task with one prompt. by_length: per cent, None without outputs; n: answers at each length."""

    by_length: Sequence[float | None]
    n: Sequence[int]

    @property
    def mean(self) -> float:
        return fmean(ABSENT if value is None else value for value in self.by_length)


def cells(context: ParityContext) -> Iterator[Cell]:
    """A cell for each model and length, and the mean of its lengths; for the models of `CUT` by both rules."""
    beside = context.root / BRANCH / "babilong_evals"
    folder = beside if beside.is_dir() else context.root / "babilong_evals"
    metric = context.metrics[METRIC]
    for model, figures in PRINTED.items():
        for cell in _cells(context.root, folder / model, metric, model, figures, TABLE, whole=True):
            why = FIRST_LINE if model in CUT else UNKNOWN.get((model, cell.column), "")
            yield replace(cell, why=why) if why and cell.outcome == "other" else cell
    for model in CUT:
        yield from _cells(
            context.root, folder / model, metric, model, PRINTED[model], f"{TABLE}, by first lines", whole=False
        )


def _cells(
    root: Path, folder: Path, metric: Metric, model: str, figures: str, table: str, *, whole: bool
) -> Iterator[Cell]:
    *printed, _, mean = figures.split(" ")
    lengths = (*LENGTHS, *LONGER)[: len(printed)]
    # The choice of the prompt is made over the lengths of the notebook, whatever the table shows of them.
    chosen = [_chosen(folder, metric, task, (*LENGTHS, *lengths[len(LENGTHS) :]), whole) for task in EVALUATED]
    outputs = f"{folder.relative_to(root).as_posix()}/*.csv"
    values: list[float] = []
    for i, (length, figure) in enumerate(zip(lengths, printed, strict=True)):
        cell = Cell(table=table, row=model, column=length, printed=figure, source=PICTURE)
        found = [value for row in chosen if (value := row.by_length[i]) is not None]
        if len(found) == len(EVALUATED):
            values.append(fmean(map(round, found)))
            cell = replace(cell, outputs=outputs, value=values[-1], n=sum(row.n[i] for row in chosen))
        yield cell
    cell = Cell(table=table, row=model, column="avg", printed=mean, source=PICTURE)
    n = sum(sum(row.n[: len(lengths)]) for row in chosen)
    yield replace(cell, outputs=outputs, value=fmean(values), n=n) if len(values) == len(lengths) else cell


def _chosen(folder: Path, metric: Metric, task: str, lengths: Sequence[str], whole: bool) -> _Row:
    """The row of the better prompt."""
    rows = []
    for prompt in PROMPTS:
        values: list[float | None] = []
        counts = []
        for length in lengths:
            graded = list(_graded(folder, metric, task, f"{task}_{length}_{prompt}", whole))
            values.append(100 * fmean(graded) if graded else None)
            counts.append(len(graded))
        rows.append(_Row(values, counts))
    return max(rows, key=lambda row: row.mean)


def _graded(folder: Path, metric: Metric, task: str, name: str, whole: bool) -> Iterator[float]:
    """The score of each output of one file; whole: as it is, otherwise its first line alone."""
    file = next((path for run in RUNS if (path := folder / f"{name}{run}.csv").is_file()), None)
    for number, row in enumerate(_rows(file) if file is not None else ()):
        question, text = row.get("question") or "", row["output"] or ""
        sample = Sample(
            id=str(number),
            task=task,
            prompt=Prompt(segments=(segment("question", question),)),
            references=(row["target"],),
            meta={"question": question, "task": task},
        )
        yield metric.score(text if whole else text.partition("\n")[0], sample).value or 0.0


def _rows(file: Path) -> Sequence[Mapping[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
