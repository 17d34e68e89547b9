"""What systems leave beside people's files without being asked."""

from __future__ import annotations

__all__ = ["is_junk"]

JUNK = ("thumbs.db", "desktop.ini", "__macosx", "lost+found")


def is_junk(path: str) -> bool:
    """Say whether a part of a path, with slashes between, is hidden or of a system's making."""
    return any(part.startswith(".") or part in JUNK for part in path.lower().split("/"))
