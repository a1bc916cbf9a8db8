"""Translate the instances in photos from one class to another, and keep the background."""

from __future__ import annotations

__all__ = ["__version__"]
__version__ = "0.1.0"
