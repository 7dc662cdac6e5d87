"""`loom data`: what it prints and how it ends, on a benchmark made for the test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import loom_core.cli.data as command
from loom_core.api import (
    BenchmarkBase,
    BenchmarkSpec,
    Catalog,
    DataSource,
    Generation,
    Task,
    UsageError,
    hookimpl,
    option,
)

FILES = {
    name: DataSource(
        pin=f"github:o/r@1:{name}", folder="books", sha256=hashlib.sha256(name.encode()).hexdigest(), n_bytes=len(name)
    )
    for name in ("a.txt", "b.txt")
}
OPEN = DataSource(pin="github:o/r@1:open.txt", folder="books")


@dataclass(frozen=True)
class Options:
    """Which files the benchmark reads."""

    more: bool = option(False, help="read the second file too")


class Books(BenchmarkBase):
    """A benchmark of one or two files."""

    def __init__(self, options: Options) -> None:
        self._files = (FILES["a.txt"], *((FILES["b.txt"],) if options.more else ()))

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """One task."""
        generation = Generation(max_tokens=1)
        return (
            Task(name="t", version="1", capability="", metrics=("exact",), generation=generation, sources=self._files),
            Task(name="u", version="1", capability="", metrics=("exact",), generation=generation),
        )

    def sources(self) -> Sequence[DataSource]:
        """Everything."""
        return (*FILES.values(), OPEN)


class Plugin:
    """Registers the benchmark."""

    @hookimpl
    def loom_benchmarks(self) -> Sequence[BenchmarkSpec]:
        """One benchmark."""
        factory = f"{__name__}:Books"
        return [
            BenchmarkSpec(name="books", version="1", summary="", factory=factory, tasks=("t", "u"), options=Options)
        ]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    catalog = Catalog()
    catalog.register(Plugin(), "books", "test", "1")
    monkeypatch.setattr(catalog, "load", lambda found: Books)
    monkeypatch.setattr(command, "installed", lambda: catalog)
    monkeypatch.setenv("LOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LOOM_DATA", raising=False)
    folder = tmp_path / "mirror"
    (folder / "books").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "open.txt"):
        (folder / "books" / name).write_text(name)
    yield folder


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(command.data, [str(a) for a in arguments])


def test_fetch_prints_each_file(mirror: Path) -> None:
    done = run("fetch", "books", "--data-dir", mirror, "--offline")
    assert done.exit_code == 0, done.output
    assert [line.split()[-1] for line in done.output.splitlines()[:3]] == [
        "books/a.txt",
        "books/b.txt",
        "books/open.txt",
    ]
    assert "3 of 3 files of books, 18 bytes" in done.output


def test_options_choose_files(mirror: Path) -> None:
    assert "1 of 1 files" in run("fetch", "books@more=false", "--data-dir", mirror, "--offline").output
    assert "2 of 2 files" in run("fetch", "books@more=true", "--data-dir", mirror, "--offline").output
    assert "needs no files" in run("fetch", "books:u", "--data-dir", mirror, "--offline").output


def test_failures_are_all_named_and_end_with_1(mirror: Path) -> None:
    (mirror / "books" / "a.txt").write_text("A.txt")
    (mirror / "books" / "b.txt").unlink()
    done = run("fetch", "books", "--data-dir", mirror, "--offline")
    assert done.exit_code == 1
    assert "failed: altered data file a.txt" in done.output
    assert "failed: missing data file b.txt" in done.output
    assert "1 of 3 files" in done.output
    assert [line.split(": ")[0] for line in done.output.splitlines() if line.startswith("  where: ")] == ["  where"] * 2
    assert "next: " in done.output


def test_verify_never_fetches(mirror: Path) -> None:
    assert run("verify", "books", "--data-dir", mirror).exit_code == 0
    done = run("verify", "books")
    assert done.exit_code == 1
    assert "offline: nothing is fetched" in done.output


def test_lock_prints_and_renews(mirror: Path) -> None:
    digest = hashlib.sha256(b"open.txt").hexdigest()
    done = run("lock", "books", "--data-dir", mirror, "--offline")
    assert done.exit_code == 0
    assert f"locked {digest} {OPEN.pin}" in done.output
    (mirror / "books" / "open.txt").write_text("other")
    assert run("verify", "books", "--data-dir", mirror).exit_code == 1
    assert run("lock", "books", "--data-dir", mirror, "--offline", "--renew").exit_code == 0
    assert run("verify", "books", "--data-dir", mirror).exit_code == 0


def test_unknown_benchmark(mirror: Path) -> None:
    done = run("fetch", "book", "--data-dir", mirror)
    assert isinstance(done.exception, UsageError)
    assert "did you mean books?" in str(done.exception)
