"""Writes docs/reference.md from the code (interface, hooks, specs, commands with their help, options of this
repository's plugins), api.txt from its signatures, docs/reproduced.md from the recomputed tables beside the benchmarks,
and what the README says of certificates.

Run `python docs/generate.py` after a change; a test runs it with --check. Only plugins of this repository are
described, whatever else is installed. Knows plugins by their specs.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click
from loom_kit.signatures import dump, offered
from loom_parity import certificate, published_cells as tables

from loom_core.api import Catalog, Found, NoOptions, installed
from loom_core.cli import cli
from loom_core.cli.commands import own_commands as core_commands
from loom_core.contract import errors, hookspecs, specs
from loom_core.contract.options import describe
from loom_core.registry.commands import installed_commands

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference.md"
README = ROOT / "README.md"
PARITY = "authors' program: "
"""Begins what the README says of a certificate."""
REPRODUCED = ROOT / "docs" / "reproduced.md"
SIGNATURES = ROOT / "api.txt"
INTERFACE = ("loom_core.api", *(f"loom_core.api.{part}" for part in ("records", "serving", "templates", "doubles")))
"""What plugins import of core."""
BASES = ("loom_rag", "loom_bench_files", "loom_kv", "loom_parity", "loom_kit")
"""Whose top level plugins import too."""
WIDTH = 100

HEAD = """# Reference

Written by `python docs/generate.py` from the code; a test fails when it is stale. The prose guides are
[plugins.md](plugins.md), [run-folder.md](run-folder.md) and [statistics.md](statistics.md).
"""

REPRODUCED_HEAD = """# Published tables, recomputed

Figures that a benchmark's authors print, beside what loom makes of the raw outputs in the authors' repository: only
tables whose outputs are public there. Written by `python docs/generate.py` from the `reproduced.json` beside each
benchmark, which `loom reproduced BENCH --upstream FOLDER --write` makes; a test fails when it is stale. Outcomes:
`equal`, rounded to the digits printed; `cut`, equal where the further digits were cut off; `other`, explained below the
table; `no outputs`, not recomputed, for the raw outputs are not there.

Not here: the repositories of LongBench and its second version, Counting-Stars, LongSafety and longctx_bench (passkey)
hold no raw outputs; NIAH's are the marks of a judge model (with Claude 2.1's answers, without GPT-4's), which no rule
gives anew; L-Eval's answers for ROUGE and F1 are public, and the figures printed of them were not at hand.
"""


def reference() -> str:
    """The whole file as it should be."""
    parts = [HEAD, *_interface(), *_hooks(), *_specs(), *_commands(), *_exit_codes(), *_installed()]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def signatures() -> str:
    """The signatures of everything that plugins may import: a change of it is a change of the public interface."""
    return "\n".join(line.rstrip() for line in dump([*INTERFACE, *BASES])).rstrip() + "\n"


def reproduced() -> str:
    """The whole page of recomputed tables as it should be."""
    own = own_distributions()
    found = [item.spec for item in installed().benchmarks if item.distribution in own]
    return tables.page(REPRODUCED_HEAD, [(spec, made) for spec in found if (made := tables.read(spec)) is not None])


def readme() -> str:
    """The README with what each benchmark's certificate says in its row."""
    text, catalog, own = README.read_text("utf-8"), installed(), own_distributions()
    versions = {item.spec.name: item.spec.version for item in catalog.metrics}
    for item in catalog.benchmarks:
        if item.distribution in own and certificate.read(item.spec) is not None:
            said = f"{PARITY}{certificate.in_words(item.spec, versions)}; "
            row = rf"(?m)^(\| `{item.distribution}` \| .* \| )(?:{PARITY}[^;|]*; )?"
            text = re.sub(row, functools.partial(_after_first_cells, said), text)
    return text


def _after_first_cells(said: str, found: re.Match[str]) -> str:
    """The first cells of a row, with what a certificate says behind them."""
    return f"{found[1]}{said}"


def _interface() -> Iterator[str]:
    yield "## The interface"
    yield (
        "What plugins import, where each name lives, and the first sentence said of it there. All signatures are in "
        "`api.txt` of the repository."
    )
    for package in (*INTERFACE, *BASES):
        yield f"### `{package}`"
        rows: list[tuple[str, ...]] = [(f"`{item.name}`", item.summary, f"`{item.home}`") for item in offered(package)]
        yield _table(("name", "meaning", "home"), rows)


def _hooks() -> Iterator[str]:
    yield "## Hooks"
    yield "A plugin implements them with `loom_core.contract.hookspecs.hookimpl`; each may be left out."
    for name, hook in inspect.getmembers(hookspecs, inspect.isfunction):
        if name.startswith("loom_"):
            yield f"### `{name}`"
            yield f"```python\ndef {name}{_signature(hook)}\n```"
            yield _prose(hook.__doc__)


def _signature(function: Any) -> str:
    text = str(inspect.signature(function))
    return re.sub(r"'([^']*)'", r"\1", text).replace("loom_core.contract.types.", "")


def _prose(text: str | None) -> str:
    return inspect.cleandoc(text or "")


def _specs() -> Iterator[str]:
    yield "## Specs"
    yield "What the hooks return: frozen dataclasses of `loom_core.api`. A field without a default is required."
    for kind in (
        specs.BenchmarkSpec,
        specs.ServerSpec,
        specs.AugmentationSpec,
        specs.MetricSpec,
        specs.ModelSpec,
        specs.SuiteSpec,
        specs.ReportSpec,
    ):
        yield f"### `{kind.__name__}`"
        yield _prose(kind.__doc__)
        yield _table(("field", "type", "default"), [(f"`{f.name}`", f"`{f.type}`", _default(f)) for f in fields(kind)])


def _default(field: Any) -> str:
    if field.default is MISSING:
        return ""
    value = field.default
    return f"`{value.__name__}`" if isinstance(value, type) else f"`{value!r}`"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *[tuple(cell.replace("|", "\\|") for cell in row) for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _commands() -> Iterator[str]:
    yield "## Commands"
    root = click.Context(cli, info_name="loom", terminal_width=WIDTH, max_content_width=WIDTH)
    for name in own_commands():
        command = cli.get_command(root, name)
        if command is not None:
            yield from _command(command, f"loom {name}", root)


def own_commands() -> list[str]:
    """The commands of this repository's distributions, as `loom --help` lists them."""
    own = own_distributions()
    return [
        name
        for name, command in installed_commands(core_commands(), lambda name, why: None).items()
        if command.distribution in own
    ]


def _command(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=name.split()[-1], parent=parent)
    yield f"### `{name}`"
    help_text = "\n".join(line.rstrip() for line in click.unstyle(command.get_help(context)).splitlines())
    yield f"```\n{help_text}\n```"
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None:
                yield from _command(found, f"{name} {inner}", context)


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes"
    rows = [
        ("0", "done"),
        ("3", "incomplete: some planned answers are missing (the same command continues), or a task was refused"),
    ]
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.LoomError)]
    for code in sorted({kind.exit_code for kind in kinds}):
        names = ", ".join(f"`{k.__name__}`" for k in kinds if k.exit_code == code and k is not errors.LoomError)
        rows.append((str(code), names))
    yield _table(("code", "meaning"), sorted(rows))


def _installed() -> Iterator[str]:
    yield "## What this repository installs"
    own, catalog = own_distributions(), installed()
    for kind in catalog.kinds:
        found = [item for item in kind if item.distribution in own]
        if not found:
            continue
        yield f"### {kind.noun.capitalize()}s"
        if kind.spec_type is specs.MetricSpec:
            yield _metrics([(item.spec, item.distribution) for item in found])
            found = [item for item in found if describe(item.spec.options)]
        for item in found:
            yield from _described(item, catalog)


def _metrics(rows: list[tuple[specs.MetricSpec, str]]) -> str:
    """A row each; those with options are described below the table."""
    better = {True: "higher", False: "lower"}
    return _table(
        ("metric", "meaning", "range", "better", "version", "from"),
        [
            (f"`{m.name}`", m.summary, f"{m.low:g} to {m.high:g}", better[m.higher_is_better], m.version, f"`{origin}`")
            for m, origin in rows
        ],
    )


def own_distributions() -> set[str]:
    """The names of the distributions of this repository."""
    files = [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]
    return {tomllib.loads(path.read_text("utf-8"))["project"]["name"] for path in files}


def _described(found: Found[Any], catalog: Catalog) -> Iterator[str]:
    spec = found.spec
    yield f"#### `{spec.name}`"
    facts = [f"version {spec.version}, from `{found.distribution}`"]
    facts += [f"status: {spec.status}"] if spec.status != "ok" else []
    yield f"{spec.summary[0].upper()}{spec.summary[1:]}."
    yield "\n".join(f"- {fact}" for fact in [*facts, *_facts(spec)])
    for name in ("options", "model_options"):
        rows = describe(getattr(spec, name, NoOptions))
        if rows:
            yield f"{name.replace('_', ' ').capitalize()}:"
            yield _table(
                ("option", "type", "default", "range", "meaning"),
                [(f"`{r['name']}`", f"`{r['type']}`", f"`{r['default']}`", _range(r), str(r["help"])) for r in rows],
            )


def _facts(spec: specs.Spec) -> Iterator[str]:
    if isinstance(spec, specs.BenchmarkSpec):
        yield "tasks: " + ", ".join(f"`{task}`" for task in spec.tasks)
        yield f"licence: {spec.licence}"
    if isinstance(spec, specs.ServerSpec):
        yield "capabilities: " + (", ".join(f"`{name}`" for name in sorted(spec.capabilities)) or "none")
    if isinstance(spec, specs.AugmentationSpec):
        yield f"kind: {spec.kind}; acts in: {spec.phase}; saving of memory: {spec.saves}"
        yield "looks at the question" if spec.query_aware else "does not look at the question"
        yield f"source: {spec.source}"


def _range(row: dict[str, Any]) -> str:
    low, high = row["low"], row["high"]
    if low is None and high is None:
        return ""
    return f"{'…' if low is None else f'{low:g}'} to {'…' if high is None else f'{high:g}'}"


def main() -> int:
    """Write the files; with --check only print how they differ. Exit code 1 when something differed under --check."""
    check = "--check" in sys.argv[1:]
    differ = False
    for path, text in (
        (REFERENCE, reference()),
        (SIGNATURES, signatures()),
        (REPRODUCED, reproduced()),
        (README, readme()),
    ):
        old = path.read_text("utf-8") if path.exists() else ""
        differ |= old != text
        if check:
            sys.stdout.writelines(
                difflib.unified_diff(old.splitlines(True), text.splitlines(True), path.name, "as generated")
            )
            continue
        path.write_text(text, "utf-8")
        print(f"{path.name}: {'written' if old != text else 'unchanged'}", file=sys.stderr)
    return int(check and differ)


if __name__ == "__main__":
    sys.exit(main())
