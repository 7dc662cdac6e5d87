"""A bundle or run folder from elsewhere is data: it asks, but reaches for nothing; references stay with the parent."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from loom_report.bundles import opened

from loom_core.api import Catalog, RunError
from loom_core.run.config import RunConfig
from loom_core.run.trust import is_own, reaching_when_asking, reaching_when_scoring, seal

DOUBLE = ("--server", "double", "--model", "toy", "-q")


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """An endpoint that notes who calls, with which authorization."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(f"{self.path} {self.headers.get('authorization')}")
            self.send_error(500)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", seen
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is made once for all tests here."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def forged(loom: Any, shelf: Path) -> Callable[..., Path]:
    """A run folder as somebody else might hand it over: an honest one whose config was rewritten."""
    honest = shelf / "honest"
    if not honest.exists():
        loom("run", "fable@n=2:tell", *DOUBLE, "--out", honest)

    def make(**config: Any) -> Path:
        folder = loom.cwd / "forged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(honest, folder)
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        manifest["config"] |= config
        (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        return Path(folder)

    return make


ATTACKS: dict[str, dict[str, Any]] = {
    "python": {"python": "EVIL"},
    "remote code": {"server": "hf", "model": "MODEL", "model_options": {"trust_remote_code": "true"}},
    "code metric": {"metric_options": {"code.run": "true"}},
    "script": {"server_options": {"script": "/etc/passwd"}},
    "data": {"data_dir": "/etc"},
    "judge": {"judge": "api:x", "judge_options": {"base_url": "http://127.0.0.1:9/v1", "key_env": "MY_KEY"}},
    "method": {"accel": ["openai-embeddings:base_url=http://127.0.0.1:9/v1"]},
    "extra": {"server": "api", "server_options": {"extra": "/etc/hostname"}},
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("command", ["reproduce", "reproduce bundle", "run", "plan"])
def test_what_reaches_beyond_a_foreign_run_is_refused_before_anything_happens(
    loom: Any, forged: Callable[..., Path], tmp_path: Path, attack: str, command: str
) -> None:
    ran = tmp_path / "ran"
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {ran}\n", "utf-8")
    evil.chmod(0o755)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "configuration_evil.Evil"}}), "utf-8"
    )
    (model / "configuration_evil.py").write_text(f"open({str(ran)!r}, 'w').close()\n", "utf-8")
    words = {"EVIL": str(evil), "MODEL": str(model)}
    changes = {
        name: words.get(value, value) if isinstance(value, str) else value for name, value in ATTACKS[attack].items()
    }
    folder = forged(**changes)
    if command == "reproduce bundle":
        loom("report", folder, "--bundle", "forged.tgz")
    source = "forged.tgz" if command == "reproduce bundle" else folder
    done = loom(command.split()[0], source, *(("--out", "again") if "reproduce" in command else ()), code=None)
    own_by_right = command.startswith("reproduce") and attack in ("python", "data")
    if not own_by_right:  # those two are never taken from a bundle at all
        assert done.code == 2 and "come from elsewhere and reach beyond it" in done.err, done.err
        assert "--trust-settings" in done.err
    assert not ran.exists()


def test_no_key_goes_to_the_endpoint_of_a_bundle(
    loom: Any, forged: Callable[..., Path], listener: tuple[str, list[str]]
) -> None:
    url, seen = listener
    folder = forged(server="api", model="m", server_options={"base_url": url, "key_env": "GITHUB_TOKEN"})
    key = {"GITHUB_TOKEN": "ghp_VICTIMTOKEN123456"}
    for command in (("reproduce", folder, "--out", "again"), ("run", folder, "-q"), ("plan", folder)):
        done = loom(*command, code=2, env=key)
        assert f"server option base_url={url}; server option key_env=GITHUB_TOKEN" in done.err.replace("\n", " ")
    assert not seen
    loom("plan", folder, "--trust-settings", code=None, env=key)
    assert seen and seen[0].endswith("Bearer ghp_VICTIMTOKEN123456")


def test_scoring_a_foreign_run_runs_no_code_and_asks_no_judge(loom: Any, forged: Callable[..., Path]) -> None:
    done = loom("score", forged(metric_options={"code.run": "true"}), code=2)
    assert "metric option code run=true" in done.err
    # What says how to ask is not used for scoring, and stops nobody from it.
    loom("score", forged(server_options={"script": "/etc/passwd"}))
    loom("score", forged(metric_options={"code.run": "true"}), "--trust-settings")


def test_an_honest_bundle_takes_one_command(loom: Any) -> None:
    """Another user's (another cache folder, so another seal): nothing in it reaches anywhere."""
    loom("run", "fable@n=4:tell", *DOUBLE, "--out", "first")
    loom("report", "first", "--bundle", "first.tgz")
    done = loom("reproduce", "first.tgz", "--out", "again", "-q", env={"LOOM_CACHE": str(loom.cwd / "other")})
    assert "100 %" in done.out


def test_ones_own_run_goes_on_without_a_word(loom: Any) -> None:
    (loom.cwd / "script.jsonl").write_text('{"say": "0"}\n', "utf-8")
    loom("run", "fable@n=2:tell", *DOUBLE, "--server-option", "script=script.jsonl", "--out", "r")
    loom("run", "r", "-q")
    loom("run", "r", "-q", code=2, env={"LOOM_CACHE": str(loom.cwd / "other")})
    loom("run", "r", "-q", "--trust-settings", env={"LOOM_CACHE": str(loom.cwd / "other")})


def test_a_seal_is_of_one_config_and_one_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_CACHE", str(tmp_path / "mine"))
    config = RunConfig(benchmarks=("fable",)).to_json()
    manifest = {"config": config, "seal": seal(config)}
    assert is_own(manifest) and (tmp_path / "mine" / "seal.key").stat().st_mode & 0o777 == 0o600
    assert not is_own({**manifest, "config": {**config, "python": "/tmp/evil"}})
    assert not is_own({"config": config}) and not is_own({**manifest, "seal": None})
    monkeypatch.setenv("LOOM_CACHE", str(tmp_path / "theirs"))
    assert not is_own(manifest)
    monkeypatch.setenv("LOOM_CACHE", "/dev/null/nowhere")
    assert seal(config) is None and not is_own(manifest)


def test_every_option_that_names_an_endpoint_a_key_or_code_says_that_it_reaches(catalog: Catalog) -> None:
    """The kind, not the instances: whatever is called so, in any installed plugin."""
    from dataclasses import fields

    names = ("base_url", "key_env", "trust_remote_code", "extra", "script", "engine", "python", "endpoint", "url")
    kinds = [found.spec.options for kind in catalog.kinds for found in kind if hasattr(found.spec, "options")]
    kinds += [found.spec.model_options for found in catalog.servers]
    wrong = [(k.__name__, f.name) for k in kinds for f in fields(k) if f.name in names and not f.metadata.get("reach")]
    assert not wrong


def test_defaults_reach_for_nothing(catalog: Catalog) -> None:
    config = RunConfig(
        benchmarks=("fable",), model="toy", accel=("fable-head",) if "fable-head" in catalog.augmentations else ()
    )
    assert not list(reaching_when_asking(config, (), catalog)) and not list(reaching_when_scoring(config, (), catalog))


def test_a_bundle_does_not_fill_the_disk(tmp_path: Path) -> None:
    """Two gigabytes of zeros in two megabytes; also behind a name that no bundle has."""
    for name in ("responses.jsonl", "elsewhere"):
        with tarfile.open(tmp_path / "bomb.tgz", "w:gz", compresslevel=1) as archive:
            entry = tarfile.TarInfo(name)
            entry.size = 1 << 30
            archive.addfile(entry, _Zeros(entry.size))
        with pytest.raises(RunError, match="more than a bundle may hold"), opened(tmp_path / "bomb.tgz"):
            pass


class _Zeros(io.RawIOBase):
    def __init__(self, left: int) -> None:
        self._left = left

    def read(self, size: int = -1) -> bytes:
        n = min(size, self._left)
        self._left -= n
        return b"\0" * n


def test_a_damaged_bundle_is_refused_before_anything_runs(loom: Any) -> None:
    loom("run", "fable@n=4:tell", *DOUBLE, "--out", "first")
    loom("report", "first", "--bundle", "good.tgz")
    with tarfile.open(loom.cwd / "good.tgz") as archive:
        members = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    for name, content in {"jobs.jsonl.gz": b"\x1f\x8b broken", "responses.jsonl": b""}.items():
        with tarfile.open(loom.cwd / "bad.tgz", "w:gz") as archive:
            for member, data in {**members, name: content}.items():
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        done = loom("reproduce", "bad.tgz", "--out", "again", code=1)
        assert not (loom.cwd / "again" / "responses.jsonl").exists(), done.err


CHEAT = '''
"""A server that looks for references wherever a worker could hold them."""
import gc
import time
from contextlib import contextmanager

from loom_core.api import ModelCard, ServerSpec, hookimpl
from loom_core.api.doubles import ToyTokenizer
from loom_core.api import Response, Sample, Timing


class Cheat:
    def __init__(self, options):
        pass

    def describe(self, model, options):
        return ModelCard(name=model, path=model, digest="d" * 64, window=8192, tokenizer=ToyTokenizer())

    @contextmanager
    def open(self, model, options):
        yield Session(self.describe(model, options))


class Session:
    def __init__(self, card):
        self.card, self.gold = card, {}

    def see_samples(self, samples):
        self.gold = {key: str(sample.references[0]) for key, sample in samples.items()}

    def generate(self, requests, arm):
        for request in requests:
            held = [s for s in gc.get_objects() if isinstance(s, Sample) and s.prompt == request.prompt]
            text = self.gold.get(request.job) or next((str(s.references[0]) for s in held if s.references), "no")
            now = time.perf_counter()
            timing = Timing(queued=now, started=now, first_token=now, ended=now)
            yield Response(key=request.key, text=text, finish="stop", n_in=1, n_out=1, timing=timing)


@hookimpl
def loom_servers():
    return (ServerSpec(name="cheat", version="1", summary="looks honest", factory="cheat_server:Cheat",
                       capabilities=frozenset({"token_ids"})),)
'''


def test_no_server_is_shown_a_reference(loom: Any, toy_site: Path, tmp_path: Path) -> None:
    site = tmp_path / "cheat-site"
    info = site / "cheat-0.1.dist-info"
    info.mkdir(parents=True)
    (site / "cheat_server.py").write_text(CHEAT, "utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: cheat\nVersion: 0.1\n", "utf-8")
    (info / "entry_points.txt").write_text("[loom]\ncheat = cheat_server\n", "utf-8")
    path = {"PYTHONPATH": f"{site}:{toy_site}"}
    loom("run", "fable@n=4:tell", "--server", "cheat", "--model", "m", "-q", "--out", "r", env=path)
    assert {row["text"] for row in loom.records(loom.cwd / "r")} == {"no"}


def test_a_double_that_sees_references_is_named(loom: Any) -> None:
    loom("run", "fable@n=2:tell", *DOUBLE, "--out", "r")
    report = json.loads((loom.cwd / "r" / "report.json").read_text("utf-8"))
    assert "The server double is shown the reference answers: its scores are of no model." in [
        banner["text"] for banner in report["banners"]
    ]
