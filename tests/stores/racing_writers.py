"""Two processes that enroll into one gallery at once, followed live."""

import subprocess
import sys
from pathlib import Path

from facedex.stores.registry import open_store

WRITER = Path(__file__).with_name("gallery_writer.py")


def check_race(url, batches):
    """Nothing is lost, and a reader that follows by sequence numbers hears of everything, in order, without a gap."""
    writers = [
        subprocess.Popen([sys.executable, WRITER, url, name, str(batches)], stdout=subprocess.PIPE)
        for name in ("one", "two")
    ]
    with open_store(url) as store:
        seen, after = [], 0
        while any(writer.poll() is None for writer in writers):
            changes = store.changes(after)
            seen += [change.id for change in changes]
            after = max([after, *(change.sequence for change in changes)])
        told = [line for writer in writers for line in writer.communicate()[0].splitlines()]
        assert [writer.returncode for writer in writers] == [0, 0]
        seen += [change.id for change in store.changes(after)]
        ids = [int(word) for line in told for word in line.split()[1:]]
        assert len(ids) == len(set(ids)) == 2 * batches * 7
        assert seen == sorted(ids) == store.ids().tolist()
        assert store.check() == ()
