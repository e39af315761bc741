"""Photos go in as DeepFace's do, BGR; faces come out as its dicts, the eyes the person's own."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from drawn import ANN, BOB, Draw
from facedex import DeepFace
from facedex.deepface.faces import cut_out, facial_area
from facedex.errors import ArgumentInvalid, ModelUnknown, NoFaceFound, PhotoNotFound
from facedex.models.synthetic import draw_photo
from facedex.types import Box, Face, Photo


def face_at(box: Box, *points: tuple[float, float]) -> Face:
    return Face(box, np.array(points, np.float32), 0.9)


def photo_of(pixels: np.ndarray) -> Photo:
    return Photo(pixels, "0" * 64)


UPRIGHT = face_at(Box(20.7, 30.2, 60.9, 80.9), (30, 45), (50, 45), (40, 55), (32, 65), (48, 65))


def test_the_left_eye_is_the_persons_own_which_is_on_the_photos_right() -> None:
    area = facial_area(UPRIGHT, photo_of(np.zeros((100, 100, 3), np.uint8)))
    assert area == {"x": 20, "y": 30, "w": 40, "h": 50, "left_eye": (50, 45), "right_eye": (30, 45)}


def test_an_area_stays_within_the_photo_and_an_eye_outside_it_is_none() -> None:
    face = face_at(Box(-10.0, -5.0, 60.0, 70.0), (-3, 20), (30, 20), (15, 30), (5, 40), (25, 40))
    area = facial_area(face, photo_of(np.zeros((50, 40, 3), np.uint8)))
    assert area == {"x": 0, "y": 0, "w": 40, "h": 50, "left_eye": (30, 20), "right_eye": None}


def test_a_widened_box_keeps_its_middle() -> None:
    area = facial_area(UPRIGHT, photo_of(np.zeros((200, 200, 3), np.uint8)), 50)
    assert (area["x"] + area["w"] / 2, area["y"] + area["h"] / 2) == pytest.approx((40.8, 55.5), abs=1)
    assert (area["w"], area["h"]) == pytest.approx((60, 76), abs=1)


def test_a_tilted_face_is_cut_out_with_level_eyes() -> None:
    """Eyes are drawn as bright dots on a slope of 30°; in the crop they lie on one row, image-left eye left."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 40, (200, 200, 3)).astype(np.uint8)
    middle, half = np.array([100.0, 100.0]), 20.0
    slope = np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)])
    left, right = middle - half * slope, middle + half * slope
    for (x, y), colour in ((left, (255, 0, 0)), (right, (0, 255, 0))):
        pixels[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3] = colour
    face = face_at(Box(60, 60, 140, 140), tuple(left), tuple(right), (100, 110), (90, 125), (110, 125))
    crop = cut_out(pixels, face, align=True)
    assert crop.shape == (80, 80, 3)
    red, green = (np.argwhere(crop[:, :, channel] > 150).mean(axis=0) for channel in (0, 1))
    assert abs(red[0] - green[0]) < 1
    assert green[1] - red[1] == pytest.approx(2 * half, abs=1)
    straight = cut_out(pixels, face, align=False)
    assert np.array_equal(straight, pixels[60:140, 60:140])


def test_a_face_at_the_edge_is_black_beyond_it_when_turned_and_cut_short_when_not() -> None:
    pixels = np.full((60, 60, 3), 200, np.uint8)
    face = face_at(Box(-20, 10, 20, 50), (-10, 20), (10, 20), (0, 30), (-5, 40), (5, 40))
    turned = cut_out(pixels, face, align=True)
    assert turned.shape == (40, 40, 3)
    assert not turned[:, :19].any()
    assert turned[:, 21:].min() == 200
    assert cut_out(pixels, face, align=False).shape == (40, 20, 3)


def test_extracted_faces_are_rgb_floats_by_default(draw: Draw) -> None:
    (told,) = DeepFace.extract_faces(draw("a.png", ANN))
    assert set(told) == {"face", "facial_area", "confidence"}
    assert told["face"].dtype == np.float64
    assert 0 <= told["face"].min() <= told["face"].max() <= 1
    assert told["confidence"] == round(told["confidence"], 2) > 0.5
    frame = told["face"][1, told["face"].shape[1] // 2]  # a drawn face has a magenta frame
    assert frame == pytest.approx([1, 0, 1], abs=0.1)


def test_colour_and_range_of_an_extracted_face_can_be_chosen(draw: Draw) -> None:
    pixels = draw_photo((ANN,))
    pixels[:, :, 2] //= 2  # red and blue differ now, and the synthetic detector still sees it
    path = draw("a.png", ANN)
    Image.fromarray(pixels).save(path)
    rgb, bgr, gray = (
        DeepFace.extract_faces(path, color_face=colour, normalize_face=False, align=False)[0]["face"]
        for colour in ("rgb", "bgr", "gray")
    )
    assert rgb.dtype == np.uint8
    assert np.array_equal(rgb, bgr[:, :, ::-1])
    assert gray.shape == rgb.shape[:2]
    expected = rgb.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(gray - expected).max() <= 0.51
    assert np.array_equal(
        gray, DeepFace.extract_faces(path, grayscale=True, normalize_face=False, align=False)[0]["face"]
    )
    with pytest.raises(ArgumentInvalid, match="hsv"):
        DeepFace.extract_faces(path, color_face="hsv")


def test_arrays_are_bgr_and_give_what_the_file_gives(draw: Draw) -> None:
    pixels = draw_photo((ANN, BOB))
    pixels[:, :, 2] //= 2
    path = draw("a.png", ANN)
    Image.fromarray(pixels).save(path)
    bgr = np.ascontiguousarray(pixels[:, :, ::-1])
    from_file, from_array = DeepFace.represent(path), DeepFace.represent(bgr)
    assert [face["embedding"] for face in from_file] == [face["embedding"] for face in from_array]
    assert np.array_equal(DeepFace.extract_faces(path)[0]["face"], DeepFace.extract_faces(bgr)[0]["face"])


def test_a_photo_may_be_path_file_data_url_or_array(draw: Draw) -> None:
    path = draw("a.png", ANN)
    data = path.read_bytes()
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    answers = [DeepFace.represent(source)[0]["embedding"] for source in (str(path), path, io.BytesIO(data), url)]
    assert answers == answers[:1] * 4


def test_represent_gives_a_list_of_floats_of_norm_1_for_each_face_largest_first(draw: Draw) -> None:
    faces = DeepFace.represent(draw("party.png", ANN, BOB))
    assert [set(face) for face in faces] == [{"embedding", "facial_area", "face_confidence"}] * 2
    assert all(type(value) is float for value in faces[0]["embedding"])
    assert np.linalg.norm(faces[0]["embedding"]) == pytest.approx(1, abs=1e-6)
    areas = [face["facial_area"]["w"] * face["facial_area"]["h"] for face in faces]
    assert areas[0] > areas[1]
    assert DeepFace.represent(draw("party.png", ANN, BOB), max_faces=1) == faces[:1]


def test_a_batch_gives_a_list_for_each_photo_and_one_photo_of_a_list_gives_its_faces(draw: Draw) -> None:
    ann, bob = draw("a.png", ANN), draw("b.png", BOB)
    both = DeepFace.represent([ann, bob])
    assert [len(faces) for faces in both] == [1, 1]
    assert both[1] == DeepFace.represent(bob)
    assert DeepFace.represent([ann]) == DeepFace.represent(ann)
    stack = np.stack([draw_photo((ANN,)), draw_photo((BOB,))])[..., ::-1]
    assert [len(faces) for faces in DeepFace.represent(stack)] == [1, 1]
    assert [len(faces) for faces in DeepFace.extract_faces([ann])] == [1]
    with pytest.raises(ArgumentInvalid, match="empty"):
        DeepFace.represent([])


def test_the_values_can_be_brought_to_0_and_1_and_the_crop_returned(draw: Draw) -> None:
    (plain,) = DeepFace.represent(draw("a.png", ANN))
    (told,) = DeepFace.represent(draw("a.png", ANN), minmax_normalize=True, return_face=True)
    assert told["embedding"] == pytest.approx([(value + 1) / 2 for value in plain["embedding"]])
    assert told["face"].shape == (112, 112, 3)
    assert 0 <= told["face"].min() <= told["face"].max() <= 1


def test_no_face_raises_unless_detection_is_not_enforced(draw: Draw) -> None:
    wall = draw("wall.png")
    for call in (DeepFace.represent, DeepFace.extract_faces, DeepFace.detectFace):
        with pytest.raises(NoFaceFound, match=r"wall\.png"):
            call(wall)
    (whole,) = DeepFace.represent(wall, enforce_detection=False)
    assert (whole["face_confidence"], whole["facial_area"]["w"], whole["facial_area"]["h"]) == (0, 480, 360)
    (cut,) = DeepFace.extract_faces(wall, enforce_detection=False)
    assert (cut["confidence"], cut["face"].shape) == (0, (360, 480, 3))


def test_skip_takes_the_photo_for_a_face_that_was_cut_out(draw: Draw) -> None:
    marker = draw_photo((ANN,))
    (found,) = DeepFace.extract_faces(marker[:, :, ::-1], align=False, color_face="bgr", normalize_face=False)
    (whole,) = DeepFace.represent(found["face"], detector_backend="skip")
    (face,) = DeepFace.represent(marker[:, :, ::-1])
    assert np.dot(whole["embedding"], face["embedding"]) > 0.99
    assert whole["face_confidence"] == 0


def test_the_old_detectface_gives_one_crop_of_the_size_asked(draw: Draw) -> None:
    crop = DeepFace.detectFace(draw("a.png", ANN), target_size=(112, 96))
    assert crop.shape == (112, 96, 3)
    assert crop.max() <= 1


def test_what_is_not_offered_says_so(draw: Draw) -> None:
    photo = draw("a.png", ANN)
    with pytest.raises(ModelUnknown, match=r"VGG-Face.*SFace.*models add vgg-face\.onnx"):
        DeepFace.represent(photo, model_name="VGG-Face")
    with pytest.raises(ModelUnknown, match=r"retinaface.*yunet.*skip"):
        DeepFace.represent(photo, detector_backend="retinaface")
    with pytest.raises(ModelUnknown, match="anti_spoofing"):
        DeepFace.represent(photo, anti_spoofing=True)
    with pytest.raises(ArgumentInvalid, match="normalization"):
        DeepFace.represent(photo, normalization="Imagenet")
    with pytest.raises(ArgumentInvalid, match="task"):
        DeepFace.build_model("SFace", task="dancing")
    with pytest.raises(PhotoNotFound):
        DeepFace.represent("missing.jpg")


def test_names_of_models_are_told_apart_by_letters_not_case(draw: Draw) -> None:
    photo = draw("a.png", ANN)
    assert DeepFace.represent(photo, model_name="sface", detector_backend="YuNet") == DeepFace.represent(photo)
    assert DeepFace.build_model("SFace") is DeepFace.build_model("sface")
    assert DeepFace.build_model("yunet", task="face_detector").detect([draw_photo((ANN,))])[0]
