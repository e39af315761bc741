"""Photos in, people out: enrolling, searching, deleting, over every store we ship."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import facedex
from drawn import ANN, BOB, CY, DEE, Draw
from facedex.errors import (
    ArgumentInvalid,
    ModelFailed,
    ModelOutOfMemory,
    NoFaceFound,
    PhotoArrayInvalid,
    PhotoNotFound,
    PhotoUnreadable,
    SourceEmpty,
    SpaceMismatch,
    StoreClosed,
)
from facedex.models.synthetic import SyntheticDetector, SyntheticEmbedder, draw_photo
from facedex.types import EmbeddingSpace, Face, RgbImage, Verdict
from facedex.vision.pipeline import FacePipeline


@pytest.fixture
def family(draw: Draw, tmp_path: Path) -> Path:
    for number in (1, 2):
        draw(f"photos/Ann/{number}.jpg", ANN, variation=0.5, seed=number)
        draw(f"photos/Bob/{number}.jpg", BOB, variation=0.5, seed=10 + number)
    return tmp_path / "photos"


def people(gallery: facedex.Gallery) -> dict[str | None, int]:
    return {person.label: person.templates for person in gallery.people()}


# ---- enroll and search


def test_a_folder_of_people_is_enrolled_and_each_is_found_again(
    gallery: facedex.Gallery, family: Path, draw: Draw
) -> None:
    report = gallery.enroll(family, label="folder")
    assert (report.photos, report.enrolled, report.failures) == (4, 4, ())
    (found,) = gallery.search(draw("who.jpg", BOB, variation=0.5, seed=99), k=3)
    best = found.candidates[0]
    assert (best.rank, best.label, best.verdict) == (1, "Bob", Verdict.MATCH)
    assert best.confidence > 50
    assert best.photo is not None
    assert Path(best.photo).parent.name == "Bob"
    assert [c.rank for c in found.candidates] == [1, 2, 3]
    assert [c.similarity for c in found.candidates] == sorted((c.similarity for c in found.candidates), reverse=True)


def test_someone_who_is_not_enrolled_matches_nobody(gallery: facedex.Gallery, family: Path, draw: Draw) -> None:
    gallery.enroll(family, label="folder")
    (found,) = gallery.search(draw("who.jpg", DEE))
    assert {c.verdict for c in found.candidates} == {Verdict.NO_MATCH}


def test_each_face_of_the_probe_gets_its_own_answer(gallery: facedex.Gallery, family: Path, draw: Draw) -> None:
    gallery.enroll(family, label="folder")
    found = gallery.search(draw("both.jpg", ANN, BOB), k=1)
    assert {f.candidates[0].label for f in found} == {"Ann", "Bob"}
    left_to_right = sorted(found, key=lambda f: f.face.box.x1)
    assert [f.candidates[0].label for f in left_to_right] == ["Ann", "Bob"]


def test_searching_an_empty_gallery_finds_faces_without_candidates(gallery: facedex.Gallery, draw: Draw) -> None:
    (found,) = gallery.search(draw("who.jpg", ANN))
    assert found.candidates == ()
    assert found.best is None


def test_a_photo_may_be_path_bytes_file_array_or_photo(gallery: facedex.Gallery, family: Path, draw: Draw) -> None:
    gallery.enroll(family, label="folder")
    path = draw("who.png", ANN)
    pixels = draw_photo((ANN,))
    with path.open("rb") as file:
        sources = [path, str(path), path.read_bytes(), file, pixels, gallery.engine.load(path)]
        answers = [gallery.search(source, k=1)[0].candidates[0] for source in sources]
    assert {(a.label, round(a.similarity, 5)) for a in answers} == {("Ann", round(answers[0].similarity, 5))}
    bgr = gallery.search(np.ascontiguousarray(pixels[:, :, ::-1]), k=1, bgr=True)[0].candidates[0]
    assert bgr.similarity == answers[0].similarity


def test_one_label_for_one_photo_for_a_list_and_for_arrays(gallery: facedex.Gallery, draw: Draw) -> None:
    gallery.enroll(draw("a.jpg", ANN), label="Ann")
    gallery.enroll([draw("b.jpg", BOB), draw("c.jpg", BOB, variation=0.5, seed=3)], label="Bob")
    gallery.enroll([draw_photo((CY,)), draw_photo((CY,), variation=0.5, seed=8)], label="Cy")
    assert people(gallery) == {"Ann": 1, "Bob": 2, "Cy": 2}


def test_metadata_come_back_with_the_candidate(gallery: facedex.Gallery, draw: Draw) -> None:
    gallery.enroll(draw("a.jpg", ANN), label="Ann", metadata={"desk": 4, "badge": "x"})
    (found,) = gallery.search(draw("who.jpg", ANN))
    assert found.candidates[0].metadata == {"desk": 4, "badge": "x"}


def test_a_search_can_be_limited_to_some_templates(gallery: facedex.Gallery, family: Path, draw: Draw) -> None:
    gallery.enroll(family, label="folder")
    (found,) = gallery.search(draw("who.jpg", ANN), where=facedex.Where(labels=frozenset({"Bob"})))
    assert {c.label for c in found.candidates} == {"Bob"}
    assert len(found.candidates) == 2


# ---- whose face


def test_a_label_goes_to_the_main_face_only_and_the_report_says_so(gallery: facedex.Gallery, draw: Draw) -> None:
    report = gallery.enroll(draw("photos/Ann/party.jpg", ANN, BOB), label="Ann")
    assert (report.enrolled, report.passed_over) == (1, 1)
    assert people(gallery) == {"Ann": 1}


def test_without_a_label_every_face_is_enrolled(gallery: facedex.Gallery, draw: Draw) -> None:
    assert gallery.enroll(draw("party.jpg", ANN, BOB, CY)).enrolled == 3
    assert people(gallery) == {None: 3}


def test_the_user_can_say_which_faces(gallery: facedex.Gallery, draw: Draw) -> None:
    assert gallery.enroll(draw("twins.jpg", ANN, BOB), label="twins", faces="all").enrolled == 2
    assert gallery.enroll(draw("other.jpg", CY, DEE), faces="main").enrolled == 1


def test_a_face_enrolled_without_a_label_can_be_named_later(gallery: facedex.Gallery, draw: Draw) -> None:
    photo = draw("a.jpg", ANN)
    gallery.enroll(photo)
    report = gallery.enroll(photo, label="Ann")
    assert (report.enrolled, report.conflicts) == (0, ())
    assert people(gallery) == {"Ann": 1}


def test_a_face_keeps_its_first_name_and_the_report_tells_of_the_second(gallery: facedex.Gallery, draw: Draw) -> None:
    photo = draw("a.jpg", ANN)
    gallery.enroll(photo, label="Ann")
    report = gallery.enroll([photo], label="Bob")
    assert people(gallery) == {"Ann": 1}
    assert "'Ann'" in report.conflicts[0].message
    assert "'Bob'" in report.conflicts[0].message


def test_a_template_can_be_relabeled(gallery: facedex.Gallery, draw: Draw) -> None:
    gallery.enroll(draw("a.jpg", ANN), label="Bob")
    (found,) = gallery.search(draw("who.jpg", ANN))
    assert gallery.relabel([found.candidates[0].template_id], "Ann") == 1
    assert gallery.search(draw("who.jpg", ANN))[0].candidates[0].label == "Ann"


# ---- again and again


def test_enrolling_twice_changes_nothing(gallery: facedex.Gallery, family: Path) -> None:
    gallery.enroll(family, label="folder")
    before = gallery.store.sequence()
    report = gallery.enroll(family, label="folder")
    assert (report.enrolled, report.already) == (0, 4)
    assert (gallery.count(), gallery.store.sequence()) == (4, before)


def test_photos_enrolled_before_are_not_looked_at_again(
    gallery: facedex.Gallery, family: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = draw("photos/Ann/wall.jpg")
    first = gallery.enroll(family, label="folder")
    assert first.faceless == (str(empty),)
    seen = []
    detect = SyntheticDetector.detect
    monkeypatch.setattr(SyntheticDetector, "detect", lambda self, images: seen.extend(images) or detect(self, images))
    draw("photos/Ann/3.jpg", ANN, variation=0.5, seed=30)
    assert gallery.enroll(family, label="folder").enrolled == 1
    assert len(seen) == 1


def test_an_interrupted_enrollment_goes_on_where_it_was(
    engine: facedex.Engine, tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facedex.engine._PHOTOS_AT_ONCE", 4)
    for number in range(12):
        draw(f"photos/{number:02}.jpg", ANN, variation=0.5, seed=number)

    def interrupt(progress: facedex.Progress) -> None:
        if progress.done >= 8:
            raise KeyboardInterrupt

    with engine.open(tmp_path / "faces.db") as gallery, pytest.raises(KeyboardInterrupt):
        gallery.enroll(tmp_path / "photos", label="Ann", progress=interrupt)
    with engine.open(tmp_path / "faces.db") as gallery:
        assert gallery.count() == 8
        report = gallery.enroll(tmp_path / "photos", label="Ann")
        assert (report.enrolled, report.already, gallery.count()) == (4, 8, 12)


def test_progress_is_told_for_what_is_safe(gallery: facedex.Gallery, family: Path) -> None:
    told: list[tuple[facedex.Progress, int]] = []
    gallery.enroll(family, label="folder", progress=lambda p: told.append((p, gallery.count())))
    last, stored = told[-1]
    assert (last.done, last.total, last.enrolled, stored) == (4, 4, 4, 4)


# ---- delete


def test_a_deleted_person_is_never_found_again(gallery: facedex.Gallery, family: Path, draw: Draw) -> None:
    gallery.enroll(family, label="folder")
    probe = draw("who.jpg", ANN)
    assert gallery.search(probe)[0].candidates[0].label == "Ann"
    assert gallery.delete(label="Ann") == 2
    assert {c.label for c in gallery.search(probe)[0].candidates} == {"Bob"}
    assert people(gallery) == {"Bob": 2}
    assert gallery.count() == 2


def test_a_deleted_person_can_be_enrolled_again(gallery: facedex.Gallery, family: Path) -> None:
    gallery.enroll(family, label="folder")
    gallery.delete(label="Ann")
    assert gallery.enroll(family, label="folder").enrolled == 2


def test_what_came_from_a_photo_can_be_deleted(gallery: facedex.Gallery, draw: Draw) -> None:
    party = draw("party.jpg", ANN, BOB)
    gallery.enroll([party, draw("c.jpg", CY)])
    assert gallery.delete(photo=party) == 2
    assert gallery.count() == 1


def test_deleting_needs_exactly_one_condition(gallery: facedex.Gallery) -> None:
    for wrong in ({}, {"label": "Ann", "where": facedex.Where()}):
        with pytest.raises(ArgumentInvalid, match="exactly one"):
            gallery.delete(**wrong)


# ---- bad input loses nothing


def test_one_bad_photo_among_many_is_reported_and_costs_nothing_else(gallery: facedex.Gallery, family: Path) -> None:
    (family / "Ann" / "empty.jpg").write_bytes(b"")
    (family / "Ann" / "text.jpg").write_text("hello")
    whole = (family / "Bob" / "1.jpg").read_bytes()
    (family / "Bob" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    report = gallery.enroll(family, label="folder")
    assert report.enrolled == 4
    assert {(Path(f.photo).name, f.code) for f in report.failures} == {
        ("empty.jpg", "photo_unreadable"),
        ("text.jpg", "photo_unreadable"),
        ("half.jpg", "photo_unreadable"),
    }


def test_a_single_photo_that_cannot_be_used_raises(gallery: facedex.Gallery, draw: Draw, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    for source, error in (
        (tmp_path / "empty.jpg", PhotoUnreadable),
        (tmp_path / "missing.jpg", PhotoNotFound),
        (draw("wall.jpg"), NoFaceFound),
        (np.full((8, 8), np.nan), PhotoArrayInvalid),
        (np.zeros((4, 8, 8, 3), np.uint8), PhotoArrayInvalid),
    ):
        with pytest.raises(error):
            gallery.enroll(source, label="Ann")
        with pytest.raises(error):
            gallery.search(source)
    assert gallery.count() == 0


@pytest.mark.parametrize("size", [(1, 1), (30_000, 3), (3, 30_000)], ids=str)
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_photos_of_a_pixel_and_of_a_thread_have_no_face(
    gallery: facedex.Gallery, size: tuple[int, int], format: str
) -> None:
    file = io.BytesIO()
    Image.new("RGB", size, "gray").save(file, format)
    report = gallery.enroll([file.getvalue(), draw_photo((ANN,))])
    assert (report.enrolled, len(report.faceless), report.failures) == (1, 1, ())


def test_a_photo_that_takes_more_memory_than_there_is_is_reported_and_costs_nothing_else(
    gallery: facedex.Gallery, family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect = SyntheticDetector.detect
    looked = iter(range(100))

    def first_is_too_much(self: SyntheticDetector, images: list[RgbImage]) -> list[list[Face]]:
        if next(looked) == 0:
            raise ModelOutOfMemory("one photo needs more memory than there is")
        return detect(self, images)

    monkeypatch.setattr(SyntheticDetector, "detect", first_is_too_much)
    report = gallery.enroll(family, label="folder")
    assert (report.enrolled, [f.code for f in report.failures]) == (3, ["model_out_of_memory"])
    assert gallery.enroll(family, label="folder").enrolled == 1


def test_a_device_that_vanishes_costs_nothing_that_was_acknowledged(
    gallery: facedex.Gallery, draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facedex.engine._PHOTOS_AT_ONCE", 4)
    for number in range(40):
        draw(f"photos/{number:02}.jpg", ANN, variation=0.5, seed=number)
    embed = SyntheticEmbedder.embed
    batches = iter(range(100))

    def vanish(self: SyntheticEmbedder, crops: RgbImage) -> np.ndarray:
        if next(batches) == 1:
            raise ModelFailed("CUDA failure 719")
        return embed(self, crops)

    monkeypatch.setattr(SyntheticEmbedder, "embed", vanish)
    with pytest.raises(ModelFailed):
        gallery.enroll(tmp_path / "photos", label="Ann")
    kept = gallery.count()
    assert 12 <= kept < 40
    report = gallery.enroll(tmp_path / "photos", label="Ann")
    assert (report.enrolled, report.already, gallery.count()) == (40 - kept, kept, 40)


def test_a_folder_without_photos_is_an_error_not_a_success(gallery: facedex.Gallery, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", []):
        with pytest.raises(SourceEmpty):
            gallery.enroll(source)


@pytest.mark.parametrize("wrong", [{"label": "  "}, {"faces": "some"}, {"metadata": {"nested": {"a": 1}}}])
def test_wrong_arguments_are_refused_and_nothing_is_enrolled(
    gallery: facedex.Gallery, draw: Draw, wrong: dict[str, object]
) -> None:
    with pytest.raises(ArgumentInvalid):
        gallery.enroll(draw("a.jpg", ANN), **wrong)
    assert gallery.count() == 0


def test_k_below_one_is_refused(gallery: facedex.Gallery, draw: Draw) -> None:
    with pytest.raises(ArgumentInvalid):
        gallery.search(draw("a.jpg", ANN), k=0)


class OtherEmbedder(SyntheticEmbedder):
    @property
    def space(self) -> EmbeddingSpace:
        return EmbeddingSpace("other", "1", "f" * 64, 128, "other")


def test_a_gallery_made_with_another_model_is_refused_and_left_as_it_is(
    engine: facedex.Engine, tmp_path: Path, draw: Draw
) -> None:
    with engine.open(tmp_path / "faces.db") as gallery:
        gallery.enroll(draw("a.jpg", ANN), label="Ann")
    other = facedex.Engine(FacePipeline(SyntheticDetector(), OtherEmbedder()), policy=engine.policy)
    with other.open(tmp_path / "faces.db") as gallery:
        with pytest.raises(SpaceMismatch, match="cannot be compared"):
            gallery.search(draw("a.jpg", ANN))
        with pytest.raises(SpaceMismatch):
            gallery.enroll(draw("b.jpg", BOB), label="Bob")
        assert gallery.count() == 1


def test_no_face_is_no_template(gallery: facedex.Gallery, draw: Draw) -> None:
    report = gallery.enroll([draw("wall.jpg"), draw("a.jpg", ANN)])
    assert (report.enrolled, len(report.faceless), gallery.count()) == (1, 1, 1)
    with pytest.raises(NoFaceFound, match="no face found"):
        gallery.engine.embed(draw("wall.jpg"))
    assert gallery.engine.detect(draw("wall.jpg")) == []


def test_a_closed_gallery_says_so(gallery: facedex.Gallery, draw: Draw) -> None:
    gallery.close()
    gallery.close()
    with pytest.raises(StoreClosed):
        gallery.count()


# ---- several at once


def test_what_one_gallery_enrolls_another_on_the_same_file_finds_at_its_next_search(
    engine: facedex.Engine, tmp_path: Path, draw: Draw
) -> None:
    with engine.open(tmp_path / "faces.db") as writer, engine.open(tmp_path / "faces.db") as searcher:
        assert searcher.search(draw("who.jpg", ANN))[0].candidates == ()
        writer.enroll(draw("a.jpg", ANN, variation=0.5, seed=1), label="Ann")
        assert searcher.search(draw("who.jpg", ANN))[0].candidates[0].label == "Ann"
        writer.delete(label="Ann")
        assert searcher.search(draw("who.jpg", ANN))[0].candidates == ()


def test_threads_may_enroll_and_search_one_gallery_at_once(gallery: facedex.Gallery, draw: Draw) -> None:
    photos = [draw(f"{n}.jpg", n, variation=0.2, seed=n) for n in range(1, 13)]
    broken: list[BaseException] = []

    def enroll(each: Path) -> None:
        try:
            gallery.enroll(each, label=each.stem)
            assert gallery.search(each, k=1)[0].candidates[0].label == each.stem
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=enroll, args=(photo,)) for photo in photos]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []
    assert gallery.count() == 12


# ---- 1:1


def test_two_photos_of_one_person_are_verified_and_of_two_people_are_not(engine: facedex.Engine, draw: Draw) -> None:
    ann, again, bob = draw("a.jpg", ANN), draw("b.jpg", ANN, variation=0.5, seed=5), draw("c.jpg", BOB)
    same, other = engine.verify(ann, again), engine.verify(ann, bob)
    assert (same.verified, same.verdict, same.threshold) == (True, Verdict.MATCH, 0.5)
    assert (other.verified, other.verdict) == (False, Verdict.NO_MATCH)
    assert same.confidence > 50 > other.confidence


def test_verifying_compares_the_main_faces(engine: facedex.Engine, draw: Draw) -> None:
    result = engine.verify(draw("a.jpg", ANN), draw("b.jpg", ANN, BOB))
    assert all(isinstance(face, Face) for face in result.faces)
    assert result.verified


def test_embeddings_have_norm_one(engine: facedex.Engine, draw: Draw) -> None:
    faces = engine.embed(draw("party.jpg", ANN, BOB))
    assert [face.embedding.shape for face in faces if face.embedding is not None] == [(128,), (128,)]
    assert [float(np.linalg.norm(face.embedding)) for face in faces] == pytest.approx([1, 1], abs=1e-6)


def test_info_tells_what_is_there_and_what_decisions_rest_on(gallery: facedex.Gallery, family: Path) -> None:
    gallery.enroll(family, label="folder")
    facts = gallery.info()
    assert (facts["templates"], facts["people"], facts["space_id"]) == (4, 2, gallery.engine.space.id)
    assert facts["operating_point"].dataset == "drawn faces"
