"""The files of loom-tiny: present, unaltered, and part of the built wheel. Loads no model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import loom_model_tiny
import pytest

from loom_core.api import installed, resolve

PROJECT = Path(__file__).resolve().parents[1]
SHA256 = {
    "config.json": "cfc4b7233f8da4c8109f69a5d469efabccc6c0bf85531992f85a56dede8e340f",
    "generation_config.json": "6a14a4a0a27e90fbe998528a8d4a95177127bf5552f1e23e47286abbda65911a",
    "model.safetensors": "5c5167f0aa7bd619b8e43c0c47c1cce6d7c554822b1e7917f1a1de043f65e21f",
    "tokenizer.json": "0affbac16b07f0de3f824da3a0512d6ce055f7174272e45098e22729874bec8b",
    "tokenizer_config.json": "685f0b1d35b0b296629cccac44706e108beb3200decc7e41ecb0b48e477eb73a",
    "chat_template.jinja": "08ea9cde231ae3e088b5676072fab54c6ea7a4ffe34984155970c27ec2dcab37",
    "MODEL.md": "c2d00eb67454628406f3f6562204305443ae4459ca7773b8e45ef7406697fa11",
}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_every_file_is_there_and_unaltered() -> None:
    folder = loom_model_tiny.path()
    assert {p.name: _sha256(p.read_bytes()) for p in folder.iterdir()} == SHA256


def test_config_says_what_the_readme_says() -> None:
    config = json.loads((loom_model_tiny.path() / "config.json").read_text("utf-8"))
    assert config["model_type"] == "llama"
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (4, 2)
    assert config["max_position_embeddings"] == 16384


def test_parameter_count_from_the_header() -> None:
    data = (loom_model_tiny.path() / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors = [row for name, row in header.items() if name != "__metadata__"]
    count = 0
    for row in tensors:
        size = 1
        for n in row["shape"]:
            size *= n
        count += size
    assert count == 1_967_808
    assert {row["dtype"] for row in tensors} == {"F32"}


def test_registered() -> None:
    found = installed().models.get("loom-tiny")
    assert found.distribution == "loom-model-tiny"
    assert resolve(found.spec.factory)() == loom_model_tiny.path()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    shutil.copytree(PROJECT, source, ignore=shutil.ignore_patterns("__pycache__", "dist", "*.egg-info"))
    code = "import sys, flit_core.buildapi as b; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=source, capture_output=True, text=True, check=True
    )
    return out / done.stdout.strip()


def test_wheel_holds_the_data_and_path_works_from_it(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        prefix = "loom_model_tiny/data/"
        data = {n.removeprefix(prefix): _sha256(archive.read(n)) for n in archive.namelist() if n.startswith(prefix)}
        assert data == SHA256
        archive.extractall(tmp_path)
    code = "import loom_model_tiny as m; print(m.path())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    folder = Path(done.stdout.strip())
    assert folder == tmp_path / "loom_model_tiny" / "data"
    assert _sha256((folder / "model.safetensors").read_bytes()) == SHA256["model.safetensors"]
