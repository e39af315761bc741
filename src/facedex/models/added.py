"""Models that users added: any ONNX file with a card, kept in the folder of the weights.

``NAME-DIGEST.onnx`` is the model, named by its content; ``NAME.card.toml`` its card, written last: a model without a
card does not exist. Whether file and card fit is tried before, by ``vision.trial``.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from facedex.errors import ArgumentInvalid, ModelInvalid, ModelUnknown, WeightsUnavailable
from facedex.models import catalog, files
from facedex.models.catalog import ModelCard

_SUFFIX = ".card.toml"


def cards(models_dir: str | os.PathLike[str] | None = None) -> tuple[ModelCard, ...]:
    """The cards of the models added to a folder, by name.

    Raises  ModelInvalid for a card that was damaged since.
    """
    try:
        found = sorted(files.folder(models_dir).glob("*" + _SUFFIX))
    except OSError:
        return ()
    return tuple(_read(path) for path in found)


def find(name: str, models_dir: str | os.PathLike[str] | None = None, *, task: str | None = None) -> ModelCard:
    """The card of a model, of the catalog or added to the folder.

    task    what it must be for; None: anything.
    Raises  ModelUnknown, which lists the names there are; ArgumentInvalid for a model of another task.
    """
    card = next((card for card in catalog.CARDS if card.name == name), None)
    if card is None:
        path = files.folder(models_dir) / (name + _SUFFIX)
        if "/" in name or "\\" in name or not path.is_file():
            known = [card.name for card in (*catalog.CARDS, *cards(models_dir)) if task in (None, card.task)]
            raise ModelUnknown(
                f"no model is called {name!r}; there are {', '.join(known)}. `facedex models add FILE --card CARD` "
                "takes an ONNX file of your own.",
                model=name,
                known=known,
            )
        card = _read(path)
    if task is not None and card.task != task:
        raise ArgumentInvalid(
            f"model {name!r} has the task {card.task!r}, expected {task!r}. `facedex models list` shows the task of "
            "each.",
            model=name,
            task=card.task,
        )
    return card


def keep(card: ModelCard, data: bytes, models_dir: str | os.PathLike[str] | None = None) -> Path:
    """Copy a model that was tried into the folder, and its card; replaces an added one of that name.

    Raises  ArgumentInvalid for a name of the catalog, WeightsUnavailable when the folder cannot be written.
    """
    if any(card.name == shipped.name for shipped in catalog.CARDS):
        raise ArgumentInvalid(
            f"{card.name!r} is a model of the catalog; give yours another name in its card", model=card.name
        )
    place = files.folder(models_dir)
    path, card_path = place / card.file_name, place / (card.name + _SUFFIX)
    before = _read(card_path).file_name if card_path.is_file() else None
    try:
        place.mkdir(parents=True, exist_ok=True)
        files.write(path, data)
        files.write(card_path, as_toml(card).encode())
    except OSError as error:
        raise WeightsUnavailable(
            f"cannot write the model {card.name!r} ({len(data) / 2**20:.1f} MiB) to {place}: "
            f"{error.strerror or error}. Free some space, make the folder writable, or name another one with "
            "--models-dir or FACEDEX_MODELS_DIR.",
            model=card.name,
            folder=str(place),
            reason=str(error),
        ) from error
    if before is not None and before != card.file_name:
        _forget(place / before)
    files.checked(path, card.converted_sha256)
    return path


def remove(name: str, models_dir: str | os.PathLike[str] | None = None) -> Path:
    """Delete an added model and its card; where it was. Galleries made with it stay, and need it to be searched.

    Raises  ModelUnknown; ArgumentInvalid for a model of the catalog; WeightsUnavailable when it cannot be deleted.
    """
    card = find(name, models_dir)
    if not card.added:
        raise ArgumentInvalid(f"{name!r} is a model of the catalog; only added ones can be removed", model=name)
    place = files.folder(models_dir)
    try:
        (place / (name + _SUFFIX)).unlink()
    except OSError as error:
        raise WeightsUnavailable(
            f"cannot delete the model {name!r} in {place}: {error.strerror or error}", model=name, reason=str(error)
        ) from error
    _forget(place / card.file_name)
    return place / card.file_name


def as_toml(card: ModelCard) -> str:
    """The file of an added model's card; ``catalog.read_card`` reads the same card from it."""
    tables: dict[str, dict[str, object]] = {
        "": {"name": card.name, "task": card.task, "version": card.version, "adapter": card.adapter},
        "source": {"file": card.member, "sha256": card.source_sha256, "bytes": card.converted_bytes},
        "licence": {"weights": card.licence, "stated": card.licence_source},
        "input": asdict(card.crop) if card.crop else {},
        "output": {"dimension": card.dimension} if card.dimension is not None else {},
    }
    # A JSON string, number or list of numbers is also one of TOML.
    lines = []
    for table, fields in tables.items():
        lines += [f"\n[{table}]"] if table and fields else []
        lines += [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> ModelCard:
    try:
        return catalog.read_card(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelInvalid(
            f"{path} is not a model card: {error}. Delete it, or add the model again.", path=str(path)
        ) from error


def _forget(path: Path) -> None:
    for each in (path, path.with_name(path.name + ".checked")):
        with contextlib.suppress(OSError):
            each.unlink()
