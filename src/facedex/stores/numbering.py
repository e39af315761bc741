"""Which templates of a batch are new, and their numbers: the contract's points 2 and 4, the same in every database."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from facedex.stores.contract import Added, PhotoRecord

__all__ = ["by_photo", "number_batch"]

Content = TypeVar("Content", bound=Hashable)


def number_batch(
    contents: Sequence[Content],
    labels: Sequence[str | None],
    present: Mapping[Content, tuple[int, str | None]],
    sequence: int,
) -> tuple[list[Added], list[int]]:
    """Number the templates whose content is not stored yet and did not come earlier in the batch.

    contents, labels  of the batch, in order.
    present           id and label of the contents that are stored.
    sequence          the highest number given so far.
    Returns           what is done with each template, and the places in the batch of the new ones: they get the
                      numbers from ``sequence + 1`` on, in order.
    """
    known = dict(present)
    added: list[Added] = []
    new: list[int] = []
    for place, (content, label) in enumerate(zip(contents, labels, strict=True)):
        old = known.get(content)
        if old is None:
            new.append(place)
            old = known[content] = (sequence + len(new), label)
            added.append(Added(old[0], True, label))
        else:
            added.append(Added(old[0], False, old[1]))
    return added, new


def by_photo(photos: Sequence[PhotoRecord], added: Sequence[Added]) -> list[list[Added]]:
    """What was done with each template, in one list a photo, as ``Store.add`` answers."""
    each = iter(added)
    return [[next(each) for _ in photo.templates] for photo in photos]
