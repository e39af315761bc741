"""The only import of the inference runtime (ONNX Runtime): a model as arrays in, arrays out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, ModelInvalid, WeightsMissing

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model.

    shape  a size per axis; None where any size goes.
    dtype  as ONNX Runtime names it, such as ``tensor(float)``.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class Model:
    """A loaded network. Safe to run from many threads at once; they share its weights.

    Attributes: ``path``, ``inputs`` and ``outputs`` (tuples of ``Port``), ``threads``.
    """

    def __init__(self, session: Any, path: Path, threads: int) -> None:
        self._session = session
        self.path = path
        self.threads = threads
        self.inputs = tuple(_port(port) for port in session.get_inputs())
        self.outputs = tuple(_port(port) for port in session.get_outputs())

    @classmethod
    def load(cls, path: str | os.PathLike[str], threads: int | None = None) -> Self:
        """Read an ONNX file.

        threads  of one run; every core the process may use when None.
        Raises   WeightsMissing when there is no such file, ModelInvalid when it is not a model this runtime can run,
                 ArgumentInvalid for fewer than one thread.
        """
        path = Path(path)
        if threads is not None and threads < 1:
            raise ArgumentInvalid(f"threads is {threads}; expected 1 or more, or None for all cores", threads=threads)
        if not path.is_file():
            raise WeightsMissing(f"there is no model file {path}", path=str(path))
        import onnxruntime

        count = threads or _usable_cores()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised; nothing is printed
        options.intra_op_num_threads = count
        options.inter_op_num_threads = 1
        # Waiting threads sleep instead of spinning: decoding, and the other model's threads, need the cores meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            return cls(session, path, count)
        except Exception as error:  # the runtime's exceptions have no common class but this
            raise ModelInvalid(
                f"{path} is not a model that can be run: {_first_line(error)}. "
                "Run `facedex models verify`, then `facedex models pull`.",
                path=str(path),
                reason=_first_line(error),
            ) from error

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network once.

        feed     input name → array.
        Returns  output name → array.
        Raises   ModelInvalid when names, dtypes or shapes are not those of ``inputs``, or the runtime fails.
        """
        names = [port.name for port in self.outputs]
        try:
            arrays = self._session.run(names, dict(feed))
        except Exception as error:  # as above
            shapes = {
                name: (np.shape(array), str(getattr(array, "dtype", type(array)))) for name, array in feed.items()
            }
            raise ModelInvalid(
                f"{self.path.name} does not run on {shapes}, its inputs are {[str(p) for p in self.inputs]}: "
                f"{_first_line(error)}",
                path=str(self.path),
                reason=_first_line(error),
            ) from error
        return dict(zip(names, arrays, strict=True))

    def __repr__(self) -> str:
        return f"Model({self.path.name!r}, threads={self.threads})"


def _port(port: Any) -> Port:
    shape = tuple(side if isinstance(side, int) else None for side in port.shape)
    return Port(name=str(port.name), shape=shape, dtype=str(port.type))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _usable_cores() -> int:
    """Cores the process may use; all of the machine's where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
