"""A model as arrays in, arrays out, whichever runtime runs it; the only import of ONNX Runtime.

``openvino`` has the other runtime. Detectors and embedders know only ``Model``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from facedex.errors import (
    ArgumentInvalid,
    ModelFailed,
    ModelInvalid,
    ModelOutOfMemory,
    RuntimeUnavailable,
    WeightsMissing,
)

Array = npt.NDArray[Any]
RUNTIMES: Final = ("onnxruntime", "openvino")

PROVIDERS: Final[Mapping[str, str]] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
"""What settings call an execution provider → what ONNX Runtime calls it."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where networks run.

    name       one of RUNTIMES.
    providers  of ONNX Runtime, the preferred first; keys of PROVIDERS. Each must be there: falling back to a slower one
               in silence would be no setting.
    """

    name: str = "onnxruntime"
    providers: tuple[str, ...] = ("cpu",)

    def __post_init__(self) -> None:
        if self.name not in RUNTIMES:
            known = ", ".join(RUNTIMES)
            raise ArgumentInvalid(f"no runtime is called {self.name!r}; there are {known}.", runtime=self.name)
        unknown = [provider for provider in self.providers if provider not in PROVIDERS]
        if unknown or not self.providers:
            raise ArgumentInvalid(
                f"providers are {', '.join(self.providers) or 'none'}; expected one or more of {', '.join(PROVIDERS)}.",
                providers=self.providers,
            )


DEFAULT_RUNTIME: Final = Runtime()


DTYPES: Final = {"float32": "tensor(float)", "float64": "tensor(double)", "int64": "tensor(int64)"} | {
    name: f"tensor({name})" for name in ("float16", "int8", "uint8", "int16", "int32", "bool")
}
"""NumPy's names → ONNX Runtime's."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model.

    shape  a size per axis; None where any size goes.
    dtype  as ONNX Runtime names it, such as ``tensor(float)``.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def takes(self, array: Array) -> bool:
        """Whether it is an array of this dtype and shape."""
        return (
            isinstance(array, np.ndarray)
            and DTYPES.get(array.dtype.name) == self.dtype
            and array.ndim == len(self.shape)
            and all(side in (None, given) for side, given in zip(self.shape, array.shape, strict=True))
        )


class Session(Protocol):
    """A network in some runtime, on a fixed number of threads; safe to run from many threads at once."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        """The outputs in order, of inputs that fit. Raises MemoryError, and whatever else the runtime raises."""
        ...


_here = threading.local()


def share_cores() -> None:
    """From now on this thread runs networks on itself alone: for pools with a thread for each core."""
    _here.alone = True


class Model:
    """A loaded network. Safe to run from many threads at once.

    Attributes: ``path``, ``inputs`` and ``outputs`` (tuples of ``Port``), ``threads``.
    """

    def __init__(self, open_session: Callable[[int], Session], path: Path, threads: int) -> None:
        self._open = open_session
        self._lock = threading.Lock()
        self._sessions = {threads: open_session(threads)}
        self.path = path
        self.threads = threads
        self.inputs, self.outputs = self._sessions[threads].inputs, self._sessions[threads].outputs

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], threads: int | None = None, *, runtime: Runtime = DEFAULT_RUNTIME
    ) -> Self:
        """Read an ONNX file.

        threads  of one run; every core the process may use when None. A thread that called ``share_cores`` uses one.
        Raises   WeightsMissing when there is no such file, ModelInvalid when it is not a model this runtime can run,
                 RuntimeUnavailable when the runtime or a provider is not there,
                 ArgumentInvalid for fewer than one thread.
        """
        path = Path(path)
        if threads is not None and threads < 1:
            raise ArgumentInvalid(f"threads is {threads}; expected 1 or more, or None for all cores", threads=threads)
        if not path.is_file():
            raise WeightsMissing(f"there is no model file {path}", path=str(path))
        try:
            if runtime.name == "openvino":
                from facedex.models.openvino import OpenVinoSession

                open_session = OpenVinoSession.opener(path)
            else:
                open_session = _OnnxSession.opener(path, runtime.providers)
            return cls(open_session, path, threads or usable_cores())
        except RuntimeUnavailable:
            raise
        except Exception as error:  # the runtimes' exceptions have no common class but this
            raise ModelInvalid(
                f"{path} is not a model that can be run: {_first_line(error)}. "
                "Run `facedex models verify`, then `facedex models pull`.",
                path=str(path),
                reason=_first_line(error),
            ) from error

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network once; a batch that does not fit into memory, in parts.

        feed     input name → array.
        Returns  output name → array.
        Raises   ModelInvalid when names, dtypes or shapes are not those of ``inputs``; ModelOutOfMemory when even a
                 batch of one does not fit; ModelFailed when the runtime fails otherwise.
        """
        self._check(feed)
        session = self._session()
        try:
            arrays = session.run(feed)
        except MemoryError as error:
            return self._halves(feed, error)
        except Exception as error:  # as above
            raise ModelFailed(
                f"{self.path.name} stopped working on {_shapes(feed)}: {_first_line(error)} "
                "If a device was lost, start again: what was acknowledged is safe, and the same call goes on from "
                "there. FACEDEX_PROVIDERS=cpu does without a device.",
                path=str(self.path),
                reason=_first_line(error),
            ) from error
        return {port.name: array for port, array in zip(self.outputs, arrays, strict=True)}

    def _session(self) -> Session:
        threads = 1 if getattr(_here, "alone", False) else self.threads
        with self._lock:
            if threads not in self._sessions:
                try:
                    self._sessions[threads] = self._open(threads)
                except Exception as error:  # as above; it could be loaded before
                    raise ModelFailed(
                        f"{self.path.name} could not be loaded once more: {_first_line(error)}.", path=str(self.path)
                    ) from error
            return self._sessions[threads]

    def _halves(self, feed: Mapping[str, Array], error: MemoryError) -> dict[str, Array]:
        count = min((len(array) for array in feed.values()), default=0)
        if count < 2 or any(port.shape[:1] != (None,) for port in (*self.inputs, *self.outputs)):
            raise ModelOutOfMemory(
                f"{self.path.name} needs more memory than there is for {_shapes(feed)}: {_first_line(error)} "
                "Give smaller photos, or work on fewer at once (FACEDEX_THREADS=1).",
                path=str(self.path),
            ) from error
        parts = [
            self.run({name: array[part] for name, array in feed.items()})
            for part in (slice(0, count // 2), slice(count // 2, None))
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _check(self, feed: Mapping[str, Array]) -> None:
        expected = {port.name: port for port in self.inputs}
        fits = expected.keys() == feed.keys() and all(expected[name].takes(array) for name, array in feed.items())
        if not fits:
            raise ModelInvalid(
                f"{self.path.name} does not run on {_shapes(feed)}; its inputs are {[str(p) for p in self.inputs]}.",
                path=str(self.path),
            )

    def __repr__(self) -> str:
        return f"Model({self.path.name!r}, threads={self.threads})"


class _OnnxSession:
    """ONNX Runtime."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(_port(port) for port in session.get_inputs())
        self.outputs = tuple(_port(port) for port in session.get_outputs())
        self._names = [port.name for port in self.outputs]

    @classmethod
    def opener(cls, path: Path, providers: tuple[str, ...]) -> Callable[[int], Session]:
        import onnxruntime

        wanted = [PROVIDERS[provider] for provider in providers]
        onnxruntime.disable_telemetry_events()  # some builds report home
        there = onnxruntime.get_available_providers()
        lacking = [provider for provider in providers if PROVIDERS[provider] not in there]
        if lacking:
            have = ", ".join(name for name, theirs in PROVIDERS.items() if theirs in there)
            raise RuntimeUnavailable(
                f"ONNX Runtime {onnxruntime.__version__} as installed has no provider {', '.join(lacking)}; it has "
                f"{have}. Install the package of ONNX Runtime made for the device (such as onnxruntime-gpu, in place "
                "of onnxruntime), or correct FACEDEX_PROVIDERS.",
                providers=lacking,
                available=have,
            )

        def open_session(threads: int) -> Session:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # what goes wrong is raised; nothing is printed
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            # Waiting threads sleep instead of spinning: decoding, and the other model's threads, need the cores.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
            missing = [p for p, theirs in zip(providers, wanted, strict=True) if theirs not in session.get_providers()]
            if missing:
                raise RuntimeUnavailable(
                    f"ONNX Runtime could not use the provider {', '.join(missing)}: no such device, or its driver and "
                    "libraries are not those it was built for. Mend that, or leave it out of FACEDEX_PROVIDERS.",
                    providers=missing,
                )
            return cls(session)

        return open_session

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        try:
            arrays: list[Array] = self._session.run(self._names, dict(feed))
        except Exception as error:  # as above; there is no class for it
            if any(sign in str(error).lower() for sign in ("failed to allocate", "bad_alloc", "out of memory")):
                raise MemoryError(_first_line(error)) from error
            raise
        return arrays


def _port(port: Any) -> Port:
    shape = tuple(side if isinstance(side, int) else None for side in port.shape)
    return Port(name=str(port.name), shape=shape, dtype=str(port.type))


def _shapes(feed: Mapping[str, Array]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (np.shape(array), str(getattr(array, "dtype", type(array)))) for name, array in feed.items()}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def usable_cores() -> int:
    """Cores the process may use; all of the machine's where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
