"""The contract of `loom parity`: answers worth trying, the authors' modules with stand-ins, and the certificate."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from loom_kit.upstream import put
from loom_parity import certificate as certificates, upstream
from loom_parity.certificate import Certificate, Count
from loom_parity.contract import Case, answer, answer_variants

from loom_core.api import BenchmarkSpec, PluginError


@given(st.text(max_size=40), st.integers(0, 5))
def test_answer_variants_are_the_same_for_one_seed_and_named_apart(reference: str, seed: int) -> None:
    rows = list(answer_variants(reference, random.Random(seed), others=("east", "west")))
    assert rows == list(answer_variants(reference, random.Random(seed), others=("east", "west")))
    shapes = [shape for shape, _ in rows]
    assert len(set(shapes)) == len(shapes) >= 40
    texts = dict(rows)
    assert texts["right"] == reference and texts["wrong"] != reference
    assert texts["empty"] == "" and len(texts["very long"]) >= 20_000


def test_full_width_is_what_unicode_calls_so() -> None:
    texts = dict(answer_variants("Az 9!", random.Random(0)))
    assert texts["full-width"] == "Ａｚ　９！"


def test_an_answer_is_a_finished_response() -> None:
    assert (answer("x").text, answer("x").finish, answer("x").error) == ("x", "stop", None)
    case = Case(kind="score", name="f1", id="1", function="f1", payload=["a", "b"], ours=lambda: 1.0)
    assert case.tolerance == 0.0 and case.ours() == 1.0


# --- the authors' modules ---------------------------------------------------------------------------------------------

SCRIPT = b"""
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset
from transformers import AutoTokenizer
import beside

class Model(nn.Module):
    def size(self):
        return 3

@torch.no_grad() if False else F.jit
def doubled(x):
    return 2 * x + beside.ONE

@nn.inference_mode()
def halved(x):
    return x / 2

loaded = AutoTokenizer.from_pretrained("x").eval()
"""


def test_a_module_of_a_checkout_is_imported_with_stand_ins(tmp_path: Path) -> None:
    put(tmp_path, "src/score_it.py", SCRIPT)
    put(tmp_path, "src/beside.py", b"ONE = 1\n")
    made = upstream.module(tmp_path, "src/score_it.py", absent=("torch", "transformers"), name="score_it_1")
    assert (made.doubled(2), made.halved(2), made.Model().size()) == (5, 1.0, 3)
    with pytest.raises(ImportError, match="no_such_module_here"):
        put(tmp_path, "broken.py", b"import no_such_module_here\n")
        upstream.module(tmp_path, "broken.py")
    with pytest.raises(FileNotFoundError, match=r"other\.py is not in this checkout"):
        upstream.module(tmp_path, "other.py")


def test_a_notebook_gives_its_functions_or_runs_whole(tmp_path: Path) -> None:
    lines = ["import seaborn\n", "def double(x):\n    return 2 * x\n", "raise SystemExit('drawn')\n"]
    cells = [{"cell_type": "markdown", "source": ["not code"]}, {"cell_type": "code", "source": lines}]
    (tmp_path / "viz.ipynb").write_text(json.dumps({"cells": cells}), "utf-8")
    assert upstream.notebook(tmp_path, "viz.ipynb", absent=("seaborn",)).double(4) == 8
    with pytest.raises(SystemExit, match="drawn"):
        upstream.notebook(tmp_path, "viz.ipynb", absent=("seaborn",), name="__main__", whole=True)
    with pytest.raises(FileNotFoundError, match=r"other\.ipynb"):
        upstream.notebook(tmp_path, "other.ipynb")


def test_a_script_runs_with_its_switches_set(tmp_path: Path) -> None:
    (tmp_path / "table.py").write_text("half = False\nfound = (0.5 if half else 1, __name__)\n", "utf-8")
    assert upstream.script(tmp_path, "table.py", constants={"half": True}).found == (0.5, "__main__")
    assert upstream.script(tmp_path, "table.py", constants={}).found == (1, "__main__")
    with pytest.raises(ValueError, match="sets no quarter"):
        upstream.script(tmp_path, "table.py", constants={"quarter": True})
    with pytest.raises(FileNotFoundError, match=r"other\.py"):
        upstream.script(tmp_path, "other.py", constants={})


# --- the certificate --------------------------------------------------------------------------------------------------

SPEC = BenchmarkSpec(
    name="toy",
    version="2",
    summary="a toy",
    factory="loom_toy:Toy",
    tasks=("one",),
    parity="loom_toy.parity:Parity",
)
MADE = Certificate(
    benchmark="toy",
    version="2",
    distribution="loom-toy 0.1.0",
    metrics={"toy_f1": "1"},
    loom="0.1.0",
    upstream={"commit": "2e00731aa", "expected": "2e00731aa", "files": {"metrics.py": "ab"}},
    counts=(Count(kind="score", name="f1", compared=4000, equal=3990, different=10), Count(kind="p", name="q")),
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package `loom_toy`, never imported."""
    put(tmp_path, "loom_toy/__init__.py", b"raise RuntimeError('looking for a certificate imports nothing')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "loom_toy"


def test_certificate_is_read_back_and_said_in_words(package: Path) -> None:
    assert certificates.read(SPEC) is None
    assert certificates.in_words(SPEC, {}) == "none"
    assert certificates.place(SPEC) == package / "certificate.json"
    inner = replace(SPEC, parity="loom_toy.french.parity:Parity")
    assert certificates.place(inner) == package / "french" / "certificate.json"
    (package / "certificate.json").write_text(json.dumps(MADE.to_json()), "utf-8")
    read = certificates.read(SPEC)
    assert read is not None and read.to_json() == MADE.to_json()
    words = certificates.in_words(SPEC, {"toy_f1": "1"})
    assert words == "3,990 of 4,000 equal at 2e00731, 10 differ as named"


@pytest.mark.parametrize(
    ("spec", "metrics", "why"),
    [
        (replace(SPEC, version="3"), {"toy_f1": "1"}, "made for version 2, this is 3"),
        (SPEC, {"toy_f1": "2"}, "made with metric toy_f1 version 1, this is 2"),
        (SPEC, {}, "made with metric toy_f1, which is not installed"),
        (replace(SPEC, name="other"), {"toy_f1": "1"}, "made for toy"),
        (SPEC, {"toy_f1": "1", "more": "1"}, ""),
    ],
)
def test_a_certificate_of_other_behaviour_is_stale(spec: BenchmarkSpec, metrics: dict[str, str], why: str) -> None:
    assert certificates.stale(MADE, spec, metrics) == why


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"counts": [{"kind": 1}]}', '{"counts": 3}', "\xff"])
def test_a_broken_certificate_is_named(package: Path, text: str) -> None:
    (package / "certificate.json").write_text(text, "latin-1")
    with pytest.raises(PluginError, match="the certificate of benchmark toy cannot be read"):
        certificates.read(SPEC)
    assert certificates.in_words(SPEC, {}).startswith("unreadable: ")


def test_an_adapter_outside_a_package_is_refused() -> None:
    with pytest.raises(PluginError, match="lies in no package"):
        certificates.place(replace(SPEC, parity="no_such_package_x.parity:Parity"))
