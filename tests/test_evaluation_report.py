"""Figures and the report out of scored cases that are made by hand; the page is opened in a real browser."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instapipe.evaluation.background import Background
from instapipe.evaluation.report import render, share
from instapipe.evaluation.scoring import ScoredCase, ScoredInstance
from instapipe.evaluation.study import Study, table, write_study
from instapipe.evaluation.summary import distances, summarise

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def instance(kind: str, photo: str, number: int = 0, **changes: Any) -> ScoredInstance:
    touched = kind != "hallucinated" and changes.get("touched", True)
    row = ScoredInstance(
        photo=photo, number=number, kind=kind, seen_as="giraffe" if kind == "translated" else "", score=0.5, iou=0.8,
        counted=kind != "hallucinated", touched=touched, side=100, area=5000, count=1, overlap=0.0, made_by="human",
        probability=0.9, called="giraffe" if kind == "translated" else "sheep", foreign=0.1,
    )  # fmt: skip
    return dataclasses.replace(row, **changes)


def case(name: str, *rows: ScoredInstance) -> ScoredCase:
    rng = np.random.default_rng(len(name))
    tiles = tuple(rng.integers(0, 255, (168, 336, 3), dtype=np.uint8) for _ in rows)
    crops = tuple(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8) for row in rows if row.touched)
    seen = sum(row.kind in ("translated", "hallucinated") for row in rows)
    wanted = sum(row.kind != "hallucinated" for row in rows)
    places = tuple(i for i, row in enumerate(rows) if row.touched)
    return ScoredCase(
        name, rows, Background(0.0, 1.0, 1.0, 0.5), 0.0, 0, seen, wanted, "giraffe", crops, places, tiles
    )  # fmt: skip


def cases() -> list[ScoredCase]:
    return [
        case("a.jpg", instance("translated", "a.jpg"), instance("hallucinated", "a.jpg", -1)),
        case("bb.jpg", instance("translated", "bb.jpg", count=2), instance("lost", "bb.jpg", 1, count=2)),
        case("ccc.jpg", instance("residual", "ccc.jpg", touched=False, foreign=math.nan, called="")),
        case("dddd.jpg", instance("merged", "dddd.jpg", made_by="model"), instance("merged", "dddd.jpg", 1)),
        case("small.jpg", instance("lost", "small.jpg", counted=False, side=20)),
    ]


class MeanColours:
    """Features that need no weights."""

    name = "mean-colours"

    def __call__(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([crop.reshape(-1, 3).mean(0) / 255 for crop in crops], np.float32).reshape(-1, 3)


def study() -> Study:
    scored = {"given masks": cases(), "copy <of the input>": cases()[:1]}
    validity = {"target": "giraffe", "valid": True, "called_target": SHARE, "found": SHARE}
    metrics = {
        "task": {"source": "sheep", "target": "giraffe"},
        "data": {"photos": 5, "instances": 6, "split": "val", "format": "jpg"},
        "weights": {"name": "sheep2giraffe-1", "sha256": "0" * 64},
        "judge": {"name": "judge-animals-1", "sha256": "1" * 64, "validity": validity},
        "versions": {"instapipe": "0"},
        "seed": 0,
        "arms": {name: summarise(found, "giraffe", draws=50) for name, found in scored.items()},
    }
    return Study(metrics, scored)


SHARE = {"value": 0.9, "hits": 9, "n": 10, "interval": [0.6, 0.98]}


def test_every_share_is_of_all_counted_instances_the_missed_included() -> None:
    figures = summarise(cases(), "giraffe", draws=200)
    assert figures["instances"] == 6
    shares = {kind: record["hits"] for kind, record in figures["verdicts"].items()}
    assert shares == {"translated": 2, "residual": 1, "merged": 2, "lost": 1}
    assert all(record["n"] == 6 for record in figures["verdicts"].values())
    assert figures["hallucinated"] == {"per_photo": 0.2, "n": 1}
    assert figures["missed_by_the_pipeline"]["hits"] == 1
    # Of five photos only the translated sheep of none keeps its count: a.jpg has one too many, the others too few.
    assert figures["count_kept"]["hits"] == 0
    assert figures["classification"]["crops"]["n"] == 6
    assert figures["classification"]["crops_of_the_touched"]["n"] == 5
    low, high = figures["verdicts"]["translated"]["bootstrap"]
    assert low <= 2 / 6 <= high
    assert figures["slices"]["instances in the photo"]["2"]["n"] == 2
    assert figures["slices"]["mask drawn by"]["a model"]["n"] == 1


def test_figures_are_seeded_and_json() -> None:
    first, again = (summarise(cases(), "giraffe", seed=3, draws=100) for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(again, allow_nan=False)


def test_no_case_gives_no_figure_and_no_error() -> None:
    figures = summarise([], "giraffe", draws=10)
    assert figures["instances"] == 0
    assert figures["verdicts"]["translated"]["value"] is None
    assert share(figures["verdicts"]["translated"]) == "none of 0"


def test_distances_carry_the_name_of_their_features() -> None:
    rng = np.random.default_rng(0)

    def crops(level: int, n: int) -> list[list[np.ndarray]]:
        return [[(rng.normal(level, 30, (8, 8, 3)).clip(0, 255)).astype(np.uint8)] for _ in range(n)]

    real = [group[0] for group in crops(200, 30)]
    found = distances(crops(190, 30), real, crops(60, 30), real[:5], MeanColours())
    assert found["features"] == "mean-colours"
    assert "kid_mean-colours" in found
    assert not any(key in ("kid", "fid") for key in found)
    assert 0 <= found["kid_ratio"] < 0.3
    low, high = found["kid_mean-colours"]["interval"]
    assert low <= found["kid_mean-colours"]["value"] <= high
    assert found["nearest_training_crop"]["real_held_out"]["p10"] == pytest.approx(0, abs=1e-6)


def test_the_table_has_a_row_for_each_instance_of_each_arm() -> None:
    made = study()
    rows = list(csv.DictReader(io.StringIO(table(made.scored))))
    assert len(rows) == 8 + 2
    assert rows[0]["arm"] == "given masks"
    assert [row["kind"] for row in rows[:2]] == ["translated", "hallucinated"]
    assert next(row for row in rows if row["photo"] == "ccc.jpg")["foreign"] == ""


def test_the_page_is_one_file_with_failures_first_and_text_escaped() -> None:
    made = study()
    page = render(made.metrics, made.scored)
    kinds = re.findall(r'<figure class="(\w+)" data-kind="\w+" data-arm="given masks"', page)
    assert kinds == ["lost", "lost", "merged", "merged", "residual", "hallucinated", "translated", "translated"]
    assert "<of the input>" not in page
    assert "&lt;of the input&gt;" in page
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!data:)[a-z]""", page)
    assert not re.search(r"@\w+@", page)
    assert "90.0 % [60.0, 98.0] of 10" in page
    made.metrics["judge"]["validity"]["valid"] = False
    assert "NOT valid" in render(made.metrics, made.scored)


def test_the_study_is_written_whole(tmp_path: Path) -> None:
    paths = write_study(study(), tmp_path / "out")
    assert sorted(path.name for path in paths.values()) == ["instances.csv", "metrics.json", "report.html"]
    assert json.loads(paths["metrics.json"].read_text())["arms"]["given masks"]["instances"] == 6


class _Counter(BaseHTTPRequestHandler):
    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: requests are counted, not told."""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: apt-get install chromium")
def test_the_page_renders_filters_and_asks_the_network_for_nothing(tmp_path: Path) -> None:
    """In headless Chromium: buttons are pressed, what shows is counted, and a request that the page's own policy must
    stop is tried against a server of ours."""
    seen: list[str] = []
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (_Counter,), {"seen": seen}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    probe = """<script>
    const says = {}, button = (g, v) => document.querySelector(`nav button[data-group="${g}"][data-value="${v}"]`);
    const press = (g, v) => button(g, v).click();
    const shown = () => [...document.querySelectorAll("#grid figure")].filter(f => f.offsetParent !== null).length;
    says.all = shown(); press("kind", "lost"); says.lost = shown();
    press("arm", "copy <of the input>"); says.none = shown(); press("kind", "all"); says.copy = shown();
    says.pictures = [...document.images].every(i => i.complete && i.naturalWidth === 336);
    says.bars = document.querySelectorAll("svg rect title").length;
    says.requests = performance.getEntriesByType("resource").filter(r => !r.name.startsWith("data:")).length;
    new Image().src = "http://127.0.0.1:PORT/image";
    fetch("http://127.0.0.1:PORT/fetch")
      .catch(() => { says.blocked = true; })
      .finally(() => { document.title = "RESULT " + JSON.stringify(says); });
    </script>""".replace("PORT", str(server.server_port))
    made = study()
    path = tmp_path / "report.html"
    path.write_text(render(made.metrics, made.scored).replace("</body>", probe + "</body>"), encoding="utf-8")
    try:
        done = subprocess.run(
            [
                str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--no-first-run",
                f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom", path.as_uri(),
            ],
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    found = re.search(r"<title>RESULT (.*?)</title>", done.stdout)
    assert found, done.stderr[-2000:]
    says = json.loads(found[1])
    assert says == {
        "all": 8, "lost": 2, "none": 0, "copy": 2, "pictures": True, "bars": 8, "requests": 0, "blocked": True,
    }  # fmt: skip
    assert seen == []
