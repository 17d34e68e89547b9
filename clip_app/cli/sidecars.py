"""Labels as XMP sidecars (ISO 16684-1), where photo managers look for keywords: ``photo.jpg.xmp``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

from clip_app.collection.labelling import Labelled

__all__ = ["write_sidecars"]

MINE = 'x:xmptk="clip-app"'
SIDECAR = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" {mine}>
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
   <dc:subject>
    <rdf:Bag>
{items}
    </rdf:Bag>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def write_sidecars(pictures: Iterable[list[Labelled]]) -> tuple[int, list[tuple[str, str]]]:
    """Write the labels that fit a picture better than naming nothing into a file beside it.

    Returns how many were written, and the pictures that have none now, with the reason: what another program wrote
    is never touched, and an archive or an address has no place for one.
    """
    written, kept = 0, []
    for labels in pictures:
        path = Path(labels[0].row.path)
        problem = _write(path, [one.label for one in labels if one.label is not None and one.confidence > one.no_match])
        if problem is None:
            written += 1
        else:
            kept.append((str(path), problem))
    return written, kept


def _write(picture: Path, labels: list[str]) -> str | None:
    sidecar = picture.with_name(f"{picture.name}.xmp")
    if not picture.is_file():
        return "there is no file of that name to put a sidecar beside"
    try:
        if sidecar.exists() and MINE not in sidecar.read_text(encoding="utf-8", errors="replace"):
            return f"{sidecar.name} is another program's"
        items = "\n".join(f"     <rdf:li>{escape(label)}</rdf:li>" for label in dict.fromkeys(labels))
        sidecar.write_text(SIDECAR.format(mine=MINE, items=items), encoding="utf-8")
    except OSError as error:
        return error.strerror or type(error).__name__
    return None
