"""A third party's benchmark with an adapter to its authors' program: mottoes to be named. Imports only loom_core."""

from collections.abc import Iterator, Sequence
from typing import Any

from loom_core.api import BenchmarkBase, BenchmarkSpec, Generation, Prompt, Sample, Task, hookimpl, segment

MOTTOES = (("Upwards", "the swallow"), ("Slowly but surely", "the snail"), ("Never alone", "the bee and the ant"))


@hookimpl
def loom_benchmarks() -> Sequence[BenchmarkSpec]:
    """One benchmark of one task."""
    return (
        BenchmarkSpec(
            name="motto",
            version="1",
            summary="whose motto it is",
            factory="loom_bench_motto:Motto",
            tasks=("whose",),
            parity="loom_bench_motto.parity:Parity",
        ),
    )


class Motto(BenchmarkBase):
    """Three questions."""

    def __init__(self, options: Any) -> None: ...

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        limits = Generation(max_tokens=8)
        return (Task(name="whose", version="1", capability="qa", metrics=("fable_exact",), generation=limits),)

    def samples(self, task: Task, data: Any, tokenizer: Any, lengths: Any) -> Iterator[Sample]:
        for motto, owner in MOTTOES:
            prompt = Prompt(segments=(segment("context", motto), segment("question", "\nWhose motto is it?")))
            yield Sample(id=motto, task=task.name, prompt=prompt, references=(owner,))
