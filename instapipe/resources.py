"""Where the bundled weights and configurations lie: inside the installed package, or at the top of a checkout.

A wheel carries them as `instapipe/_bundled/weights` and `instapipe/_bundled/configs` (see `setup.py`); a checkout, and
an editable install of one, reads the folders `weights/` and `configs/` beside the package.
"""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def weights_root() -> Path:
    """The folder of the bundled weights, one folder per card. It may be missing in a checkout without weights."""
    return _root("weights")


def pulled_root() -> Path:
    """The folder of pulled weights: $INSTAPIPE_WEIGHTS, or one in the user's data folder. It may be missing."""
    given = os.environ.get("INSTAPIPE_WEIGHTS")
    if given:
        return Path(given).expanduser()
    import platformdirs

    return platformdirs.user_data_path("instapipe", appauthor=False) / "weights"


def configs_root() -> Path:
    """The folder of the bundled configurations: `translate/*.yaml` and `train/*.yaml`."""
    return _root("configs")


def _root(name: str) -> Path:
    installed = PACKAGE / "_bundled" / name
    return installed if installed.is_dir() else PACKAGE.parent / name
