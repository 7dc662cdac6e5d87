"""report.html: one file that opens from disk, fetches nothing and runs no script but its own (by hash, in its CSP).

Tables and pictures are written here, as escaped text; only the sample browser is built in the page (assets/report.js),
from JSON that cannot end its script element. Knows report.json's dict and the chunks of samples.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from loom_report.records import Report, ReportTask
from loom_report.render import authors, charts, svg, tables, text
from loom_report.render.budgets import budgets
from loom_report.render.losses import losses
from loom_report.render.markdown import grid_table
from loom_report.render.metrics import other_metrics
from loom_report.render.svg import Style, escape

from loom_core.contract.types import Json

MOST_ROWS = 5000


def asset(name: str) -> str:
    """A file of this package's assets."""
    return resources.files("loom_report").joinpath("assets", name).read_text("utf-8")


def data(value: Json) -> str:
    """JSON that is safe inside a script element: nothing in it can end the element or open another."""
    encoded = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        encoded = encoded.replace(character, f"\\u{ord(character):04x}")
    return encoded


Places = Sequence[Mapping[str, Json]]


def page(report: Report, chunks: Iterable[Mapping[str, Json]], served: Places | None = None) -> Iterator[str]:
    """The page in pieces; `chunks` (see `samples.chunks`) are written one at a time.

    served: the places ({task, level, n}) whose questions the page fetches from its server, in place of chunks.
    """
    style, script = asset("report.css"), asset("report.js")
    styles = svg.styles(report["arms"])
    yield _head(report, style, script, live=served is not None)
    yield '<body><a class="skip" href="#results">Skip to results</a>'
    yield _header(report)
    yield "<main>"
    yield _banners(report)
    yield _overview(report, styles)
    for number, task in enumerate(report["tasks"]):
        if not task.get("unavailable"):
            yield from _task(report, task, number, styles)
    yield _absent(report)
    yield _official(report)
    yield _every_cell(report)
    yield _browser(report)
    yield _method(report)
    yield _provenance(report)
    yield "</main>"
    places = list(served or ())
    for chunk in chunks:
        places.append({name: chunk[name] for name in ("task", "level", "n")})
        yield f'<script type="application/json" class="chunk">{data(chunk)}</script>\n'
    meta = {
        "tasks": [
            {"name": t["name"], "span": t["span"], "metrics": [m["name"] for m in t["metrics"]]}
            for t in report["tasks"]
            if not t.get("unavailable")
        ],
        "arms": [arm["name"] for arm in report["arms"]],
        "places": places,
        "live": served is not None,
    }
    yield f'<script type="application/json" id="meta">{data(meta)}</script>\n<script>{script}</script></body></html>\n'


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode("ascii")


def _head(report: Report, style: str, script: str, *, live: bool) -> str:
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'" + ("; connect-src 'self'" if live else "")
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{escape(text.one_line(report['name']))} · loom</title><style>{style}</style></head>\n"
    )


def _header(report: Report) -> str:
    run, state, model, server = report["run"], report["state"], report["model"], report["server"]
    command = escape(" ".join(run["command"] or []))
    n_arms, n_tasks = len(report["arms"]), sum(not t.get("unavailable") for t in report["tasks"])
    facts = [("model", str(model["name"])), ("server", f"{server['name']} {server.get('version', '')}")]
    if report["systems"]:
        facts = [(f"system {row['name']}", f"{row['model']} on {row['server']}") for row in report["systems"]]
    facts += [
        ("protocol", str(report["protocol"])),
        ("tasks", str(n_tasks)),
        ("arms", str(n_arms)),
        ("answers", f"{text.count(state['n_answered'])} of {text.count(state['n_planned'])}"),
        ("made", str(run["created"] or text.NONE).replace("T", " ").replace("Z", " UTC")),
        ("loom", str(run["loom"] or text.NONE)),
    ]
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    links = [("results", "Results"), ("cells", "All cells"), ("samples", "Samples"), ("method", "How to read")]
    return (
        '<header><div class="top"><p class="brand">loom</p><nav aria-label="Sections">'
        + "".join(f'<a href="#{place}">{name}</a>' for place, name in links)
        + '</nav><button id="theme" type="button" aria-label="Switch between light and dark">◐</button></div>'
        f"<h1>{escape(text.one_line(report['name']))}</h1>"
        + (f"<pre class='command'><code>{command}</code></pre>" if command else "")
        + f'<dl class="facts">{items}</dl></header>'
    )


def _banners(report: Report) -> str:
    return "".join(
        f'<p class="banner {banner["kind"]}"><b>{banner["kind"]}</b> {escape(banner["text"])}</p>'
        for banner in report["banners"]
    )


def table(drawn: tables.Table, *, kind: str = "", marks: Mapping[str, Style] | None = None, title: bool = True) -> str:
    """A table with its title as caption and its notes below; marks: the legend marks of first columns."""
    heads = "".join(f'<th scope="col"{_left(i, drawn)}>{escape(head)}</th>' for i, head in enumerate(drawn.heads))
    rows = "".join(f"<tr>{''.join(_cells(row, drawn, marks or {}))}</tr>" for row in drawn.rows)
    caption = f"<caption>{escape(drawn.title)}</caption>" if title else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in drawn.notes)
    body = f'<div class="scroll {kind}" tabindex="0" role="region" aria-label="{escape(drawn.title)}">'
    body += f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    return body + (f'<ul class="notes">{notes}</ul>' if notes else "")


def _left(index: int, drawn: tables.Table) -> str:
    return ' class="left"' if index < drawn.n_left else ""


def _cells(row: Sequence[tables.Cell], drawn: tables.Table, marks: Mapping[str, Style]) -> Iterator[str]:
    for i, cell in enumerate(row):
        if i == 0:
            name = _breakable(cell.text)
            if cell.text in marks:
                name = f'<div class="keyed">{svg.key(marks[cell.text], line=False)}<span>{name}</span></div>'
            yield f'<th scope="row">{name}</th>'
        else:
            names = " ".join(filter(None, ("left" if _left(i, drawn) else "", cell.tone)))
            yield f'<td class="{names}">{escape(cell.text)}</td>' if names else f"<td>{escape(cell.text)}</td>"


def _breakable(name: str) -> str:
    """A name, escaped, that may break after its commas and plus signs: arms are long, pages are not."""
    return re.sub(r"[,+]", lambda found: found[0] + "<wbr>", escape(name))


def _overview(report: Report, styles: Mapping[str, Style]) -> str:
    drawn = tables.overview(report)
    links = "".join(
        f'<li><a href="#task-{i}">{escape(task["name"])}</a></li>'
        for i, task in enumerate(report["tasks"])
        if not task.get("unavailable")
    )
    contents = f'<ul class="contents">{links}</ul>' if len(report["tasks"]) > 1 else ""
    picture = charts.capabilities(report, styles)
    radar = ""
    if picture:
        numbers = table(picture.table, marks=styles, title=False)
        radar = f'<div class="figures radar">{_figure(picture, numbers=False)}<div>{numbers}</div></div>'
    whole = table(drawn, kind="wide", marks=styles) if drawn else ""
    return f'<section id="results">{contents}{whole}{radar}</section>'


def _task(report: Report, task: ReportTask, number: int, styles: Mapping[str, Style]) -> Iterator[str]:
    yield f'<section class="task" id="task-{number}"><h2>{escape(task["name"])}</h2>'
    version = f"benchmark version {task.get('benchmark_version')}, task version {task.get('version')}"
    generation = task.get("generation") or {}
    about: list[str | None] = [task.get("capability"), task.get("language"), f"{task['n_samples']} questions", version]
    about += [f"≤ {generation.get('max_tokens')} new tokens", "extract of its data" if task.get("extract") else None]
    yield f'<p class="about">{escape(" · ".join(str(item) for item in about if item))}</p>'
    yield table(tables.headline(report, task, wide=True), kind="wide", marks=styles)
    if (asked := budgets(report, task)) is not None:
        yield f"<details><summary>budgets, asked and held</summary>{table(asked, title=False)}</details>"
    for more in (other_metrics(report, task), tables.by_level(report, task)):
        if more is not None:
            yield table(more, kind="wide", marks=styles)
    lost = losses(report, task)
    if lost is not None:
        yield table(lost, kind="wide", marks=styles)
    pictures = [charts.by_length(report, task, styles), *charts.quality_and_cost(report, task, styles)]
    pictures.append(charts.retention(report, task, styles))
    shown = [picture for picture in pictures if picture is not None]
    if shown:
        yield f'<div class="figures f{len(shown)}">' + "".join(_figure(picture) for picture in shown) + "</div>"
    grids = [grid for grid in report["grids"] if grid["task"] == task["name"]]
    if grids:
        yield "<h3>Length × depth</h3>"
        worst, best = grids[0]["low"], grids[0]["high"]
        ends = (
            (text.score(worst, task["span"]), text.score(best, task["span"])) if best is not None else ("low", "high")
        )
        yield f'<p class="legend">{escape(ends[0])} {svg.scale()} {escape(ends[1])}</p><div class="heatmaps">'
        for grid in grids:
            numbers = table(grid_table(grid, task["span"]), title=False)
            yield f"<figure><figcaption>{escape(grid['arm'])}</figcaption>{svg.heat_map(grid, task['span'])}"
            yield f"<details><summary>numbers</summary>{numbers}</details></figure>"
        yield "</div>"
    yield "</section>"


def _absent(report: Report) -> str:
    """The tasks that could not be asked here: what each lacks, or why it was refused."""
    sections: dict[str, str] = {}
    for task in report["tasks"]:
        if task.get("unavailable"):
            head = "Refused" if task.get("refused") else "Unavailable here"
            row = f"<li><b>{escape(task['name'])}</b>: {escape(text.one_line(task['unavailable'] or '', 600))}</li>"
            sections[head] = sections.get(head, "") + row
    return "".join(
        f'<section><h2>{head}</h2><ul class="notes">{rows}</ul></section>' for head, rows in sections.items()
    )


def _figure(picture: charts.Picture, *, numbers: bool = True) -> str:
    """A picture with its legend and caption; with its numbers, folded, unless they stand beside it."""
    legend = "".join(f"<li>{svg.key(style, line=picture.joined)}{escape(name)}</li>" for name, style in picture.legend)
    drawn = f"<details><summary>numbers</summary>{table(picture.table, title=False)}</details>" if numbers else ""
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>"
    return f'<figure>{picture.image}<ul class="key-list">{legend}</ul>{caption}{drawn}</figure>'


def _official(report: Report) -> str:
    drawn = "".join(table(own) for own in authors.tables(report))
    return f'<section id="official"><h2>Official tables</h2>{drawn}</section>' if drawn else ""


def _every_cell(report: Report) -> str:
    drawn = tables.every_cell(report)
    if not drawn.rows:
        return '<section id="cells"><h2>All cells</h2><p class="about">No cell was planned.</p></section>'
    if len(drawn.rows) > MOST_ROWS:
        drawn.notes.append(f"the first {MOST_ROWS} of {len(drawn.rows)} rows; all are in report.json and the CSV")
        del drawn.rows[MOST_ROWS:]
    return f'<section id="cells"><h2>All cells</h2>{table(drawn, kind="tall", title=False)}</section>'


def _browser(report: Report) -> str:
    """The empty frame of the sample browser; report.js fills it."""
    filters = (
        ("all", "all"),
        ("wrong", "wrong"),
        ("disagree", "disagreement"),
        ("right", "right"),
        ("failed", "failed"),
    )
    buttons = "".join(f'<button type="button" data-filter="{key}">{name}</button>' for key, name in filters)
    return (
        '<section id="samples"><h2>Samples</h2><noscript><p>The sample browser needs a script.</p></noscript>'
        '<form id="controls" autocomplete="off">'
        '<label>task <select id="task"></select></label><label>length <select id="level"></select></label>'
        '<label>arm <select id="arm"></select></label>'
        f'<div class="filters" role="group" aria-label="Which samples">{buttons}</div>'
        '<label class="grow">search <input id="search" type="search" placeholder="in questions, answers, references">'
        '</label></form><p id="count" role="status"></p>'
        '<div class="browser"><ol id="list" aria-label="Samples"></ol><article id="sample" tabindex="-1"></article>'
        "</div></section>"
    )


HOW_TO_READ = (
    (
        "score",
        "the mean over scored answers, in the metric's own scale. Failed and missing answers are counted, not scored.",
    ),
    (
        "95 % CI",
        "Wilson's or the near-exact interval, the wider; where documents are shared, on the effective number of "
        "answers.",
    ),
    (
        "Δ dense",
        "the mean difference to the baseline over the questions both answered. * marks p < 0.05 in an exact McNemar "
        "test (0/1 scores) or a sign-flip test over documents (others), after Holm's correction over all such cells. "
        "° marks a difference whose own interval excludes 0 and that is not a finding after that correction.",
    ),
    (
        "kept, KV held",
        "the share of prompt tokens kept per KV head; the bytes of keys and values really held. Means over answers.",
    ),
    (
        "TTFT, TPOT",
        "time to first token, from the start of the request's batch, and time per further token: medians over the "
        "questions that all arms answered at one batch size. ~ marks times that must not be compared.",
    ),
    (
        "recall, lost by",
        "the share of a question's evidence that reached the model whole, and what is missing to the best score: where "
        "retrieval or truncation left evidence out, the loss is theirs; where the model had all of it, its own.",
    ),
    ("rewriting", "the prompt augmentations' own time for an answer, a shared index included. TTFT does not count it."),
    ("real, simulated", "whether a method frees the memory it claims. Simulated savings are never ranked by memory."),
    (
        "query-aware",
        "the question steers what is kept. Such a method cannot reuse one compressed cache for other questions.",
    ),
    ("holds to", "the longest length whose score is at least 85 % of dense's score at the shortest length."),
    ("right, wrong", "in the sample browser: the best 0/1 score; of graded scores, the better half of the range."),
)


def _method(report: Report) -> str:
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(meaning)}</dd></div>" for name, meaning in HOW_TO_READ)
    notes = "".join(f"<li>{escape(text.one_line(note, 600))}</li>" for note in report["notes"])
    terms = f'<dl class="terms">{rows}</dl><ul class="notes">{notes}</ul>'
    return f'<section id="method"><h2>How to read</h2>{terms}</section>'


def _provenance(report: Report) -> str:
    run = report["run"]
    groups = {
        "versions": run["versions"],
        "hardware": run["hardware"],
        "model": report["model"],
        "server": report["server"],
        "overlength": report["overlength"],
        "code": run["git"],
        "run": {"seed": run["seed"], "configuration": report["config_digest"]},
    }
    blocks = []
    for name, values in groups.items():
        if values:
            rows = "".join(
                f"<div><dt>{escape(str(key))}</dt><dd>{escape(_plain(value))}</dd></div>"
                for key, value in values.items()
            )
            blocks.append(f'<div><h3>{escape(name)}</h3><dl class="pairs">{rows}</dl></div>')
    arms = "".join(f"<li><code>{escape(arm['name'])}</code> {escape(_declared(arm))}</li>" for arm in report["arms"])
    listed = f'<ul class="arms">{arms}</ul><div class="blocks">{"".join(blocks)}</div>'
    return f'<section id="provenance"><h2>What was run</h2>{listed}</section>'


def _declared(arm: Mapping[str, Any]) -> str:
    """What an arm's methods declare of themselves."""
    if arm["baseline"]:
        return "the baseline"
    words = [f"savings: {tables.labels(arm)}"] + (["extends the context"] if arm["extends_context"] else [])
    return ", ".join([*words, *(f"{part['name']} version {part['version']}" for part in arm["parts"])])


def _plain(value: Json) -> str:
    if value is None:
        return text.NONE
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.one_line(shown, 300)
