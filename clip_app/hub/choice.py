"""Which files of a repository the settings need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from clip_app.checkpoint import Format, Variant, choose_files, missing_files, variant_of, within
from clip_app.engines import preferred_format
from clip_app.errors import CheckpointError, HubError
from clip_app.hub.cache import RepoCache
from clip_app.settings import Settings

__all__ = ["Choice"]

T = TypeVar("T")


@dataclass(frozen=True)
class Choice:
    """The format and the variant that serve, and the folder of the repository that the checkpoint lies in."""

    format: Format
    variant: Variant
    part: str

    @classmethod
    def under(cls, settings: Settings, part: str) -> Choice:
        """Choose under these settings."""
        return cls(preferred_format(settings), variant_of(settings.precision), part)

    def of(self, files: Mapping[str, T]) -> dict[str, T]:
        """Return the files that are needed; all of them where they are no whole checkpoint.

        Raises:
            HubError: there is no form of it for the precision.
        """
        seen = within(files, self.part)
        return {seen[name]: files[seen[name]] for name in self._wanted(seen)}

    def lay_out(self, cache: RepoCache, commit: str, files: Mapping[str, object]) -> None:
        """Make the checkpoint's own folder of a part of a repository."""
        seen = within(files, self.part)
        cache.write_view(commit, {name: seen[name] for name in self._wanted(seen)})

    def _wanted(self, seen: Mapping[str, str]) -> list[str]:
        if missing_files(seen):
            return list(seen)
        try:
            return choose_files(seen, self.format, self.variant)
        except CheckpointError as error:
            raise HubError("not_found", error.message) from error
