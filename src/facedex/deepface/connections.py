"""From DeepFace's ``database_type`` and ``connection_details`` to the URL of a gallery.

DeepFace keeps faces apart by model, detector, alignment and normalization (its criteria); here each combination has a
gallery of its own. Where the database is comes from ``connection_details``, otherwise from DeepFace's own environment
variables (``settings.DeepFaceSettings``), or is one of our URLs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from facedex.errors import ArgumentInvalid
from facedex.settings import DeepFaceSettings

__all__ = ["Criteria", "gallery_url"]

_SCHEMES: Final[Mapping[str, str]] = {
    "postgres": "postgresql",
    "pgvector": "postgresql",
    "mongo": "mongodb",
    "weaviate": "weaviate",
    "neo4j": "neo4j",
    "qdrant": "qdrant",
    "milvus": "milvus",
    "sqlite": "sqlite",
}
"""DeepFace's database types that are stores here, with the schemes of their URLs."""

_OTHERS: Final = ("pinecone", "oracle", "mssql", "db2", "redis", "cassandra", "mysql")


@dataclass(frozen=True, slots=True)
class Criteria:
    """What DeepFace keeps faces apart by."""

    model_name: str
    detector_backend: str
    aligned: bool
    l2_normalized: bool

    @property
    def name(self) -> str:
        """Of the gallery: small letters, digits and underlines."""
        parts = ["deepface", self.model_name, self.detector_backend, "aligned" if self.aligned else "unaligned"]
        if self.l2_normalized:
            parts.append("l2")
        return re.sub(r"[^a-z0-9]+", "_", "_".join(parts).lower())

    def columns(self) -> dict[str, Any]:
        """As ``search`` tells them in each row."""
        return {
            "model_name": self.model_name,
            "detector_backend": self.detector_backend,
            "aligned": self.aligned,
            "l2_normalized": self.l2_normalized,
        }


def gallery_url(
    criteria: Criteria,
    database_type: str | None,
    details: Mapping[str, Any] | str | None,
    settings: DeepFaceSettings | None = None,
) -> str:
    """The URL of the gallery that holds the faces of these criteria.

    database_type  DeepFace's name; None: of the environment, otherwise ``"postgres"``.
    details        a URL, a path for sqlite, or a dict of ``host``, ``port``, ``user``, ``password``, ``dbname``, …;
                   None: of the environment.
    Raises         ArgumentInvalid for a database that is not served here, or when nothing says where it is.
    """
    chosen = settings if settings is not None else DeepFaceSettings.from_environment()
    kind = chosen.database_type if database_type is None else database_type
    scheme = _SCHEMES.get(kind)
    if scheme is None:
        what = "is not served here" if kind in _OTHERS else "is not known"
        raise ArgumentInvalid(
            f"database_type {kind!r} {what}; expected one of {', '.join(_SCHEMES)}.", database_type=kind
        )
    given = chosen.connections.get(kind) if details is None else details
    if not given:
        raise ArgumentInvalid(
            f"nothing says where the {kind} database is. Set {DeepFaceSettings.VARIABLES[kind]}, or pass "
            "connection_details; or take database_type='sqlite' with the path of a file, which needs no server.",
            database_type=kind,
            variable=DeepFaceSettings.VARIABLES[kind],
        )
    if not isinstance(given, (str, Mapping)):
        raise ArgumentInvalid(
            f"connection_details is a {type(given).__name__}; expected a URL or a dict.", argument="connection_details"
        )
    base = given if isinstance(given, str) else _from_dict(scheme, given)
    return _beside(base, criteria) if scheme == "sqlite" else _on_server(base, scheme, criteria)


def _beside(base: str, criteria: Criteria) -> str:
    """A file for each combination: ``faces.db`` → ``faces.deepface_sface_yunet_aligned.db``."""
    path = base.removeprefix("sqlite:///")
    if "://" in path or not Path(path).name:
        raise ArgumentInvalid(
            f"connection_details is {base!r}; expected the path of a file for sqlite.", argument="connection_details"
        )
    return str(Path(path).with_suffix(f".{criteria.name}{Path(path).suffix or '.db'}"))


def _on_server(base: str, scheme: str, criteria: Criteria) -> str:
    if "://" not in base:
        base = f"{scheme}://{base}"
    parts = urlsplit(base)
    ours = scheme if parts.scheme in ("http", "https", "postgres") else parts.scheme
    where, path, options = parts.netloc, parts.path, [parts.query] if parts.query else []
    if parts.scheme == "https":
        where += "" if parts.port else ":443"
        options.append("secure=true")
    if scheme == "postgresql":  # a schema of the database that is named
        options.append(urlencode({"schema": criteria.name}))
    elif not where:  # a folder, for a library that needs no server
        path = f"{path.rstrip('/')}/{criteria.name}"
    else:
        if scheme == "mongodb" and parts.username and "authSource=" not in parts.query:
            options.append(urlencode({"authSource": path.strip("/") or "admin"}))  # it was said by the path
        path = f"/{criteria.name}"
    return f"{ours}://{where}{path}" + ("?" + "&".join(options) if options else "")


def _from_dict(scheme: str, details: Mapping[str, Any]) -> str:
    """A URL from what DeepFace hands to the driver as keywords."""
    left = {str(key): value for key, value in details.items()}

    def take(*names: str) -> str:
        return next((str(value) for name in names if (value := left.pop(name, None)) is not None), "")

    if scheme == "sqlite":
        return take("database", "path")
    whole, key = take("url", "uri", "conninfo"), take("api_key")
    if whole:
        kind, _, rest = whole.partition("://") if "://" in whole else (scheme, "", whole)
        who = f":{quote(key, safe='')}@" if key and "@" not in rest else ""
        return f"{kind}://{who}{rest}" + (("&" if "?" in rest else "?") + urlencode(left) if left else "")
    host, port, user = take("host", "hostname"), take("port"), take("user", "username")
    password, name = take("password") or key, take("dbname", "database", "db", "db_name")
    who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    query = f"?{urlencode(left)}" if left else ""
    return f"{scheme}://{who}{'@' if who else ''}{host or 'localhost'}{':' + port if port else ''}/{quote(name)}{query}"
