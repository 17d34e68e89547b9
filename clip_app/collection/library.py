"""The collections that visitors may search: opened once, by name, and never a path outside of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING

from clip_app.collection.searching import Hit, Question, search
from clip_app.collection.store import Collection, Identity, collection_folder
from clip_app.collection.thumbnails import thumbnail
from clip_app.errors import BadOption, CollectionError, SettingsError
from clip_app.intake import Intake
from clip_app.settings import Settings

if TYPE_CHECKING:
    from clip_app.model import Model

__all__ = ["Library"]

KEPT = 2000  # thumbnails in memory, some 15 kB each


class Library:
    """The operator's collections. Thread-safe."""

    def __init__(self, settings: Settings, intake: Intake) -> None:
        """Open those that COLLECTIONS names.

        Raises:
            SettingsError: there is none of a name, or two have the same.
        """
        self._settings = settings
        self._intake = intake
        self._collections: dict[str, Collection] = {}
        for name in settings.searched:
            folder = collection_folder(name)
            try:
                opened = Collection.open(folder)
            except CollectionError as error:
                raise SettingsError(f"CLIP_APP_COLLECTIONS={settings.collections}: {error.message}") from None
            if opened.name in self._collections:
                raise SettingsError(f"CLIP_APP_COLLECTIONS={settings.collections}: two are called {opened.name}")
            self._collections[opened.name] = opened
        self._small = lru_cache(KEPT)(self._make_small)

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many pictures each collection has that can be found."""
        return {name: opened.counts().pictures for name, opened in self._collections.items()}

    def search(self, name: str, question: Question, model: Model, *, most: int, above: float | None) -> list[Hit]:
        """Return the best pictures of a collection.

        Raises:
            BadOption: there is no such collection.
            CollectionError: it was made with another model than the one that serves.
        """
        collection = self._named(name)
        collection.check(Identity.of(model, len(question.direction)))
        return search(collection, question, most=most, above=above)

    def shown(self, name: str, path: str) -> str:
        """Return a picture's path as visitors see it: from the folder on that was indexed."""
        if "://" in path:
            return path
        roots = [PurePath(root) for root in self._named(name).roots() if PurePath(path).is_relative_to(root)]
        longest = max(roots, key=lambda root: len(root.parts), default=PurePath(path))
        return str(PurePath(path).relative_to(longest.parent))

    def thumbnail(self, name: str, number: int) -> bytes:
        """Return a JPEG of the picture of that number, which a search gave.

        Raises:
            BadOption: there is no such collection, or no picture of that number in it.
            UnreadablePath, UndecodableImage, ImageTooLarge: it cannot be read any more.
        """
        return self._small(name, number)

    def _make_small(self, name: str, number: int) -> bytes:
        collection = self._named(name)
        if not 0 <= number < len(collection.vectors()) or number in collection.hidden():
            raise BadOption(f"There is no picture {number} in the collection {name}.")
        (row,) = collection.at([number])
        with self._intake.decoder():
            return thumbnail(row.path, self._intake, self._settings)

    def _named(self, name: str) -> Collection:
        if name not in self._collections:
            offered = ", ".join(self._collections) or "none: CLIP_APP_COLLECTIONS names those that may be searched"
            raise BadOption(f"There is no collection {name[:40]!r}. There are: {offered}.")
        return self._collections[name]
