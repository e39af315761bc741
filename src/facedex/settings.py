"""The only reader of the environment. Everything else takes parameters, and asks here for their defaults.

========================  ========================================================================================
FACEDEX_GALLERY           URL of the gallery the command line uses; without it faces.db in the current folder
FACEDEX_STORE_PASSWORD    password of a gallery's server, where its URL names a user without one
FACEDEX_INDEXES_DIR       folder of local copies of servers' indexes; without it the user's cache folder
FACEDEX_MODELS_DIR        folder of the weights; without it the user's cache folder
FACEDEX_DATA_DIR          folder of the user's own calibrations; without it the user's data folder
FACEDEX_DETECTOR          name of the detector, of the catalog or added; without it yunet
FACEDEX_EMBEDDER          name of the embedder, of the catalog or added; without it sface
FACEDEX_OFFLINE           true: nothing is ever fetched
FACEDEX_THREADS           threads of one network run, and photos worked on at once; without it every core the process
                          may use
FACEDEX_RUNTIME           onnxruntime (without it) or openvino, which needs facedex[openvino]
FACEDEX_PROVIDERS         execution providers of ONNX Runtime, the preferred first, such as cuda,cpu; without it cpu
FACEDEX_DETECT_SIZE       longer side in pixels to which photos are shrunk to find faces; without it 640. 320 takes a
                          quarter of the time and misses faces below about a thirtieth of that side
FACEDEX_ALLOW_URLS        true: photos may be given as http(s) URLs
FACEDEX_MAX_PHOTO_BYTES   larger photos are refused before they are decoded
FACEDEX_MAX_PHOTO_PIXELS  photos of more pixels are refused before they are decoded
========================  ========================================================================================

``facedex.DeepFace`` also reads the variables that DeepFace's users have set: ``DEEPFACE_DATABASE_TYPE`` and where each
database is, in ``DeepFaceSettings.VARIABLES``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from facedex.errors import ArgumentInvalid

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment may set. An unset or empty variable leaves the default."""

    gallery: str = "faces.db"
    store_password: str | None = field(default=None, repr=False)
    indexes_dir: Path | None = None
    models_dir: Path | None = None
    data_dir: Path | None = None
    detector: str = "yunet"
    embedder: str = "sface"
    offline: bool = False
    threads: int | None = None
    runtime: str = "onnxruntime"
    providers: tuple[str, ...] = ("cpu",)
    detect_size: int = 640
    allow_urls: bool = False
    max_photo_bytes: int = 64 * 2**20
    max_photo_pixels: int = 120_000_000

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the variables above.

        environment  name → value; the process's own when None.
        Raises       ArgumentInvalid naming the variable, its value and what it may be.
        """
        variables = os.environ if environment is None else environment
        default = cls()

        def text(name: str) -> str | None:
            return variables.get(name, "").strip() or None

        def flag(name: str, otherwise: bool) -> bool:
            value = text(name)
            if value is None:
                return otherwise
            if value.lower() in _TRUE | _FALSE:
                return value.lower() in _TRUE
            raise _invalid(name, value, "true or false (also 1/0, yes/no, on/off)")

        def count(name: str) -> int | None:
            value = text(name)
            if value is None:
                return None
            if not (value.isascii() and value.isdigit() and int(value) > 0):
                raise _invalid(name, value, "a whole number above 0")
            return int(value)

        def names(name: str) -> tuple[str, ...]:
            return tuple(part.strip().lower() for part in (text(name) or "").split(",") if part.strip())

        def folder(name: str) -> Path | None:
            value = text(name)
            return None if value is None else Path(value).expanduser()

        return cls(
            gallery=text("FACEDEX_GALLERY") or default.gallery,
            store_password=variables.get("FACEDEX_STORE_PASSWORD") or None,
            indexes_dir=folder("FACEDEX_INDEXES_DIR"),
            models_dir=folder("FACEDEX_MODELS_DIR"),
            data_dir=folder("FACEDEX_DATA_DIR"),
            detector=text("FACEDEX_DETECTOR") or default.detector,
            embedder=text("FACEDEX_EMBEDDER") or default.embedder,
            offline=flag("FACEDEX_OFFLINE", default.offline),
            threads=count("FACEDEX_THREADS"),
            runtime=(text("FACEDEX_RUNTIME") or default.runtime).lower(),
            providers=names("FACEDEX_PROVIDERS") or default.providers,
            detect_size=count("FACEDEX_DETECT_SIZE") or default.detect_size,
            allow_urls=flag("FACEDEX_ALLOW_URLS", default.allow_urls),
            max_photo_bytes=count("FACEDEX_MAX_PHOTO_BYTES") or default.max_photo_bytes,
            max_photo_pixels=count("FACEDEX_MAX_PHOTO_PIXELS") or default.max_photo_pixels,
        )


@dataclass(frozen=True, slots=True)
class DeepFaceSettings:
    """What DeepFace's users have in the environment.

    database_type  which database is meant where a call does not say.
    connections    database type → where it is, as DeepFace's variable says; only those that are set.
    """

    VARIABLES: ClassVar[Mapping[str, str]] = {
        "postgres": "DEEPFACE_POSTGRES_URI",
        "pgvector": "DEEPFACE_POSTGRES_URI",
        "mongo": "DEEPFACE_MONGO_URI",
        "weaviate": "DEEPFACE_WEAVIATE_URI",
        "neo4j": "DEEPFACE_NEO4J_URI",
        "qdrant": "DEEPFACE_QDRANT_URI",
        "milvus": "DEEPFACE_MILVUS_URI",
        "sqlite": "DEEPFACE_SQLITE_PATH",
    }

    database_type: str = "postgres"
    connections: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the variables above, ``DEEPFACE_DATABASE_TYPE`` and ``DEEPFACE_CONNECTION_DETAILS``, which is where
        the database of that type is unless its own variable says."""
        variables = os.environ if environment is None else environment
        kind = variables.get("DEEPFACE_DATABASE_TYPE", "").strip() or cls().database_type
        there = {kind: variables.get("DEEPFACE_CONNECTION_DETAILS", "").strip()}
        there |= {
            name: value for name, variable in cls.VARIABLES.items() if (value := variables.get(variable, "").strip())
        }
        return cls(kind, {name: value for name, value in there.items() if value})


def _invalid(name: str, value: str, expected: str) -> ArgumentInvalid:
    return ArgumentInvalid(
        f"environment variable {name} is {value!r}; expected {expected}. Correct it or unset it.",
        variable=name,
        value=value,
    )
