"""Which instances are translated, in which order, and why the others are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instapipe.errors import ConfigError, MaskError
from instapipe.filtering import FilterSettings, area_in_pixels, choose
from instapipe.structures import Instances, Mask

SIZE = (20, 30)


def instances(*boxes: tuple[int, int, int, int], labels: str = "", scores: tuple[float, ...] = ()) -> Instances:
    """Rectangles; labels by letter: s sheep, h horse."""
    masks = []
    for x0, y0, x1, y1 in boxes:
        dense = np.zeros(SIZE, np.bool_)
        dense[y0:y1, x0:x1] = True
        masks.append(Mask.from_dense(dense))
    names = {"s": "sheep", "h": "horse"}
    n = len(boxes)
    return Instances(
        SIZE, tuple(masks), tuple(names[c] for c in labels or "s" * n), scores or (0.9,) * n
    )  # fmt: skip


WORLD = instances(
    (0, 0, 4, 4), (10, 0, 20, 8), (5, 10, 10, 15), (22, 2, 28, 6), labels="sssh", scores=(0.9, 0.7, 0.6, 0.95)
)


def chosen(*args: object, **settings_: object) -> tuple[int, ...]:
    found = args[0] if args else WORLD
    return choose(found, FilterSettings(label="sheep", **settings_)).numbers  # type: ignore[arg-type]


def reasons(found: Instances = WORLD, **settings_: object) -> dict[int, str]:
    selection = choose(found, FilterSettings(label="sheep", **settings_))  # type: ignore[arg-type]
    return {each.number: each.reason for each in selection.dropped}


def test_class_and_size_descending_by_default() -> None:
    assert chosen() == (1, 2, 0)
    assert reasons() == {3: "class horse"}


@pytest.mark.parametrize(
    ("order", "expected"),
    [("size-ascending", (0, 2, 1)), ("score", (0, 1, 2)), ("left-to-right", (0, 2, 1)), ("given", (0, 1, 2))],
)
def test_orders(order: str, expected: tuple[int, ...]) -> None:
    assert chosen(order=order) == expected


def test_random_order_follows_the_seed() -> None:
    many = instances(*[(i, 0, i + 1, 1) for i in range(20)])
    first = chosen(many, order="random", seed=1)
    assert first == chosen(many, order="random", seed=1)
    assert first != chosen(many, order="random", seed=2)
    assert sorted(first) == list(range(20))


def test_score_and_area_say_what_was_missing() -> None:
    assert reasons(score=0.65)[2] == "score 0.600 below 0.65"
    assert reasons(min_area="20")[0] == "area 16 px below 20"
    assert chosen(min_area="4%") == (1, 2), "4 % of 600 pixels is 24"


def test_cap_takes_the_first_in_the_order() -> None:
    assert chosen(max_instances=2) == (1, 2)
    assert reasons(max_instances=2)[0] == "number 3 in the order, over the cap of 2"
    assert chosen(max_instances=0) == ()


def test_keep_overrules_everything() -> None:
    assert chosen(keep=(0, 2), score=0.99, min_area="1000", max_instances=1) == (2, 0)
    assert 3 in chosen(keep=(0, 3)), "a horse"
    assert reasons(keep=(0,))[3] == "class horse"
    assert reasons(keep=(0,))[1] == "not among those kept by number"


def test_drop_by_number() -> None:
    assert chosen(drop=(1,)) == (2, 0)
    assert reasons(drop=(1,))[1] == "dropped by number"


@pytest.mark.parametrize("option", ["keep", "drop"])
def test_numbers_that_the_photo_does_not_have(option: str) -> None:
    with pytest.raises(MaskError, match=f"--{option} 7: the photo has instances 0 to 3"):
        chosen(**{option: (7,)})


def test_of_two_masks_of_one_animal_the_surer_stays() -> None:
    twins = instances((0, 0, 10, 10), (0, 0, 10, 9), (0, 0, 10, 5), scores=(0.6, 0.9, 0.8))
    assert chosen(twins) == (1, 2)
    assert reasons(twins)[0] == "duplicate of 1 (mask IoU 0.90)"
    assert chosen(twins, duplicates=0.95) == (0, 1, 2)


def test_nothing_to_choose_from() -> None:
    assert chosen(Instances(SIZE)) == ()
    assert reasons(instances((0, 0, 0, 0))) == {0: "empty mask"}


@pytest.mark.parametrize("text", ["-1", "x", "101%", "nan", "inf", ""])
def test_bad_areas(text: str) -> None:
    with pytest.raises(ConfigError, match="minimum area"):
        area_in_pixels(text, SIZE)


boxes = st.builds(
    lambda x, y, w, h: (x, y, min(30, x + w), min(20, y + h)),
    st.integers(0, 29), st.integers(0, 19), st.integers(1, 12), st.integers(1, 12),
)  # fmt: skip
worlds = st.lists(st.tuples(boxes, st.sampled_from("sh"), st.floats(0.05, 1)), max_size=8).map(
    lambda parts: instances(
        *[box for box, _, _ in parts],
        labels="".join(letter for _, letter, _ in parts),
        scores=tuple(score for _, _, score in parts),
    )
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(worlds, st.floats(0, 1), st.integers(0, 5), st.sampled_from(["size", "score", "random", "left-to-right"]))
def test_every_instance_is_either_translated_or_has_a_reason(
    found: Instances, score: float, cap: int, order: str
) -> None:
    selection = choose(found, FilterSettings(label="sheep", score=score, max_instances=cap, order=order))  # type: ignore[arg-type]
    left = {each.number for each in selection.dropped}
    assert left.isdisjoint(selection.numbers)
    assert left | set(selection.numbers) == set(found.numbers)
    assert len(selection.numbers) <= cap
    picked = found.select(selection.numbers)
    assert set(picked.labels) <= {"sheep"}
    assert all(value >= score for value in picked.scores)
