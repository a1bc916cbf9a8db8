"""Pickled weights, read as data: arrays in containers, nothing that runs code."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from instapipe.errors import WeightsError


class ArrayUnpickler(pickle.Unpickler):
    """Knows numpy's arrays, and containers; whatever else a pickle names is refused before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        """The few things that arrays are rebuilt with; raises UnpicklingError for all others."""
        # numpy 2 renamed numpy.core; Python 3 renamed __builtin__.
        known = _ALLOWED.get((module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins"), name))
        if known is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}; only arrays and containers are read")
        return known


def read_arrays(path: Path) -> Any:
    """The content of the pickle `path`; raises WeightsError where it is damaged, or asks for more than data."""
    try:
        with path.open("rb") as file:
            return ArrayUnpickler(file, encoding="latin1").load()
    except (Exception, MemoryError) as error:  # a damaged pickle raises many kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"cannot read {str(path)!r} as data only: {reason}") from error


def _encode_latin1(text: str, encoding: str) -> bytes:
    """How Python 2 bytes are written in pickles; other codecs could decompress."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin-1")


def _rebuild(kind: type, *_: Any) -> np.ndarray[Any, Any]:
    """An empty array, to be filled from the pickle: its shape and type come with its content."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError(f"it asks for an array of {kind!r}")
    return np.empty(0, dtype=np.int8)


def _scalar(dtype: Any, content: Any = None) -> Any:
    """One number; objects are refused."""
    if np.dtype(dtype).hasobject:
        raise pickle.UnpicklingError("it asks for an array of objects")
    return np.frombuffer(content, dtype=dtype, count=1)[0]


def _from_buffer(buffer: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> np.ndarray[Any, Any]:
    """An array of a pickle of protocol 5."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _rebuild,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode_latin1,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "complex"): complex,
}
