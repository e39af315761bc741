"""The command line does what the library does, in words, in JSON, and in exit codes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import facedex
from drawn import ANN, BOB, DEE, POLICY, Draw
from facedex import cli
from facedex.errors import StoreUnavailable
from facedex.models.synthetic import SyntheticDetector, SyntheticEmbedder
from facedex.vision.pipeline import FacePipeline


@pytest.fixture(autouse=True)
def synthetic_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pipeline = FacePipeline(SyntheticDetector(), SyntheticEmbedder())
    monkeypatch.setattr(FacePipeline, "load", lambda settings: pipeline)
    monkeypatch.setattr("facedex.engine.DEFAULT_SPACE", pipeline.space)
    monkeypatch.setattr("facedex.engine.policy_for", lambda space, data_dir: POLICY)
    monkeypatch.chdir(tmp_path)
    for name in ("FACEDEX_GALLERY", "FACEDEX_MODELS_DIR", "FACEDEX_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli.main, [str(a) for a in arguments])
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result


def as_json(*arguments: object, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


@pytest.fixture
def enrolled(draw: Draw) -> None:
    draw("photos/Ann/1.jpg", ANN, variation=0.5, seed=1)
    draw("photos/Ann/2.jpg", ANN, variation=0.5, seed=2)
    draw("photos/Bob/1.jpg", BOB, variation=0.5, seed=3)
    run("enroll", "photos", "--label", "folder")


def test_enroll_then_search_names_the_person(enrolled: None, draw: Draw) -> None:
    said = run("search", draw("who.jpg", BOB), "-k", 2).stdout
    assert re.search(r"1\. Bob\s+similarity\s+0\.\d+\s+confidence\s+\d+\.\d %\s+match", said)


def test_search_in_json_has_what_the_library_has(enrolled: None, draw: Draw, engine: facedex.Engine) -> None:
    probe = draw("who.jpg", BOB)
    (told,) = as_json("search", probe, "-k", 2)
    with engine.open("faces.db") as gallery:
        (found,) = gallery.search(probe, k=2)
    best = told["found"][0]["candidates"][0]
    assert told["probe"] == str(probe)
    assert best["label"] == found.candidates[0].label
    assert best["similarity"] == pytest.approx(found.candidates[0].similarity)
    assert set(best) == set(facedex.Candidate.__dataclass_fields__)
    assert "embedding" not in told["found"][0]["face"]


def test_search_draws_a_picture_and_a_page_that_needs_nothing_else(enrolled: None, draw: Draw) -> None:
    from PIL import Image

    probes = [draw("who.jpg", BOB), draw("stranger <b>.jpg", DEE), draw("wall.jpg")]
    run("search", *probes, "--picture", "sheet.png", "--page", "page.html", code=3)
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 600
        assert len(sheet.getcolors(1 << 24) or ()) > 100
    page = Path("page.html").read_text("utf-8")
    assert page.count("<section>") == 3
    assert page.count("data:image/jpeg;base64,") >= 2 + 2 + 6
    assert "stranger &lt;b&gt;.jpg" in page
    assert "<b>.jpg" not in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", page)
    assert "<script" not in page


def test_a_page_does_without_photos_that_are_gone(enrolled: None, draw: Draw) -> None:
    shutil.rmtree("photos")
    run("search", draw("who.jpg", BOB), "--page", "page.html", "--picture", "sheet.png")
    assert "photo not at hand" in Path("page.html").read_text("utf-8")


def test_one_unreadable_photo_is_reported_at_the_end_with_code_3(draw: Draw) -> None:
    draw("photos/Ann/1.jpg", ANN)
    Path("photos/Ann/broken.jpg").write_text("not a photo")
    report = as_json("enroll", "photos", "--label", "folder", code=3)
    assert (report["enrolled"], len(report["failures"])) == (1, 1)
    said = run("enroll", "photos", "--label", "folder", code=3)
    assert "broken.jpg" in said.stderr
    assert "1 photos were enrolled before" in said.stdout


def test_an_error_is_one_line_and_code_1(enrolled: None) -> None:
    said = run("search", "missing.jpg", code=1)
    assert said.stderr.startswith("facedex: missing.jpg does not exist")
    assert "Traceback" not in said.output


def test_an_error_in_json_has_its_code_and_facts(enrolled: None) -> None:
    told = as_json("search", "missing.jpg", code=1)
    assert told["error"]["code"] == "photo_not_found"
    assert told["error"]["details"]["photo"] == "missing.jpg"


def test_a_foreign_file_as_gallery_is_refused_and_left_alone(draw: Draw) -> None:
    Path("letter.txt").write_text("dear Ann")
    run("people", "--gallery", "letter.txt", code=1)
    run("enroll", draw("a.jpg", ANN), "--gallery", "letter.txt", code=1)
    assert Path("letter.txt").read_text() == "dear Ann"


def test_only_enroll_makes_a_gallery(draw: Draw) -> None:
    for command in (["people"], ["info"], ["search", draw("a.jpg", ANN)], ["delete", "--all"]):
        assert as_json(*command, "--gallery", "fcaes.db", code=1)["error"]["code"] == "store_unavailable"
    assert not Path("fcaes.db").exists()
    run("enroll", "a.jpg", "--gallery", "new.db")
    assert Path("new.db").exists()


def test_verify_says_yes_and_no(draw: Draw) -> None:
    ann, again, bob = draw("a.jpg", ANN), draw("b.jpg", ANN, variation=0.5, seed=4), draw("c.jpg", BOB)
    assert run("verify", ann, again).stdout.startswith("verified (match)")
    assert run("verify", ann, bob).stdout.startswith("not verified (no match)")
    told = as_json("verify", ann, again)
    assert told["verified"] is True
    assert told["operating_point"]["dataset"] == "drawn faces"


def test_detect_and_embed_tell_boxes_and_embeddings(draw: Draw) -> None:
    photo = draw("party.jpg", ANN, BOB)
    assert run("detect", photo).stdout.startswith("2 faces")
    assert [len(face["landmarks"]) for face in as_json("detect", photo)] == [5, 5]
    told = as_json("embed", photo)
    assert [len(face["embedding"]) for face in told["faces"]] == [128, 128]
    assert told["space"]["id"]
    assert as_json("detect", draw("wall.jpg")) == []
    assert as_json("embed", draw("wall.jpg"), code=1)["error"]["code"] == "no_face_found"


def test_people_and_info_count_what_is_enrolled(enrolled: None) -> None:
    assert as_json("people") == [
        {"label": "Ann", "templates": 2, "photos": 2},
        {"label": "Bob", "templates": 1, "photos": 1},
    ]
    assert "Ann" in run("people").stdout
    told = as_json("info")
    assert (told["templates"], told["people"]) == (3, 2)
    said = run("info", "--check").stdout
    assert re.search(r"templates +3\n", said)
    assert re.search(r"match from +similarity 0\.500: FMR 0, FNMR 0", said)
    assert re.search(r"problems +none found", said)


def test_a_saved_index_is_told_of_and_searched_in_every_mode(enrolled: None, draw: Draw) -> None:
    assert "faces.db.fdx: 3 templates" in run("index", "build").stdout
    assert re.search(r"exact index +\S+: 3 templates, 0 changes behind", run("info").stdout)
    probe = draw("who.jpg", BOB)
    assert as_json("search", probe, "--mode", "ann", code=1)["error"]["code"] == "argument_invalid"
    pytest.importorskip("faiss", reason="the extra facedex[ann] is not installed")
    assert as_json("index", "build", "--approximate")["recall"] == 1.0
    answers = [as_json("search", probe, "--mode", mode) for mode in ("exact", "ann", "auto")]
    assert answers[0] == answers[1] == answers[2]
    assert {saved["kind"] for saved in as_json("info")["indexes"]} == {"exact", "ann"}


def test_info_finds_damage_when_asked_to_look(enrolled: None) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect("faces.db")) as connection, connection:
        connection.execute("DELETE FROM face WHERE id = 1")
    assert as_json("info", "--check", code=1)["problems"]


def test_delete_removes_a_person_a_photo_or_everybody(enrolled: None) -> None:
    assert as_json("delete", "--label", "Ann") == {"deleted": 2}
    assert as_json("delete", "--photo", "photos/Bob/1.jpg") == {"deleted": 1}
    run("enroll", "photos", "--label", "folder")
    assert as_json("delete", "--all") == {"deleted": 3}
    run("delete", code=2)
    run("delete", "--label", "Ann", "--all", code=2)


def test_metadata_are_given_as_key_and_value(draw: Draw) -> None:
    run("enroll", draw("a.jpg", ANN), "--label", "Ann", "--meta", "desk=4", "--meta", "note=a=b")
    (told,) = as_json("search", "a.jpg")
    assert told["found"][0]["candidates"][0]["metadata"] == {"desk": "4", "note": "a=b"}
    run("enroll", "a.jpg", "--meta", "desk", code=2)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["Ann", "Bob"]),
        (["--label", "Bob"], ["Bob"]),
        (["--label", "Bob", "--label", "Ann"], ["Ann", "Bob"]),
        (["--not-label", "Bob"], ["Ann"]),
        (["--meta", "camera=gate"], ["Bob"]),
        (["--since", "2020-01-01"], ["Ann", "Bob"]),
        (["--until", "2020-01-01T12:00+01:00"], []),
    ],
)
def test_search_can_be_narrowed(draw: Draw, options: list[str], names: list[str]) -> None:
    run("enroll", draw("ann.jpg", ANN), "--label", "Ann")
    run("enroll", draw("bob.jpg", BOB), "--label", "Bob", "--meta", "camera=gate")
    (told,) = as_json("search", draw("who.jpg", ANN), *options)
    assert [c["label"] for c in told["found"][0]["candidates"]] == names


def test_a_time_that_is_none_is_wrong_usage(enrolled: None, draw: Draw) -> None:
    assert "yesterday" in run("search", draw("who.jpg", ANN), "--since", "yesterday", code=2).output


def test_the_gallery_comes_from_the_option_then_the_environment_then_faces_db(
    draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("enroll", draw("a.jpg", ANN), "--gallery", "sqlite:///one.db")
    monkeypatch.setenv("FACEDEX_GALLERY", "two.db")
    run("enroll", "a.jpg")
    monkeypatch.delenv("FACEDEX_GALLERY")
    run("enroll", "a.jpg")
    assert sorted(p.name for p in Path().glob("*.db")) == ["faces.db", "one.db", "two.db"]


def test_ctrl_c_exits_with_130_and_says_that_nothing_is_lost(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(facedex.Gallery, "enroll", interrupted)
    said = run("enroll", draw("a.jpg", ANN), code=130)
    assert "goes on" in said.stderr


def test_a_store_that_cannot_be_reached_is_an_error_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise StoreUnavailable("the server at ****@host is not there.")

    monkeypatch.setattr("facedex.engine.open_store", unreachable)
    assert run("people", code=1).stderr == "facedex: the server at ****@host is not there.\n"


def every_command(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield command
        if isinstance(command, click.Group):
            yield from every_command(command)


def test_every_command_has_json_and_help() -> None:
    for command in every_command(cli.main):
        if not isinstance(command, click.Group):
            assert "--json" in {option for p in command.params for option in p.opts}, command.name
        assert command.help, command.name


def test_models_are_listed_with_the_licence_of_their_weights() -> None:
    told = as_json("models", "list")
    assert {row["card"]["name"] for row in told} >= {"yunet", "sface", "dlib-resnet"}
    assert all(row["card"]["licence"] for row in told)


def test_a_gallery_is_copied_exported_and_imported(enrolled: None) -> None:
    copied = as_json("copy", "faces.db", "sqlite:///other.db")
    assert (copied["templates"], copied["new"]) == (3, 3)
    assert "3 templates, 0 of them new" in run("copy", "faces.db", "other.db").stdout
    pytest.importorskip("pyarrow", reason="the extra facedex[parquet] is not installed")
    assert as_json("export", "other.db", "faces.parquet")["digest"] == copied["digest"]
    assert as_json("export", "other.db", "faces.parquet", code=1)["error"]["code"] == "export_unavailable"
    run("export", "other.db", "faces.parquet", "--overwrite")
    assert as_json("import", "faces.parquet", "third.db")["digest"] == copied["digest"]
    assert as_json("people", "--gallery", "third.db") == as_json("people")


def test_a_source_that_is_not_there_makes_no_target() -> None:
    for command in (["copy", "fcaes.db", "new.db"], ["export", "fcaes.db", "faces.parquet"]):
        assert as_json(*command, code=1)["error"]["code"] == "store_unavailable"
    assert as_json("import", "faces.parquet", "new.db", code=1)["error"]["code"] == "export_unavailable"
    assert not [path for path in Path().iterdir() if path.name.startswith(("new", "faces"))]
