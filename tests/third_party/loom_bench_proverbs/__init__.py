"""A third party's whole benchmark in some thirty lines: proverbs to be finished. Imports only loom_core."""

from collections.abc import Iterator, Sequence
from typing import Any

from loom_core.api import BenchmarkBase, BenchmarkSpec, Generation, Prompt, Sample, Task, hookimpl, segment

PROVERBS = (("A stitch in time saves", "nine"), ("Two's company, three's a", "crowd"))


@hookimpl
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    where = "loom_bench_proverbs:Proverbs"
    return (BenchmarkSpec(name="proverbs", version="1", summary="sayings", factory=where, tasks=("finish",)),)


class Proverbs(BenchmarkBase):
    def __init__(self, options: Any) -> None: ...

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        limits = Generation(max_tokens=4)
        return (Task(name="finish", version="1", capability="generation", metrics=("fable_exact",), generation=limits),)

    def samples(self, task: Task, data: Any, tokenizer: Any, lengths: Any) -> Iterator[Sample]:
        for saying, end in PROVERBS:
            prompt = Prompt(segments=(segment("context", saying), segment("question", "\nHow does it end?")))
            yield Sample(id=end, task=task.name, prompt=prompt, references=(end,))
