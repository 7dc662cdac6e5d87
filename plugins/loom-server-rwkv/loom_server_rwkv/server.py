"""The server `rwkv`: describes a checkpoint without loading it, and opens it with the rwkv package."""

from __future__ import annotations

import gc
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loom_core.api import ModelCard, ModelError, Tokenizer
from loom_core.api.serving import readers
from loom_server_rwkv.plugin import RwkvModelOptions, RwkvOptions
from loom_server_rwkv.session import RwkvSession


class RwkvServer:
    """Built with its options."""

    def __init__(self, options: RwkvOptions) -> None:
        self._options = options

    def describe(self, model: str, options: RwkvModelOptions) -> ModelCard:
        """The checkpoint's card. Its digest is the sha256 of the whole file."""
        path = checkpoint(model)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return ModelCard(
            name=path.stem,
            path=str(path),
            digest=digest,
            window=options.window,
            tokenizer=tokenizer(options.tokenizer),
            facts={"strategy": options.strategy, "n_bytes": path.stat().st_size},
        )

    @contextmanager
    def open(self, model: str, options: RwkvModelOptions) -> Iterator[RwkvSession]:
        """A session on the loaded checkpoint. Raises ModelError with the package's own words where it is not loaded."""
        card = self.describe(model, options)
        set_threads(self._options.threads)
        session = RwkvSession(load(Path(card.path), options.strategy), card, self._options)
        try:
            yield session
        finally:
            session.close()
            gc.collect()


def checkpoint(model: str) -> Path:
    """The .pth file that `model` names: itself, or the only one of a folder."""
    path = Path(model).expanduser().resolve()
    found = sorted(path.glob("*.pth")) if path.is_dir() else [path]
    if len(found) != 1 or not found[0].is_file() or found[0].suffix != ".pth":
        named = ", ".join(file.name for file in found) if path.is_dir() else "not there, or not a .pth file"
        hint = "give a .pth file, or a folder with one; models in transformers' format run on the server hf"
        raise ModelError("not an RWKV checkpoint", where=model, why=named or "no .pth file in it", hint=hint)
    return found[0]


def tokenizer(name: str) -> Tokenizer:
    """The tokenizer that the option asks for."""
    if name != "world":
        return readers.tokenizer(name, asked_by="server rwkv, model option tokenizer")
    from loom_server_rwkv.world import WorldTokenizer

    return WorldTokenizer()


def set_threads(threads: int | None) -> None:
    """Threads of torch in this process: the option's, else LOOM_THREADS, else torch's own choice."""
    import torch

    text = os.environ.get("LOOM_THREADS", "")
    if threads is None and text.isdigit() and int(text) > 0:
        threads = int(text)
    if threads is not None:
        torch.set_num_threads(threads)


def load(path: Path, strategy: str) -> Any:
    """The package's model. The package is configured by the environment before its first import, for the process."""
    import torch

    try:
        names = set(torch.load(path, map_location="cpu", mmap=True, weights_only=True))
    except Exception as error:  # whatever torch raises over a file that is not a checkpoint
        raise ModelError("not an RWKV checkpoint", where=str(path), why=str(error).splitlines()[0]) from error
    if "emb.weight" not in names:
        raise ModelError("not an RWKV checkpoint", where=str(path), why="it has no weight named emb.weight")
    seventh = "1" if "blocks.0.att.r_k" in names else "0"
    os.environ.setdefault("RWKV_JIT_ON", "1")
    os.environ.setdefault("RWKV_CUDA_ON", "0")
    if "rwkv.model" in sys.modules and os.environ.get("RWKV_V7_ON", "0") != seventh:
        why = "the package rwkv is set up for RWKV-7 or for earlier models once in a process"
        raise ModelError("this process has loaded the other kind of RWKV", why=why, hint="run it as a run of its own")
    os.environ["RWKV_V7_ON"] = seventh
    try:
        import rwkv.model as package  # type: ignore[import-untyped]

        # It adds the suffix itself, and for RWKV-7 always.
        return package.RWKV(model=str(path.with_suffix("")), strategy=strategy)
    except Exception as error:  # the package raises AssertionError, KeyError and what torch raises
        words = str(error).splitlines()
        why = f"{type(error).__name__}: {words[0] if words else ''}"
        raise ModelError("the rwkv package did not load this", where=str(path), why=why) from error
