"""An enrollment that goes on while its server is killed and started again."""

import threading

from gallery_writer import faces_of

from facedex.errors import StoreBusy, StoreUnavailable
from facedex.stores.contract import PhotoRecord
from facedex.testing.faces import SPACE, same_template


def enroll_over_restarts(store, server, kills=2, batches_between=8):
    """Kill and start the server while a thread enrolls; check that what was acknowledged is there, once.

    Returns  the clear errors after which ``add`` had to be called again.
    """
    acknowledged, failed, wrong = [], [], []
    enough, more = threading.Event(), threading.Event()
    wanted = [batches_between]

    def work():
        try:
            batch = 0
            while not more.is_set():
                faces = faces_of("w", batch)
                try:
                    added = store.add([PhotoRecord(f.photo_digest, (f,)) for f in faces], SPACE)
                except (StoreUnavailable, StoreBusy) as error:
                    failed.append(error)
                    continue  # as a caller would: the same again
                acknowledged.append((batch, [each.id for (each,) in added]))
                batch += 1
                if len(acknowledged) >= wanted[0]:
                    enough.set()
        except BaseException as error:
            wrong.append(error)
            enough.set()

    worker = threading.Thread(target=work)
    worker.start()
    for _ in range(kills):
        assert enough.wait(60)
        enough.clear()
        server.kill()
        server.restart()
        wanted[0] = len(acknowledged) + batches_between
    assert enough.wait(60)
    more.set()
    worker.join()
    assert not wrong, wrong
    ids = [id for _, some in acknowledged for id in some]
    assert ids == sorted(set(ids))
    assert store.ids().tolist() == ids
    for batch, some in acknowledged:
        stored = store.get(some)
        assert all(same_template(s.template, f) for s, f in zip(stored, faces_of("w", batch), strict=True))
    assert [c.id for c in store.changes(0)] == ids
    assert store.check() == ()
    return [error.message for error in failed]
