"""What can be wrong with a training set, and what to do about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "no photo",
    "empty side",
    "unreadable photo",
    "unreadable masks",
    "turned",
    "misaligned",
    "inverted",
    "empty mask",
    "same mask twice",
    "same photo twice",
    "masks without photo",
    "photo without masks",
    "look at orientation",
    "scattered",
    "photo not listed",
    "nearly the same photo",
    "too small",
    "cut off",
    "few instances",
]


@dataclass(frozen=True, slots=True)
class Advice:
    """problem: whether it must be mended; else it is only worth knowing.  remedy: what to do."""

    problem: bool
    remedy: str


ADVICE: dict[Kind, Advice] = {
    "no photo": Advice(True, "put photos into the folder, or name the folder that has them"),
    "empty side": Advice(True, "name another --class, or add photos that show it"),
    "unreadable photo": Advice(True, "delete it, or save it again as JPEG or PNG"),
    "unreadable masks": Advice(True, "export them again; the message says what is wrong"),
    "turned": Advice(True, "turn the masks as EXIF turns the photo, or save the photos upright without EXIF"),
    "misaligned": Advice(True, "export masks at the photo's own size; they are never stretched to fit"),
    "inverted": Advice(True, "invert these masks: the instance is bright, the background 0"),
    "empty mask": Advice(True, "delete the file or annotation, or paint it anew"),
    "same mask twice": Advice(True, "delete one of them: each instance has one mask"),
    "same photo twice": Advice(True, "delete one: copies would be learnt from and held out at once"),
    "masks without photo": Advice(True, "add the photo, or delete the masks; check the spelling of the names"),
    "photo without masks": Advice(True, "add masks (instapipe segment), or move it away: it is not learnt from"),
    "look at orientation": Advice(False, "EXIF turns this photo: look at its outlines on the contact sheet"),
    "scattered": Advice(False, "if these parts are several animals, give each a mask of its own"),
    "photo not listed": Advice(False, "not in the JSON, so not learnt from"),
    "nearly the same photo": Advice(False, "look at them; keep one of each pair"),
    "too small": Advice(False, "left out by data.min_side; larger photos help"),
    "cut off": Advice(False, "left out where data.max_cut is below the share on the photo's border"),
    "few instances": Advice(False, "hundreds of instances a side are learnt from well, a few dozen by heart"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about one photo (or mask file, or side). number: of the instance, where it is about one."""

    kind: Kind
    photo: str
    detail: str = ""
    number: int | None = None

    @property
    def problem(self) -> bool:
        """Whether it must be mended."""
        return ADVICE[self.kind].problem
