"""The compressors with tiny random models: subsequences, rates, forced words, order, and models of the wrong kind."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from loom_accel_llmlingua.base import Compressor, Source, Unit, best
from loom_accel_llmlingua.causal import LLMLingua, LongLLMLingua
from loom_accel_llmlingua.classifier import WORD, LLMLingua2
from loom_accel_llmlingua.models import open_model, pieces_of
from loom_accel_llmlingua.plugin import LLMLingua2Options, LLMLinguaOptions, LongLLMLinguaOptions
from loom_accel_llmlingua.stream import Stream
from loom_accel_llmlingua.toy import make_classifier

from loom_core.api import Evidence, ModelError, Prompt, segment
from loom_core.api.doubles import ToyTokenizer
from loom_core.contract.evidence import Trail

TEXT = "".join(
    f"On day {i} nothing of note happened in the town. The baker sold bread; 7 people came.\n" for i in range(20)
)


def prompt(context: str = TEXT, question: str = "What is the key?") -> Prompt:
    """Instruction, context and question."""
    parts = (segment("instruction", "Read this.\n"), segment("context", context), segment("question", question))
    return Prompt(segments=parts)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random BERT over characters, with two labels."""
    folder = tmp_path_factory.mktemp("classifier")
    make_classifier(folder)
    return str(folder)


def compressors(classifier: str, rate: float) -> list[Compressor]:
    """All three; the long one in the order of the document."""
    return [
        LLMLingua(LLMLinguaOptions(rate=rate, piece=200, segment=50)),
        LongLLMLingua(LongLLMLinguaOptions(rate=rate, piece=200, segment=50, reorder=False)),
        LLMLingua2(LLMLingua2Options(rate=rate, model=classifier)),
    ]


def is_subsequence(short: str, long: str) -> bool:
    """True if the characters of `short` stand in `long` in their order."""
    rest = iter(long)
    return all(char in rest for char in short)


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.125])
def test_what_is_kept_is_a_subsequence_within_the_rate_and_the_rest_is_untouched(classifier: str, rate: float) -> None:
    source, tokenizer = prompt(), ToyTokenizer()
    for compressor in compressors(classifier, rate):
        with compressor.open(tokenizer):
            made, again = (compressor.rewrite(source, tokenizer) for _ in range(2))
        assert made.prompt == again.prompt, "the same again"
        assert [s for s in made.prompt.segments if s.kind != "context"] == [source.segments[0], source.segments[2]]
        assert is_subsequence(made.prompt.context, TEXT)
        assert made.tokens_before == len(TEXT) and made.tokens_after == len(made.prompt.context)
        assert 0.6 * rate * len(TEXT) <= len(made.prompt.context) <= rate * len(TEXT)
        assert made.facts["rate"] == pytest.approx(made.tokens_after / len(TEXT), abs=1e-5)
        assert made.read_tokens > 0 and made.kept is not None
        for kept in made.kept:
            old, new = source.segments[kept.segment].text, made.prompt.segments[kept.segment].text
            assert old[kept.start : kept.end] == new[kept.at : kept.at + kept.end - kept.start]


def test_rate_1_and_an_empty_context_change_nothing(classifier: str) -> None:
    for compressor in compressors(classifier, 1.0):
        with compressor.open(ToyTokenizer()):
            assert compressor.rewrite(prompt(), ToyTokenizer()).prompt == prompt()
    for compressor in compressors(classifier, 0.5):
        with compressor.open(ToyTokenizer()):
            for text in ("", "\n", "x"):
                made = compressor.rewrite(prompt(text), ToyTokenizer())
                assert is_subsequence(made.prompt.context, text)


def test_forced_words_and_digits_stay(classifier: str) -> None:
    options = LLMLingua2Options(rate=0.5, model=classifier, force=("baker", ";", "\\n"), digits=True)
    compressor = LLMLingua2(options)
    with compressor.open(None):
        made = compressor.rewrite(prompt(), ToyTokenizer()).prompt.context
    for word in ("baker", ";", "\n", "7"):
        assert made.count(word) == TEXT.count(word)
    assert all(f" {i}" in made for i in range(20))


@given(st.text(max_size=80))
def test_words_cover_the_text(text: str) -> None:
    assert "".join(match[0] for match in WORD.finditer(text)) == text


@given(st.text(alphabet="ab .\né中\u0e01", min_size=1, max_size=60), st.sampled_from([0.2, 0.5, 0.9]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_compressed(classifier: str, text: str, rate: float) -> None:
    for compressor in compressors(classifier, rate)[::2]:
        with compressor.open(ToyTokenizer()):
            made = compressor.rewrite(prompt(text), ToyTokenizer())
        assert is_subsequence(made.prompt.context, text)
        assert made.tokens_after is not None and made.tokens_after <= int(rate * len(text.encode())) + 1e-6


def test_the_piece_that_suits_the_question_comes_first_where_they_are_reordered() -> None:
    long = LongLLMLingua(LongLLMLinguaOptions(rate=0.5, piece=90, segment=50))
    source = Source({1: TEXT}, ToyTokenizer())
    with long.open(ToyTokenizer()):
        made = long.rewrite(prompt(), ToyTokenizer())
        pieces = [(1, a, a + 85) for a in (0, 850, 1500)]
        ranked = long._ranked(source, pieces, "What is the key?")
        scores = {p: long._perplexity(TEXT[p[1] : p[2]], of="\nWhat is the key? The text") for p in pieces}
    assert sorted(ranked) == pieces and all(math.isfinite(score) for score in scores.values())
    assert made.kept is not None
    spans = sorted((k for k in made.kept if k.segment == 1), key=lambda k: k.at)
    starts = [span.start for span in spans]
    assert starts != sorted(starts)
    trail = Trail([Evidence(segment=1, start=spans[0].start, end=spans[0].end)])
    trail.follow(made.kept)
    assert trail.whole == 1


def test_losses_are_those_of_one_pass_over_what_was_kept() -> None:
    model, tokenizer = open_model("loom-tiny", "cpu", classifier=False)
    ids, _ = pieces_of(tokenizer, TEXT[:400])
    stream = Stream(model, 1, 4096)
    stream.losses(ids[:20])
    stream.keep(ids[5:10])
    stream.keep(ids[20:30])
    found = stream.losses(ids[30:50])
    whole = torch.tensor([[1, *ids[5:10], *ids[20:50]]])
    logits = model(input_ids=whole).logits[0].float().log_softmax(dim=-1)
    expected = [-float(logits[15 + i, token]) for i, token in enumerate(ids[30:50])]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


def test_a_small_window_forgets_the_oldest() -> None:
    model, tokenizer = open_model("loom-tiny", "cpu", classifier=False)
    ids, _ = pieces_of(tokenizer, TEXT)
    stream = Stream(model, 1, 64, ids[:10])
    for first in range(0, 200, 20):
        assert stream.losses(ids[first : first + 20]).isfinite().all()
        stream.keep(ids[first : first + 20])
        assert stream._cache.get_seq_length() <= 64


def test_the_best_units_within_a_quota() -> None:
    units = [Unit((0, i, i + 1), cost, score) for i, (cost, score) in enumerate([(1, 0.5), (2, 0.9), (1, 0.5)])]
    assert best(units, 3) == [0, 1] and best(units, 0) == []
    assert best([*units, Unit((0, 3, 4), 3, 0.0, forced=True)], 4) == [3]


def test_models_that_are_missing_or_of_the_wrong_kind(
    classifier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOM_OFFLINE", "1")
    with pytest.raises(ModelError, match="not a token classifier"):
        open_model("loom-tiny", "cpu", classifier=True)
    with pytest.raises(ModelError, match="not a causal language model"):
        open_model(classifier, "cpu", classifier=False)
    with pytest.raises(ModelError, match="cannot be opened"):
        open_model(str(tmp_path), "cpu", classifier=False)
    with pytest.raises(ValueError, match="not a share"):
        LLMLinguaOptions(rate=0.0)
