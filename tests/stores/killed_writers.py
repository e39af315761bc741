"""Writers that die by ``kill -9`` at random moments of an enrollment, and what must be there afterwards."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from gallery_writer import BATCH, faces_of

from facedex.stores.registry import open_store
from facedex.testing.faces import SPACE, face, photo, same_template

WRITER = Path(__file__).with_name("gallery_writer.py")


def _kill_while_enrolling(path, name, after):
    """Lines a writer printed before it was killed, ``after`` seconds behind its first."""
    with subprocess.Popen([sys.executable, WRITER, path, name, "1000000"], stdout=subprocess.PIPE) as writer:
        lines = [writer.stdout.readline()]
        time.sleep(after)
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines(keepends=True)
    assert writer.returncode == -signal.SIGKILL
    return [[int(word) for word in line.split()] for line in lines if line.endswith(b"\n")]


def check_rounds(path, rounds, seed):
    """Let writers enroll into a gallery (path or URL) and kill them; how many batches were acknowledged."""
    chance = random.Random(seed)
    used: set[int] = set()
    acknowledged = 0
    for round_ in range(rounds):
        name = f"w{round_}"
        told = _kill_while_enrolling(path, name, chance.uniform(0, 0.15))
        assert told, "the writer was killed before it had enrolled anything"
        with open_store(path) as store:
            assert store.check() == ()
            for batch, *ids in told:
                expected = faces_of(name, batch)
                stored = store.get(ids)
                assert [s.id for s in stored] == ids
                assert all(same_template(s.template, f) for s, f in zip(stored, expected, strict=True))
            new = set(store.ids().tolist()) - used
            assert not {n for _, *ids in told for n in ids} & used, "a number was used again"
            assert len(new) % BATCH == 0, "half a batch"
            assert 0 <= len(new) - BATCH * len(told) <= BATCH, "at most the batch whose acknowledgement was cut off"
            assert store.sequence() == max(new)
            assert not new or min(new) > max(used, default=0)
            known = store.known(f.photo_digest for batch in range(len(new) // BATCH) for f in faces_of(name, batch))
            assert len(known) == len(new)
            used |= new
            acknowledged += len(told)
            ((after,),) = store.add([photo(f"after-{name}.jpg", face(f"after-{name}.jpg"))], SPACE)
            assert after.id > max(used)  # the next writer goes on
            used.add(after.id)
    return acknowledged
