"""The card: what is known before loading, its digest and cache, rope overrides, and every refusal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loom_server_hf import folder as folders
from loom_server_hf.card import describe
from loom_server_hf.folder import locate
from loom_server_hf.plugin import HFModelOptions
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from loom_core.api import ModelError, UsageError, build

New = Callable[..., Path]
PLAIN = HFModelOptions()


def edit(folder: Path, **changes: Any) -> None:
    """Change fields of config.json; None removes one."""
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def test_the_card_of_a_tiny_model(model_folder: Path) -> None:
    card = describe(str(model_folder), PLAIN).card
    assert card.name == "tiny-random"
    assert card.window == 512
    assert card.kv_bytes_per_token == 2 * 2 * 16 * 2 * 4
    assert card.facts["n_parameters"] == LlamaForCausalLM.from_pretrained(model_folder).num_parameters()
    assert card.facts["dtype"] == "float32"
    assert card.facts["layers"] == 2
    assert card.tokenizer is not None
    assert json.dumps(dict(card.facts))


def test_describing_imports_no_torch(model_folder: Path) -> None:
    code = (
        "import sys\nfrom loom_server_hf.server import HFServer\n"
        "from loom_server_hf.plugin import HFModelOptions, HFServerOptions\n"
        f"HFServer(HFServerOptions()).describe({str(model_folder)!r}, HFModelOptions())\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_registration_imports_nothing_heavy() -> None:
    code = (
        "import sys\nimport loom_server_hf.plugin as p\np.loom_servers(), p.loom_augmentations()\n"
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_configuration_that_leaves_values_to_its_class(copy_of_model: Path) -> None:
    edit(copy_of_model, head_dim=None, num_key_value_heads=None, max_position_embeddings=None, rope_parameters=None)
    card = describe(str(copy_of_model), PLAIN).card
    assert card.window == 2048  # LlamaConfig's default
    assert card.facts["head_dim"] == 16
    assert card.facts["kv_heads"] == 4
    assert card.facts["rope"]["rope_theta"] == 10000.0


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_dtype_decides_the_bytes_of_a_token(model_folder: Path, dtype: Any, size: int) -> None:
    card = describe(str(model_folder), HFModelOptions(dtype=dtype)).card
    assert card.kv_bytes_per_token == 2 * 2 * 16 * 2 * size


def test_auto_dtype_is_the_saved_one(tmp_path: Path, model_folder: Path) -> None:
    target = Path(shutil.copytree(model_folder, tmp_path / "half"))
    LlamaForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16).save_pretrained(target)
    assert describe(str(target), PLAIN).dtype == "bfloat16"
    edit(target, dtype=None, torch_dtype=None)
    assert describe(str(target), PLAIN).dtype == "bfloat16"  # from the weights themselves


# --- digest ------------------------------------------------------------------------------------------------------


def test_the_digest_depends_on_content_not_on_place(model_folder: Path, copy_of_model: Path) -> None:
    assert locate(str(model_folder)).digest(code=False) == locate(str(copy_of_model)).digest(code=False)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"])
def test_every_file_enters_the_digest(copy_of_model: Path, name: str) -> None:
    before = locate(str(copy_of_model)).digest(code=False)
    path = copy_of_model / name
    content = path.read_bytes()
    if name == "model.safetensors":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        path.write_bytes(content + b"\n")
    assert locate(str(copy_of_model)).digest(code=False) != before


def test_weights_are_hashed_once(copy_of_model: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = copy_of_model / "model.safetensors"
    read: list[str] = []
    os.utime(weights, (time.time() - 60, time.time() - 60))
    monkeypatch.setattr(folders, "RACY_SECONDS", -1.0)  # the copy was made this second
    original = folders.sha256_of

    def noted(path: Path) -> str:
        read.append(path.name)
        return original(path)

    monkeypatch.setattr(folders, "sha256_of", noted)
    first = locate(str(copy_of_model)).digest(code=False)
    assert "model.safetensors" in read
    assert list(own_cache.iterdir()) == [own_cache / "weights.json"]
    read.clear()
    assert locate(str(copy_of_model)).digest(code=False) == first
    assert "model.safetensors" not in read
    os.utime(weights, (time.time() - 30, time.time() - 30))
    locate(str(copy_of_model)).digest(code=False)
    assert "model.safetensors" in read


@pytest.mark.parametrize("how", ["in place", "moved into its place"])
def test_weights_exchanged_under_the_same_size_and_time(
    copy_of_model: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """What `cp -p`, rsync or a restored image may leave: other bytes, the size and modification time of before."""
    weights = copy_of_model / "model.safetensors"
    os.utime(weights, (time.time() - 10_000, time.time() - 10_000))
    monkeypatch.setattr(folders, "RACY_SECONDS", -1.0)
    before, stat = locate(str(copy_of_model)).digest(code=False), weights.stat()
    content = weights.read_bytes()
    other = weights if how == "in place" else copy_of_model / "other"
    other.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(weights)
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert locate(str(copy_of_model)).digest(code=False) != before


def test_a_file_that_just_changed_is_not_cached(copy_of_model: Path, own_cache: Path) -> None:
    os.utime(copy_of_model / "model.safetensors")
    locate(str(copy_of_model)).digest(code=False)
    assert not (own_cache / "weights.json").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', "{"])
def test_a_damaged_cache_is_an_empty_cache(copy_of_model: Path, own_cache: Path, content: str) -> None:
    before = locate(str(copy_of_model)).digest(code=False)
    (own_cache / "weights.json").write_text(content)
    os.utime(copy_of_model / "model.safetensors", (1, 1))
    assert locate(str(copy_of_model)).digest(code=False) == before


def test_a_cache_that_cannot_be_written_changes_nothing(copy_of_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = locate(str(copy_of_model)).digest(code=False)
    os.utime(copy_of_model / "model.safetensors", (1, 1))
    monkeypatch.setenv("LOOM_CACHE", str(copy_of_model / "config.json" / "no folder"))
    assert locate(str(copy_of_model)).digest(code=False) == before


# --- positions ---------------------------------------------------------------------------------------------------


def test_rope_theta_alone_keeps_the_window(model_folder: Path) -> None:
    found = describe(str(model_folder), HFModelOptions(rope_theta=16e6))
    assert found.positions.rope == {"rope_type": "default", "rope_theta": 16e6}
    assert found.card.window == 512
    assert describe(str(model_folder), HFModelOptions(rope_theta=16e6, window=4096)).card.window == 4096


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_rope_scaling_lengthens_the_window(model_folder: Path, kind: Any) -> None:
    found = describe(str(model_folder), HFModelOptions(rope_type=kind, rope_factor=4.0))
    assert found.card.window == found.positions.length == 2048
    assert found.positions.rope is not None
    assert found.positions.rope["factor"] == 4.0
    assert found.positions.rope.get("original_max_position_embeddings") == (512 if kind == "yarn" else None)


def test_scaling_replaces_the_models_own(copy_of_model: Path) -> None:
    own = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
    edit(copy_of_model, rope_parameters=own)
    found = describe(str(copy_of_model), HFModelOptions(rope_type="linear", rope_factor=2.0))
    assert found.card.window == 256  # twice what it was trained at
    assert found.positions.rope == {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}


def test_frequencies_that_move_with_length_bound_the_window(copy_of_model: Path) -> None:
    own = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    edit(copy_of_model, rope_parameters=own)
    card = describe(str(copy_of_model), PLAIN).card
    assert card.window == 512
    assert "512" in card.facts["window_note"]
    with pytest.raises(ModelError, match="window=1024"):
        describe(str(copy_of_model), HFModelOptions(window=1024))
    assert describe(str(copy_of_model), HFModelOptions(window=256)).card.window == 256


def test_longrope_is_held_to_its_first_range(copy_of_model: Path) -> None:
    ones = [1.0] * 8
    own = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": ones, "long_factor": ones}
    edit(copy_of_model, rope_parameters={**own, "original_max_position_embeddings": 128})
    assert describe(str(copy_of_model), PLAIN).card.window == 128


def test_a_model_without_rotary_positions_takes_no_override(tmp_path: Path, new_tokenizer: Any) -> None:
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=64, vocab_size=400)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    new_tokenizer().save_pretrained(tmp_path)
    card = describe(str(tmp_path), PLAIN).card
    assert card.window == 64
    assert card.kv_bytes_per_token == 1 * 2 * 16 * 2 * 4
    with pytest.raises(ModelError, match="no rotary embedding"):
        describe(str(tmp_path), HFModelOptions(rope_theta=1e6))
    with pytest.raises(ModelError, match="window=128") as caught:
        describe(str(tmp_path), HFModelOptions(window=128))
    assert "64" in caught.value.why


@pytest.mark.parametrize(
    "values",
    [{"rope_type": "yarn"}, {"rope_factor": "2"}, {"device": "tpu"}, {"rope_type": "dynamic"}, {"window": "0"}],
)
def test_options_that_cannot_be_meant(values: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        build(HFModelOptions, values, owner="server hf")


# --- refusals ----------------------------------------------------------------------------------------------------


def refusal(model: str | Path, options: HFModelOptions = PLAIN) -> ModelError:
    with pytest.raises(ModelError) as caught:
        describe(str(model), options)
    assert caught.value.hint, "every refusal names the next step"
    return caught.value


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c/d"])
def test_a_missing_folder(name: str) -> None:
    assert "no model folder" in refusal(name).what


def test_a_file_instead_of_a_folder(model_folder: Path) -> None:
    assert "is a file" in refusal(model_folder / "model.safetensors").what


def test_no_configuration(copy_of_model: Path) -> None:
    (copy_of_model / "config.json").unlink()
    assert "no config.json" in refusal(copy_of_model).what
    (copy_of_model / "adapter_config.json").write_text("{}")
    assert "merge" in refusal(copy_of_model).hint


def test_a_broken_configuration(copy_of_model: Path) -> None:
    (copy_of_model / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        describe(str(copy_of_model), PLAIN)


def test_no_tokenizer(copy_of_model: Path) -> None:
    (copy_of_model / "tokenizer.json").unlink()
    assert "no tokenizer" in refusal(copy_of_model).what


def test_no_weights(copy_of_model: Path) -> None:
    (copy_of_model / "model.safetensors").unlink()
    assert "no weights" in refusal(copy_of_model).what


def test_a_missing_shard(copy_of_model: Path) -> None:
    LlamaForCausalLM.from_pretrained(copy_of_model).save_pretrained(copy_of_model, max_shard_size="50KB")
    (copy_of_model / "model.safetensors").unlink(missing_ok=True)
    assert describe(str(copy_of_model), PLAIN).card.facts["n_parameters"] > 0
    shard = sorted(copy_of_model.glob("model-0*.safetensors"))[1]
    shard.unlink()
    error = refusal(copy_of_model)
    assert "lacks 1 of its" in error.what
    assert shard.name in error.why


def test_cut_off_weights(copy_of_model: Path) -> None:
    path = copy_of_model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert "not a readable safetensors" in refusal(copy_of_model).what


@pytest.mark.parametrize("name", ["BertForMaskedLM", "LlamaForSequenceClassification", "LlamaModel"])
def test_not_a_causal_language_model(copy_of_model: Path, name: str) -> None:
    edit(copy_of_model, architectures=[name])
    error = refusal(copy_of_model)
    assert "not a causal language model" in error.what
    assert name in error.why


def test_an_encoder_decoder(copy_of_model: Path) -> None:
    edit(copy_of_model, is_encoder_decoder=True)
    assert "not a causal language model" in refusal(copy_of_model).what


def test_code_that_comes_with_a_model_needs_the_flag(copy_of_model: Path) -> None:
    code = {"AutoModelForCausalLM": "odd.Odd"}
    edit(copy_of_model, architectures=["OddForCausalLM"], model_type="odd", auto_map=code)
    assert "trust_remote_code=true" in refusal(copy_of_model).hint


def test_a_model_type_that_transformers_does_not_know(copy_of_model: Path) -> None:
    edit(copy_of_model, architectures=["OddForCausalLM"], model_type="odd", head_dim=None)
    assert "newer transformers" in refusal(copy_of_model).hint


def test_revision_of_a_folder(model_folder: Path) -> None:
    assert "no meaning" in refusal(model_folder, HFModelOptions(revision="main")).what


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "LOOM_OFFLINE"])
def test_an_unknown_hub_model_while_offline(tmp_path: Path, variable: str) -> None:
    code = (
        "from loom_core.contract.errors import ModelError\nfrom loom_server_hf.folder import locate\n"
        "try:\n    locate('no-such-owner/no-such-model')\nexcept ModelError as error:\n    print(error)\n"
    )
    environment = {**os.environ, variable: "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "offline" in done.stdout.splitlines()[0]
    assert "next: give a folder, or fetch it once" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("revision", ["main", "v2", "no-such-branch"])
def test_a_hub_model_is_found_in_the_hubs_cache(model_folder: Path, tmp_path: Path, revision: str) -> None:
    """Offline, with two revisions in the cache: the folder of the one asked for, and no other."""
    repository = tmp_path / "hub" / "models--owner--name"
    for commit, branch in (("a" * 40, "main"), ("b" * 40, "v2")):
        shutil.copytree(model_folder, repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / branch).write_text(commit)
    code = (
        "from loom_core.contract.errors import ModelError\nfrom loom_server_hf.folder import locate\n"
        f"try:\n    found = locate('owner/name', {revision!r})\n    print(found.name, found.path)\n"
        "except ModelError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    snapshots = {"main": "a" * 40, "v2": "b" * 40}
    if revision in snapshots:
        assert done.stdout.strip() == f"owner/name {repository / 'snapshots' / snapshots[revision]}"
    else:
        assert "offline" in done.stdout.splitlines()[0]
        assert "no-such-branch" in done.stdout
