"""Configs: study files and flags into one `RunConfig` that remembers where each value came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from loom_core.api import RunError, UsageError
from loom_core.cli.settings import config_from
from loom_core.run.config import RunConfig, difference, from_toml

STUDY = """
benchmarks = ["passkey", "fable@n=3:tell"]
model = "toy"
accel = "fable_head"
lengths = ["4k", 100]
limit = 5
overlength = "skip"

[model_options]
window = 4096
flag = true
sizes = [1, 2]
"""


def study(tmp_path: Path, text: str = STUDY) -> Path:
    """A study file."""
    path = tmp_path / "study.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_study_file(tmp_path: Path) -> None:
    path = study(tmp_path)
    config = from_toml(path)
    assert config.benchmarks == ("passkey", "fable@n=3:tell") and config.accel == ("fable_head",)
    assert config.lengths == (4096, 100) and config.limit == 5
    assert config.model_options == {"window": "4096", "flag": "true", "sizes": "{1,2}"}
    assert set(config.origins.values()) == {str(path)} and "seed" not in config.origins


def test_flags_win_over_the_study_and_both_are_remembered(tmp_path: Path) -> None:
    path = study(tmp_path)
    config = config_from((str(path),), {"limit": "7", "lengths": "1k,2k", "seed": None, "accel": ()})
    assert config.limit == 7 and config.lengths == (1024, 2048) and config.model == "toy"
    assert config.origins["limit"] == "command line" and config.origins["model"] == str(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("benchmark = ['x']", ["unknown setting 'benchmark'", "did you mean benchmarks"]),
        ("limit = 0", ["bad value for 'limit'", "0 is below 1"]),
        ("limit = 'some'", ["bad value for 'limit'", "expected a whole number"]),
        ("limit = 2.5", ["bad value for 'limit'", "expected a whole number, got 2.5"]),
        ("limit = true", ["bad value for 'limit'", "expected a whole number, got True"]),
        ("seed = -1", ["bad value for 'seed'"]),
        ("lengths = [0]", ["bad value for 'lengths'", "0 is below 1"]),
        ("lengths = {}", ["bad value for 'lengths'", "expected a list"]),
        ("benchmarks = 3", ["bad value for 'benchmarks'", "expected a list, got 3"]),
        ("benchmarks = [3]", ["bad value for 'benchmarks'", "expected a text, got 3"]),
        ("model = 3", ["bad value for 'model'", "expected a text, got 3"]),
        ("overlength = 'cut'", ["bad value for 'overlength'", "error, skip, truncate"]),
        ("protocol = 'none'", ["bad value for 'protocol'", "query-aware, context-only"]),
        ("offline = 'yes'", ["bad value for 'offline'", "expected true or false"]),
        ("model_options = 'a=b'", ["bad value for 'model_options'", "expected a table"]),
        ("[server_options]\napi_key = 'x'", ["bad value for 'server_options'", "looks like a secret"]),
        ("limit = \nseed = 1", ["is not valid TOML", "line 1"]),
    ],
)
def test_study_files_that_cannot_be_meant(tmp_path: Path, text: str, words: list[str]) -> None:
    path = study(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        from_toml(path)
    for word in [*words, str(path)]:
        assert word in str(caught.value)


def test_a_study_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        from_toml(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not valid TOML"):
        from_toml(tmp_path / "binary.toml")


texts = st.text("abc-_=:{},.", min_size=1, max_size=8)
options = st.dictionaries(st.text("abc", min_size=1, max_size=3), texts, max_size=3)
configs = st.builds(
    RunConfig,
    benchmarks=st.lists(texts, max_size=3).map(tuple),
    suite=st.none() | texts,
    model=st.none() | texts,
    model_options=options,
    server=st.none() | texts,
    server_options=options,
    accel=st.lists(texts, max_size=3).map(tuple),
    lengths=st.lists(st.integers(1, 10**7), max_size=3).map(tuple),
    limit=st.none() | st.integers(1, 10**6),
    seed=st.integers(0, 10**9),
    repeats=st.integers(1, 9),
    overlength=st.sampled_from(["error", "skip", "truncate"]),
    protocol=st.sampled_from(["query-aware", "context-only"]),
    workers=st.integers(1, 64),
    out=st.none() | texts,
    data_dir=st.none() | texts,
    offline=st.booleans(),
    origins=st.dictionaries(st.sampled_from(["limit", "seed"]), texts, max_size=2),
)


@given(configs)
def test_configs_survive_json(config: RunConfig) -> None:
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@given(configs, configs)
def test_difference_names_exactly_what_the_identity_holds(one: RunConfig, other: RunConfig) -> None:
    lines = difference(one, other)
    assert (not lines) == (one.identity == other.identity)
    assert all(" → " in line and line.partition(":")[0] in one.identity for line in lines)


def test_how_a_run_is_carried_out_is_no_part_of_what_it_asks() -> None:
    how = {"workers": 7, "out": "x", "data_dir": "y", "offline": True, "server_options": {"batch": "2"}}
    assert RunConfig().merged(how, "here").identity == RunConfig().identity


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"limit": "many"}, ["bad value for 'limit'", "command line", "expected a whole number, got 'many'"]),
        ({"model_options": ("x",)}, ["'x' is not an option", "--model-option", "name=value"]),
        ({"server_options": ("a=1", "a=2")}, ["given twice", "--server-option"]),
        ({"model_options": ("hf_token=abc",)}, ["looks like a secret"]),
    ],
)
def test_flags_that_cannot_be_meant(flags: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        config_from(("fable",), flags)
    for word in words:
        assert word in str(caught.value)


def test_a_folder_or_a_study_stands_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be given alone"):
        config_from((str(study(tmp_path)), "fable"), {})


def test_a_path_that_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        config_from((f"{tmp_path}/nothing",), {})
    assert caught.value.what == "not a run folder" and caught.value.why == "it does not exist"


def test_a_setting_of_a_newer_version_is_refused_not_dropped() -> None:
    record = {**RunConfig().to_json(), "galaxy": 5}
    with pytest.raises(UsageError, match="does not know: 'galaxy'"):
        RunConfig.from_json(record)
    older = {name: value for name, value in RunConfig().to_json().items() if name != "executor"}
    assert RunConfig.from_json(older) == RunConfig()
