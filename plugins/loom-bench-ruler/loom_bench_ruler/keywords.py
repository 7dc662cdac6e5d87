"""The keys of official needles: every adjective and noun of wonderwords with a hyphen between, in order. Draws none.

The authors' niah.py builds the set of all of them (six million) and sorts it, then draws from that list. Here a place
in that list is found without building it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import overload


class Keywords(Sequence[str]):
    """`sorted({f"{a}-{n}" for a in adjectives for n in nouns})`, each text made when it is asked for.

    All texts with one adjective stand together, unless the adjective with its hyphen begins another one ("well" and
    "well-known"): the texts of such a family are sorted together, and are the only ones that are built.
    """

    def __init__(self, adjectives: Sequence[str], nouns: Sequence[str]) -> None:
        self._nouns = sorted(set(nouns))
        heads = sorted({f"{adjective}-" for adjective in adjectives})
        families: list[list[str]] = []
        for head in heads:
            if families and head.startswith(families[-1][0]):
                families[-1].append(head)
            else:
                families.append([head])
        self._heads = [family[0] for family in families]
        self._built = {
            i: sorted({head + noun for head in family for noun in self._nouns})
            for i, family in enumerate(families)
            if len(family) > 1
        }
        sizes = (len(self._built.get(i, self._nouns)) for i in range(len(families)))
        self._starts = list(accumulate(sizes, initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        i = bisect_right(self._starts, place) - 1
        offset = place - self._starts[i]
        built = self._built.get(i)
        return built[offset] if built is not None else self._heads[i] + self._nouns[offset]
