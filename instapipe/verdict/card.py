"""The judge's card: what it is, what it was trained on, and how far it can be believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from instapipe.config import Card, FileName, explain
from instapipe.errors import WeightsError
from instapipe.resources import weights_root

CARD = "card.json"
DEFAULT = "judge-animals-1"


class JudgeCard(Card):
    """`side`: a photo's longer side when it is judged.  `threshold`: the least score of a detection, chosen on the part
    of the training photos that was kept back.  `quality`: what it does on photos that it never saw."""

    kind: Literal["judge"] = "judge"
    classes: tuple[str, ...]
    file: FileName
    sha256: str
    dtype: Literal["float16", "float32"]
    width: int = 128
    head_width: int = 64
    crop_width: int = 512
    side: int = 448
    crop_side: int = 128
    threshold: float = 0.5

    def fingerprint(self) -> dict[str, Any]:
        """Everything that changes what the judge says."""
        kept = ("name", "sha256", "side", "crop_side", "threshold")
        return {"kind": "judge", "classes": list(self.classes), **{name: getattr(self, name) for name in kept}}


def find_judge(name: str = DEFAULT) -> tuple[JudgeCard, Path]:
    """The card and folder of a bundled judge, or of a folder that holds a judge's card; raises WeightsError."""
    folder = Path(name).expanduser()
    if not (folder / CARD).is_file():
        folder = weights_root() / name
    path = folder / CARD
    try:
        return JudgeCard.model_validate_json(path.read_text(encoding="utf-8")), folder
    except OSError as error:
        known = ", ".join(bundled_judges()) or "none"
        raise WeightsError(f"no judge {name!r}; bundled: {known}; or give a folder that holds a {CARD}") from error
    except ValidationError as error:
        raise WeightsError(explain(error, str(path))) from error


def bundled_judges() -> list[str]:
    """Names of the judges that come with the package."""
    cards = sorted(weights_root().glob(f"*/{CARD}"))
    return [card.parent.name for card in cards if json.loads(card.read_text("utf-8")).get("kind") == "judge"]
