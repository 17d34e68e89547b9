"""``POST /api/search``: the operator's collections by a text, a picture or both; and their pictures, small."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, File, Response, UploadFile
from pydantic import BaseModel, Field

from clip_app.analyzer import Analyzer
from clip_app.collection.asking import ask
from clip_app.collection.library import Library
from clip_app.collection.searching import Hit
from clip_app.endpoints import REST_SEARCH
from clip_app.forms import form_options, known_fields
from clip_app.loading import Loader
from clip_app.observation import Observation
from clip_app.options import CollectionOptions
from clip_app.results import REFUSALS
from clip_app.threads import Threads

__all__ = ["collection_routes"]

DEFAULT_TOP = 20
KEPT_SECONDS = 3600  # a thumbnail in a browser: a picture that changes gets another number


class FoundImage(BaseModel):
    """A picture of a collection."""

    path: str = Field(description="Its path, from the folder on that was indexed.")
    score: float = Field(description="Cosine of its embedding and the question's.")
    relevant: bool = Field(description="Whether the question fits it; false only among those that `above` asks for.")
    thumbnail: str = Field(description="Where a small JPEG of it is.")
    width: int | None
    height: int | None


class CollectionAnswer(BaseModel):
    """The best pictures, best first, as far as they are relevant."""

    results: list[FoundImage]


class CollectionSizes(BaseModel):
    """The collections that may be searched, with how many pictures each has."""

    collections: dict[str, int]


def collection_routes(
    library: Library, analyzer: Analyzer, loader: Loader, *, max_bytes: int, places: int
) -> APIRouter:
    """Build the routes of the collections; a picture that is sent takes one of the places for pictures."""
    router = APIRouter(tags=["collections"])
    threads = Threads(places)

    @router.post(REST_SEARCH.path or "", dependencies=[Depends(known_fields(REST_SEARCH))], responses=REFUSALS)
    async def search(
        options: Annotated[CollectionOptions, Depends(form_options(REST_SEARCH, CollectionOptions))],
        image: Annotated[UploadFile | None, File(description="A picture that they should be like.")] = None,
    ) -> CollectionAnswer:
        """Find pictures of a collection by a text, by a picture, or by both."""
        received = time.perf_counter()
        picture = await image.read(max_bytes + 1) if image is not None else None
        endpoint = REST_SEARCH if picture is not None else REST_SEARCH.again()

        def work() -> CollectionAnswer:
            with Observation(endpoint, since=received) as observation:
                question = ask(analyzer, observation, text=options.text, picture=picture)
                model = loader.serving().model
                with observation.stage("score"):
                    most = options.top_k or DEFAULT_TOP
                    hits = library.search(options.collection, question, model, most=most, above=options.above)
                    return CollectionAnswer(results=[_found(library, options.collection, hit) for hit in hits])

        return await threads.run(work)

    @router.get("/api/collections")
    async def collections() -> CollectionSizes:
        """Name the collections that may be searched."""
        return CollectionSizes(collections=dict(await threads.run(lambda: library.sizes)))

    @router.get(
        "/api/collections/{name}/thumbnails/{number}.jpg",
        response_class=Response,
        responses=REFUSALS | {200: {"content": {"image/jpeg": {}}}},
    )
    async def thumbnail(name: str, number: int) -> Any:
        """A picture of a collection, small, by the address that a search gave."""
        data = await threads.run(partial(library.thumbnail, name, number))
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": f"private, max-age={KEPT_SECONDS}"})

    return router


def _found(library: Library, name: str, hit: Hit) -> FoundImage:
    row = hit.row
    return FoundImage(
        path=library.shown(name, row.path),
        score=hit.score,
        relevant=hit.relevant,
        thumbnail=f"/api/collections/{quote(name)}/thumbnails/{row.vector}.jpg",
        width=row.width,
        height=row.height,
    )
