"""Retrieval in whole runs: every retriever once, recall as counted by hand, losses where they belong, small windows."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from loom_core.api import installed
from loom_core.run.store import RunFolder

TOY = ("--model", "toy", "--quiet")


def report_of(folder: Path) -> dict[str, Any]:
    """A run's report."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text("utf-8"))
    return report


def totals(report: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The totals by task and arm."""
    return {(row["task"], row["arm"]): row for row in report["totals"]}


class Embeds(BaseHTTPRequestHandler):
    """An embedding endpoint: counts the letters of each text."""

    def do_POST(self) -> None:
        """Answer one request."""
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        rows = [
            [float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz0123456789"] for text in texts
        ]
        data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
        body = {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 5, "total_tokens": 5}}
        sent = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The base URL of a running endpoint."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Embeds)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def test_every_retriever_runs_and_is_metered(loom: Any, endpoint: str, tmp_path: Path) -> None:
    """All retrievers that are installed, in one command, with a double in the model's place."""
    options = {"openai-embeddings": f",base_url={endpoint},model=m", "dense-retrieval": ",device=cpu"}
    names = [
        found.spec.name for found in installed().augmentations if found.spec.retrieval and found.spec.kind == "prompt"
    ]
    assert {"bm25", "dense-retrieval", "llamaindex", "openai-embeddings"} <= set(names)
    arms = {name: f"{name}:k=2,size=200{options.get(name, '')}" for name in names}
    command = [argument for arm in arms.values() for argument in ("--accel", arm)]
    environment = {"LOOM_CACHE": str(tmp_path / "cache"), "OPENAI_API_KEY": "sk-planted-77", "LOOM_OFFLINE": "1"}
    loom("run", "passkey@words=200,depths=2,repeats=1", *TOY, *command, "--out", "run", env=environment)
    records = loom.records(loom.cwd / "run")
    assert len(records) == 2 * (1 + len(arms)) and not [r["error"] for r in records if r["error"]]
    for record in records:
        if record["arm"] == "dense":
            assert record["rewriting"] is None and record["rewriting_cost"] is None
            continue
        took, did = record["rewriting_cost"], record["rewriting"]
        assert took["seconds"] >= took["index_seconds"] > 0
        assert 0 < did["tokens_after"] < did["tokens_before"] and did["parts"][0]["kept"] == 2
        assert record["n_dropped"] == 0 and record["evidence"]["n"] == 1
        calls = took["calls"]
        assert calls == 0 if record["arm"].startswith("bm25") else calls >= 1
    for (_, arm), row in totals(report_of(loom.cwd / "run")).items():
        assert (row["cost"]["rewriting"] is None) == (arm == "dense")
        assert row["evidence"]["recall"] in (0.0, 0.5, 1.0)
    assert "sk-planted-77" not in "".join(
        p.read_text("utf-8") for p in (loom.cwd / "run").rglob("*.json*") if p.suffix != ".gz"
    )


def test_retrieval_decides_and_the_report_says_so(loom: Any) -> None:
    """On the embedded model: with the needle among the chunks the answer is right, without it wrong."""
    arms = ("--accel", "bm25:k={1,4},size=100")
    loom("run", "passkey@words=300,depths=4,repeats=3", *arms, "--quiet", "--out", "run")
    folder = RunFolder(loom.cwd / "run")
    values = {row["key"]: row["value"] for row in loom.scores("passkey_exact@1", folder.path)}
    seen: dict[str, list[bool]] = {arm: [] for arm in ("dense", "bm25:k=1,size=100", "bm25:k=4,size=100")}
    for record in loom.records(folder.path):
        found = record["evidence"]["final"] == 1
        assert values[record["job"]] == float(found), record["sample"]
        seen[record["arm"]].append(found)
    missed = seen["bm25:k=1,size=100"].count(False)
    assert 0 < missed < 12 and all(seen["dense"])
    rows = totals(report_of(folder.path))
    first = rows["passkey:loom", "bm25:k=1,size=100"]
    assert first["evidence"]["n_lost"] == {"retrieval": missed, "truncation": 0, "model": 0}
    assert first["evidence"]["lost"]["retrieval"] == pytest.approx(missed / 12)
    assert first["evidence"]["recall"] == pytest.approx(first["scores"][0]["score"])
    assert (first["evidence"]["score_with"], first["evidence"]["score_without"]) == (1.0, 0.0)
    assert (
        first["cost"]["rewriting"]["kept"] < rows["passkey:loom", "bm25:k=4,size=100"]["cost"]["rewriting"]["kept"] < 1
    )


def test_recall_on_ruler_is_what_counting_by_hand_gives(loom: Any) -> None:
    """Each needle is a sentence of its own, in chunks of about two sentences; the question names the key.

    One needle: the first chunk has it. Four values of one key in a long text lie in four chunks: one chunk holds a
    quarter of the evidence, and enough chunks hold all of it. A chain of variables is found at its first link only by
    the question's words, since each further link is named by another link alone.
    """
    tasks = "ruler@variant=loom:loom_niah_single_1,loom_niah_multivalue,loom_vt"
    arms = ("--accel", "bm25:k={1,8},size=160")
    loom("run", tasks, *TOY, *arms, "--lengths", "16k", "--limit", "4", "--out", "run")
    rows = totals(report_of(loom.cwd / "run"))
    recall = {(task.partition("_")[2], arm[5:8]): row["evidence"]["recall"] for (task, arm), row in rows.items()}
    assert recall["niah_single_1", "k=1"] == 1.0
    assert recall["niah_multivalue", "k=1"] == 0.25 and recall["niah_multivalue", "k=8"] == 1.0
    assert recall["vt", "k=1"] <= 0.2 and recall["vt", "k=8"] < 1.0


def test_an_augmentation_sees_the_whole_context_of_a_model_with_a_small_window(loom: Any) -> None:
    arms = ("--accel", "bm25:k=2,size=150", "--model-option", "window=1000", "--overlength", "truncate")
    loom("run", "passkey@words=1000,depths=3,repeats=1", *TOY, *arms, "--out", "run")
    for record in loom.records(loom.cwd / "run"):
        if record["arm"] == "dense":
            assert record["n_dropped"] > 3000 and record["cut"] == ["context"]
        else:
            assert record["rewriting"]["tokens_before"] > 4000 and record["n_in"] < 1000
            assert record["n_dropped"] == 0 and record["cut"] == []
            assert record["evidence"] == {"n": 1, "rewritten": 1, "final": 1, "share": 1.0}


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("openai-embeddings:base_url=http://127.0.0.1:9/v1,retries=0", "the endpoint returned no embeddings"),
        ("bm25:size=4000,budget=4x", "the budget is smaller than the best chunk"),
    ],
)
def test_what_goes_wrong_is_one_message_of_each_answer_and_stops_no_other_arm(loom: Any, arm: str, said: str) -> None:
    command = ("run", "passkey@words=100,depths=2,repeats=1", *TOY, "--accel", arm, "--out", "run")
    done = loom(*command, code=None, env={"LOOM_OFFLINE": "1", "LOOM_CACHE": str(loom.cwd / "cache")})
    assert "Traceback" not in done.out + done.err
    records = loom.records(loom.cwd / "run")
    assert [r["finish"] for r in records if r["arm"] == "dense"] == ["stop"] * 2
    failed = [r["error"] for r in records if r["arm"] == arm]
    assert len(failed) == 2 and all(said in error for error in failed)


@pytest.mark.parametrize(("arm", "said"), [("bm25:k=0", "least value 1"), ("bm25:budget=10", "smaller than one chunk")])
def test_options_that_cannot_be_meant_are_refused_before_anything_runs(loom: Any, arm: str, said: str) -> None:
    done = loom("run", "passkey@words=100", *TOY, "--accel", arm, code=2)
    assert said in done.err
