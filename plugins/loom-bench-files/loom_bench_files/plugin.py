"""Takes the path of a description for the benchmark that it describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom_core.api import hookimpl, is_description

if TYPE_CHECKING:
    from loom_core.api import BenchmarkSpec, Catalog, Found


@hookimpl
def loom_resolve_benchmark(name: str, catalog: Catalog) -> Found[BenchmarkSpec] | None:
    """The benchmark at a path; None for any other name."""
    if not is_description(name):
        return None
    from loom_bench_files.description import found_at

    return found_at(name, catalog)
