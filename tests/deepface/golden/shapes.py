"""Writes the shapes of DeepFace's own answers; see PROVENANCE.md.

python shapes.py OUT.json PHOTO ANOTHER_OF_THAT_PERSON SOMEBODY_ELSE
"""

from __future__ import annotations

import inspect
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

NAMES = (
    *("build_model", "verify", "analyze", "find", "represent", "stream", "extract_faces", "detectFace"),
    *("register", "search", "identify", "build_index"),
)


def shape(value: Any) -> Any:
    """Keys and types of an answer, whatever its numbers."""
    import numpy as np
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        return {"DataFrame": {column: str(kind) for column, kind in value.dtypes.items()}}
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return {"ndarray": [str(value.dtype), value.ndim]}
    if isinstance(value, (list, tuple)):
        kinds = [shape(one) for one in value]
        return {type(value).__name__: kinds[0] if kinds and all(kind == kinds[0] for kind in kinds) else kinds}
    return type(value).__name__


def answers(deepface: Any, one: str, two: str, other: str) -> dict[str, Any]:
    """The shape of each call's answer. ``one`` and ``two`` show one person, ``other`` another; a face in each."""
    common = {"model_name": "SFace", "detector_backend": "yunet"}
    seen = {"detector_backend": "yunet"}
    told = {
        "verify": deepface.verify(one, two, **common),
        "verify_embedding": deepface.verify(deepface.represent(one, **common)[0]["embedding"], two, **common),
        "represent": deepface.represent(one, **common),
        "represent_batch": deepface.represent([one, two], **common),
        "represent_return_face": deepface.represent(one, return_face=True, **common),
        "extract_faces": deepface.extract_faces(one, **seen),
        "extract_faces_list": deepface.extract_faces([one, two], **seen),
        "extract_faces_gray_bytes": deepface.extract_faces(one, color_face="gray", normalize_face=False, **seen),
    }
    with tempfile.TemporaryDirectory() as folder:
        for number, photo in enumerate((one, two, other)):
            shutil.copy(photo, Path(folder) / f"{number}.jpg")
        told["find"] = deepface.find(one, folder, **common)
        told["find_dict"] = deepface.find(one, folder, return_type="dict", **common)
        database = {"database_type": "sqlite", "connection_details": str(Path(folder) / "faces.db"), **common}
        told["register"] = deepface.register(img=one, **database)
        told["register_list"] = deepface.register(img=[two, other], **database)
        told["search"] = deepface.search(img=one, **database)
        told["search_dict"] = deepface.search(img=one, return_type="dict", **database)
        told["build_index"] = deepface.build_index(**database)
        told["search_ann"] = deepface.search(img=one, search_method="ann", return_type="dict", **database)
        told["identify"] = deepface.identify(img=one, identity_id=1, **database)
    return {name: shape(value) for name, value in told.items()}


def parameters(deepface: Any) -> dict[str, list[list[str | None]]]:
    """Names and defaults of each call's parameters."""
    return {
        name: [
            [each.name, None if each.default is each.empty else repr(each.default)]
            for each in inspect.signature(getattr(deepface, name)).parameters.values()
        ]
        for name in NAMES
        if hasattr(deepface, name)
    }


if __name__ == "__main__":
    from deepface.modules.verification import find_distance

    from deepface import DeepFace

    told = answers(DeepFace, *sys.argv[2:5])
    told["parameters"] = parameters(DeepFace)
    told["find_distance"] = {
        metric: float(find_distance([1.0, 2.0, 3.0], [3.0, 1.0, -1.0], metric))
        for metric in ("cosine", "euclidean", "euclidean_l2", "angular")
    }
    Path(sys.argv[1]).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", "utf-8")
