"""Photos as people have them -> :class:`Photo`: upright, sRGB, 8 bits, alpha apart.

Pillow reads the containers, profiles and orientations, and notices what is cut off; OpenCV, which would silently return
half a photo, reads only what Pillow cannot: more than 8 bits a channel in colour. What had to be changed is said in
`Photo.notes`. Nothing of the metadata (position, camera, thumbnails) goes on from here.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from instapipe.errors import PhotoError
from instapipe.imaging.files import MAX_PIXELS, PHOTO_SUFFIXES, read_bytes
from instapipe.structures import Photo, Pixels

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
_OWN_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"},
    "TIFF": {".tif", ".tiff"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"},
    "BMP": {".bmp", ".dib"},
    "JPEG2000": {".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"},
}

# Large photos are judged below, against the caller's limit: Pillow's warning at half of its own adds nothing.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_photo(path: Path, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """The photo in the file `path`; raises PhotoError."""
    return decode_photo(read_bytes(path), str(path), max_pixels=max_pixels)


def decode_photo(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """The photo in `data`, an encoded image; `name` is what messages call it.

    Raises PhotoError where it is no image, is cut off or damaged, or has more than `max_pixels` pixels.
    """
    notes: list[str] = []
    try:
        Image.init()
        # A Pillow built without one of the libraries lacks its format.
        formats = [name for name in _FORMATS if name in Image.OPEN]
        with Image.open(io.BytesIO(data), formats=formats) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise PhotoError(
                    f"photo {name!r} has {width}x{height} pixels, over the limit of {max_pixels / 1e6:.0f} million; "
                    "scale it down"
                )
            image_format = image.format or ""
            own = _OWN_SUFFIXES.get(image_format, {f".{image_format.lower()}"})
            suffix = Path(name).suffix.lower()
            if suffix and suffix not in own and suffix in PHOTO_SUFFIXES:
                notes.append(f"named {suffix}, but a {image_format} file")
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image_format != "MPO":
                notes.append(f"has {frames} frames; the first was taken")
            image.load()
            pixels, alpha = _upright_rgb(image, data, name, notes)
    except PhotoError:
        raise
    except Image.DecompressionBombError as error:
        raise PhotoError(f"photo {name!r} has too many pixels (over 178 million); scale it down") from error
    except UnidentifiedImageError as error:
        raise PhotoError(f"photo {name!r} is no image that can be read{_guess(data)}") from error
    except MemoryError as error:
        raise PhotoError(f"photo {name!r} does not fit into memory") from error
    # Pillow's readers raise nearly anything on damaged files.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PhotoError(f"photo {name!r} is damaged or cut off: {reason}") from error
    return Photo(pixels, name, hashlib.sha256(data).hexdigest(), alpha, tuple(notes))


def _upright_rgb(image: Image.Image, data: bytes, name: str, notes: list[str]) -> tuple[Pixels, Pixels | None]:
    """uint8 (H, W, 3) and alpha uint8 (H, W) or None, of a loaded image."""
    profile = image.info.get("icc_profile")
    deep = _deep_pixels(image, data)
    if deep is not None:
        notes.append("16 bits a channel reduced to 8")
        image = _with_orientation(Image.fromarray(deep), image)
    elif image.mode.startswith("I") or image.mode == "F":
        image = _with_orientation(_shallow(image, name, notes), image)
    try:
        # In place: a copy of 20 megapixels is 80 MB.
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:
        # A damaged EXIF block is no reason to refuse the photo: it is shown as it lies.
        notes.append("EXIF could not be read; taken as upright")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
        image = image.convert("RGB")
    else:
        alpha = None
    if profile:
        image = _to_srgb(image, profile, notes)
    if image.mode == "CMYK":
        notes.append("CMYK without a profile, converted plainly")
    rgb = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    return rgb, None if alpha is None or bool((alpha == 255).all()) else alpha


def _with_orientation(pixels: Image.Image, original: Image.Image) -> Image.Image:
    """`pixels` with the orientation tag of `original`."""
    try:
        pixels.getexif()[0x0112] = original.getexif().get(0x0112, 1)
    except Exception:
        return pixels
    return pixels


def _deep_pixels(image: Image.Image, data: bytes) -> Pixels | None:
    """uint8 (H, W, 3 or 4) of a colour image with 16 bits a channel; None for all others."""
    if image.format == "PNG":
        # The header chunk: bit depth at byte 24, colour type (2 RGB, 6 RGBA, 4 grey with alpha) at byte 25.
        deep = data[24] == 16 and data[25] in (2, 4, 6)
    elif image.format == "TIFF":
        depths = getattr(image, "tag_v2", {}).get(258, (8,))
        deep = len(depths) >= 3 and max(depths) == 16
    else:
        deep = False
    if not deep:
        return None
    flags = cv2.IMREAD_UNCHANGED if image.mode in ("RGBA", "LA") else cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None or decoded.dtype != np.uint16 or decoded.shape[:2] != (image.height, image.width):
        return None
    order = cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return _to_8_bits(cv2.cvtColor(decoded, order))


def _to_8_bits(values: np.ndarray) -> Pixels:
    """uint16 -> uint8 by rounding 65535 -> 255."""
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _shallow(image: Image.Image, name: str, notes: list[str]) -> Image.Image:
    """A grey image of more than 8 bits as 8 bits."""
    values = np.array(image)
    if image.mode == "F" or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise PhotoError(f"photo {name!r} has floating-point or 32-bit pixels; convert it to 8 or 16 bits")
    notes.append("16 bits a channel reduced to 8")
    return Image.fromarray(_to_8_bits(values))


def _to_srgb(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    """`image` through its ICC profile into sRGB; as it is where the profile is sRGB already, or unusable."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        description = ImageCms.getProfileDescription(source).strip()
        if image.mode == "RGB" and description.lower().startswith("srgb"):
            return image
        if image.mode not in ("RGB", "L", "CMYK", "LAB"):
            image = image.convert("RGB")
        converted = ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes.append("its colour profile could not be used; taken as sRGB")
        return image
    if converted is None:
        return image
    notes.append(f"converted from colour profile {description[:60]!r} to sRGB")
    return converted


def _guess(data: bytes) -> str:
    """What the bytes look like, for the message."""
    head = data[:512].lstrip()
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return ": HEIC; save it as JPEG or PNG first"
    if head[:1] == b"<":
        return ": it looks like a web page or SVG"
    if data[:4] == b"%PDF":
        return ": it is a PDF"
    if head.startswith(b"version https://git-lfs"):
        return ": it is a Git LFS pointer, the photo itself was not fetched"
    return ""
