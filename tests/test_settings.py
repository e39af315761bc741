"""What the environment may say, and how strictly it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from facedex.errors import ArgumentInvalid
from facedex.settings import Settings


def test_an_empty_environment_leaves_every_default() -> None:
    assert Settings.from_environment({}) == Settings()
    assert Settings.from_environment({"FACEDEX_OFFLINE": "", "FACEDEX_THREADS": "  "}) == Settings()


def test_every_variable_is_read() -> None:
    found = Settings.from_environment(
        {
            "FACEDEX_GALLERY": "sqlite:///people.db",
            "FACEDEX_MODELS_DIR": "/models",
            "FACEDEX_DATA_DIR": "/data",
            "FACEDEX_OFFLINE": "1",
            "FACEDEX_THREADS": "3",
            "FACEDEX_ALLOW_URLS": "Yes",
            "FACEDEX_MAX_PHOTO_BYTES": "1000",
            "FACEDEX_MAX_PHOTO_PIXELS": "2000",
        }
    )
    assert found == Settings(
        gallery="sqlite:///people.db",
        models_dir=Path("/models"),
        data_dir=Path("/data"),
        offline=True,
        threads=3,
        allow_urls=True,
        max_photo_bytes=1000,
        max_photo_pixels=2000,
    )


def test_a_tilde_in_the_models_folder_is_the_home_folder() -> None:
    assert Settings.from_environment({"FACEDEX_MODELS_DIR": "~/m"}).models_dir == Path.home() / "m"


@pytest.mark.parametrize("value", ["false", "False", "0", "no", "off"])
def test_false_is_false(value: str) -> None:
    assert Settings.from_environment({"FACEDEX_OFFLINE": value}).offline is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FACEDEX_OFFLINE", "maybe"),
        ("FACEDEX_ALLOW_URLS", "2"),
        ("FACEDEX_THREADS", "0"),
        ("FACEDEX_THREADS", "-1"),
        ("FACEDEX_THREADS", "two"),
        ("FACEDEX_THREADS", "²"),
        ("FACEDEX_MAX_PHOTO_BYTES", "1e6"),
        ("FACEDEX_MAX_PHOTO_PIXELS", "1_000"),
    ],
)
def test_nonsense_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ArgumentInvalid, match=name) as caught:
        Settings.from_environment({name: value})
    assert caught.value.value == value


def test_the_environment_of_the_process_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDEX_THREADS", "7")
    assert Settings.from_environment().threads == 7
