"""From a model's name to a folder on disk, its files, and one digest over them. Reads bytes; knows no torch.

A name is a folder, or a hub id that `huggingface_hub` resolves to a snapshot folder of its own cache. The sha256 of a
weight file is cached by path, size and modification time, so that a model of many gigabytes is read once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loom_core.api import ModelError, digest

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py")
"""What a hub snapshot needs beside its weights: configuration, tokenizer, template, and code that comes with it."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
)
TOKENIZER_EXTRAS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
CONFIGURATION = ("config.json", "generation_config.json")
RACY_SECONDS = 2.0
"""A file changed this recently may change again within one tick of its time stamp: its hash is not cached."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model's folder, its parsed config.json, and the names of its weight files."""

    name: str
    path: Path
    config: Mapping[str, Any]
    weights: tuple[str, ...]

    @property
    def generation_config(self) -> Mapping[str, Any]:
        """The parsed generation_config.json; empty where there is none."""
        path = self.path / "generation_config.json"
        return read_object(path) if path.is_file() else {}

    def digest(self, *, code: bool) -> str:
        """sha256 over configuration, tokenizer and weights, and over Python files where `code` may run.

        It depends on names and contents, not on where the folder lies.
        """
        names = [n for n in (*CONFIGURATION, *TOKENIZER_FILES, *TOKENIZER_EXTRAS) if (self.path / n).is_file()]
        names += sorted(p.name for p in self.path.glob("*.py")) if code else []
        hashes = {name: sha256_of(self.path / name) for name in names}
        hashes.update(cached_sha256(self.path, self.weights))
        return digest(hashes)


def locate(model: str, revision: str | None = None) -> ModelFolder:
    """The folder of a model given by path or hub id, checked for a configuration, a tokenizer and weights.

    Raises ModelError saying which of them is missing, and where it was looked for.
    """
    path = Path(model).expanduser()
    if os.path.isdir(path):  # unlike Path's own question, False for a text that is not a possible path
        name = path.resolve().name
        if revision is not None:
            raise ModelError(
                f"revision={revision!r} has no meaning for a folder",
                where=str(path),
                hint="leave revision out, or give a hub id",
            )
    elif os.path.exists(path):
        raise ModelError(f"{model} is a file, not a model folder", hint="give the folder that holds config.json")
    elif model.startswith((".", "~", os.sep)) or not HUB_ID.fullmatch(model):
        raise ModelError(f"there is no model folder {model}", hint="check the path, or give a hub id (owner/name)")
    else:
        name, path = model, snapshot(model, revision)
    if not (path / "config.json").is_file():
        adapter = (path / "adapter_config.json").is_file()
        raise ModelError(
            f"{model} has no config.json",
            where=str(path),
            why="the folder holds an adapter, not a whole model" if adapter else "",
            hint="merge it into its base model, or give that one and --model-option lora=FOLDER for this"
            if adapter
            else "give the folder that save_pretrained() wrote, or a hub id (owner/name)",
        )
    if not any((path / file).is_file() for file in TOKENIZER_FILES):
        raise ModelError(
            f"{model} has no tokenizer",
            where=str(path),
            why="none of these files is there: " + ", ".join(TOKENIZER_FILES),
            hint="copy the tokenizer's files there: tokenizer.save_pretrained(FOLDER)",
        )
    return ModelFolder(name, path, read_object(path / "config.json"), weight_files(path, model))


def tokenizer_folder(model: str) -> Path:
    """The folder of a tokenizer given by path or hub id; of a hub model no weights are downloaded.

    Raises ModelError where it is not there.
    """
    path = Path(model).expanduser()
    if not os.path.isdir(path):
        if os.path.exists(path) or not HUB_ID.fullmatch(model):
            raise ModelError(
                f"there is no tokenizer folder {model}", hint="check the path, or give a hub id (owner/name)"
            )
        path = snapshot(model, None, weights=())
    if not any((path / file).is_file() for file in TOKENIZER_FILES):
        raise ModelError(f"{model} has no tokenizer", where=str(path), why="none of: " + ", ".join(TOKENIZER_FILES))
    return path


def snapshot(model: str, revision: str | None, weights: Sequence[str] = ("*.safetensors", "*.bin")) -> Path:
    """The snapshot folder of a hub model, downloaded where it is not cached; the first kind of weights that it has."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f"{model}@{revision or 'main'} on the hub"
    try:
        for kind in weights or SMALL_FILES[:1]:
            patterns = [*SMALL_FILES, kind]
            skip = ["*/*", "consolidated*"]
            found = snapshot_download(
                model,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=skip,
                local_files_only=offline(),
            )
            path = Path(found)
            if any(path.glob(kind)):
                break
        return path
    except GatedRepoError as error:
        raise ModelError(
            f"{model} may be downloaded only by those who accepted its terms",
            where=at,
            why=_first_line(error),
            hint="accept them on its page, then log in: hf auth login",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{model} has no revision {revision!r}", where=at, hint="check the branch or tag") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"there is no model {model}: no such folder, and none on the hub",
            where=at,
            why=_first_line(error),
            hint="check the name or the path; a private model needs: hf auth login",
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{model} is not a folder here, and the hub cannot be asked: offline",
            where=at,
            why=_first_line(error),
            hint=f"give a folder, or fetch it once where there is a network: hf download {model}",
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"{model} cannot be downloaded", where=at, why=_first_line(error), hint="try again, or give a folder"
        ) from error


def offline() -> bool:
    """True where LOOM_OFFLINE forbids downloads."""
    return os.environ.get("LOOM_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


def weight_files(path: Path, model: str) -> tuple[str, ...]:
    """The names of the weight files that transformers would load; raises ModelError where one is missing."""
    for single, index in (
        ("model.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ):
        if (path / single).is_file():
            return (single,)
        if (path / index).is_file():
            names = sorted(set(read_object(path / index).get("weight_map", {}).values()))
            if missing := [name for name in names if not (path / name).is_file()]:
                raise ModelError(
                    f"{model} lacks {len(missing)} of its {len(names)} weight files",
                    where=str(path),
                    why=f"{index} names {missing[0]}, which is not there",
                    hint="finish the download or the copy",
                )
            return (*names, index)
    raise ModelError(
        f"{model} has no weights",
        where=str(path),
        why="neither model.safetensors nor pytorch_model.bin is there, whole or in shards",
        hint="finish the download, or save the model there: model.save_pretrained(FOLDER)",
    )


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; raises ModelError naming it."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path.name} cannot be read", where=str(path), why=str(error)) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path.name} is not a JSON object", where=str(path))
    return value


def tensor_headers(path: Path, weights: tuple[str, ...]) -> list[tuple[str, tuple[int, ...], str]]:
    """(name, shape, dtype) of every tensor, from the headers of safetensors files; empty for other formats.

    Format: 8 bytes little-endian length, then that many bytes of JSON.
    """
    rows: list[tuple[str, tuple[int, ...], str]] = []
    for name in (n for n in weights if n.endswith(".safetensors")):
        try:
            with (path / name).open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if not 0 < length <= (path / name).stat().st_size - 8:
                    raise ValueError(f"its header claims {length} bytes")
                header = json.loads(file.read(length))
            rows += [(k, tuple(v["shape"]), v["dtype"]) for k, v in header.items() if k != "__metadata__"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{name} is not a readable safetensors file",
                where=str(path / name),
                why=str(error),
                hint="the file is cut off or altered: copy or download it again",
            ) from error
    return rows


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_sha256(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """sha256 of the files, each read only if its path or state is new to the cache.

    The state is size, times of modification and of status change, and inode: whoever replaces a file may keep its size
    and its modification time (cp -p, rsync, restored images), the system does not keep the other two for him.
    """
    store = cache_folder() / "weights.json"
    known = _read_cache(store)
    hashes, fresh = {}, {}
    for name in names:
        path = (folder / name).resolve()
        stat = path.stat()
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        entry = known.get(str(path))
        if entry is not None and entry[:-1] == state:
            hashes[name] = str(entry[-1])
            continue
        hashes[name] = sha256_of(path)
        if time.time() - max(stat.st_mtime, stat.st_ctime) > RACY_SECONDS:
            fresh[str(path)] = [*state, hashes[name]]
    if fresh:
        _write_cache(store, {**_read_cache(store), **fresh})
    return hashes


def cache_folder() -> Path:
    """The user's cache folder for loom; LOOM_CACHE names another."""
    return Path(os.environ.get("LOOM_CACHE") or Path.home() / ".cache" / "loom").expanduser()


def _read_cache(store: Path) -> dict[str, list[Any]]:
    """The cache; an unreadable one is an empty one, since everything in it can be computed again."""
    try:
        value = json.loads(store.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    entries = value.items() if isinstance(value, dict) else ()
    return {k: v for k, v in entries if isinstance(v, list) and len(v) == 5}


def _write_cache(store: Path, value: Mapping[str, list[Any]]) -> None:
    """Replace the cache whole. A cache that cannot be written costs time, never a result."""
    with suppress(OSError):
        store.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=store.parent, prefix=store.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(value, file)
            os.replace(partial, store)
        except OSError:
            os.unlink(partial)
            raise


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
