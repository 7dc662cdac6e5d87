"""Longest common subsequences by bit-parallel rows (Hyyrö 2004). Knows sequences of hashable items only.

One row of the table is a whole number whose bit j is 0 where the common length grows from column j to j + 1, so a row
costs a few operations on whole numbers instead of one per cell. The same bits answer the only question that walking
back asks, which is why the walk here takes exactly the cells that a full table would give.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def positions(columns: Sequence[Hashable]) -> dict[Hashable, int]:
    """For each item, the bits of the columns that hold it."""
    found: dict[Hashable, int] = {}
    for j, item in enumerate(columns):
        found[item] = found.get(item, 0) | (1 << j)
    return found


def _rows(rows: Sequence[Hashable], columns: Sequence[Hashable]) -> list[int]:
    found, full = positions(columns), (1 << len(columns)) - 1
    row, table = full, []
    for item in rows:
        match = row & found.get(item, 0)
        row = ((row + match) | (row - match)) & full
        table.append(row)
    return table


def length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence."""
    if not a or not b:
        return 0
    return len(b) - _rows(a, b)[-1].bit_count()


def walk(rows: Sequence[Hashable], columns: Sequence[Hashable]) -> list[tuple[int, int]]:
    """The (row, column) pairs of one longest common subsequence, last first.

    From the far corner: equal items are taken; else one row is given up where the row above is longer than the
    column before, and one column otherwise. Scorers differ in which way they go on a tie, which may change the words.
    """
    table, pairs = _rows(rows, columns), []
    i, j = len(rows) - 1, len(columns) - 1
    while i >= 0 and j >= 0:
        if rows[i] == columns[j]:
            pairs.append((i, j))
            i, j = i - 1, j - 1
        elif table[i] >> j & 1:
            j -= 1
        else:
            i -= 1
    return pairs
