"""From a URL to a store. Adapters are a table; other people's join it by an entry point.

A path, ``sqlite:///faces.db`` or ``memory://``; with other adapters installed, their schemes. An adapter of your own:

    [project.entry-points."facedex.stores"]
    myscheme = "my_package:MyStore"        # a facedex.stores.contract.Store
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from facedex.errors import ArgumentInvalid, StoreDriverMissing, StoreUnknown
from facedex.stores.contract import Store

__all__ = ["ADAPTERS", "ENTRY_POINTS", "Adapter", "mask", "open_store", "schemes"]

ENTRY_POINTS = "facedex.stores"
"""Entry point group: scheme → Store class."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """Where the store of a scheme is, and how its driver is installed.

    module, name  of the Store class; imported when a URL asks for it.
    install       the command, when a driver is needed; None when nothing is.
    """

    module: str
    name: str
    install: str | None = None


ADAPTERS: Mapping[str, Adapter] = {
    "memory": Adapter("facedex.stores.memory", "MemoryStore"),
    "sqlite": Adapter("facedex.stores.sqlite", "SQLiteStore"),
    **{
        scheme: Adapter("facedex.stores.neo4j", "Neo4jStore", "pip install 'facedex[neo4j]'")
        for scheme in ("neo4j", "neo4j+s", "neo4j+ssc", "bolt", "bolt+s", "bolt+ssc")
    },
    "weaviate": Adapter("facedex.stores.weaviate", "WeaviateStore", "pip install 'facedex[weaviate]'"),
    "qdrant": Adapter("facedex.stores.qdrant", "QdrantStore", "pip install 'facedex[qdrant]'"),
    "postgresql": Adapter("facedex.stores.postgres", "PostgresStore", "pip install 'facedex[postgres]'"),
    "postgres": Adapter("facedex.stores.postgres", "PostgresStore", "pip install 'facedex[postgres]'"),
    "mongodb": Adapter("facedex.stores.mongodb", "MongoStore", "pip install 'facedex[mongodb]'"),
    "mongodb+srv": Adapter("facedex.stores.mongodb", "MongoStore", "pip install 'facedex[mongodb]'"),
}

# Two letters at least: one is a Windows drive.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://", re.ASCII)
_SECRET = re.compile(
    r"([?&;][^=&;#]*(?:passw|pwd|secret|token|api_?-?key|auth|sslkey|credential)[^=&;#]*=)[^&;#]*", re.IGNORECASE
)
_USERINFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]+://)([^:/?#@]*):[^?#]*@", re.ASCII)


def open_store(url: str | os.PathLike[str], *, create: bool = True) -> Store:
    """Open the gallery a URL or path names.

    create  make it when it is missing; otherwise a missing one raises StoreUnavailable.
    Raises  StoreUnknown for a scheme nobody serves, StoreDriverMissing when its driver is not installed,
            and whatever the adapter's ``open`` raises.
    """
    if isinstance(url, os.PathLike):
        text = os.fsdecode(url)
    elif isinstance(url, str):
        text = url
    else:
        raise ArgumentInvalid(f"gallery is {url!r}; expected a path or a URL.", parameter="url", value=repr(url))
    if not text or "\0" in text:
        raise ArgumentInvalid(f"gallery is {text!r}; expected a path or a URL.", parameter="url", value=text)
    found = None if isinstance(url, os.PathLike) else _URL.match(text)
    if found is None:
        from facedex.stores.sqlite import SQLiteStore

        return SQLiteStore(Path(text), create=create)
    return _adapter(found[1].lower(), text).open(text, create=create)


def schemes() -> tuple[str, ...]:
    """URL schemes that can be opened here, other people's included."""
    return tuple(sorted({*ADAPTERS, *importlib.metadata.entry_points(group=ENTRY_POINTS).names}))


def mask(url: str | os.PathLike[str]) -> str:
    """A URL fit for messages and logs: passwords and keys replaced by ``***``. A path stays as it is."""
    text = os.fsdecode(url)
    found = _URL.match(text)
    if found is None or found[1].lower() in ("sqlite", "memory"):
        return text
    return _SECRET.sub(r"\1***", _USERINFO.sub(r"\1\2:***@", text))


def _adapter(scheme: str, url: str) -> type[Store]:
    adapter = ADAPTERS.get(scheme)
    if adapter is not None:
        install = adapter.install
        try:
            store: object = getattr(importlib.import_module(adapter.module), adapter.name)
        except ImportError as error:
            raise _driver_missing(scheme, install, error) from error
    else:
        entries = importlib.metadata.entry_points(group=ENTRY_POINTS, name=scheme)
        if not entries:
            known = ", ".join(f"{known}://" for known in schemes())
            raise StoreUnknown(
                f"no store for {scheme}:// (in {mask(url)}); known are {known} and plain paths.",
                scheme=scheme,
                known=schemes(),
            )
        try:
            store = next(iter(entries)).load()
        except ImportError as error:
            raise _driver_missing(scheme, None, error) from error
    if not isinstance(store, type) or not issubclass(store, Store):
        raise StoreUnknown(
            f"the adapter for {scheme}:// is {store!r}; expected a subclass of facedex.stores.contract.Store.",
            scheme=scheme,
            known=schemes(),
        )
    return store


def _driver_missing(scheme: str, install: str | None, error: ImportError) -> StoreDriverMissing:
    advice = f"Install it: {install}" if install else "Install what its package asks for."
    return StoreDriverMissing(
        f"{scheme}:// needs a driver that is not installed ({error}). {advice}",
        scheme=scheme,
        install=install,
        reason=str(error),
    )
