"""All errors Facedex raises on purpose.

FacedexError
├── ArgumentInvalid            a parameter is outside what the call accepts
│   └── NotCalibrated          nobody measured thresholds for that embedding space
├── PhotoError                 one photo cannot be used; the others are unaffected
│   ├── PhotoNotFound          the path does not exist or is not a file
│   ├── PhotoUnreadable        empty, truncated, or not an image we read
│   ├── PhotoTooLarge          more bytes or pixels than the limits allow; nothing was decoded
│   ├── PhotoArrayInvalid      an array of the wrong shape, dtype or values
│   ├── PhotoLinkRefused       a URL that is not allowed (off by default, or a private address)
│   ├── PhotoUnavailable       an allowed URL that could not be fetched
│   ├── NoFaceFound            nothing to embed: no template is ever made of a whole photo
│   └── DegenerateLandmarks    landmarks that lie on a line or a point cannot be aligned
├── SourceEmpty                a folder or list that holds no photos
├── ExtraMissing               the call needs an extra that is not installed
├── TransferError
│   ├── ExportUnavailable      an export that cannot be read or written: missing, forbidden, no space
│   ├── ExportInvalid          an export that is damaged, cut short, or not one of ours
│   ├── ExportVersion          an export written by a newer Facedex
│   └── TransferMismatch       after a copy or an import the target does not hold what the source does
├── ModelError
│   ├── ModelUnknown           no card of that name
│   ├── ModelInvalid           a file that is not the model its card describes
│   ├── LicenceUnstated        nobody says under which licence the weights are, and that was not accepted
│   ├── ModelFailed            a loaded network stopped working: a device that vanished, a driver that gave up
│   ├── ModelOutOfMemory       one photo or face needs more memory than there is; batches are split before
│   ├── RuntimeUnavailable     the runtime, or the device asked of it, is not there
│   ├── WeightsMissing         not in the cache, and fetching was not allowed
│   ├── WeightsUnavailable     the package registry could not deliver them
│   └── WeightsCorrupt         the SHA-256 is not the pinned one
├── EmbeddingError
│   ├── EmbeddingInvalid       not finite, zero, or of the wrong shape
│   ├── DimensionMismatch      the probe and the gallery have different dimensions
│   └── SpaceMismatch          the probe and the gallery come from different embedding spaces
├── SearchError
│   ├── IndexCorrupt           a saved index that is damaged, cut short, or not an index at all
│   ├── IndexVersion           a saved index written by a newer Facedex
│   ├── IndexUnavailable       a saved index that cannot be read or written: missing, forbidden, no space
│   └── SearchDriverMissing    the index needs an extra that is not installed
├── StudyError
│   ├── PairsUnreadable        a list of pairs that cannot be read as one
│   ├── TrialsTooFew           no genuine or no impostor pairs: there are no error rates without both
│   └── PolicyUnreadable       a kept calibration that is damaged, of another space, or of a newer Facedex
├── OutputError
│   ├── OutputUnwritable       a file could not be written where it was wanted
│   └── PlotDriverMissing      the drawing needs an extra that is not installed
└── StoreError
    ├── StoreUnknown           no adapter for that URL scheme
    ├── StoreDriverMissing     the adapter needs an extra that is not installed
    ├── StoreUnavailable       cannot be opened or reached
    ├── StoreBusy              another process holds the write lock for too long
    ├── StoreReadOnly          can be read but not written
    ├── StoreFull              no space left; nothing was written
    ├── StoreForeign           a valid file or table, but not a Facedex gallery
    ├── StoreCorrupt           damaged, or not a database at all
    ├── StoreVersion           written by a newer Facedex
    └── StoreClosed            used after close()

Each carries its facts: ``error.code`` (stable, for programs), ``error.details``
(the values of the message), and each detail as an attribute.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

__all__ = [
    "ArgumentInvalid",
    "DegenerateLandmarks",
    "DimensionMismatch",
    "EmbeddingError",
    "EmbeddingInvalid",
    "ExportInvalid",
    "ExportUnavailable",
    "ExportVersion",
    "ExtraMissing",
    "FacedexError",
    "IndexCorrupt",
    "IndexUnavailable",
    "IndexVersion",
    "LicenceUnstated",
    "ModelError",
    "ModelFailed",
    "ModelInvalid",
    "ModelOutOfMemory",
    "ModelUnknown",
    "NoFaceFound",
    "NotCalibrated",
    "OutputError",
    "OutputUnwritable",
    "PairsUnreadable",
    "PhotoArrayInvalid",
    "PhotoError",
    "PhotoLinkRefused",
    "PhotoNotFound",
    "PhotoTooLarge",
    "PhotoUnavailable",
    "PhotoUnreadable",
    "PlotDriverMissing",
    "PolicyUnreadable",
    "RuntimeUnavailable",
    "SearchDriverMissing",
    "SearchError",
    "SourceEmpty",
    "SpaceMismatch",
    "StoreBusy",
    "StoreClosed",
    "StoreCorrupt",
    "StoreDriverMissing",
    "StoreError",
    "StoreForeign",
    "StoreFull",
    "StoreReadOnly",
    "StoreUnavailable",
    "StoreUnknown",
    "StoreVersion",
    "StudyError",
    "TransferError",
    "TransferMismatch",
    "TrialsTooFew",
    "WeightsCorrupt",
    "WeightsMissing",
    "WeightsUnavailable",
]


class FacedexError(Exception):
    """Root of every error Facedex raises on purpose.

    message  what happened with the values, what was expected, what to do next.
    details  the same facts for programs; each is also an attribute of the error.
    """

    code: ClassVar[str] = "facedex_error"

    def __init_subclass__(cls) -> None:
        cls.code = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details

    @property
    def message(self) -> str:
        return str(self.args[0])

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["details"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args[0], self.details)


def _rebuild(cls: type[FacedexError], message: str, details: dict[str, Any]) -> FacedexError:
    return cls(message, **details)


class ArgumentInvalid(FacedexError): ...


class NotCalibrated(ArgumentInvalid): ...


class PhotoError(FacedexError): ...


class PhotoNotFound(PhotoError): ...


class PhotoUnreadable(PhotoError): ...


class PhotoTooLarge(PhotoError): ...


class PhotoArrayInvalid(PhotoError): ...


class PhotoLinkRefused(PhotoError): ...


class PhotoUnavailable(PhotoError): ...


class NoFaceFound(PhotoError): ...


class DegenerateLandmarks(PhotoError): ...


class SourceEmpty(FacedexError): ...


class ExtraMissing(FacedexError): ...


class TransferError(FacedexError): ...


class ExportUnavailable(TransferError): ...


class ExportInvalid(TransferError): ...


class ExportVersion(TransferError): ...


class TransferMismatch(TransferError): ...


class ModelError(FacedexError): ...


class ModelUnknown(ModelError): ...


class ModelInvalid(ModelError): ...


class LicenceUnstated(ModelError): ...


class ModelFailed(ModelError): ...


class ModelOutOfMemory(ModelError): ...


class RuntimeUnavailable(ModelError): ...


class WeightsMissing(ModelError): ...


class WeightsUnavailable(ModelError): ...


class WeightsCorrupt(ModelError): ...


class EmbeddingError(FacedexError): ...


class EmbeddingInvalid(EmbeddingError): ...


class DimensionMismatch(EmbeddingError): ...


class SpaceMismatch(EmbeddingError): ...


class SearchError(FacedexError): ...


class IndexCorrupt(SearchError): ...


class IndexVersion(SearchError): ...


class IndexUnavailable(SearchError): ...


class SearchDriverMissing(SearchError): ...


class StudyError(FacedexError): ...


class PairsUnreadable(StudyError): ...


class TrialsTooFew(StudyError): ...


class PolicyUnreadable(StudyError): ...


class OutputError(FacedexError): ...


class OutputUnwritable(OutputError): ...


class PlotDriverMissing(OutputError): ...


class StoreError(FacedexError): ...


class StoreUnknown(StoreError): ...


class StoreDriverMissing(StoreError): ...


class StoreUnavailable(StoreError): ...


class StoreBusy(StoreError): ...


class StoreReadOnly(StoreError): ...


class StoreFull(StoreError): ...


class StoreForeign(StoreError): ...


class StoreCorrupt(StoreError): ...


class StoreVersion(StoreError): ...


class StoreClosed(StoreError): ...
