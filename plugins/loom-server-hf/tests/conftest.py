"""A tiny random Llama with its own tokenizer, made once per test run; copies of it that tests may spoil."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

LINES = (
    "The quick brown fox jumps over the lazy dog while the band plays on.",
    "What is the pass key? The pass key is 8213947. Remember it. 8213947 is the pass key.",
    "Numbers such as 0 1 2 3 4 5 6 7 8 9 and words; commas, full stops. New lines\nand tabs\tas well.",
    "Die Katze schläft auf dem Sofa, und der Käse ist alt. 日本語のテキスト。",
)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIALS = ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def make_tokenizer(*, add_bos: bool = True, template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on four lines."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator(LINES, trainer)
    if add_bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    untyped: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = untyped(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=SPECIALS[3:],
    )
    tokenizer.chat_template = template
    return tokenizer


def make_config(**changes: Any) -> LlamaConfig:
    """Two layers, four heads, two KV heads."""
    values: dict[str, Any] = {
        "vocab_size": 400,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        # Wide weights: with the usual 0.02 a random model repeats one token for ever.
        "initializer_range": 0.2,
    }
    return LlamaConfig(**{**values, **changes})


def save_model(
    folder: Path, *, seed: int = 0, tokenizer: PreTrainedTokenizerFast | None = None, **changes: Any
) -> Path:
    """A random model with its tokenizer in `folder`."""
    torch.manual_seed(seed)
    LlamaForCausalLM(make_config(**changes)).save_pretrained(folder)
    (tokenizer or make_tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model; tests do not change it."""
    return save_model(tmp_path_factory.mktemp("models") / "tiny-random")


@pytest.fixture
def copy_of_model(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may spoil."""
    return Path(shutil.copytree(model_folder, tmp_path / "copy"))


@pytest.fixture(scope="session")
def new_model() -> Callable[..., Path]:
    """`save_model`, for tests that need another configuration."""
    return save_model


@pytest.fixture(scope="session")
def new_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """`make_tokenizer`, for tests that need other conventions."""
    return make_tokenizer


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache, and none asks the network."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LOOM_CACHE", str(folder))
    return folder
