"""A process of its own that enrolls, for the tests that kill it or let it race.

``python gallery_writer.py GALLERY NAME BATCHES``, a path or a URL.

Prints one line per batch, only after ``add`` has returned: ``ids first-photo-number``.
"""

import os
import sys

import numpy as np

from facedex.stores.contract import PhotoRecord
from facedex.stores.registry import open_store
from facedex.testing.faces import SPACE, face

BATCH = 7


def faces_of(name, batch):
    """Known to the parent too: every number of the embedding follows from the names."""
    random = np.random.default_rng([*name.encode(), batch])
    return [
        face(f"{name}-{batch}-{n}.jpg", f"{name} {batch % 5}", towards=random.standard_normal(4), metadata={"n": n})
        for n in range(BATCH)
    ]


def main(path, name, batches):
    with open_store(path) as store:
        for batch in range(batches):
            faces = faces_of(name, batch)
            records = [PhotoRecord(f.photo_digest, (f,)) for f in faces]
            added = store.add(records, SPACE)
            os.write(1, f"{batch} {' '.join(str(a.id) for each in added for a in each)}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
