"""A token classifier without training, for tests: random weights over characters. Its choices mean nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, BertForTokenClassification, PreTrainedTokenizerFast

SEED = 3


def make_classifier(folder: Path) -> None:
    """Save a one-layer BERT with the labels drop and keep, and its tokenizer of characters, into a folder."""
    known = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *map(chr, range(33, 127))]
    made = Tokenizer(models.WordLevel({token: i for i, token in enumerate(known)}, unk_token="[UNK]"))
    split: Any = pre_tokenizers.Split("", "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), split])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=made, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")
    config: Any = AutoConfig
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model: Any = BertForTokenClassification(
            config.for_model(
                "bert",
                vocab_size=len(known),
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=66,
                num_labels=2,
                initializer_range=1.0,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
