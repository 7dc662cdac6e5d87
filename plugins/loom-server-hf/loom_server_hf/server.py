"""The server `hf`: describes models without torch, and opens them; only opening imports torch."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from loom_core.api import Arm, ModelCard, Tokenizer
from loom_server_hf.card import describe
from loom_server_hf.folder import read_object, tokenizer_folder
from loom_server_hf.plugin import HFModelOptions, HFServerOptions
from loom_server_hf.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from loom_server_hf.session import HFSession


class HFServer:
    """A server of loom (`loom_core.contract.protocols.Server`); built with its options."""

    def __init__(self, options: HFServerOptions) -> None:
        self._options = options

    def describe(self, model: str, options: HFModelOptions) -> ModelCard:
        """The model's card; loads no weights and needs no GPU."""
        return describe(model, options).card

    def tokenizer(self, model: str) -> Tokenizer:
        """The tokenizer of a model folder or hub id, without weights: for servers that have no reader of their own."""
        path = tokenizer_folder(model)
        config = path / "config.json"
        return load_tokenizer(path, read_object(config) if config.is_file() else {}, name=model)

    def check_arm(self, arm: Arm) -> None:
        """Refuse methods that cannot stand in one arm. Raises ModelError, which names the rule."""
        from loom_server_hf.session import load_picker, load_policy

        load_policy(arm)
        load_picker(arm)

    def open(self, model: str, options: HFModelOptions) -> AbstractContextManager[HFSession]:
        """Load the model once for all arms. Raises ModelError with the reason where it cannot be loaded."""
        from loom_server_hf.loading import opened

        return opened(model, options, self._options)
