"""Every keyword that the plugin passes, against the signatures of SGLang's own wheel, read with `ast`.

The wheel is downloaded once into the folder that LOOM_SGLANG_WHEEL names, or lies there; skips where it cannot be had.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loom_server_sglang.server import OURS, SglangServer
from loom_server_sglang.session import sampling

from loom_core.api import Generation, ModelCard, Prompt, Request
from loom_core.api.serving import EngineModelOptions, EngineOptions

pytestmark = pytest.mark.servers
VERSION = "0.5.23"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """SGLang's wheel; nothing of it is imported or run."""
    folder = Path(os.environ.get("LOOM_SGLANG_WHEEL") or tmp_path_factory.mktemp("sglang"))
    if not any(folder.glob("sglang-*.whl")):
        command = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *command, f"sglang=={VERSION}"], capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            pytest.skip(f"the wheel of sglang {VERSION} cannot be had here: {done.stderr.strip()[-200:]}")
    with zipfile.ZipFile(next(folder.glob("sglang-*.whl"))) as archive:
        yield archive


def parsed(wheel: zipfile.ZipFile, name: str) -> ast.Module:
    return ast.parse(wheel.read(name).decode("utf-8"))


def arguments_of(tree: ast.Module, owner: str, function: str) -> set[str]:
    """The parameter names of a method."""
    (kind,) = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == owner]
    (found,) = [n for n in kind.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) and n.name == function]
    return {a.arg for a in (*found.args.args, *found.args.kwonlyargs)}


def annotated(tree: ast.Module) -> set[str]:
    """The names of annotated fields of the classes of a module."""
    fields = [n for kind in ast.walk(tree) if isinstance(kind, ast.ClassDef) for n in kind.body]
    return {n.target.id for n in fields if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}


def test_requests(wheel: zipfile.ZipFile) -> None:
    tree = parsed(wheel, "sglang/srt/entrypoints/engine.py")
    assert {"input_ids", "sampling_params", "lora_path", "stream"} <= arguments_of(tree, "Engine", "async_generate")
    assert "self" in arguments_of(tree, "Engine", "shutdown")
    assert "self.loop" in ast.unparse(tree), "the engine's own event loop"


def test_engine_arguments(wheel: zipfile.ZipFile) -> None:
    names = [n for n in wheel.namelist() if n.startswith("sglang/srt/arg_groups/fields/") and n.endswith(".py")]
    known = set().union(*(annotated(parsed(wheel, name)) for name in names))
    assert len(known) > 300, "the fields of ServerArgs were found"
    card = ModelCard(name="m", path="m", digest="d", window=1, tokenizer=None)
    options = EngineModelOptions(window=8, quantization="fp8", lora="folder")
    passed = SglangServer(EngineOptions(memory=0.5)).arguments(card, options)
    assert passed.keys() - known == set()
    assert OURS.keys() - known == set()


def test_sampling_parameters(wheel: zipfile.ZipFile) -> None:
    known = annotated(parsed(wheel, "sglang/srt/sampling/sampling_params.py"))
    generation = Generation(max_tokens=1, temperature=0.5, stop=("x",), min_tokens=1)
    request = Request(
        key="k", job="j", step=0, prompt=Prompt(segments=()), generation=generation, group="g", seed=1, token_ids=(1,)
    )
    assert sampling(request).keys() - known == set()


def test_what_is_read_of_an_answer(wheel: zipfile.ZipFile) -> None:
    text = wheel.read("sglang/srt/managers/tokenizer_manager.py").decode("utf-8")
    keys = {n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    assert {"output_ids", "meta_info", "finish_reason", "completion_tokens", "cached_tokens"} <= keys
