"""evaluate, calibrate and plot on the command line: files that are what they say, exit codes, nothing half done."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from drawn import ANN, BOB, CY, DEE, POLICY, Draw
from facedex import cli
from facedex.decide.layout import lay_out
from facedex.errors import ArgumentInvalid
from facedex.models.synthetic import SyntheticDetector, SyntheticEmbedder
from facedex.vision.pipeline import FacePipeline


@pytest.fixture(autouse=True)
def study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, draw: Draw) -> None:
    """Four people, two photos each, in people/; synthetic models, whose shipped policy is the tests'."""
    pipeline = FacePipeline(SyntheticDetector(), SyntheticEmbedder())
    monkeypatch.setattr(FacePipeline, "load", lambda settings: pipeline)
    monkeypatch.setattr("facedex.engine.DEFAULT_SPACE", pipeline.space)
    monkeypatch.setattr("facedex.decide.policy._shipped", lambda: {pipeline.space.id: POLICY})
    monkeypatch.setenv("FACEDEX_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    for name, person in (("Ann", ANN), ("Bob <b>", BOB), ("Cy", CY), ("Dee", DEE)):
        for occasion in (1, 2):
            draw(f"people/{name}/{occasion}.png", person, variation=0.5, seed=10 * person + occasion)


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli.main, [str(a) for a in arguments])
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result


def as_json(*arguments: object, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


def test_evaluate_tells_rates_in_words_and_in_json(draw: Draw) -> None:
    said = run("evaluate", "people", "--rounds", 100).stdout
    assert "8 photos of 4 people, 0 without a face; 4 genuine and 24 impostor pairs" in said
    assert re.search(r"0\.500 +match, in use +0 \(0–0\.12\)", said)
    told = as_json("evaluate", "people", "--rounds", 100, "--name", "four friends")
    assert (told["name"], told["pairs"]["auc"], told["match"]["dataset"]) == ("four friends", 1.0, "four friends")


def test_a_report_needs_nothing_else_and_trusts_no_name(draw: Draw) -> None:
    draw("people/Ann/wall.png")
    Path("people/Ann/broken <i>.jpg").write_text("no photo")
    Path("groups.csv").write_text("person,group\nAnn,one\nCy,one\nDee,<u>two\n", "utf-8")
    arguments = ["--page", "report.html", "--picture", "mistakes.png", "--groups", "groups.csv", "--rounds", 100]
    said = run("evaluate", "people", *arguments, code=3)
    assert "wall.png" in said.stderr
    page = Path("report.html").read_text("utf-8")
    assert page.count("<svg") == 4
    assert page.count("data:image/jpeg;base64,") == 4 + 12
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "<script" not in page
    assert "Bob <b>" not in page
    assert "Bob &lt;b&gt;" in page
    assert "&lt;u&gt;two" in page
    assert "wall.png" in page
    assert "broken &lt;i&gt;.jpg" in page
    with Image.open("mistakes.png") as sheet:
        assert len(sheet.getcolors(1 << 24) or ()) > 100


def test_a_report_does_without_photos_that_are_gone() -> None:
    import shutil

    run("enroll", "people", "--label", "folder", "--gallery", "faces.db")
    shutil.rmtree("people")
    run("evaluate", "faces.db", "--page", "report.html", "--picture", "sheet.jpg", "--rounds", 100)
    assert "Bob &lt;b&gt;" in Path("report.html").read_text("utf-8")


def test_pairs_are_evaluated_without_searches() -> None:
    Path("pairs.csv").write_text(
        "photo_a,photo_b,same\npeople/Ann/1.png,people/Ann/2.png,yes\npeople/Ann/1.png,people/Cy/1.png,no\n", "utf-8"
    )
    told = as_json("evaluate", "pairs.csv", "--rounds", 100, "--page", "report.html")
    assert (told["genuine_trials"], told["impostor_trials"], told["identification"]) == (1, 1, None)
    assert "nothing is said of searches" in Path("report.html").read_text("utf-8")


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "people", "--rounds", 100, "--page", "missing/x.html"],
        ["evaluate", "people", "--rounds", 100, "--picture", "missing/x.png"],
        ["plot", "scores", "people", "-o", "missing/x.png"],
        ["plot", "embeddings", "people", "-o", "missing/x.html"],
        ["calibrate", "people", "--plot", "missing/x.svg"],
    ],
)
def test_a_place_that_cannot_be_written_is_an_error_line(command: list[object]) -> None:
    assert as_json(*command, code=1)["error"]["code"] == "output_unwritable"


def test_calibrate_keeps_shows_uses_and_removes() -> None:
    before = as_json("verify", "people/Ann/1.png", "people/Ann/2.png")
    fmrs = ["--match-fmr", 0.13, "--review-fmr", 0.3]
    assert as_json("calibrate", "people", *fmrs, "--dry-run")["kept"] is None
    assert as_json("calibrate", "--show")["path"] is None
    kept = as_json("calibrate", "people", *fmrs, "--name", "four friends", "--rescale")
    assert Path(kept["kept"]).is_file()
    shown = as_json("calibrate", "--show")
    assert (shown["path"], shown["source"]["dataset"]) == (kept["kept"], "four friends")
    assert shown["policy"] == kept["policy"]
    after = as_json("verify", "people/Ann/1.png", "people/Ann/2.png")
    assert after["operating_point"]["dataset"] == "four friends" != before["operating_point"]["dataset"]
    assert after["confidence"] >= 51
    assert "four friends" in run("calibrate", "--show").stdout
    assert as_json("calibrate", "--remove") == {"removed": True}
    assert as_json("calibrate", "--remove") == {"removed": False}
    assert as_json("verify", "people/Ann/1.png", "people/Ann/2.png") == before


def test_calibrate_says_what_it_cannot_do() -> None:
    run("calibrate", code=2)
    run("calibrate", "people", "--show", code=2)
    said = run("calibrate", "people", "--plot", "reliability.svg").stdout
    assert "24 impostor pairs do not support thresholds of your own" in said
    assert "on people it was not fitted on (2 folds)" in said
    assert "<svg" in Path("reliability.svg").read_text("utf-8")
    assert as_json("calibrate", "people", "--match-fmr", 2, code=1)["error"]["code"] == "argument_invalid"


def test_a_damaged_calibration_stops_decisions_until_it_is_removed() -> None:
    kept = as_json("calibrate", "people")["kept"]
    Path(kept).write_text("{")
    told = as_json("verify", "people/Ann/1.png", "people/Ann/2.png", code=1)
    assert told["error"]["code"] == "policy_unreadable"
    run("calibrate", "--remove")
    run("verify", "people/Ann/1.png", "people/Ann/2.png")


def test_scores_are_drawn_in_every_format() -> None:
    run("plot", "scores", "people", "-o", "s.png", "-o", "s.svg", "-o", "s.html")
    with Image.open("s.png") as picture:
        assert picture.width > 900
        assert {(0, 114, 178), (213, 94, 0)} <= {
            colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or ()
        }
    svg = Path("s.svg").read_text("utf-8")
    assert all(text in svg for text in ("genuine pairs", "impostor pairs", "match 0.500", "review 0.350"))
    page = Path("s.html").read_text("utf-8")
    data = json.loads(re.findall(r'id="data">(.*?)</script>', page)[0])
    assert len(data["thresholds"]) == len(data["fmr"]) == len(data["fnmr"])
    assert not re.search(r"""(src|href)\s*=\s*["']""", page)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_embeddings_are_drawn_side_by_side(dimensions: int) -> None:
    run("enroll", "people", "--label", "folder", "--gallery", "faces.db")
    out = [part for name in ("e.png", "e.svg", "e.html") for part in ("-o", name)]
    run("plot", "embeddings", "people", "faces.db", "--dimensions", dimensions, *out)
    with Image.open("e.png") as picture:
        assert picture.width > 1500
    svg = Path("e.svg").read_text("utf-8")
    assert svg.count("Bob &lt;b&gt;") >= 2
    page = Path("e.html").read_text("utf-8")
    data = json.loads(re.findall(r'id="data">(.*?)</script>', page)[0])
    assert [len(panel["points"]) for panel in data["panels"]] == [8, 8]
    assert len(data["panels"][0]["points"][0]) == dimensions
    assert data["people"] == ["Ann", "Bob <b>", "Cy", "Dee"]
    assert "Bob <b>" not in page


def test_several_models_are_drawn_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(settings: Any) -> FacePipeline:
        asked.append(settings.embedder)
        return FacePipeline(SyntheticDetector(), SyntheticEmbedder(settings.embedder))

    monkeypatch.setattr(FacePipeline, "load", load)
    run("plot", "embeddings", "people", "--model", "sface", "--model", "dlib-resnet", "-o", "e.html")
    assert asked == ["sface", "dlib-resnet"]
    assert "people · dlib-resnet" in Path("e.html").read_text("utf-8")
    run("plot", "embeddings", "people", "--model", "a", "--model", "b", "--keep", "k.db", "-o", "e.html", code=2)


def test_a_file_name_says_how_to_draw() -> None:
    run("plot", "scores", "people", "-o", "s.docx", code=2)
    run("plot", "embeddings", "people", "-o", "e", code=2)
    assert as_json("evaluate", "people", "--picture", "p.docx", "--rounds", 100, code=1)["error"]["code"] == (
        "argument_invalid"
    )


def test_without_the_extras_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "umap", None)
    assert "facedex[plot]" in run("plot", "scores", "people", "-o", "s.png", code=1).stderr
    assert "facedex[umap]" in run("plot", "embeddings", "people", "-o", "s.html", "--method", "umap", code=1).stderr
    run("plot", "scores", "people", "-o", "s.html")
    run("plot", "embeddings", "people", "-o", "e.html")


def test_pca_keeps_what_lies_in_a_plane() -> None:
    rng = np.random.default_rng(0)
    flat = np.zeros((50, 6), np.float32)
    flat[:, [1, 4]] = rng.normal(size=(50, 2))
    told = lay_out(flat, 2)
    assert told.kept == pytest.approx(1)
    apart = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    assert np.linalg.norm(told.points[:, None] - told.points[None], axis=2) == pytest.approx(apart, abs=1e-5)
    order = rng.permutation(50)
    assert lay_out(flat[order], 2).points == pytest.approx(told.points[order], abs=1e-9)


def test_a_layout_needs_three_faces_and_two_or_three_dimensions() -> None:
    for rows, dimensions, method in ((2, 2, "pca"), (5, 4, "pca"), (5, 2, "t-sne")):
        with pytest.raises(ArgumentInvalid):
            lay_out(np.eye(rows, 5, dtype=np.float32), dimensions, method)
    assert lay_out(np.ones((4, 2), np.float32), 3).points.shape == (4, 3)


def test_umap_lays_out_where_it_is_installed() -> None:
    pytest.importorskip("umap", reason="the extra facedex[umap] is not installed")
    assert lay_out(np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32), 2, "umap").kept is None
