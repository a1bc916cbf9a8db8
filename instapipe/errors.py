"""The exceptions that instapipe raises on purpose.

::

    InstapipeError                  everything below; its text is one line, fit to be printed
    ├── UsageError                  the request itself is wrong                  (exit code 2)
    │   ├── ConfigError             a setting or a YAML file
    │   ├── UnknownClass            a class that the segmenter or the weights do not know
    │   └── WeightsError            weights not found, or not what their card says
    ├── InputError                  one photo, mask file or data set is bad      (exit code 1; 4 in a batch)
    │   ├── PhotoError              a photo that cannot be decoded
    │   ├── MaskError               masks that cannot be read or do not fit the photo
    │   └── DataError               a training or evaluation set
    ├── OutputError                 a result cannot be written                   (exit code 1; 4 in a batch)
    ├── CacheError                  the cache folder cannot be used
    ├── EngineError                 an engine, precision or device that is not there
    └── TrainingError               a run that cannot go on (divergence, foreseen out-of-memory)
"""

from __future__ import annotations


class InstapipeError(Exception):
    """Base of all. ``str(error)`` is one line that names the thing, the value and the way out."""

    exit_code = 1


class UsageError(InstapipeError):
    """The request itself is wrong; nothing was done."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown, has the wrong type, or contradicts another."""


class UnknownClass(UsageError):
    """No class of that name."""


class WeightsError(UsageError):
    """Weights are missing, damaged, or of another kind than asked for."""


class InputError(InstapipeError):
    """One input is bad; the rest of a batch goes on."""


class PhotoError(InputError):
    """A photo cannot be decoded, or is over a limit."""


class MaskError(InputError):
    """Masks cannot be read, or do not fit the photo."""


class DataError(InputError):
    """A data set cannot be used as it is."""


class OutputError(InstapipeError):
    """A result cannot be written."""


class CacheError(InstapipeError):
    """The cache folder cannot be used."""


class EngineError(InstapipeError):
    """An engine, a precision or a device is not available."""


class TrainingError(InstapipeError):
    """A training run cannot go on."""
