"""A gallery as one Parquet file, for other tools to read and for us to read again.

One row a template, in the order of enrollment, then one for each photo that is known to show no face, of which only
``photo_digest`` is there. The embedding space, the numbers of rows and the digest of ``transfer`` are in the file's
metadata under ``facedex``, as JSON.

============== =============================== ========================================================================
column         type                            what
============== =============================== ========================================================================
photo_digest   string                          SHA-256 of the photo's bytes, 64 hex digits
label, link    string                          null where there is none
box            fixed_size_list<double, 4>      x1, y1, x2, y2 in pixels; null: this photo shows no face
landmarks      fixed_size_list<float, 10>      five points, x before y, in the order of the glossary
score          double                          detection score, 0…1
metadata       string                          JSON, null where there are none
enrolled_at    timestamp[us, UTC]
embedding      fixed_size_list<float, D>       norm 1
============== =============================== ========================================================================
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from facedex.errors import ExportInvalid, ExportUnavailable, ExportVersion, ExtraMissing
from facedex.stores.contract import PhotoRecord, Store
from facedex.stores.transfer import PAGE, Digest, Source, StoreSource, Told, Transfer, records, transfer
from facedex.types import Box, EmbeddingSpace, StoredTemplate, Template

__all__ = ["VERSION", "ParquetSource", "export", "import_into"]

VERSION: Final = 1
_KEY: Final = b"facedex"


def export(
    store: Store, path: str | os.PathLike[str], *, overwrite: bool = False, progress: Told | None = None
) -> Transfer:
    """Write a gallery to a file, which is complete or not there at all.

    overwrite  a file of that name is replaced; otherwise that raises ExportUnavailable.
    Raises     ExportUnavailable when it cannot be written; TransferMismatch when the gallery was changed meanwhile;
               ExtraMissing without pyarrow; StoreError.
    """
    arrow, parquet = _pyarrow()
    started, target = time.perf_counter(), Path(path)
    if target.exists() and not overwrite:
        raise ExportUnavailable(
            f"{target} is there already; nothing was written. Say so to replace it.", path=str(target)
        )
    source, read = StoreSource(store), Digest()
    space = source.space()
    schema = _schema(arrow, space.dimension if space else 0)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}")
    templates = faceless = 0
    total = source.total()
    try:
        with unfinished.open("xb") as file:
            with parquet.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
                for page in source.pages():
                    read.page(page)
                    writer.write_batch(_batch(arrow, schema, page))
                    templates += sum(len(photo.templates) for photo in page)
                    faceless += sum(not photo.templates for photo in page)
                    if progress is not None:
                        progress(templates, max(total, templates))
                facts = {
                    "version": VERSION,
                    "space": asdict(space) if space else None,
                    "templates": templates,
                    "faceless": faceless,
                    "digest": str(read),
                }
                writer.add_key_value_metadata({_KEY.decode(): json.dumps(facts)})
            file.flush()
            os.fsync(file.fileno())
        source.check_unchanged()
        os.replace(unfinished, target)
    except OSError as error:
        raise ExportUnavailable(
            f"{target} cannot be written: {error.strerror or error}. Nothing is there; free space or name another "
            "place.",
            path=str(target),
        ) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
    return Transfer(templates, faceless, templates, str(read), time.perf_counter() - started)


def import_into(store: Store, path: str | os.PathLike[str], *, progress: Told | None = None) -> Transfer:
    """Add what a file holds to a gallery; see ``transfer``.

    The file is read and its digest compared before anything is written: of a damaged one nothing arrives. One that was
    interrupted goes on when it is called again.

    Raises  ExportUnavailable, ExportInvalid, ExportVersion, ExtraMissing; otherwise as ``transfer``.
    """
    source = ParquetSource(path)
    source.verify()
    return transfer(source, store, progress)


class ParquetSource(Source):
    """An exported file as a source.

    Raises  ExportUnavailable, ExportInvalid, ExportVersion, ExtraMissing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._arrow, self._parquet = _pyarrow()
        self._path = Path(path)
        self.name = str(self._path)
        with self._reading() as file:
            found = file.metadata.metadata or {}
            schema = file.schema_arrow
        self._facts = self._read_facts(found)
        plain = self._facts["space"]
        self._space = EmbeddingSpace(**plain) if plain else None
        wanted = _schema(self._arrow, self._space.dimension if self._space else 0)
        if not schema.equals(wanted, check_metadata=False):
            raise self._invalid(f"its columns are {_columns(schema)}; expected {_columns(wanted)}")

    def space(self) -> EmbeddingSpace | None:
        return self._space

    def total(self) -> int:
        return int(self._facts["templates"])

    def pages(self) -> Iterator[list[PhotoRecord]]:
        with self._reading() as file:
            for batch in file.iter_batches(batch_size=PAGE):
                try:
                    yield self._records(batch)
                except (ValueError, TypeError, AttributeError, OverflowError) as error:
                    raise self._invalid(f"a row cannot be read ({error})") from error

    def check_unchanged(self) -> None:
        """Was compared with its digest before anything was written."""

    def verify(self) -> None:
        """Read all of it; raise ExportInvalid unless it is what was written."""
        read, templates = Digest(), 0
        for page in self.pages():
            read.page(page)
            templates += sum(len(photo.templates) for photo in page)
        if str(read) != self._facts["digest"] or templates != self._facts["templates"]:
            raise self._invalid(
                f"it holds {templates} templates with the digest {str(read)[:12]}…, and says that it holds "
                f"{self._facts['templates']} with {self._facts['digest'][:12]}…"
            )

    def _read_facts(self, metadata: dict[bytes, bytes]) -> dict[str, Any]:
        if _KEY not in metadata:
            raise self._invalid("it is a Parquet file, but `facedex export` did not write it")
        try:
            facts = json.loads(metadata[_KEY])
            version = facts["version"]
            if type(version) is not int:
                raise ValueError(f"version {version!r}")
            if version > VERSION:
                raise ExportVersion(
                    f"{self._path} has version {version} of the format; this Facedex reads up to {VERSION}. "
                    "Import it with a newer one.",
                    path=str(self._path),
                    version=version,
                )
            sound = version == VERSION and type(facts["templates"]) is int and isinstance(facts["digest"], str)
            if not sound or (facts["space"] is not None and set(facts["space"]) != set(_SPACE)):
                raise ValueError(f"version {version!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise self._invalid(f"what it says of itself cannot be read ({error})") from error
        return dict(facts)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        """The open file, with the library's exceptions turned into ours."""
        arrow = self._arrow
        try:
            with self._path.open("rb") as raw, self._parquet.ParquetFile(raw, page_checksum_verification=True) as file:
                yield file
        except (arrow.ArrowException, EOFError) as error:
            raise self._invalid(
                f"it is damaged, cut short, or no Parquet file ({str(error).splitlines()[0]})"
            ) from error
        except OSError as error:
            if error.errno is None:  # what pyarrow raises of damaged pages
                raise self._invalid(f"it is damaged or cut short ({error})") from error
            raise ExportUnavailable(f"{self._path} cannot be read: {error.strerror}.", path=str(self._path)) from error

    def _records(self, batch: Any) -> list[PhotoRecord]:
        if self._space is None:
            raise ValueError("rows without an embedding space")
        columns = {name: batch.column(name) for name in batch.schema.names}
        if any(columns["photo_digest"].is_null()):
            raise ValueError("a row without photo_digest")
        plain = {name: columns[name].to_pylist() for name in ("photo_digest", "label", "link", "score", "metadata")}
        moments = columns["enrolled_at"].to_pylist()
        there = np.asarray(columns["box"].is_valid())
        boxes, landmarks, embeddings = (
            _matrix(columns[name].filter(columns["box"].is_valid()), kind)
            for name, kind in (("box", np.float64), ("landmarks", np.float32), ("embedding", np.float32))
        )
        space_id, row, found, photos = self._space.id, 0, [], []
        for n, digest in enumerate(plain["photo_digest"]):
            if not there[n]:
                photos.append(PhotoRecord(digest))
                continue
            if moments[n] is None or plain["score"][n] is None:
                raise ValueError("a face without enrolled_at or score")
            template = Template(
                photo_digest=digest,
                box=Box(*boxes[row].tolist()),
                landmarks=landmarks[row].reshape(5, 2),
                detection_score=plain["score"][n],
                embedding=embeddings[row],
                space_id=space_id,
                link=plain["link"][n],
                label=plain["label"][n],
                metadata=json.loads(plain["metadata"][n] or "{}"),
            )
            found.append(StoredTemplate(0, template, moments[n].astimezone(UTC)))
            row += 1
        return records(found) + photos

    def _invalid(self, what: str) -> ExportInvalid:
        return ExportInvalid(
            f"{self._path} cannot be imported: {what}. Nothing was written. Export it again.",
            path=str(self._path),
            reason=what,
        )


_SPACE: Final = tuple(EmbeddingSpace.__dataclass_fields__)


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ExtraMissing(
            "Parquet files need pyarrow. Install it: pip install 'facedex[parquet]'.", extra="parquet"
        ) from error
    return pyarrow, pyarrow.parquet


def _schema(arrow: Any, dimension: int) -> Any:
    fields: dict[str, Any] = {
        "photo_digest": arrow.string(),
        "label": arrow.string(),
        "link": arrow.string(),
        "box": arrow.list_(arrow.float64(), 4),
        "landmarks": arrow.list_(arrow.float32(), 10),
        "score": arrow.float64(),
        "metadata": arrow.string(),
        "enrolled_at": arrow.timestamp("us", "UTC"),
        "embedding": arrow.list_(arrow.float32(), max(dimension, 1)),
    }
    return arrow.schema(fields)


def _columns(schema: Any) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def _batch(arrow: Any, schema: Any, page: list[PhotoRecord]) -> Any:
    templates = [(template, photo.enrolled_at) for photo in page for template in photo.templates]
    if not templates:  # a page of photos without a face
        nothing = [arrow.nulls(len(page), field.type) for field in schema]
        nothing[0] = arrow.array([photo.digest for photo in page], schema.field(0).type)
        return arrow.RecordBatch.from_arrays(nothing, schema=schema)

    def texts(get: Callable[[Template], str | None]) -> Any:
        return arrow.array([get(template) for template, _ in templates], arrow.string())

    def lists(name: str, values: Any, kind: Any) -> Any:
        numbers = np.array(values, kind).reshape(-1)
        return arrow.FixedSizeListArray.from_arrays(arrow.array(numbers), type=schema.field(name).type)

    return arrow.RecordBatch.from_arrays(
        [
            texts(lambda template: template.photo_digest),
            texts(lambda template: template.label),
            texts(lambda template: template.link),
            lists("box", [template.box for template, _ in templates], np.float64),
            lists("landmarks", [template.landmarks for template, _ in templates], np.float32),
            arrow.array([template.detection_score for template, _ in templates], arrow.float64()),
            texts(lambda template: json.dumps(dict(template.metadata)) if template.metadata else None),
            arrow.array([moment for _, moment in templates], schema.field("enrolled_at").type),
            lists("embedding", [template.embedding for template, _ in templates], np.float32),
        ],
        schema=schema,
    )


def _matrix(column: Any, kind: Any) -> Any:
    """``(n, size)`` of a column of fixed-size lists without nulls."""
    if column.null_count or column.values.null_count:
        raise ValueError("a face without all of its numbers")
    return np.asarray(column.flatten(), kind).reshape(len(column), column.type.list_size)
