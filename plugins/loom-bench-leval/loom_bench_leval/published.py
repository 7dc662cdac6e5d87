"""L-Eval's published exam table beside what loom makes of the answers in the authors' repository. Figures alone.

Printed: arXiv 2307.11088, Table 3; GPT-4's row also in OpenLMLab/LEval@cd34b05, README.md. Raw outputs: Predictions/
exam_eval of the same commit. sci_fi's answers are not published, so neither it nor the mean can be recomputed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from loom_parity import Cell, ParityContext

from loom_bench_leval.parity import graded_lines, rows_of

PAPER = "arXiv 2307.11088, Table 3"
README = "github:OpenLMLab/LEval@cd34b050269148aed75acbbe4a599873ad0f37e9:README.md"
TABLE = "Exams (closed-ended tasks)"
COLUMNS: Mapping[str, str] = {
    "Coursera": "coursera",
    "GSM": "gsm100",
    "QuALITY": "quality",
    "TOEFL": "tpo",
    "CodeU": "codeU",
    "SFiction": "sci_fi",
}
PRINTED: Mapping[tuple[str, str, str], tuple[str, ...]] = {
    ("Claude1.3-100k", "Claude-100k", PAPER): ("60.03", "88.00", "73.76", "83.64", "17.77", "72.65"),
    ("GPT-4-32k", "gpt4-32k", README): ("75.58", "96.00", "82.17", "84.38", "25.55", "74.99"),
    ("Turbo-16k-0613", "turbo-16k-0613", PAPER): ("63.51", "84.00", "61.38", "78.43", "12.22", "64.84"),
}
"""(row, folder of its answers, source) to the figures of `COLUMNS`."""
UNKNOWN: Mapping[tuple[str, str], str] = {
    (
        "Claude1.3-100k",
        "TOEFL",
    ): "unknown: one answer of 269 (225 right ones make 83.64, 226 are). auto_eval.py of this "
    "commit gives loom's value for the published file, so scorer or answers were others when the table was made."
}
"""What is known of the cells that do not come out."""


def cells(context: ParityContext) -> Iterator[Cell]:
    """A cell for each model and task; of those chosen."""
    chosen = {task.name for task in context.tasks}
    for (row, folder, source), figures in PRINTED.items():
        for (column, task), printed in zip(COLUMNS.items(), figures, strict=True):
            if task not in chosen:
                continue
            outputs = f"Predictions/exam_eval/{folder}/{task}.pred.jsonl"
            file = context.root / outputs
            cell = Cell(table=TABLE, row=row, column=column, printed=printed, source=source)
            if file.is_file():
                [line] = graded_lines(context, task, rows_of(file))
                why = UNKNOWN.get((row, column), "")
                cell = replace(cell, outputs=outputs, value=line.value, n=line.n, why=why)
            yield cell
