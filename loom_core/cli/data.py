"""`loom data`: fetch, lock and verify the pinned files of a benchmark. Knows plugins by their specs only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import click

from loom_core.cli.exits import say
from loom_core.contract.errors import LoomError, UsageError
from loom_core.contract.types import DataSource
from loom_core.data.access import DataDir, Pin
from loom_core.registry.names import parse_benchmark
from loom_core.registry.plugins import installed


@click.group()
def data() -> None:
    """Fetch, lock and verify the files that a benchmark reads.

    Files come from a mirror folder (--data-dir, LOOM_DATA), from the cache (LOOM_CACHE), or from their authors.
    """


def _options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--offline", is_flag=True, help="Do not use the network (LOOM_OFFLINE=1).")(command)
    command = click.option("--data-dir", metavar="FOLDER", help="Mirror folder: FOLDER/NAME/PATH-IN-UPSTREAM.")(command)
    return click.argument("bench")(command)


@data.command()
@_options
def fetch(bench: str, data_dir: str | None, offline: bool) -> None:
    """Fetch what BENCH needs, verified.

    BENCH is a benchmark, or benchmark@option=value,… for the files of these options only. A damaged file in the
    cache is fetched again.
    """
    files = DataDir.from_environment(data_dir, offline or None).for_benchmark(bench)
    _each(bench, files, files.fetch)


@data.command()
@_options
@click.option("--renew", is_flag=True, help="Forget the recorded digests first: the upstream changed on purpose.")
def lock(bench: str, data_dir: str | None, offline: bool, renew: bool) -> None:
    """Record the digests of BENCH's files that are pinned without one; they are checked from then on."""
    files = DataDir.from_environment(data_dir, offline or None).for_benchmark(bench)
    open_pins = [source.pin for source in sources_of(bench) if not (source.sha256 or source.git_blob)]
    if renew:
        files.forget(open_pins)
    _each(bench, files, files.fetch)
    recorded = files.locked()
    for pin in open_pins:
        if pin in recorded:
            say(f"locked {recorded[pin]['sha256']} {pin}")
    say(f"{len(open_pins)} of {bench}'s files are pinned without a digest; lock file: {files.lock_file}")


@data.command()
@click.argument("bench", nargs=-1)
@click.option("--data-dir", metavar="FOLDER", help="Mirror folder: FOLDER/NAME/PATH-IN-UPSTREAM.")
@click.option("--offline", is_flag=True, help="Do not use the network (LOOM_OFFLINE=1).")
@click.option("--remote", is_flag=True, help="Ask the hosts of the pins instead: is each file there, as it is pinned?")
def verify(bench: tuple[str, ...], data_dir: str | None, offline: bool, remote: bool) -> None:
    """Check the files of BENCH that are here, or (--remote) at their hosts; fetches nothing.

    \b
    With --remote, no BENCH means every installed one. Exit codes of --remote:
    0  every file can be had as it is pinned (one that moved is named, and counts as had)
    1  a file is gone, gated for you, changed, or a stand-in (git-lfs pointer, placeholder)
    3  nothing of that, but a host did not answer
    """
    if remote:
        if offline:
            raise UsageError("--remote uses the network", where="--offline", hint="leave one of them out")
        _ask(bench or tuple(found.spec.name for found in installed().benchmarks), data_dir)
        return
    if not bench:
        raise UsageError("which benchmark?", hint="loom data verify BENCH, or --remote for every installed one")
    for one in bench:
        files = DataDir.from_environment(data_dir, offline=True).for_benchmark(one)
        _each(one, files, files.path)


def _ask(benches: Iterable[str], data_dir: str | None) -> None:
    """Ask the hosts for every pin of these benchmarks, print what they say, and end as `verify` tells."""
    from loom_core.data.remote import ask

    files = DataDir.from_environment(data_dir, offline=None)
    if files.offline:
        raise UsageError("--remote uses the network", where="LOOM_OFFLINE", hint="unset LOOM_OFFLINE")
    counts: Counter[str] = Counter()
    told: set[str] = set()
    for answer in ask([source for bench in benches for source in sources_of(bench)], files.bases, files.http):
        counts[answer.state] += 1
        # What is wrong with a host is told once, not for each of its files.
        detail = "" if answer.state == "not asked" and answer.detail in told else answer.detail
        told.add(detail)
        say(f"{answer.state:9} {answer.pin}" + (f"  ({detail})" if detail else ""))
    said = ", ".join(f"{n} {state}" for state, n in counts.most_common())
    say(f"{counts.total()} files: {said}" if said else "no files are pinned")
    if set(counts) - {"there", "moved", "not asked"}:
        raise click.exceptions.Exit(1)
    if counts["not asked"]:
        raise click.exceptions.Exit(3)


def sources_of(bench: str) -> tuple[DataSource, ...]:
    """The files of a benchmark as typed: of its tasks, and of any options where none are given."""
    catalog = installed()
    choice = parse_benchmark(bench, catalog)
    benchmark = catalog.make(choice.found, choice.options)
    tasks = [task for task in benchmark.tasks(()) if not choice.tasks or task.name in choice.tasks]
    found = {source.pin: source for task in tasks for source in task.sources}
    everything: Callable[[], Iterable[DataSource]] | None = getattr(benchmark, "sources", None)
    if everything is not None and "@" not in bench and not choice.tasks:
        found |= {source.pin: source for source in everything()}
    return tuple(found.values())


def _each(bench: str, files: DataDir, get: Callable[[DataSource], object]) -> None:
    """Get every file, name those that fail, and end with exit code 1 where any did."""
    sources = sources_of(bench)
    failed: list[LoomError] = []
    for source in sources:
        try:
            get(source)
        except LoomError as error:
            failed.append(error)
            say(f"failed: {error.what}", err=True)
    used = files.used()
    for row in used:
        label = " (extract)" if row.extract else ""
        where = f"{row.folder}/{Pin.parse(row.pin).upstream_path}"
        say(f"{row.origin:8} {row.n_bytes:>12,} bytes  {row.sha256[:16]}  {where}{label}")
    cut = sum(row.extract for row in used)
    summary = f"{len(used)} of {len(sources)} files of {bench}, {sum(row.n_bytes for row in used):,} bytes"
    say(summary + (f", {cut} of them extracts" if cut else "") if sources else f"{bench} needs no files")
    # One message in full for each kind of failure: files that are missing, one that is altered, a set that is gated.
    for first in {(type(one), one.hint): one for one in reversed(failed)}.values():
        say(str(first), err=True)
    if failed:
        raise click.exceptions.Exit(1)
