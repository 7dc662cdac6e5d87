"""Rows of Parquet files, streamed by row groups. Knows pyarrow, which is imported on use (`loom-core[parquet]`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from loom_core.contract.errors import DataError, nearest
from loom_core.contract.types import Json

ROWS_AT_ONCE = 64
INSTALL = 'pip install "loom-core[parquet]"'


def rows(path: Path, pin: str, required: Collection[str]) -> Iterator[tuple[int, Json]]:
    """(number from 1, row) of each row; a row group is read in pieces, so memory holds a few rows of it.

    required: the columns that must be there. Values come as JSON has them; a date or bytes stay what Parquet says they
    are, so that a check names them. Raises DataError where pyarrow is missing, the file is not Parquet or damaged, or a
    column is missing: the columns that are there are named.
    """
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        why = f"it is a Parquet file, read with pyarrow, which is not installed ({error})"
        raise DataError("a data file cannot be read", where=pin, why=why, hint=INSTALL) from error
    at = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            if missing := [name for name in required if name not in names]:
                raise DataError(
                    f"a data file has no column {missing[0]!r}",
                    where=pin,
                    why=f"its columns: {', '.join(names)}"
                    + (f"; missing too: {', '.join(missing[1:])}" if missing[1:] else ""),
                    hint=f"{nearest(missing[0], names)}; the release may be another than the one the plugin reads",
                )
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    at += 1
                    yield at, row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        where = f"{pin}, row {at + 1}" if at else pin
        why = f"not a Parquet file, or a damaged one: {error}"
        raise DataError(
            "a data file cannot be read", where=where, why=why, hint="loom data verify BENCHMARK"
        ) from error
