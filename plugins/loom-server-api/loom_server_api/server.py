"""The server `api`: describes a model by asking its endpoint, and opens a session on it. Knows no request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loom_core.api import ModelCard
from loom_server_api.body import Composer
from loom_server_api.card import describe
from loom_server_api.plugin import ApiOptions
from loom_server_api.session import ApiSession


class ApiServer:
    """Built with its options; the model's own options are none."""

    def __init__(self, options: ApiOptions) -> None:
        self._options = options

    def describe(self, model: str, options: Any) -> ModelCard:
        """The model's card, from what the endpoint reports. Raises ModelError where it does not serve this model."""
        return describe(model, self._options).card

    @contextmanager
    def open(self, model: str, options: Any) -> Iterator[ApiSession]:
        """A session on the endpoint."""
        found = describe(model, self._options)
        with ApiSession(found.card, self._options, Composer(model, self._options, found.engine)) as session:
            yield session
