"""The public surface, as data: a change here is a change for users and belongs in the CHANGELOG."""

from __future__ import annotations

import inspect
import re

import facedex
from facedex import errors

PUBLIC = {
    "Age", "Box", "Candidate", "DecisionPolicy", "DeepFace", "EmbeddingSpace", "Engine", "EnrollmentReport", "Face",
    "FaceAttributes", "FacedexError", "Found", "Gallery", "OperatingPoint", "Person", "Photo", "Pose", "Progress",
    "Quality", "Settings", "Verdict",
    "Verification", "Where", "__version__", "detect", "embed", "errors", "open", "verify",
}  # fmt: skip

GALLERY = {
    "enroll": "(self, source, *, label=None, metadata=None, faces=None, small_faces=False, min_quality=0.0, bgr=False, "
    "progress=None)",
    "search": "(self, probe, *, k=5, where=None, mode='auto', small_faces=False, bgr=False)",
    "search_faces": "(self, faces, *, k=5, where=None, mode='auto')",
    "delete": "(self, *, label=None, photo=None, where=None)",
    "relabel": "(self, ids, label)",
    "people": "(self)",
    "count": "(self, where=None)",
    "copy_to": "(self, target, *, progress=None)",
    "export_to": "(self, path, *, overwrite=False, progress=None)",
    "import_from": "(self, path, *, progress=None)",
    "indexes": "(self)",
    "build_index": "(self, *, approximate=False, progress=None)",
    "info": "(self, *, check=False)",
    "close": "(self)",
}

CANDIDATE = ("rank", "label", "similarity", "confidence", "verdict", "photo", "box", "template_id", "metadata")


def shape(function: object) -> str:
    signature = inspect.signature(function)  # type: ignore[arg-type]
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))


def test_the_package_offers_exactly_these_names() -> None:
    assert set(facedex.__all__) == PUBLIC
    assert all(hasattr(facedex, name) for name in PUBLIC)


def test_a_gallery_offers_exactly_these_calls() -> None:
    offered = {n: shape(f) for n, f in inspect.getmembers(facedex.Gallery, inspect.isfunction) if not n.startswith("_")}
    assert offered == GALLERY


def test_a_candidate_has_the_documented_fields() -> None:
    assert tuple(facedex.Candidate.__dataclass_fields__) == CANDIDATE


def test_every_public_name_has_a_docstring() -> None:
    named = [n for n in PUBLIC if callable(getattr(facedex, n))]
    assert [n for n in named if not (getattr(facedex, n).__doc__ or "").strip()] == []


def test_errors_open_with_their_own_tree() -> None:
    listed = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    defined = {n for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, errors.FacedexError)}
    assert {"FacedexError", *listed} == defined == set(errors.__all__)
    assert len(listed) == len(set(listed))


def test_the_tree_shows_each_error_under_its_parent() -> None:
    above: dict[int, str] = {0: "FacedexError"}
    for line in (errors.__doc__ or "").splitlines():
        found = re.search(r"[├└]── (\w+)", line)
        if found:
            depth = found.start() // 4 + 1
            above[depth] = found[1]
            assert getattr(errors, found[1]).__bases__ == (getattr(errors, above[depth - 1]),), found[1]


def test_no_error_of_ours_is_a_value_error() -> None:
    assert not any(issubclass(getattr(errors, n), (ValueError, OSError, KeyError)) for n in errors.__all__)


def test_an_error_carries_its_facts_and_survives_pickling() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(errors.DimensionMismatch("128 is not 512", expected=512, got=128)))
    assert (error.message, error.expected, error.got) == ("128 is not 512", 512, 128)
    assert (error.code, error.details) == ("dimension_mismatch", {"expected": 512, "got": 128})
