"""The records that the authors released on the hub, in both sets: where they lie, and what they hold. Asks nothing.

100 of each task and length: data/TASK/LEVEL.json. 1,000: LEVEL/TASK-I-of-N.parquet, as the hub's own uploader names the
shards of a split; how many there are at a length is found by looking.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from loom_core.api import Data, DataError, DataSource, Unavailable
from loom_core.api.records import Record, read_records, text

Release = Literal["100", "1000"]
HUB = "hf:RMT-team/babilong@ee0d588794c7ac098062ee0d247c733d62e94fe2:data"
"""Earlier revisions are parquet. Digests that are not in `DIGESTS` are recorded at the first download."""
HUB_1000 = "hf:RMT-team/babilong-1k-samples@main:"
"""Of its revisions only the beginning of one (fc4d1a5) was seen; digests are recorded at the first download."""
DIGESTS = {("qa1", 16 * 1024): "2687478021246215c84060fa7d1f2be0b7058a09d774c169d9d75a56fd6994c0"}
LICENCE = "Apache-2.0; bAbI BSD or CC BY 3.0; PG-19 texts"
LEVELS: Mapping[Release, tuple[int, ...]] = {
    "100": (0, *(1024 * 2**i for i in range(10)), 1024**2, 10 * 1024**2),
    "1000": (0, *(1024 * 2**i for i in range(8))),
}
"""Lengths in tokens, 0 for the facts alone."""
MOST_SHARDS = 3
"""The uploader begins a shard at 500 MB; a split at 128k has about that."""
FIELDS = {"input": text, "target": text, "question": text}


def level_name(tokens: int) -> str:
    """The authors' name of a length: 0k, 1k, …, 512k, 1M."""
    if tokens and tokens % 1024**2 == 0:
        return f"{tokens // 1024**2}M"
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else str(tokens)


@dataclass(frozen=True, slots=True)
class Cell:
    """The records of one task at one length."""

    release: Release
    task: str
    level: int

    @property
    def usual(self) -> DataSource:
        """The file that has them all, where there is one."""
        if self.release == "1000":
            return self._shards(1)[0]
        path = f"{HUB}/{self.task}/{level_name(self.level)}.json"
        sha256 = DIGESTS.get((self.task, self.level), "")
        return DataSource(pin=path, folder="babilong", sha256=sha256, licence=LICENCE)

    def _shards(self, n: int) -> tuple[DataSource, ...]:
        names = (f"{level_name(self.level)}/{self.task}-{i:05}-of-{n:05}.parquet" for i in range(n))
        # The two sets may lie in one folder of a mirror: no file of one is named as any of the other.
        return tuple(DataSource(pin=HUB_1000 + name, folder="babilong", licence=LICENCE) for name in names)

    def files(self, data: Data) -> tuple[DataSource, ...]:
        """Those that are there, in order. Raises Unavailable, or the DataError of the usual file."""
        if self.release == "100":
            data.path(self.usual)
            return (self.usual,)
        first: DataError | None = None
        for n in range(1, MOST_SHARDS + 1):
            try:
                for source in self._shards(n):
                    data.path(source)
                return self._shards(n)
            except DataError as error:
                if not (isinstance(error, Unavailable) or error.why.startswith("HTTP 404")):
                    raise
                first = first or error
        assert first is not None
        raise first

    def records(self, data: Data, files: tuple[DataSource, ...]) -> Iterator[tuple[int, Record]]:
        """The right records, numbered from 1 through all files; wrong ones are noted."""
        if self.release == "100":
            return ((record.number, record) for record in read_records(data, files[0], FIELDS, form="json"))
        read = (read_records(data, source, FIELDS, form="parquet") for source in files)
        return enumerate(chain.from_iterable(read), 1)
