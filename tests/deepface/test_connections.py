"""DeepFace's ways to say where a database is, and the URLs they are here."""

from __future__ import annotations

import pytest

from facedex.deepface.connections import Criteria, gallery_url
from facedex.errors import ArgumentInvalid
from facedex.settings import DeepFaceSettings

SFACE = Criteria("SFace", "yunet", True, False)
NAME = "deepface_sface_yunet_aligned"
NOWHERE = DeepFaceSettings()


@pytest.mark.parametrize(
    ("kind", "details", "url"),
    [
        ("postgres", "postgresql://ann:pw@db:5433/faces", f"postgresql://ann:pw@db:5433/faces?schema={NAME}"),
        ("postgres", "postgres://db/faces?sslmode=require", f"postgresql://db/faces?sslmode=require&schema={NAME}"),
        ("pgvector", {"host": "db", "dbname": "faces"}, f"postgresql://db/faces?schema={NAME}"),
        (
            "postgres",
            {"host": "db", "port": 5433, "user": "ann", "password": "p@ss/w", "dbname": "faces"},
            f"postgresql://ann:p%40ss%2Fw@db:5433/faces?schema={NAME}",
        ),
        ("mongo", "mongodb://localhost:27017", f"mongodb://localhost:27017/{NAME}"),
        (
            "mongo",
            "mongodb+srv://ann:pw@db/users?tls=true",
            f"mongodb+srv://ann:pw@db/{NAME}?tls=true&authSource=users",
        ),
        ("mongo", "mongodb://ann:pw@db", f"mongodb://ann:pw@db/{NAME}?authSource=admin"),
        ("weaviate", "http://localhost:8080", f"weaviate://localhost:8080/{NAME}"),
        ("weaviate", {"url": "http://db:8080", "api_key": "k"}, f"weaviate://:k@db:8080/{NAME}"),
        ("weaviate", {"url": "https://x.cloud", "api_key": "k/"}, f"weaviate://:k%2F@x.cloud:443/{NAME}?secure=true"),
        ("qdrant", {"host": "db", "port": 6333, "api_key": "k"}, f"qdrant://:k@db:6333/{NAME}"),
        ("qdrant", "qdrant:////srv/faces", f"qdrant:////srv/faces/{NAME}"),
        ("neo4j", "bolt://neo4j:pw@db:7687", f"bolt://neo4j:pw@db:7687/{NAME}"),
        ("milvus", "db:19530", f"milvus://db:19530/{NAME}"),
        ("sqlite", "/data/faces.db", f"/data/faces.{NAME}.db"),
        ("sqlite", "sqlite:////data/faces.db", f"/data/faces.{NAME}.db"),
        ("sqlite", {"database": "faces"}, f"faces.{NAME}.db"),
    ],
)
def test_what_deepface_takes_is_a_url_of_ours(kind: str, details: object, url: str) -> None:
    assert gallery_url(SFACE, kind, details, NOWHERE) == url  # type: ignore[arg-type]


def test_each_combination_has_a_name_of_its_own() -> None:
    criteria = [Criteria(m, d, a, n) for m in ("SFace", "VGG-Face") for d in ("yunet",) for a in (0, 1) for n in (0, 1)]
    assert len({each.name for each in criteria}) == 8
    assert all(each.name.replace("_", "").isalnum() and each.name == each.name.lower() for each in criteria)


def test_the_environment_says_where_each_database_is() -> None:
    settings = DeepFaceSettings.from_environment(
        {"DEEPFACE_POSTGRES_URI": "postgresql://pg/faces", "DEEPFACE_SQLITE_PATH": "a.db", "DEEPFACE_MONGO_URI": " "}
    )
    assert gallery_url(SFACE, None, None, settings) == f"postgresql://pg/faces?schema={NAME}"
    assert gallery_url(SFACE, "pgvector", None, settings) == f"postgresql://pg/faces?schema={NAME}"
    assert gallery_url(SFACE, "sqlite", None, settings) == f"a.{NAME}.db"
    with pytest.raises(ArgumentInvalid, match="DEEPFACE_MONGO_URI"):
        gallery_url(SFACE, "mongo", None, settings)


def test_the_type_and_its_connection_may_come_from_the_environment_too() -> None:
    settings = DeepFaceSettings.from_environment(
        {"DEEPFACE_DATABASE_TYPE": "mongo", "DEEPFACE_CONNECTION_DETAILS": "mongodb://m"}
    )
    assert gallery_url(SFACE, None, None, settings) == f"mongodb://m/{NAME}"
    assert "mongodb://m" not in repr(settings), "it may hold a password"


@pytest.mark.parametrize("kind", ["redis", "mysql", "pinecone", "papyrus"])
def test_a_database_that_is_not_served_says_which_are(kind: str) -> None:
    with pytest.raises(ArgumentInvalid, match=rf"{kind}.*sqlite"):
        gallery_url(SFACE, kind, "x://y", NOWHERE)


def test_details_of_another_kind_are_refused() -> None:
    with pytest.raises(ArgumentInvalid, match="int"):
        gallery_url(SFACE, "postgres", 5, NOWHERE)  # type: ignore[arg-type]
    with pytest.raises(ArgumentInvalid, match="path of a file"):
        gallery_url(SFACE, "sqlite", "https://host/faces.db", NOWHERE)
