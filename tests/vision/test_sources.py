"""Folders, photos and lists → single photos to read."""

from __future__ import annotations

import io
import logging
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from photos import encoded, quarters

from facedex.errors import ArgumentInvalid, PhotoError, PhotoNotFound, SourceEmpty
from facedex.vision import sources
from facedex.vision.images import load_photo
from facedex.vision.sources import PhotoSource, find_photos


@pytest.fixture
def people(tmp_path):
    """Ann with three photos, Bob with one in a folder of his own below, and things that are no photos."""
    for name in (
        "people/Ann/2.jpg",
        "people/Ann/1.JPEG",
        "people/Ann/3.webp",
        "people/Bob/trip/rome.png",
        "people/zoe.tif",
        "people/notes.txt",
        "people/Ann/.hidden.jpg",
        "people/.cache/thumb.jpg",
        "people/empty/readme.md",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(quarters()))
    return tmp_path / "people"


def names(found, root):
    return [Path(photo.name).relative_to(root).as_posix() for photo in found]


def test_a_folder_is_searched_through_in_the_order_of_names(people):
    found = list(find_photos(people))
    assert names(found, people) == ["zoe.tif", "Ann/1.JPEG", "Ann/2.jpg", "Ann/3.webp", "Bob/trip/rome.png"]
    assert [photo.folder for photo in found] == ["people", "Ann", "Ann", "Ann", "trip"]
    assert load_photo(found[0].source).width == 48


def test_a_path_may_be_text_or_path_relative_or_not(people, monkeypatch):
    expected = names(find_photos(people), people)
    assert names(find_photos(str(people) + os.sep), people) == expected
    monkeypatch.chdir(people)
    found = list(find_photos("."))
    assert [Path(photo.name).as_posix() for photo in found] == expected
    assert found[0].folder == "people"


def test_a_single_photo_may_be_called_anything(people):
    [photo] = find_photos(people / "notes.txt")
    assert (photo.source, photo.name, photo.folder) == (str(people / "notes.txt"),) * 2 + ("people",)


def test_a_list_may_mix_folders_and_photos_of_every_kind(people):
    file = (people / "zoe.tif").open("rb")
    given = [
        people / "Ann",
        str(people / "zoe.tif"),
        encoded(quarters()),
        quarters(),
        io.BytesIO(encoded(quarters())),
        file,
        "https://ann:secret@example.org/ann.jpg",
        "data:image/png;base64,AAAA",
        PhotoSource("x", "named by me", "Zoe"),
    ]
    with file:
        found = list(find_photos(given))
        assert [photo.name for photo in found[3:]] == [
            str(people / "zoe.tif"),
            "photo 3",
            "photo 4",
            "photo 5",
            str(people / "zoe.tif"),
            "https://***@example.org/ann.jpg",
            "photo 8",
            "named by me",
        ]
    assert [photo.folder for photo in found] == ["Ann"] * 3 + ["people", None, None, None, "people", None, None, "Zoe"]


def test_one_array_is_one_photo_not_a_list_of_rows():
    for single in (quarters(), encoded(quarters()), io.BytesIO(b""), bytearray(b"x")):
        [photo] = find_photos(single)
        assert photo.source is single
        assert photo.folder is None


def test_an_endless_stream_of_frames_is_taken_only_as_asked():
    taken = []

    def camera():
        while True:
            taken.append(1)
            yield np.zeros((4, 4, 3), np.uint8)

    found = list(islice(find_photos(camera()), 3))
    assert [photo.name for photo in found] == ["photo 1", "photo 2", "photo 3"]
    assert len(taken) == 3


@pytest.mark.parametrize("source", ["nobody.jpg", "no/such/folder", "", Path("nowhere")])
def test_a_missing_path_is_not_found_at_once(source):
    with pytest.raises(PhotoNotFound, match="does not exist"):
        find_photos(source)


def test_a_missing_photo_of_a_list_costs_only_itself(people):
    found = list(find_photos([people / "zoe.tif", people / "gone.jpg", people / "Ann" / "2.jpg"]))
    assert [photo.name for photo in found][1] == str(people / "gone.jpg")
    with pytest.raises(PhotoNotFound):
        load_photo(found[1].source)


def test_a_folder_without_photos_and_an_empty_list_are_empty(people):
    with pytest.raises(SourceEmpty, match="holds no photos") as caught:
        find_photos(people / "empty")
    assert caught.value.source == str(people / "empty")
    for nothing in ([], iter(()), [people / "empty"]):
        with pytest.raises(SourceEmpty, match="list holds no photos"):
            find_photos(nothing)


@pytest.mark.parametrize("source", [None, 5, {"a.jpg": 1}, object()])
def test_what_can_be_no_source_is_an_invalid_argument(source):
    with pytest.raises(ArgumentInvalid, match=type(source).__name__):
        find_photos(source)


def test_a_list_of_lists_is_an_invalid_argument():
    with pytest.raises(ArgumentInvalid, match="item 1 of the list is a list"):
        find_photos([["a.jpg"]])


def test_links_between_folders_end_no_search_in_a_circle(people):
    (people / "Ann" / "up").symlink_to(people, target_is_directory=True)
    (people / "Bob" / "self").symlink_to(people / "Bob", target_is_directory=True)
    (people / "zz").symlink_to(people / "Ann", target_is_directory=True)
    assert names(find_photos(people), people) == [
        "zoe.tif",
        "Ann/1.JPEG",
        "Ann/2.jpg",
        "Ann/3.webp",
        "Bob/trip/rome.png",
    ]


def test_a_link_to_a_folder_elsewhere_is_followed(people, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "cat.png").write_bytes(encoded(quarters()))
    (people / "Cat").symlink_to(elsewhere, target_is_directory=True)
    assert ("Cat/cat.png", "Cat") in [
        (Path(p.name).relative_to(people).as_posix(), p.folder) for p in find_photos(people)
    ]


def test_a_pipe_and_a_link_to_nothing_are_reported_when_read_and_hang_nothing(people):
    os.mkfifo(people / "Ann" / "pipe.jpg")
    (people / "Ann" / "lost.jpg").symlink_to(people / "nowhere.jpg")
    failed = []
    for photo in find_photos(people):
        try:
            load_photo(photo.source)
        except PhotoError as error:
            failed.append((Path(photo.name).name, error.code))
    assert failed == [("lost.jpg", "photo_not_found"), ("pipe.jpg", "photo_not_found")]


def deny(monkeypatch, folder):
    real = os.scandir

    def scandir(path):
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(sources.os, "scandir", scandir)


def test_a_subfolder_that_cannot_be_read_is_reported_and_costs_nothing_else(people, monkeypatch, caplog):
    deny(monkeypatch, people / "Ann")
    reported = []
    assert names(find_photos(people, report=reported.append), people) == ["zoe.tif", "Bob/trip/rome.png"]
    assert [(problem.photo, problem.code) for problem in reported] == [(str(people / "Ann"), "photo_unreadable")]
    assert "Permission denied" in reported[0].message
    with caplog.at_level(logging.WARNING):
        list(find_photos(people))
    assert "Permission denied" in caplog.text


def test_a_folder_that_cannot_be_read_at_all_says_why_it_seems_empty(people, monkeypatch):
    deny(monkeypatch, people)
    with pytest.raises(SourceEmpty, match="could not be read") as caught:
        find_photos(people)
    assert caught.value.unreadable == (str(people),)


def test_names_that_are_no_utf8_are_found_read_and_shown(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(encoded(quarters()))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    [photo] = find_photos(tmp_path)
    photo.name.encode()
    assert load_photo(photo.source).width == 48
