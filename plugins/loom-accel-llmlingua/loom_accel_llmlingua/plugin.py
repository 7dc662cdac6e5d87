"""Registers `llmlingua`, `longllmlingua` and `llmlingua2`: options and what they promise. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loom_core.api import AugmentationSpec, hookimpl, option

SMALL = "loom-tiny"
CLASSIFIER = "microsoft/llmlingua-2-xlm-roberta-large-meetingbank"


@dataclass(frozen=True)
class CompressionOptions:
    """What every compressor is told."""

    rate: float = option(0.5, help="share of the context's tokens that is kept, by the evaluated model's tokenizer")
    device: str = option("cpu", help="where the scoring model runs: cpu, cuda or cuda:N", how=True)

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate={self.rate} is not a share in (0, 1]; 4x is rate=0.25")


@dataclass(frozen=True)
class LLMLinguaOptions(CompressionOptions):
    """Which small causal model scores, and in which steps. Defaults are the paper's where it gives them."""

    model: str = option(SMALL, help="causal language model that scores: an installed model, a folder or a hub name")
    piece: int = option(300, help="most tokens of a piece, the unit that the coarse step keeps or drops", low=1)
    coarse: float = option(2.0, help="the coarse step keeps pieces up to this many times the target", low=1.0)
    segment: int = option(200, help="scorer's tokens that are compressed at a time, given what was kept before", low=1)


@dataclass(frozen=True)
class LongLLMLinguaOptions(LLMLinguaOptions):
    """The question-aware form."""

    spread: float = option(0.3, help="how much more of the best piece is kept than on average", low=0.0, high=1.0)
    reorder: bool = option(True, help="put the pieces that suit the question best first")


@dataclass(frozen=True)
class LLMLingua2Options(CompressionOptions):
    """Which classifier scores words, and which are kept whatever it says."""

    model: str = option(CLASSIFIER, help="token classifier with the labels drop and keep: a folder or a hub name")
    force: tuple[str, ...] = option((), help=r"words and signs that are always kept: {.,?,\n}")
    digits: bool = option(False, help="keep every word that holds a digit")


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The three compressors."""
    rows: list[tuple[str, str, str, type, bool, str]] = [
        (
            "llmlingua",
            "prompt compression: pieces, then tokens, that a small language model finds surprising are kept",
            "causal:LLMLingua",
            LLMLinguaOptions,
            False,
            "Jiang et al. 2023, LLMLingua, arXiv:2310.05736, sections 4.1 and 4.2",
        ),
        (
            "longllmlingua",
            "prompt compression by the question: ranked pieces in a new order, contrastive perplexity of tokens",
            "causal:LongLLMLingua",
            LongLLMLinguaOptions,
            True,
            "Jiang et al. 2023, LongLLMLingua, arXiv:2310.06839, sections 4.1 to 4.3; without subsequence recovery",
        ),
        (
            "llmlingua2",
            "prompt compression: a token classifier says which words are kept",
            "classifier:LLMLingua2",
            LLMLingua2Options,
            False,
            "Pan et al. 2024, LLMLingua-2, arXiv:2403.12968, section 4",
        ),
    ]
    return tuple(
        AugmentationSpec(
            name=name,
            version="1",
            summary=summary,
            factory=f"loom_accel_llmlingua.{place}",
            kind="prompt",
            options=options,
            saves="real",
            query_aware=aware,
            phase="prompt",
            source=f"{source}; defaults as in microsoft/LLMLingua:llmlingua/prompt_compressor.py",
            status="never run with the authors' models",
        )
        for name, summary, place, options, aware, source in rows
    )
