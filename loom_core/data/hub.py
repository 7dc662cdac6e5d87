"""Files of data sets on the Hugging Face hub, fetched through huggingface_hub: resume, its cache, gating, tokens.

huggingface_hub is imported on use (`loom-core[hub]`). Knows pins; verifies nothing beyond sizes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from loom_core.contract.errors import DataError
from loom_core.data.download import MOST_BYTES, RETRIED, Http, Unreachable, size_refused
from loom_core.data.pins import Pin, Unavailable

INSTALL = 'pip install "loom-core[hub]"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """Where to ask, and the cache that downloads go to. A token comes from HF_TOKEN or the hub's own login."""

    endpoint: str
    cache: Path
    http: Http

    def fetch(self, pin: Pin, *, n_bytes: int | None = None, anew: bool = False) -> Path:
        """The file in the hub's cache, fetched where it is not there, or in any case where `anew`.

        n_bytes: the size it must have, where known. Raises Unreachable where the hub does not answer, Unavailable
        where the data set is gated or huggingface_hub is not installed, DataError where the file is gone or too long.
        """
        try:
            from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
            from huggingface_hub.errors import HfHubHTTPError
        except ImportError as error:
            why = f"files of the hub are fetched with huggingface_hub, which is not installed ({error})"
            what = f"missing data file {pin.upstream_path}"
            raise Unavailable(what, where=pin.text, why=why, hint=f"{INSTALL}, or name a mirror folder") from error
        url = hf_hub_url(pin.repo, pin.path, repo_type="dataset", revision=pin.revision, endpoint=self.endpoint)
        for attempt in range(1, self.http.attempts + 1):
            try:
                # Asked by itself first: the download's own retries wait long for a host that is not there.
                offered = get_hf_file_metadata(url, timeout=self.http.seconds, endpoint=self.endpoint).size
                limit = MOST_BYTES if n_bytes is None else n_bytes
                if offered is not None and (offered > limit or n_bytes not in (None, offered)):
                    raise size_refused(url, n_bytes, offered)
                return Path(
                    hf_hub_download(
                        pin.repo,
                        pin.path,
                        repo_type="dataset",
                        revision=pin.revision,
                        endpoint=self.endpoint,
                        cache_dir=self.cache,
                        force_download=anew,
                        etag_timeout=self.http.seconds,
                    )
                )
            except HfHubHTTPError as error:
                code = error.response.status_code
                if code not in RETRIED or attempt == self.http.attempts:
                    raise _refused(pin, url, code, error) from error
            except DataError:
                raise
            except OSError as error:
                if error.errno is not None:
                    hint = "name another folder with HF_HUB_CACHE"
                    what, where = "the hub's cache cannot be written", str(self.cache)
                    raise DataError(what, where=where, why=str(error), hint=hint) from error
                raise Unreachable(f"{url}: {error}") from error
            except Exception as error:  # the library that it speaks HTTP with changes with its version
                if attempt == self.http.attempts:
                    raise Unreachable(f"{url}: {error or type(error).__name__}") from error
            time.sleep(self.http.pause_seconds * attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")


def _refused(pin: Pin, url: str, code: int, error: Exception) -> DataError:
    """The hub's refusal in loom's words; the data set's page is where a user acts on it."""
    kind = type(error).__name__
    if code in (401, 403):
        page = url.partition("/resolve/")[0]
        return Unavailable(
            f"data set {pin.repo} is gated, private or gone: no access to {pin.upstream_path}",
            where=pin.text,
            why=f"HTTP {code} ({kind})",
            hint=f"accept its terms at {page}, then set HF_TOKEN (or run `hf auth login`), or name a mirror folder "
            "with --data-dir",
        )
    gone = "the pinned file is gone upstream: update the plugin, or give a mirror with --data-dir"
    return DataError(
        "the hub refused a file",
        where=url,
        why=f"HTTP {code} ({kind})",
        hint=gone if code == 404 else "try again later, or give a mirror with --data-dir",
    )
