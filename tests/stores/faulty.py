"""An engine in memory that several handles share, and that can die between, and in the middle of, its calls."""

from dataclasses import replace

import numpy as np

from facedex.stores.journal import Engine, Head
from facedex.stores.journaled import JournaledStore
from facedex.stores.rows import stored
from facedex.testing.faces import SPACE
from facedex.types import Where


class Died(BaseException):
    """The process is no more: nothing of ours may catch it and go on writing."""


class Data:
    def __init__(self):
        self.head, self.sign = Head().encode(), ""
        self.claims, self.rows, self.listed, self.steps = set(), {}, {}, {}


class FaultyEngine(Engine):
    """deaths  calls that change something until it dies; each call with n parts counts n; None: never."""

    def __init__(self, data, deaths=None):
        self.data, self.left = data, deaths

    def _change(self):
        if self.left is not None:
            if self.left == 0:
                raise Died
            self.left -= 1

    def _each(self, parts):
        for part in parts:
            self._change()
            yield part

    def head(self):
        return self.data.head

    def write_head(self, text):
        self._change()
        self.data.head = text

    def claim(self, generation):
        self._change()
        if generation in self.data.claims:
            return False
        self.data.claims.add(generation)
        return True

    def release(self, generation):
        self._change()
        self.data.claims.discard(generation)

    def beat(self):
        return self.data.sign

    def write_beat(self, text):
        self._change()
        self.data.sign = text

    def prepare(self, dimension):
        self._change()

    def put_templates(self, rows):
        for row in self._each(rows):
            self.data.rows[row.id] = row

    def relabel(self, rows):
        for row in self._each(rows):
            if row.id in self.data.rows:
                self.data.rows[row.id] = replace(self.data.rows[row.id], label=row.label, sequence=row.sequence)

    def templates(self, ids, embeddings=False):
        return [self.data.rows[n] for n in ids if n in self.data.rows]

    def page(self, query, limit, embeddings=False):
        passing = (row for _, row in sorted(self.data.rows.items()) if self._passes(row, query))
        return [row for row, _ in zip(passing, range(limit), strict=False)]

    def _passes(self, row, query):
        if not query.after < row.id <= query.upto:
            return False
        if query.contents is not None and row.content not in query.contents:
            return False
        return query.where == Where() or query.where.passes(stored(row, SPACE, "memory"))

    def count(self, query):
        return len(self.page(query, 10**9))

    def remove_templates(self, ids):
        for n in self._each(ids):
            self.data.rows.pop(n, None)

    def nearest(self, probes, k, query, exact):
        rows = self.page(query, 10**9)
        similar = [[float(np.frombuffer(row.embedding, "<f4") @ probe) for row in rows] for probe in probes]
        return [[rows[n].id for n in np.argsort(-np.array(each), kind="stable")[:k]] for each in similar]

    def put_photos(self, digests, generation):
        for digest in self._each(digests):
            self.data.listed[digest] = generation

    def photos(self, digests):
        return {digest: self.data.listed[digest] for digest in digests if digest in self.data.listed}

    def page_photos(self, after, limit, newer=-1):
        return [(d, g) for d, g in sorted(self.data.listed.items()) if d > after and g > newer][:limit]

    def remove_photos(self, digests):
        for digest in self._each(digests):
            self.data.listed.pop(digest, None)

    def put_steps(self, steps):
        for step in self._each(steps):
            self.data.steps[step.sequence] = step

    def page_steps(self, after, limit):
        return [step for n, step in sorted(self.data.steps.items()) if n > after][:limit]

    def remove_steps(self, sequences):
        for n in self._each(sequences):
            self.data.steps.pop(n, None)

    def close(self):
        pass


class FaultyStore(JournaledStore):
    @classmethod
    def open(cls, url, *, create=True):
        raise NotImplementedError


def faulty(data, deaths=None, lease=0.02, patience=5.0):
    return FaultyStore(FaultyEngine(data, deaths), "faulty://", lease=lease, patience=patience)
