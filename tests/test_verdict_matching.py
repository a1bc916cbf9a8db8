"""Worlds with a known answer: each verdict is constructed, and named."""

from __future__ import annotations

import numpy as np
import pytest

from instapipe.structures import Instances, Mask
from instapipe.verdict.intervals import Share, bootstrap
from instapipe.verdict.matching import Verdict, cover, judge, pair
from instapipe.verdict.release import choose, correctness
from instapipe.verdict.validation import validate

SIZE = (200, 400)


def box(x0: int, y0: int, x1: int, y1: int) -> Mask:
    return Mask.from_crop(SIZE, (x0, y0), np.ones((y1 - y0, x1 - x0), dtype=bool))


def world(*entries: tuple[str, Mask], scores: tuple[float, ...] | None = None) -> Instances:
    given = scores or tuple(0.9 for _ in entries)
    return Instances(SIZE, tuple(m for _, m in entries), tuple(label for label, _ in entries), given)


def verdicts(sources: Instances, returned: list[Mask | None], seen: Instances) -> list[Verdict]:
    return judge(sources, returned, seen, source="sheep", target="giraffe")


def kinds(sources: Instances, returned: list[Mask | None], seen: Instances) -> list[str]:
    return [verdict.kind for verdict in verdicts(sources, returned, seen)]


LEFT, RIGHT = box(20, 100, 100, 160), box(220, 100, 300, 160)
LEFT_TALL, RIGHT_TALL = box(40, 20, 90, 160), box(230, 20, 280, 160)


def test_success_is_translated_with_the_judges_iou() -> None:
    seen = world(("giraffe", box(230, 24, 280, 160)), ("giraffe", LEFT_TALL))
    first, second = verdicts(world(("sheep", LEFT), ("sheep", RIGHT)), [LEFT_TALL, RIGHT_TALL], seen)
    assert (first.kind, first.detection, first.iou) == ("translated", 1, 1.0)
    assert (second.kind, second.detection) == ("translated", 0)
    assert second.iou == pytest.approx(136 / 140)


def test_an_animal_that_stayed_is_residual() -> None:
    assert kinds(world(("sheep", LEFT)), [LEFT_TALL], world(("sheep", LEFT))) == ["residual"]


def test_a_translator_that_calls_the_unchanged_animal_translated_does_not_get_away_with_it() -> None:
    """Copying the input and returning the source's own mask is residual, whatever name the judge has for it."""
    assert kinds(world(("sheep", LEFT)), [LEFT], world(("sheep", LEFT))) == ["residual"]
    assert kinds(world(("sheep", LEFT)), [LEFT_TALL], world(("cow", LEFT))) == ["residual"]


def test_a_coat_on_the_old_body_beside_a_new_animal_goes_to_the_better_outline() -> None:
    both = world(("giraffe", LEFT_TALL), ("sheep", box(20, 110, 39, 160)))
    assert kinds(world(("sheep", LEFT)), [LEFT_TALL], both) == ["translated"]
    rather_sheep = world(("giraffe", box(40, 20, 90, 80)), ("sheep", box(40, 81, 90, 160)))
    assert kinds(world(("sheep", LEFT)), [LEFT_TALL], rather_sheep) == ["residual"]


def test_one_animal_where_two_should_be_is_merged() -> None:
    near = [box(40, 20, 90, 160), box(95, 20, 145, 160)]
    sources = world(("sheep", box(30, 100, 92, 160)), ("sheep", box(95, 100, 155, 160)))
    assert kinds(sources, [*near], world(("giraffe", box(40, 20, 145, 160)))) == ["merged", "merged"]


def test_an_animal_hidden_in_anothers_detection_is_merged_and_the_other_is_not() -> None:
    large, small = box(40, 20, 140, 160), box(60, 40, 90, 120)
    sources = world(("sheep", box(40, 60, 140, 160)), ("sheep", box(50, 60, 100, 120)))
    assert kinds(sources, [large, small], world(("giraffe", large))) == ["translated", "merged"]


def test_nothing_to_be_seen_is_lost() -> None:
    verdict = verdicts(world(("sheep", LEFT)), [LEFT_TALL], world())[0]
    assert (verdict.kind, verdict.detection, verdict.seen_as) == ("lost", None, None)


def test_another_animal_in_the_new_outline_is_lost_and_says_what_it_is_taken_for() -> None:
    verdict = verdicts(world(("sheep", box(20, 140, 180, 199))), [LEFT_TALL], world(("zebra", LEFT_TALL)))[0]
    assert (verdict.kind, verdict.seen_as) == ("lost", "zebra")


def test_a_target_that_nobody_asked_for_is_hallucinated() -> None:
    seen = world(("giraffe", LEFT_TALL), ("giraffe", box(330, 20, 380, 160)))
    found = verdicts(world(("sheep", LEFT)), [LEFT_TALL], seen)
    assert [v.kind for v in found] == ["translated", "hallucinated"]
    assert (found[1].source, found[1].detection, found[1].counted) == (None, 1, False)


def test_a_target_that_was_there_before_is_not_hallucinated() -> None:
    there = box(330, 20, 380, 160)
    sources = world(("sheep", LEFT), ("giraffe", there))
    assert kinds(sources, [LEFT_TALL, None], world(("giraffe", LEFT_TALL), ("giraffe", there))) == ["translated"]


def test_what_the_pipeline_missed_stays_in_the_denominator() -> None:
    sources = world(("sheep", LEFT), ("sheep", RIGHT))
    found = verdicts(sources, [LEFT_TALL, None], world(("giraffe", LEFT_TALL)))
    assert [(v.kind, v.counted, v.touched) for v in found] == [("translated", True, True), ("residual", True, False)]


def test_a_missed_animal_that_was_painted_over_is_lost() -> None:
    sources = world(("sheep", LEFT), ("sheep", box(45, 110, 85, 150)))
    assert kinds(sources, [LEFT_TALL, None], world(("giraffe", LEFT_TALL))) == ["translated", "lost"]


def test_small_instances_are_judged_but_not_counted() -> None:
    small, tall = box(10, 10, 57, 40), box(10, 10, 30, 57)
    (verdict,) = verdicts(world(("sheep", small)), [tall], world(("giraffe", tall)))
    assert (verdict.kind, verdict.counted) == ("translated", False)
    (verdict,) = verdicts(world(("sheep", box(10, 10, 58, 40))), [tall], world())
    assert verdict.counted


def test_no_instance_no_verdict() -> None:
    assert kinds(world(), [], world()) == []
    assert kinds(world(), [], world(("giraffe", LEFT_TALL))) == ["hallucinated"]


def test_the_order_of_instances_and_of_detections_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = 4
        marks = [box(x, 80, x + 60, 180) for x in rng.choice(340, n, replace=False)]
        goals: list[Mask | None] = [box(m.box[0] + 5, 20, m.box[0] + 45, 180) for m in marks]
        seen = [("giraffe", g) for g in goals[:2] if g] + [("sheep", marks[3])]
        sources, found = world(*(("sheep", m) for m in marks)), world(*seen)
        plain = kinds(sources, goals, found)[:n]
        order = [int(i) for i in rng.permutation(n)]
        mixed = judge(
            sources.select(order),
            [goals[i] for i in order],
            found.select(rng.permutation(len(found)).tolist()),
            source="sheep",
            target="giraffe",
        )
        assert [plain[i] for i in order] == [v.kind for v in mixed[:n]]


def test_returned_masks_must_be_as_many_as_sources() -> None:
    with pytest.raises(ValueError, match="expected 1 returned masks"):
        kinds(world(("sheep", LEFT)), [], world())


def test_pair_finds_the_same_object_under_another_mask() -> None:
    listed = world(("sheep", LEFT), ("sheep", RIGHT), ("sheep", box(320, 0, 380, 60)))
    selected = world(("sheep", box(225, 100, 300, 160)), ("sheep", box(25, 100, 100, 165)))
    assert pair(listed, selected) == [1, 0, None]


def test_cover_is_a_share_of_the_first() -> None:
    assert cover(box(0, 0, 10, 10), box(5, 0, 40, 40)) == 0.5
    assert cover(Mask.from_dense(np.zeros(SIZE, dtype=bool)), LEFT) == 0.0


def test_wilson_interval_against_published_values() -> None:
    """Wilson score limits for 81/263 and 0/20 (Newcombe, Statistics in Medicine 1998, table I)."""
    low, high = Share(81, 263).interval
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = Share(0, 20).interval
    assert (round(low, 4), round(high, 4)) == (0.0, 0.1611)
    assert Share(0, 0).interval == (0.0, 1.0)
    assert Share(0, 0).record()["value"] is None
    assert str(Share(1, 4)).startswith("25.0 % of 4 [")


def test_bootstrap_covers_the_mean_and_narrows_with_n() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for n in (20, 500):
        groups = list(rng.normal(3.0, 1.0, n))
        low, high = bootstrap(groups, lambda drawn: float(np.mean(drawn)), rng=np.random.default_rng(2), draws=400)
        assert low < float(np.mean(groups)) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3
    # The known width of a mean's interval: 2 x 1.96 / sqrt(n).
    assert widths[1] == pytest.approx(2 * 1.96 / np.sqrt(500), rel=0.2)
    assert np.isnan(bootstrap([], len, rng=rng)).all()


def test_validity_counts_what_it_says() -> None:
    seen = [
        (world(("sheep", LEFT)), world(("sheep", LEFT))),
        (world(("sheep", LEFT)), world(("giraffe", LEFT), scores=(0.4,))),
        (world(("giraffe", LEFT_TALL)), world(("giraffe", LEFT_TALL), scores=(0.6,))),
        (world(("giraffe", LEFT_TALL)), world()),
        (world(("sheep", box(0, 0, 20, 20))), world(("giraffe", box(0, 0, 20, 20)))),
    ]
    strict = validate(seen, "giraffe", 0.5)
    assert (strict.called_target.hits, strict.called_target.n) == (0, 2)
    assert (strict.found.hits, strict.found.n) == (1, 2)
    assert strict.recognised.hits == 1
    assert (strict.phantom.hits, strict.phantom.n) == (1, 3)
    assert not strict.valid
    assert validate(seen, "giraffe").called_target.hits == 1


def test_the_threshold_is_the_lowest_that_pays() -> None:
    seen = [
        (world(("sheep", LEFT)), world(("sheep", LEFT), ("cow", RIGHT), scores=(0.45, 0.22))),
        (world(("giraffe", LEFT_TALL)), world(("giraffe", LEFT_TALL), scores=(0.32,))),
    ]
    assert correctness(seen, 0.1) == 0.5
    assert choose(seen) == 0.25
    assert correctness(seen, 0.25) == 1.0
    assert correctness(seen, 0.4) == 0.5
