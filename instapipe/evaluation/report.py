"""`metrics.json` and the scored cases as one page that people can look at, failures first."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

from instapipe.evaluation.page import PAGE
from instapipe.evaluation.scoring import ScoredCase, ScoredInstance
from instapipe.imaging import encode_image

FAILURES_FIRST = ("lost", "merged", "residual", "hallucinated", "translated")
COLOURS = {"translated": "#2a9d5c", "residual": "#d1495b", "merged": "#e09f3e", "lost": "#8d99ae"}
MOST_PICTURES = 160
"""Per arm: a page of thousands of pictures does not open."""
Record = Mapping[str, Any]


def render(metrics: Record, scored: Mapping[str, Sequence[ScoredCase]]) -> str:
    """The page as HTML."""
    task, data = metrics["task"], metrics["data"]
    title = f"{task['source']} to {task['target']}: {metrics['weights']['name']}"
    judge = metrics["judge"]
    facts = " · ".join((
        f"{data['photos']} photos, {data['instances']} instances counted",
        f"split {data['split']}",
        f"images {data['format']}",
        f"seed {metrics['seed']}",
        f"weights {metrics['weights']['sha256'][:12]}",
        f"judge {judge['name']} {judge['sha256'][:12]}",
        f"instapipe {metrics['versions']['instapipe']}",
    ))  # fmt: skip
    arms: Mapping[str, Record] = metrics["arms"]
    validity = metrics["judge"]["validity"]
    values = {
        "title": html.escape(title),
        "facts": html.escape(facts),
        "validity_class": "" if validity["valid"] else "bad",
        "validity": html.escape(validity_sentence(validity)),
        "arms_table": _arms_table(arms),
        "arms_plot": _arms_plot(arms),
        "slices": _slices(arms),
        "extra": _distances(arms) + _masks(metrics.get("masks", {})),
        "buttons": _buttons(list(scored)),
        "figures": "".join(_figures(name, cases) for name, cases in scored.items()),
        "first_arm": html.escape(next(iter(scored), ""), quote=True),
    }
    page = PAGE
    for name, value in values.items():
        page = page.replace(f"@{name}@", value)
    return page


def validity_sentence(validity: Record) -> str:
    """Whether the judge can be believed, with its N and intervals."""
    verdict = "The judge is valid" if validity["valid"] else "The judge is NOT valid: do not believe the figures below"
    return (
        f"{verdict}. On untouched held-out photos it calls {share(validity['called_target'])} source animals "
        f"{validity['target']} (at most 2 % allowed) "
        f"and finds {share(validity['found'])} of the real ones (at least 85 %)."
    )


def share(record: Record) -> str:
    """ "93.0 % [88.1, 96.0] of 172" """
    if record["value"] is None:
        return "none of 0"
    low, high = record["interval"]
    return f"{100 * record['value']:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {record['n']}"


def number(value: float | None, digits: int = 3) -> str:
    """A dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def _arms_table(arms: Mapping[str, Record]) -> str:
    head = ("", "translated", "residual", "merged", "lost", "hallucinated a photo", "count kept", "median mask IoU",
            "crops taken for the target", "background identical", "foreign colours")  # fmt: skip
    rows = []
    for name, arm in arms.items():
        shares = [share(arm["verdicts"][kind]) for kind in ("translated", "residual", "merged", "lost")]
        rows.append((
            name, *shares,
            number(arm["hallucinated"]["per_photo"], 2),
            share(arm["count_kept"]),
            number(arm["mask_iou"]["median"], 2),
            share(arm["classification"]["crops"]),
            number(arm["background"]["identical"]["mean"], 4),
            number(arm["foreign_colours_where_vacated"]["mean"], 3),
        ))  # fmt: skip
    return _table(head, rows)


def _arms_plot(arms: Mapping[str, Record]) -> str:
    """Stacked bars, one an arm."""
    parts = []
    for row, (name, arm) in enumerate(arms.items()):
        y, x = 24 + row * 26, 230.0
        parts.append(f'<text x="222" y="{y + 13}" text-anchor="end">{html.escape(name)}</text>')
        for kind, colour in COLOURS.items():
            record = arm["verdicts"][kind]
            width = 700 * (record["value"] or 0.0)
            said = f"{html.escape(name)}: {kind} {share(record)}"
            at = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="18"'
            parts.append(f'<rect {at} fill="{colour}"><title>{said}</title></rect>')
            x += width
    legend = "".join(
        f'<rect x="{230 + i * 110}" y="4" width="10" height="10" fill="{colour}"/>'
        f'<text x="{245 + i * 110}" y="13">{kind}</text>'
        for i, (kind, colour) in enumerate(COLOURS.items())
    )
    height = 30 + 26 * len(arms)
    return (
        f'<svg viewBox="0 0 960 {height}" width="100%" role="img" aria-label="verdicts">{legend}{"".join(parts)}</svg>'
    )


def _slices(arms: Mapping[str, Record]) -> str:
    if not arms:
        return ""
    name, arm = next(iter(arms.items()))
    rows = [
        (f"{slice_name}: {label}", share(record["translated"]), share(record["residual"]))
        for slice_name, parts in arm["slices"].items()
        for label, record in parts.items()
        if record["n"]
    ]
    return _table((name, "translated", "residual"), rows)


def _distances(arms: Mapping[str, Record]) -> str:
    rows = []
    for name, arm in arms.items():
        for record in arm.get("distances", ()):
            features = record["features"]
            value = record[f"kid_{features}"]
            near = record["nearest_training_crop"]
            rows.append((
                f"{name} ({features}, {record['crops']} crops, {record['real']} real)",
                f"{number(value['value'])} [{number(value['interval'][0])}, {number(value['interval'][1])}]",
                number(record["kid_ratio"], 2),
                number(record[f"fid_{features}"], 1),
                f"{number(near['outputs']['median'])} / {number(near['real_held_out']['median'])}",
                f"{number(record['diversity']['outputs'])} / {number(record['diversity']['real'])}",
            ))  # fmt: skip
    if not rows:
        return ""
    head = ("crops on grey", "KID", "KID / untouched sources'", "FID", "nearest training crop: outputs / real",
            "diversity: outputs / real")  # fmt: skip
    note = "Values in different features, or with another N, cannot be compared."
    return f'<h2>Distances to real crops</h2><div class="wide">{_table(head, rows)}</div><p class="note">{note}</p>'


def _masks(masks: Record) -> str:
    rows = [
        (name, str(q["n"]), number(q["ap"]), number(q["ap50"]), number(q["iou"]), number(q["found"]))
        for name, q in masks.items()
    ]
    if not rows:
        return ""
    head = ("masks", "listed", "AP", "AP50", "mean IoU of the found", "found")
    return f'<h2>Masks</h2><div class="wide">{_table(head, rows)}</div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _buttons(arms: Sequence[str]) -> str:
    kinds = [("kind", kind) for kind in ("all", *FAILURES_FIRST)]
    choices = [("arm", arm) for arm in arms if len(arms) > 1]
    return "".join(
        f'<button data-group="{group}" data-value="{html.escape(value, quote=True)}">{html.escape(value)}</button>'
        for group, value in [*kinds, *choices]
    )


def _figures(arm: str, cases: Sequence[ScoredCase]) -> str:
    pairs = [(row, case.tiles[i]) for case in cases for i, row in enumerate(case.instances)]
    pairs.sort(key=lambda pair: (FAILURES_FIRST.index(pair[0].kind), pair[0].score))
    return "".join(_figure(arm, row, tile) for row, tile in pairs[:MOST_PICTURES])


def _figure(arm: str, row: ScoredInstance, tile: Any) -> str:
    picture = base64.b64encode(encode_image(tile, ".jpg")).decode()
    seen = f"seen as {row.seen_as} {row.score:.2f}" if row.seen_as else "not seen"
    small = "" if row.counted or row.kind == "hallucinated" else " · too small to count"
    text = (
        f'<span class="k">{row.kind}</span> · {html.escape(row.photo)} #{row.number} · {seen}, IoU {row.iou:.2f}{small}'
    )
    return (
        f'<figure class="{row.kind}" data-kind="{row.kind}" data-arm="{html.escape(arm, quote=True)}">'
        f'<img alt="{row.kind}" src="data:image/jpeg;base64,{picture}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
