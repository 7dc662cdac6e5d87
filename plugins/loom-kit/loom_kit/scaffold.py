"""Templates of minimal plugin distributions, one a kind, and how they become a folder.

Knows names and text; imports no plugin and installs nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from loom_core.contract.errors import UsageError

PREFIX = {"benchmark": "bench", "accel": "accel", "server": "server", "metric": "metric"}

PYPROJECT = """[build-system]
requires = ["flit_core >=3.11,<5"]
build-backend = "flit_core.buildapi"

[project]
name = "$distribution"
version = "0.1.0"
description = "$title, for loom."
readme = "README.md"
requires-python = ">=3.11"
dependencies = [$dependencies]

[project.entry-points.loom]
$entry = "$package.plugin"

[tool.flit.module]
name = "$package"
"""

README = """# $distribution

$title, for loom. Say here what it measures or does, after which paper or repository (with its
commit), under which licence, and what a reader must know before trusting its numbers.

```sh
pip install -e .
loom check $distribution
$command
```
"""

TEST = '''"""The contracts of `$name` hold."""

from __future__ import annotations

from loom_kit import check_package


def test_it_conforms() -> None:
    rows = list(check_package("$distribution"))
    assert rows and [(row.check, row.why) for row in rows if not row.passed] == []
'''

PLUGIN = '''"""Registers `$name`. Imports only loom_core: the factory is imported when it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loom_core.api import $imports


@dataclass(frozen=True)
class ${class_name}Options:
    """What a user may choose."""

    $option


@hookimpl
def loom_$hook() -> Sequence[$spec]:
    """What this distribution brings."""
    return ($spec($arguments),)
$more_hooks'''

METRIC_PLUGIN = '''"""Registers `$name`. Imports only loom_core: the factory is imported when it is used."""

from __future__ import annotations

from collections.abc import Sequence

from loom_core.api import MetricSpec, hookimpl


@hookimpl
def loom_metrics() -> Sequence[MetricSpec]:
    """What this distribution brings."""
    summary = "1 where a reference is in the answer"
    return (MetricSpec(name="$name", version="1", summary=summary, factory="$package.parts:$class_name"),)
'''

HOOK_METRIC = '''

@hookimpl
def loom_metrics() -> Sequence[MetricSpec]:
    """What scores it; use an installed metric instead where one fits (`loom list metrics`)."""
    return (MetricSpec(name="${name}_found", version="1", summary="1 where found", factory="$package.parts:Found"),)
'''

METRIC = '''"""The metric `$name`: 1 where a reference is in the answer, else 0."""

from __future__ import annotations

from loom_core.api import Sample, Scored


class $class_name:
    """Change `score`; raise the version in the spec whenever a value changes."""

    def score(self, prediction: str, sample: Sample) -> Scored:
        """Compare without case."""
        found = any(str(reference).lower() in prediction.lower() for reference in sample.references)
        return Scored(value=float(found), extracted=prediction.strip())
'''

BENCHMARK = '''"""The questions of `$name`. Pure: the same options give the same samples, in any process."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from $package.plugin import ${class_name}Options
from loom_core.api import BenchmarkBase, Data, Generation, Prompt, Sample, Scored, Task, Tokenizer, segment

WORDS = ("apple", "cherry", "fig", "melon", "pear")


class $class_name(BenchmarkBase):
    """`BenchmarkBase` scores the last response with every metric of the task and asks no second turn."""

    def __init__(self, options: ${class_name}Options) -> None:
        self._options = options

    def tasks(self, lengths: tuple[int, ...]) -> Sequence[Task]:
        """One task, scored by a metric of the same distribution."""
        generation, metrics = Generation(max_tokens=8), ("${name}_found",)
        return (Task(name="last", version="1", capability="retrieval", metrics=metrics, generation=generation),)

    def samples(
        self, task: Task, data: Data, tokenizer: Tokenizer | None, lengths: tuple[int, ...]
    ) -> Iterator[Sample]:
        """Each sample is drawn from its own name, so that any subset is the same everywhere."""
        for i in range(self._options.n):
            words = random.Random(f"$name {self._options.seed} {i}").choices(WORDS, k=50)
            parts = (
                segment("instruction", "Here is a list.\\n"),
                segment("context", " ".join(words)),
                segment("question", "\\nWhich word is the last one?"),
            )
            yield Sample(
                id=f"q{i}", task=task.name, prompt=Prompt(segments=parts), references=(words[-1],), level="50 words"
            )


class Found:
    """1 where the reference stands in the answer."""

    def score(self, prediction: str, sample: Sample) -> Scored:
        """Compare without case."""
        return Scored(value=float(str(sample.references[0]).lower() in prediction.lower()), extracted=prediction)
'''

ACCEL = '''"""The method `$name`: the prompt tokens whose keys have the smallest norm stay. Put yours in."""

from __future__ import annotations

from torch import Tensor

from loom_kv import LayerView, Policy


class $class_name(Policy):
    """The largest scores stay. Name paper and formula here."""

    name = "$name"

    def score(self, view: LayerView) -> Tensor:
        """[b, h, N] from keys [b, h, N, d], float32."""
        return -view.k.float().norm(dim=-1)
'''

SERVER = '''"""The server `$name`: answers every prompt with its last word. Put your engine in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from $package.plugin import ${class_name}Options
from loom_core.api import Arm, ModelCard, NoOptions, Request, Response, Timing, digest


class $class_name:
    """`describe` loads no weights; `open` loads once for all arms."""

    def __init__(self, options: ${class_name}Options) -> None:
        self._options = options

    def describe(self, model: str, options: NoOptions) -> ModelCard:
        """What is known without weights. A real server digests the model's files."""
        return ModelCard(name=model, path=model, digest=digest(["$name", model]), window=None, tokenizer=None)

    @contextmanager
    def open(self, model: str, options: NoOptions) -> Iterator[Session]:
        """A session."""
        yield Session(self.describe(model, options))


class Session:
    """One opened model."""

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Response]:
        """Each response as soon as it is there."""
        for request in requests:
            started, words = time.perf_counter(), request.prompt.text.split()
            text = words[-1] if words else ""
            for stop in request.generation.stop:
                text = text.partition(stop)[0]
            timing = Timing(queued=started, started=started, first_token=None, ended=time.perf_counter())
            n_in, n_out = len(words), len(text.split())
            yield Response(key=request.key, text=text, finish="stop", n_in=n_in, n_out=n_out, timing=timing)
'''


def write(kind: str, name: str, out: Path | None) -> tuple[Path, str]:
    """Write a distribution of that kind; returns its folder and its name.

    Raises UsageError for names that cannot be one and for folders that exist.
    """
    if kind == "metric":
        name = name.replace("_", "-")  # metrics are spelt with _, distributions with -
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        why = "lower-case letters and digits, words joined by -, e.g. my-method"
        raise UsageError(f"{name!r} cannot be a plugin's name", where="loom new", why=why)
    distribution = f"loom-{PREFIX[kind]}-{name}"
    folder = out or Path(distribution)
    if folder.exists():
        raise UsageError("this folder exists already", where=str(folder), hint="give another with --out")
    words = _words(kind, name, distribution)
    package = folder / words["package"]
    (folder / "tests").mkdir(parents=True)
    package.mkdir()
    files = {
        folder / "pyproject.toml": PYPROJECT,
        folder / "README.md": README,
        folder / "tests" / f"test_{words['package']}.py": TEST,
        package / "plugin.py": METRIC_PLUGIN if kind == "metric" else PLUGIN,
        package / "parts.py": {"metric": METRIC, "benchmark": BENCHMARK, "accel": ACCEL, "server": SERVER}[kind],
        package / "__init__.py": '"""$title, for loom."""\n\n__version__ = "0.1.0"\n',
    }
    for path, text in files.items():
        path.write_text(Template(Template(text).safe_substitute(words)).safe_substitute(words), "utf-8")
    return folder, distribution


def _words(kind: str, name: str, distribution: str) -> dict[str, str]:
    """What stands for each word of the templates."""
    short = name.replace("-", "_")
    common = {
        "name": short,
        "entry": short,
        "distribution": distribution,
        "package": distribution.replace("-", "_"),
        "class_name": "".join(part.capitalize() for part in name.split("-")),
        "dependencies": '"loom-core>=0.1"',
        "imports": "",
        "option": 'seed: int = option(0, low=0, help="seed")',
        "spec": "",
        "hook": "",
        "arguments": "",
        "more_hooks": "",
    }
    spec = 'name="$name", version="1", summary="say what it does in one line", factory="$package.parts:$class_name"'
    options = "options=${class_name}Options"
    by_kind = {
        "metric": {"title": "A metric", "command": "loom info $name"},
        "benchmark": {
            "title": "A benchmark",
            "command": "loom run $name --model toy",
            "spec": "BenchmarkSpec",
            "imports": "BenchmarkSpec, MetricSpec, hookimpl, option",
            "more_hooks": HOOK_METRIC,
            "hook": "benchmarks",
            "option": 'n: int = option(10, low=1, help="questions")\n    seed: int = option(0, low=0, help="seed")',
            "arguments": f'{spec}, tasks=("last",), {options}, capability="retrieval"',
        },
        "accel": {
            "title": "A KV-cache method",
            "command": "loom run passkey@words=128,depths=2,repeats=2 --accel '$name:budget=4x'",
            "spec": "AugmentationSpec",
            "hook": "augmentations",
            "dependencies": '"loom-core>=0.1", "loom-kv>=0.1", "torch>=2.9"',
            "imports": "AugmentationSpec, Budget, hookimpl, option",
            "option": 'budget: Budget = option(help="slots kept per KV head: 1024, 4x, 0.25, 64MiB")',
            "arguments": f'{spec}, kind="model", {options}, requires=frozenset({{"local_model"}}), saves="real", '
            'source="name the paper, its formula and the authors\' code"',
        },
        "server": {
            "title": "A server",
            "command": "loom run passkey@words=32,depths=2,repeats=2 --server $name --model any",
            "spec": "ServerSpec",
            "imports": "ServerSpec, hookimpl, option",
            "hook": "servers",
            "arguments": f"{spec}, capabilities=frozenset(), {options}",
        },
    }
    return common | by_kind[kind]
