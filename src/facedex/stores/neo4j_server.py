"""The only module that speaks to Neo4j's driver: connections, transactions, retries, and what errors mean."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import neo4j
from neo4j.exceptions import (
    AuthConfigurationError,
    AuthError,
    ClientError,
    ConnectionAcquisitionTimeoutError,
    DatabaseUnavailable,
    DriverError,
    Forbidden,
    ForbiddenOnReadOnlyDatabase,
    GqlError,
    IncompleteCommit,
    Neo4jError,
    TransientError,
)

from facedex.errors import (
    StoreBusy,
    StoreClosed,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from facedex.stores.address import Address

__all__ = ["Neo4jServer", "Outcome", "mapped"]

T = TypeVar("T")
Outcome = Callable[[Any], bool | None]
"""Asked in a new transaction when a commit's answer was lost: was it written? None: nobody can tell."""

_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)


class Neo4jServer:
    """A pool of connections to one database of a server. Safe to share between threads.

    patience  seconds a call goes on trying while the server is away or busy.
    """

    def __init__(self, address: Address, database: str | None, patience: float) -> None:
        self.address = address
        self._database = database
        self._patience = patience
        self._lock = threading.Lock()
        self._closed = False
        with self._mapping():
            host = f"[{address.host}]" if ":" in address.host else address.host
            self._driver = neo4j.GraphDatabase.driver(
                f"{address.scheme}://{host}:{address.port}",
                auth=None if address.user is None else (address.user, address.password or ""),
                connection_timeout=min(10.0, patience),
                connection_acquisition_timeout=patience,
                notifications_min_severity="OFF",
                user_agent="facedex",
            )
        try:
            with self._mapping():
                self._driver.verify_connectivity()
        except StoreError:
            self.close()
            raise

    def read(self, work: Callable[[Any], T]) -> T:
        """Run queries in one transaction, again while the server is away.

        Raises  StoreClosed, StoreUnavailable, StoreBusy and the other errors of a store.
        """
        return self._persist(work, None)

    def write(self, work: Callable[[Any], T], outcome: Outcome) -> T:
        """Run queries in one transaction and commit it.

        work     run again in a new transaction when the server ended the last one; never after a commit.
        outcome  decides when the connection broke within the commit.
        Raises   as ``read``; nothing was written then, unless the message says that nobody can tell.
        """
        return self._persist(work, outcome)

    def define(self, *statements: str) -> None:
        """Run statements that change the schema, in one transaction; they may be repeated."""

        def work(transaction: Any) -> None:
            for statement in statements:
                transaction.run(statement).consume()

        self._persist(work, lambda _: False)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(GqlError, OSError):
            self._driver.close()

    def _persist(self, work: Callable[[Any], T], outcome: Outcome | None) -> T:
        deadline, tries = time.monotonic() + self._patience, 0
        while True:
            self._check_open()
            try:
                return self._once(work, outcome)
            except (Neo4jError, DriverError, OSError) as error:
                again = not isinstance(error, (Neo4jError, DriverError)) or error.is_retryable()
                # IF NOT EXISTS looks before it locks: another may have made the same index in between.
                again = again or "AlreadyExists" in str(getattr(error, "code", ""))
                pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
                if not again or time.monotonic() + pause > deadline:
                    raise mapped(error, self.address.masked) from error
            except RuntimeError as error:  # what the driver says of itself once it was closed
                self._check_open()
                raise mapped(error, self.address.masked) from error
            time.sleep(pause)
            tries += 1

    def _once(self, work: Callable[[Any], T], outcome: Outcome | None) -> T:
        # Write access for reads too: a cluster sends them to its leader, so they see every commit.
        with self._driver.session(database=self._database, default_access_mode=neo4j.WRITE_ACCESS) as session:
            transaction = session.begin_transaction(timeout=self._patience)
            try:
                answer = work(transaction)
                if outcome is None:
                    transaction.rollback()
                    return answer
                transaction.commit()
                return answer
            except IncompleteCommit as error:
                lost: Exception = error
            finally:
                transaction.close()
        assert outcome is not None
        written = self._persist(outcome, None)
        if written is None:
            raise StoreUnavailable(
                f"the connection to {self.address.masked} broke in a commit, and others have written since: nobody "
                "can tell whether it was written. Do it again: what is stored already is not stored twice.",
                url=self.address.masked,
            ) from lost
        return answer if written else self._once(work, outcome)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed(f"the gallery {self.address.masked} was closed. Open it again.", url=self.address.masked)

    @contextlib.contextmanager
    def _mapping(self) -> Iterator[None]:
        try:
            yield
        except (GqlError, OSError, ValueError, RuntimeError) as error:
            raise mapped(error, self.address.masked) from error


def mapped(error: Exception, url: str) -> StoreError:
    """Ours for an error of the driver.

    url  masked.
    """
    code = str(getattr(error, "code", "") or "")
    reason = f"{getattr(error, 'message', None) or error}".strip().splitlines()
    said = f"{type(error).__name__}: {reason[0][:300] if reason else code}"
    facts = {"url": url, "reason": said, "driver_code": code}
    if isinstance(error, (AuthError, AuthConfigurationError)):
        return StoreUnavailable(f"{url} refused the user or the password. Check both ({said}).", **facts)
    if isinstance(error, (Forbidden, ForbiddenOnReadOnlyDatabase)):
        return StoreReadOnly(f"{url} does not let this user do that ({said}). Nothing was written.", **facts)
    if any(word in code for word in ("OutOfMemory", "OutOfDisk", "NoSpace")):
        return StoreFull(f"{url} has no room for this ({said}). Nothing was written; do less at once.", **facts)
    if "DatabaseNotFound" in code:
        return StoreUnavailable(f"{url} has no such database ({said}). Name one with ?database=.", **facts)
    timed_out = any(word in code for word in ("TransactionTimedOut", "LockClientStopped", "LockAcquisitionTimeout"))
    busy = isinstance(error, (TransientError, ConnectionAcquisitionTimeoutError))
    if timed_out or (busy and not isinstance(error, DatabaseUnavailable)):
        return StoreBusy(f"{url} was busy for too long ({said}). Nothing was written. Try again.", **facts)
    if isinstance(error, ClientError):
        return StoreUnavailable(f"{url} refused a query of ours ({said}). It needs Neo4j 5.18 or newer.", **facts)
    return StoreUnavailable(f"{url} cannot be reached ({said}). Start the server, or correct the URL.", **facts)
