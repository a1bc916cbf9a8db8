"""Which format a mask file or folder is in.

<stem>.masks/            folder    one PNG for each instance, and instances.json
<folder>_seg/            png       InstaGAN's layout: <stem>_<i>.png
a folder of PNGs         png, or labelmap where <stem>.png has the photo's own name
a folder of text files   yolo
a folder of JSON files   labelme; coco for a single file that lists images
a JSON file              coco, or labelme where it has shapes
a PNG or a text file     labelmap or one instance of png; yolo
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from instapipe.errors import MaskError, UsageError
from instapipe.masks import labelmap, labelme, yolo
from instapipe.masks.coco import CocoFile
from instapipe.masks.folder import MasksFolder, MasksFolders
from instapipe.masks.labelmap import LabelMaps
from instapipe.masks.labelme import LabelmeFolder
from instapipe.masks.names import NAME, SUFFIX, files_in, stem_of
from instapipe.masks.png import PngFolder, read_one
from instapipe.masks.records import MAX_COLLECTION_BYTES, MaskSource, Record, parse_json, read_bytes
from instapipe.masks.yolo import YoloFolder
from instapipe.structures import Instances

KINDS = (".json", ".txt", ".png")


def open_source(path: Path, format: str | None = None) -> MaskSource:
    """`path` as a source of masks, of the named format, or of the one that it seems to be in.

    Raises MaskError where it is of no known format, or of several; UsageError for a format that is not known.
    """
    try:
        state = path.stat()
        if path.is_dir():
            return _folder(path, format)
    except OSError as error:
        raise MaskError(f"cannot read masks {str(path)!r}: {error.strerror or error}") from error
    if path.suffix.lower() == ".json":
        return _json_file(path, state.st_mtime_ns, state.st_size)
    if path.suffix.lower() in (".png", ".txt"):
        return OnePhoto(path, format)
    raise MaskError(f"masks {str(path)!r}: expected a folder, or a .json, .png or .txt file")


def record(source: Path, photo_path: Path) -> Record | None:
    """The masks of one photo, read but not decoded, with their digest; None where `source` does not list the photo.

    Raises MaskError for what cannot be read. The digest depends on content alone, never on a path.
    """
    return open_source(source).record(photo_path)


def load(source: Path, photo_path: Path, size: tuple[int, int]) -> Instances | None:
    """The instances of a photo of `size` (H, W); empty where it is listed without one, None where it is not listed.

    Raises MaskError, one line that names the file, the value and the way out.
    """
    found = record(source, photo_path)
    return None if found is None else found.decode(size)


def digest(source: Path, photo_path: Path) -> str | None:
    """sha256 (hex) of what :func:`load` depends on besides the size; None where the photo is not listed."""
    found = record(source, photo_path)
    return None if found is None else found.digest


def _folder(path: Path, format: str | None) -> MaskSource:
    if format is not None:
        if format not in FOLDERS:
            raise UsageError(f"no mask format {format!r}; known: {', '.join(FOLDERS)}")
        return FOLDERS[format](path)
    if path.name.endswith(SUFFIX):
        return MasksFolder(path)
    kind = _kind_of(path, path.stat().st_mtime_ns)
    if isinstance(kind, Path):
        state = kind.stat()
        source = _json_file(kind, state.st_mtime_ns, state.st_size)
        return LabelmeFolder(path) if isinstance(source, OnePhoto) else source
    return FOLDERS[kind](path) if kind else PngsOrMaps(path)


@lru_cache(maxsize=64)
def _kind_of(path: Path, changed: int) -> str | Path:
    """The format by what lies in the folder, once per state of it; '' for PNGs; the file where it is one JSON."""
    if path.name.endswith("_seg"):
        return "png"
    if any(child.name.endswith(SUFFIX) and child.is_dir() for child in path.iterdir()):
        return "folder"
    stems = {kind: {file.stem for file in files_in(path, kind)} for kind in KINDS}
    # PNGs beside other files of the same names are the photos.
    stems[".png"] -= stems[".json"] | stems[".txt"]
    kinds = [kind for kind in KINDS if stems[kind]]
    if len(kinds) > 1:
        raise MaskError(f"masks {str(path)!r}: both {kinds[0]} and {kinds[1]} files; keep one kind in the folder")
    if not kinds:
        raise MaskError(f"masks {str(path)!r}: no .json, .txt or .png file in it")
    if kinds == [".json"]:
        files = files_in(path, ".json")
        return files[0] if len(files) == 1 else "labelme"
    return "yolo" if kinds == [".txt"] else ""


@lru_cache(maxsize=2)
def _json_file(path: Path, changed: int, length: int) -> MaskSource:
    """Once per state of the file: a COCO file is asked for each of its photos in turn."""
    document = parse_json(read_bytes(path, MAX_COLLECTION_BYTES), f"masks {str(path)!r}")
    return OnePhoto(path) if "shapes" in document else CocoFile(path, document)


def _coco_folder(path: Path) -> MaskSource:
    file = path / "instances.json"
    return CocoFile(file, parse_json(read_bytes(file, MAX_COLLECTION_BYTES), f"masks {str(file)!r}"))


class PngsOrMaps:
    """A folder of PNGs: a photo's own name is its label map, numbered names are its instances; both is an error."""

    def __init__(self, path: Path) -> None:
        self._instances, self._maps = PngFolder(path), LabelMaps(path)
        self._path = path

    def photos(self) -> Sequence[str]:
        maps = self._maps.photos()
        all_numbered = all(NAME.fullmatch(f"{name}.png") for name in maps)
        return self._instances.photos() if all_numbered else maps

    def record(self, photo: Path) -> Record | None:
        stem = stem_of(photo)
        numbered_masks, label_map = self._instances.record(photo), self._maps.record(photo)
        if numbered_masks is not None and label_map is not None:
            raise MaskError(
                f"masks {str(self._path)!r}: {stem}.png is a label map and {stem}_<i>.png are masks; keep one of them"
            )
        return numbered_masks or label_map


class OnePhoto:
    """A single file that holds the masks of the photo of its name."""

    def __init__(self, path: Path, format: str | None = None) -> None:
        self.path = path
        self._instance = NAME.fullmatch(path.name)
        self._format = format

    def photos(self) -> Sequence[str]:
        if self.path.suffix.lower() == ".json":
            return [labelme.photo_name(self.path, self._document())]
        return [self._instance["stem"] if self._instance and self._format == "png" else self.path.stem]

    def record(self, photo: Path) -> Record | None:
        kind = self.path.suffix.lower()
        if stem_of(photo) == self.path.stem:
            if kind == ".json":
                return labelme.read(self.path, self._document())
            return yolo.read(self.path) if kind == ".txt" else labelmap.read(self.path)
        if kind == ".png" and self._instance and self._instance["stem"] == stem_of(photo):
            return read_one(self.path)
        # A file that was named on purpose must not be passed over in silence.
        raise MaskError(
            f"masks {str(self.path)!r} are not of photo {photo.name!r}, by their name: "
            f"call them {stem_of(photo)}{self.path.suffix}, or give their folder"
        )

    def _document(self) -> dict[str, object]:
        return parse_json(read_bytes(self.path), f"masks {str(self.path)!r}")


FOLDERS: dict[str, Callable[[Path], MaskSource]] = {
    "png": PngFolder,
    "folder": MasksFolders,
    "labelmap": LabelMaps,
    "coco": _coco_folder,
    "yolo": YoloFolder,
    "labelme": LabelmeFolder,
}
"""How a folder is read whose format is named."""
