"""Stories of facts with a question: read from bAbI's files, or made up from loom's own small world. Knows no prompt.

The world follows what bAbI's first five tasks ask (Weston et al. 2015): one, two and three supporting facts, relations
of two and of three; its people, places and sentences are loom's.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from loom_core.api import DataError

PEOPLE = ("Ada", "Boris", "Clara", "Emil")
PLACES = ("attic", "cellar", "harbour", "library", "market", "stable")
THINGS = ("compass", "lantern", "violin")
GOES = ("walked to", "hurried to", "went over to", "made for")
TAKES = ("picked up", "took", "grabbed")
GIVES = ("handed", "gave", "passed")
DIRECTIONS = ("north of", "south of", "east of", "west of")
MOST_FACTS = 40
SEPARATOR = re.compile(r"[\t|]")


@dataclass(frozen=True, slots=True)
class Story:
    """Facts in order, a question, its answer, and which facts it needs (indices). labels: all answers of its task,
    where they are not bAbI's own."""

    facts: tuple[str, ...]
    question: str
    answer: str
    support: tuple[int, ...]
    labels: tuple[str, ...] = ()


def read_stories(text: str, *, where: str) -> Iterator[Story]:
    """Every question of a bAbI file, with all facts of its story before it. Raises DataError naming file and line.

    A line is `NUMBER text`, or `NUMBER question TAB answer TAB numbers of supporting facts`; number 1 begins a story.
    Some copies have a "|" for the tab.
    """
    facts: dict[int, str] = {}
    for at, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        head, _, rest = line.strip().partition(" ")
        if not head.isdigit() or not rest:
            raise DataError(
                "a line of a bAbI file is malformed", where=f"{where}, line {at}", why="no number, or no text"
            )
        if int(head) == 1:
            facts = {}
        question, *found = SEPARATOR.split(rest, maxsplit=2)
        if not found:
            facts[int(head)] = rest.strip()
            continue
        answer, support = found[0], found[1] if len(found) > 1 else ""
        order = {number: i for i, number in enumerate(facts)}
        try:
            needed = tuple(order[int(number)] for number in support.split())
        except (KeyError, ValueError) as error:
            why = f"a supporting fact that the story does not have: {error}"
            raise DataError("a line of a bAbI file is malformed", where=f"{where}, line {at}", why=why) from error
        yield Story(tuple(facts.values()), question, answer.strip(), needed)


@dataclass
class World:
    """People who move, take things and give them away. places: by thing, where it was, with the fact that says so."""

    draw: random.Random
    facts: list[str] = field(default_factory=list)
    at: dict[str, tuple[str, int]] = field(default_factory=dict)
    holder: dict[str, tuple[str, int]] = field(default_factory=dict)
    places: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def say(self, fact: str) -> int:
        """Add a fact; its index."""
        self.facts.append(fact)
        return len(self.facts) - 1

    def move(self, person: str) -> None:
        """Somebody goes to another place, with what they hold."""
        here = self.at[person][0] if person in self.at else ""
        place = self.draw.choice([place for place in PLACES if place != here])
        index = self.say(f"{person} {self.draw.choice(GOES)} the {place}.")
        self.at[person] = (place, index)
        for thing, (owner, _) in self.holder.items():
            if owner == person:
                self.places[thing].append((place, index))

    def take(self, person: str, thing: str) -> None:
        """Somebody whose place is known takes a thing."""
        index = self.say(f"{person} {self.draw.choice(TAKES)} the {thing}.")
        self.holder[thing] = (person, index)
        self.places.setdefault(thing, []).append(self.at[person])

    def step(self) -> None:
        """Something happens: mostly moves; a thing that nobody holds is taken by somebody whose place is known."""
        person = self.draw.choice(PEOPLE)
        free = [thing for thing in THINGS if thing not in self.holder]
        if person in self.at and free and self.draw.random() < 0.4:
            self.take(person, self.draw.choice(free))
        else:
            self.move(person)


def _one_fact(draw: random.Random) -> Story:
    world = World(draw)
    for _ in range(draw.randint(3, 8)):
        world.move(draw.choice(PEOPLE))
    person = draw.choice(sorted(world.at))
    place, index = world.at[person]
    return Story(tuple(world.facts), f"Where is {person}?", place, (index,), PLACES)


def _two_facts(draw: random.Random) -> Story:
    world, least = World(draw), draw.randint(6, 12)
    while len(world.facts) < least or not any(len(history) > 1 for history in world.places.values()):
        world.step()
    thing = draw.choice(sorted(thing for thing, history in world.places.items() if len(history) > 1))
    place, index = world.places[thing][-1]
    return Story(
        tuple(world.facts), f"Where is the {thing}?", place, tuple(sorted({world.holder[thing][1], index})), PLACES
    )


def _three_facts(draw: random.Random) -> Story:
    """The place before the last one, which is asked for by name and so must occur once."""
    world, least = World(draw), draw.randint(10, 18)

    def able() -> list[str]:
        known = {thing: [place for place, _ in history] for thing, history in world.places.items()}
        return sorted(thing for thing, names in known.items() if len(names) > 2 and names.count(names[-1]) == 1)

    while len(world.facts) < least or not able():
        world.step()
        if len(world.facts) > MOST_FACTS:
            return _three_facts(draw)
    thing = draw.choice(able())
    (before, first), (last, second) = world.places[thing][-2:]
    support = tuple(sorted({world.holder[thing][1], first, second}))
    return Story(tuple(world.facts), f"Where was the {thing} before the {last}?", before, support, PLACES)


def _two_relations(draw: random.Random) -> Story:
    first, middle, last = draw.sample(PLACES, 3)
    direction = draw.choice(DIRECTIONS)
    rows = [(f"The {first} is {direction} the {middle}.", first), (f"The {middle} is {direction} the {last}.", last)]
    draw.shuffle(rows)
    asked = draw.choice((first, last))
    question = f"What is {direction} the {middle}?" if asked == first else f"What is the {middle} {direction}?"
    support = next(i for i, (_, place) in enumerate(rows) if place == asked)
    return Story(tuple(fact for fact, _ in rows), question, asked, (support,), PLACES)


def _three_relations(draw: random.Random) -> Story:
    """Who gave what to whom: giver, thing or receiver of a gift whose other two parts occur once together."""
    world, gifts = World(draw), list[tuple[str, str, str, int]]()
    for _ in range(draw.randint(3, 6)):
        giver, receiver = draw.sample(PEOPLE, 2)
        thing = draw.choice(THINGS)
        gifts.append((giver, thing, receiver, world.say(f"{giver} {draw.choice(GIVES)} the {thing} to {receiver}.")))
        if draw.random() < 0.5:
            world.move(draw.choice(PEOPLE))
    # The last gift of all has no later one that could make its question ambiguous, unless it repeats another's parts.
    order = [0, 1, 2]
    draw.shuffle(order)
    for part in order:
        for gift in sorted(gifts, key=lambda _: draw.random()):
            rest = [gift[i] for i in range(3) if i != part]
            if sum([other[i] for i in range(3) if i != part] == rest for other in gifts) == 1:
                giver, thing, receiver, index = gift
                question = (
                    f"Who gave the {thing} to {receiver}?",
                    f"What did {giver} give to {receiver}?",
                    f"To whom did {giver} give the {thing}?",
                )[part]
                return Story(tuple(world.facts), question, str(gift[part]), (index,), (*PEOPLE, *THINGS))
    return _three_relations(draw)


MAKERS: dict[str, Callable[[random.Random], Story]] = {
    "qa1": _one_fact,
    "qa2": _two_facts,
    "qa3": _three_facts,
    "qa4": _two_relations,
    "qa5": _three_relations,
}


def made(task: str, draw: random.Random) -> Story:
    """A story of one of loom's five tasks."""
    return MAKERS[task](draw)


def in_turn(stories: Sequence[Story], seed: int, task: str) -> list[Story]:
    """All of them in an order drawn from the seed."""
    order = list(range(len(stories)))
    random.Random(f"babilong {seed} {task} stories").shuffle(order)
    return [stories[i] for i in order]


def chosen(stories: Sequence[Story], indices: Sequence[int], *, where: str) -> list[Story]:
    """The stories at these indices (from 0, in the order of the file). Raises DataError where the file is too short."""
    if beyond := [i for i in indices if not 0 <= i < len(stories)]:
        why = f"a story with the index {beyond[0]} is asked for, and it has {len(stories)}"
        raise DataError("a bAbI file is not the one that the authors' indices were drawn for", where=where, why=why)
    return [stories[i] for i in indices]
