"""Members of zip and tar archives, taken out one by one and never beyond a size. Knows no pin."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from loom_core.contract.errors import DataError

CHUNK_BYTES = 1 << 20


def unpack(archive: Path, member: str, target: Path, *, most_bytes: int, hint: str) -> None:
    """Write one member of an archive into `target`.

    Raises DataError where there is no such member, the archive is damaged, or the member is longer than `most_bytes`.
    """
    try:
        with _opened(archive, member) as inner, target.open("wb") as file:
            while chunk := inner.read(CHUNK_BYTES):
                file.write(chunk)
                if file.tell() > most_bytes:
                    why = f"more than {most_bytes:,} bytes"
                    raise DataError(f"member {member!r} of an archive is too long", where=str(archive), why=why)
    except KeyError:
        raise DataError(f"no member {member!r} in an archive", where=str(archive), hint=hint) from None
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, RuntimeError) as error:
        raise DataError("an archive cannot be unpacked", where=str(archive), why=str(error), hint=hint) from error


@contextmanager
def _opened(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """A member of an archive, to be read. Raises KeyError where it has none of that name."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file, file.open(member) as inner:
            yield inner
        return
    with tarfile.open(archive) as tar:
        found = tar.extractfile(member)
        if found is None:
            raise KeyError(member)
        with found:
            yield found
