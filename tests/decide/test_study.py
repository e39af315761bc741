"""Folders, lists of pairs and galleries, judged: with drawn faces whose people are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import facedex
from drawn import ANN, BOB, CY, DEE, POLICY, Draw
from facedex.errors import ArgumentInvalid, PairsUnreadable, SourceEmpty, StoreUnavailable, TrialsTooFew
from facedex.study import Evaluation, calibrate, evaluate, read_groups, read_labelled
from facedex.study.tables import read_pairs
from facedex.types import to_plain

PEOPLE = {"Ann": ANN, "Bob": BOB, "Cy": CY, "Dee": DEE}


@pytest.fixture
def folder(draw: Draw, tmp_path: Path) -> Path:
    """Four people, three photos each."""
    for name, person in PEOPLE.items():
        for occasion in (1, 2, 3):
            draw(f"people/{name}/{occasion}.png", person, variation=0.5, seed=10 * person + occasion)
    return tmp_path / "people"


def test_a_folder_of_people_is_compared_all_with_all(engine: facedex.Engine, folder: Path) -> None:
    labelled = read_labelled(engine, folder)
    assert (labelled.name, labelled.photos, len(labelled.faces)) == ("people", 12, 12)
    assert labelled.trials.people == ("Ann", "Bob", "Cy", "Dee")
    assert (labelled.trials.genuine_trials, labelled.trials.impostor_trials) == (12, 54)
    told = evaluate(engine, labelled, rounds=100)
    assert (told.pairs.auc, told.pairs.eer, told.failure_to_acquire) == (1, 0, 0)
    assert told.match is not None
    assert told.match.threshold == POLICY.match.threshold
    assert told.set_on == "drawn faces"
    assert told.identification is not None
    assert told.identification.rank_1 == 1
    assert {each.people for each in told.open_set} == {1, 2}
    assert [m.faces[0].label == m.faces[1].label for m in told.lowest_genuine] == [True] * 12
    assert [m.faces[0].label != m.faces[1].label for m in told.highest_impostor] == [True] * 12
    assert told.lowest_genuine[0].similarity == min(m.similarity for m in told.lowest_genuine)


def test_an_evaluation_is_plain_json(engine: facedex.Engine, folder: Path) -> None:
    plain = json.loads(
        json.dumps(to_plain(evaluate(engine, read_labelled(engine, folder), rounds=100)), allow_nan=False)
    )
    assert set(plain) == set(Evaluation.__dataclass_fields__)
    assert len(plain["pairs"]["curve"]["fmr"]) == len(plain["pairs"]["curve"]["thresholds"])


def test_photos_that_cannot_be_used_are_counted_and_named(engine: facedex.Engine, folder: Path, draw: Draw) -> None:
    draw("people/Ann/wall.png")
    (folder / "Ann" / "broken.jpg").write_text("no photo")
    (folder / "Bob" / "again.png").write_bytes((folder / "Bob" / "1.png").read_bytes())
    (folder / "Cy" / "who.png").write_bytes((folder / "Dee" / "1.png").read_bytes())
    draw("people/loose.png", ANN)
    labelled = read_labelled(engine, folder)
    assert [Path(photo).name for photo in labelled.faceless] == ["wall.png"]
    assert {Path(failure.photo).name for failure in labelled.failures} == {"broken.jpg", "loose.png"}
    assert labelled.repeated == 1
    assert sorted(Path(photo).name for photo in labelled.contested) == ["1.png", "who.png"]
    assert len(labelled.faces) == 11
    told = evaluate(engine, labelled, rounds=100)
    assert told.failure_to_acquire == pytest.approx(3 / 17)


def test_a_second_run_takes_the_embeddings_that_were_kept(
    engine: facedex.Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_labelled(engine, folder, keep=tmp_path / "kept.db")
    monkeypatch.setattr(engine.pipeline.embedder, "embed", None)
    again = read_labelled(engine, folder, keep=tmp_path / "kept.db")
    assert again.embeddings.tobytes() == first.embeddings.tobytes()
    assert again.digest == first.digest


def test_nothing_is_kept_unasked(
    engine: facedex.Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    read_labelled(engine, folder)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_gallery_is_judged_by_its_labels(engine: facedex.Engine, folder: Path, tmp_path: Path, draw: Draw) -> None:
    with engine.open(tmp_path / "faces.db") as gallery:
        gallery.enroll(folder, label="folder")
        gallery.enroll(draw("stranger.png", 9))
    labelled = read_labelled(engine, tmp_path / "faces.db")
    assert labelled.digest == read_labelled(engine, folder).digest
    assert (labelled.trials.genuine_trials, labelled.trials.impostor_trials) == (12, 54)


def test_a_gallery_without_names_or_without_being_is_refused(
    engine: facedex.Engine, draw: Draw, tmp_path: Path
) -> None:
    with engine.open(tmp_path / "faces.db") as gallery:
        gallery.enroll(draw("a.png", ANN))
    with pytest.raises(TrialsTooFew, match="no labelled faces"):
        read_labelled(engine, tmp_path / "faces.db")
    with pytest.raises(StoreUnavailable):
        read_labelled(engine, tmp_path / "missing.db")


def test_one_person_or_one_photo_each_is_not_enough(engine: facedex.Engine, draw: Draw, tmp_path: Path) -> None:
    for number in (1, 2):
        draw(f"alone/Ann/{number}.png", ANN, seed=number)
        draw(f"single/person {number}/1.png", number)
    for name in ("alone", "single"):
        with pytest.raises(TrialsTooFew, match="genuine and impostor"):
            read_labelled(engine, tmp_path / name)
    draw("loose/1.png", ANN)
    with pytest.raises(SourceEmpty, match="folder for each person"):
        read_labelled(engine, tmp_path / "loose")


# ---- lists of pairs


def listed(folder: Path, text: str) -> Path:
    path = folder / "pairs.csv"
    path.write_text(text, "utf-8")
    return path


def test_pairs_are_compared_as_listed_and_people_are_who_they_join(engine: facedex.Engine, folder: Path) -> None:
    path = listed(
        folder,
        "photo_a,photo_b,same\nAnn/1.png,Ann/2.png,1\nAnn/2.png,Ann/3.png,1\nBob/1.png,Bob/2.png,1\n"
        "Ann/1.png,Bob/1.png,0\nAnn/3.png,Cy/1.png,0\n\n",
    )
    labelled = read_labelled(engine, path)
    assert (labelled.trials.genuine_trials, labelled.trials.impostor_trials, labelled.photos) == (3, 2, 6)
    assert len(labelled.trials.people) == 3
    told = evaluate(engine, labelled, rounds=100)
    assert (told.identification, told.open_set, told.pairs.auc) == (None, (), 1.0)
    names = {frozenset(Path(face.photo or "").parent.name for face in m.faces) for m in told.highest_impostor}
    assert names == {frozenset({"Ann", "Bob"}), frozenset({"Ann", "Cy"})}


def test_pairs_without_a_face_are_lost_not_forgotten(engine: facedex.Engine, folder: Path, draw: Draw) -> None:
    draw("people/wall.png")
    path = listed(
        folder,
        "photo_a,photo_b,same\nAnn/1.png,Ann/2.png,1\nAnn/1.png,Bob/1.png,0\nwall.png,Bob/1.png,0\n"
        "gone.png,Bob/1.png,0\nAnn/1.png,Ann/1.png,1\n",
    )
    labelled = read_labelled(engine, path)
    assert labelled.lost_pairs == 3
    assert [failure.code for failure in labelled.failures] == ["photo_not_found"]
    assert [Path(photo).name for photo in labelled.faceless] == ["wall.png"]


@pytest.mark.parametrize(
    "header",
    [
        "file_x;file_y;actual",
        "IMG1\timg2\tLabel",
        "Photo A,photo-b,Same Person",
        "same,photo1,photo2",
        "left,right,match",
    ],
)
def test_headers_and_separators_are_taken_as_people_write_them(header: str, tmp_path: Path) -> None:
    separator = next(s for s in ";\t," if s in header)
    first_is_same = header.startswith("same")
    rows = [("a.jpg", "b.jpg", "Same Person"), ("a.jpg", "c.jpg", "Different Persons"), ("a.jpg", "d, e.jpg", "TRUE")]
    lines = [header]
    for a, b, same in rows:
        values = [same, a, b] if first_is_same else [a, b, same]
        lines.append(separator.join(f'"{value}"' for value in values))
    path = tmp_path / "pairs.csv"
    path.write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    assert [(Path(p.first).name, Path(p.second).name, p.same) for p in read_pairs(path)] == [
        ("a.jpg", "b.jpg", True), ("a.jpg", "c.jpg", False), ("a.jpg", "d, e.jpg", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no column for photo_a"),
        (b"photo_a,photo_b\na,b\n", "no column for same"),
        (b"photo_a,photo_b,same\n", "no pairs"),
        (b"photo_a,photo_b,same\na,b,maybe\n", "line 2 says same is 'maybe'"),
        (b"photo_a,photo_b,same\na,,1\n", "line 2 has nothing"),
        (b"photo_a,photo_b,same\na\n", "line 2 has nothing"),
        (b"photo_a,photo1,photo_b,same\na,a,b,1\n", "several columns for photo_a"),
        (b'photo_a,photo_b,same\n"a,b,1\n', "no CSV"),
        (b"\xff\xd8\xff\xe0", "cannot be read as text"),
    ],
)
def test_what_is_no_list_of_pairs_is_refused_with_its_line(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(data)
    with pytest.raises(PairsUnreadable, match=said):
        read_pairs(path)


def test_a_list_that_contradicts_itself_or_is_not_there_is_refused(engine: facedex.Engine, folder: Path) -> None:
    path = listed(folder, "a,b,same\nAnn/1.png,Ann/2.png,1\nAnn/2.png,Ann/3.png,1\nAnn/1.png,Ann/3.png,0\n")
    with pytest.raises(PairsUnreadable, match="line 4"):
        read_labelled(engine, path)
    with pytest.raises(PairsUnreadable, match="cannot be read"):
        read_labelled(engine, folder / "other.csv")
    only_same = listed(folder, "a,b,same\nAnn/1.png,Ann/2.png,1\n")
    with pytest.raises(TrialsTooFew):
        read_labelled(engine, only_same)
    with pytest.raises(TrialsTooFew, match="none of the 1 pairs"):
        read_labelled(engine, listed(folder, "a,b,same\nx.png,y.png,1\n"))


# ---- groups


def test_error_rates_by_group_are_of_pairs_within_it(engine: facedex.Engine, folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("person,group\nAnn,a\nBob,a\nCy,b\n", "utf-8")
    told = evaluate(engine, read_labelled(engine, folder), groups=read_groups(table), rounds=100)
    by_name = {each.group: each for each in told.groups}
    assert by_name["a"].point is not None
    assert (by_name["a"].people, by_name["a"].point.impostor_trials, by_name["a"].point.genuine_trials) == (2, 9, 6)
    assert (by_name["b"].people, by_name["b"].point) == (1, None)
    assert told.no_group == ("Dee",)
    with pytest.raises(ArgumentInvalid, match="names none of the 4 people"):
        evaluate(engine, read_labelled(engine, folder), groups={"Zoe": "z"})
    table.write_text("person,group\nAnn,a\nAnn,b\n", "utf-8")
    with pytest.raises(PairsUnreadable, match="line 3"):
        read_groups(table)


def test_a_model_nobody_measured_is_judged_at_the_thresholds_found(
    engine: facedex.Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = facedex.Engine(engine.pipeline, settings=engine.settings)
    told = evaluate(bare, read_labelled(bare, folder), rounds=100)
    assert (told.match, told.review, told.set_on, told.pairs.points) == (None, None, None, ())
    assert [at.fmr for at in told.pairs.at_fmr if at.point] == [0.1]  # 54 impostor pairs
    assert told.lowest_genuine[0].confidence is None
    assert {each.threshold for each in told.open_set} == {told.pairs.at_fmr[0].point.threshold}


# ---- calibration


def test_few_pairs_keep_the_shipped_thresholds_or_say_what_is_missing(
    engine: facedex.Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = read_labelled(engine, folder)
    with pytest.raises(ArgumentInvalid, match="needs 30,000 impostor pairs, people has 54"):
        calibrate(labelled)
    monkeypatch.setattr("facedex.study.calibration.shipped_policy", lambda space: POLICY)
    study = calibrate(labelled)
    assert not study.measured_thresholds
    assert (study.policy.match.threshold, study.policy.match.dataset) == (POLICY.match.threshold, "people")
    assert study.policy.match.impostor_trials == 54


def test_enough_pairs_set_thresholds_and_confidence_of_their_own(engine: facedex.Engine, folder: Path) -> None:
    labelled = read_labelled(engine, folder)
    study = calibrate(labelled, match_fmr=0.06, review_fmr=0.2, rescale=True, feature="angular")
    assert study.measured_thresholds
    assert study.policy.match.fmr <= 0.06
    assert study.policy.review.fmr <= 0.2
    assert study.reliability is not None
    assert study.reliability.folds == 2
    assert study.kept.source["digest"] == labelled.digest
    assert study.policy.confidence(0.9) > 51
    with pytest.raises(ArgumentInvalid, match="match ≤ review"):
        calibrate(labelled, match_fmr=0.2, review_fmr=0.1)
