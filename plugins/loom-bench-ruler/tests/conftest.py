"""Files of the shape that the authors' have, with made-up text, for all tests of the official variant."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loom_bench_ruler import benchmark
from loom_bench_ruler.settings import LOOM_SETTINGS
from loom_bench_ruler.words import WordBook

from loom_core.api import read_pins

YAML = "scripts/synthetic.yaml"
CONSTANTS = '''
"""Made up, in the shape of the authors' file."""

TASKS = {
    'niah': {
        'tokens_to_generate': 128,
        'template': """Some odd {type_needle_v} here.\\n{context}\\nWhat are all odd {type_needle_v} for {query}?""",
        'answer_prefix': """ The odd {type_needle_v} for {query} are"""
    },
    'variable_tracking': {
        'tokens_to_generate': 30,
        'template': """Follow the chains.\\n\\n{context}\\nWhich hold {query}?""",
        'answer_prefix': """ There are {num_v} that hold {query}: """
    },
    'common_words_extraction': {
        'tokens_to_generate': 120,
        'template': """A list.\\n{context}\\nWhich ten?""",
        'answer_prefix': """ These ten:"""
    },
    'freq_words_extraction': {
        'tokens_to_generate': 50,
        'template': """Count. {context}\\nWhich three?""",
        'answer_prefix': """ These three:"""
    },
    'qa': {
        'tokens_to_generate': 32,
        'template': """Read.\\n\\n{context}\\n\\nQuestion: {query}""",
        'answer_prefix': """ Answer:"""
    },
}
'''
NIAH = """
if args.type_haystack == 'essay':
    haystack = load("essay")
elif args.type_haystack == 'noise':
    haystack = "Dust falls. Nobody minds."
elif args.type_haystack == 'needle':
    haystack = needle
"""
BOOK = WordBook(
    tuple(f"adj{chr(97 + i)}" for i in range(26)),
    tuple(f"noun{chr(97 + i)}{chr(97 + j)}" for i in range(26) for j in range(9)),
    tuple(f"w{chr(97 + i)}{chr(97 + j)}{chr(97 + k)}" for i in range(26) for j in range(26) for k in range(9)),
    "made up",
)
SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": f"Article {a} paragraph {p} says that colour{a}x{p} is the answer. "
                    + "Filler words. " * 5,
                    "qas": [
                        {
                            "question": f"Which colour, {a} {p}?",
                            "is_impossible": False,
                            "answers": [{"text": f"colour{a}x{p}"}, {"text": "colour"}],
                        },
                        {"question": "Impossible?", "is_impossible": True, "answers": []},
                    ],
                }
                for p in range(4)
            ]
        }
        for a in range(30)
    ]
}
HOTPOT = [
    {
        "question": f"Which town, {i}?",
        "answer": f"Town{i}",
        "context": [[f"Title {i} {j}", [f"Fact {i} {j}.", f" It is Town{i} if {j}."]] for j in range(3)],
    }
    for i in range(20)
]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror with files of the authors' shape, labelled as extracts; the word list stands in for wonderwords."""
    monkeypatch.setattr("loom_bench_ruler.official.wonderwords_book", lambda: BOOK)
    sources = read_pins(Path(benchmark.__file__)).values()
    folder = tmp_path / "mirror"
    for source in sources:
        path = source.pin.rpartition(":")[2]
        content = {
            "scripts/data/synthetic/constants.py": CONSTANTS,
            "scripts/data/synthetic/niah.py": NIAH,
            "scripts/data/synthetic/json/english_words.json": json.dumps({i: f"long{i}" for i in range(30_000)}),
            "dataset/dev-v2.0.json": json.dumps(SQUAD),
            "hotpot_dev_distractor_v1.json": json.dumps(HOTPOT),
            YAML: settings_text(),
        }.get(path)
        if content is None and source.folder == "ruler":
            continue
        if content is None:
            name = path.rpartition("/")[2].removesuffix(".txt")
            content = "".join(f"Essay {name} has sentence number {i} here. " for i in range(40))
        put(folder / source.folder, path, content)
    return folder


def put(folder: Path, path: str, content: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(content, "utf-8")
    row = f'[[file]]\npath = "{path}"\nsha256 = "{hashlib.sha256(content.encode()).hexdigest()}"\n'
    with (folder / "EXTRACT.toml").open("a") as file:
        file.write(f"{row}bytes = {len(content.encode())}\n\n")


def settings_text() -> str:
    """The thirteen tasks as the authors' YAML writes them."""
    kinds: dict[str, tuple[str, Any]] = {}
    for name, row in LOOM_SETTINGS.items():
        values: dict[str, Any]
        if name.startswith("niah"):
            task = "niah"
            values = {
                "type_haystack": row.haystack,  # type: ignore[union-attr]
                "type_needle_k": row.keys,  # type: ignore[union-attr]
                "type_needle_v": row.values,  # type: ignore[union-attr]
                "num_needle_k": 1 if name == "niah_multiquery" else row.n_keys,  # type: ignore[union-attr]
                "num_needle_v": row.n_values,  # type: ignore[union-attr]
                "num_needle_q": row.n_queries,  # type: ignore[union-attr]
            }
        else:
            task, values = {
                "vt": ("variable_tracking", {"type_haystack": "noise", "num_chains": 1, "num_hops": 4}),
                "cwe": ("common_words_extraction", {"freq_cw": 30, "freq_ucw": 3, "num_cw": 10}),
                "fwe": ("freq_words_extraction", {"alpha": 2.0}),
                "qa_1": ("qa", {"dataset": "squad"}),
                "qa_2": ("qa", {"dataset": "hotpotqa"}),
            }[name]
        kinds[name] = (task, values)
    lines = ["# Licence text", ""]
    for name, (task, values) in kinds.items():
        lines += [f"{name}:", f"  task: {task}", "  args:", *(f"    {k}: {v}" for k, v in values.items()), "    ", ""]
    return "\n".join(lines)


@pytest.fixture
def made_up() -> SimpleNamespace:
    """The contents of those files."""
    return SimpleNamespace(
        constants=CONSTANTS, niah=NIAH, squad=SQUAD, hotpot=HOTPOT, settings=settings_text(), words=BOOK.single
    )
