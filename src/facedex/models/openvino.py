"""OpenVINO, the other inference runtime: ``facedex[openvino]``. The only import of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from facedex.errors import RuntimeUnavailable
from facedex.models.runtime import DTYPES, Array, Port, Session

_NAMES = {"f16": "float16", "f32": "float32", "f64": "float64", "i32": "int32", "i64": "int64", "u8": "uint8"}
"""OpenVINO's names → NumPy's."""


class OpenVinoSession:
    """A network compiled for the processor; each run takes a request of its own, so threads do not meet."""

    def __init__(self, model: Any, compiled: Any) -> None:
        self._compiled = compiled
        # A compiled network has names of its inner nodes among those of its ports.
        self.inputs = tuple(_port(port) for port in model.inputs)
        self.outputs = tuple(_port(port) for port in model.outputs)

    @classmethod
    def opener(cls, path: Path) -> Callable[[int], Session]:
        """Reads the file; what is returned compiles it for a number of threads.

        Raises  RuntimeUnavailable when OpenVINO is not installed.
        """
        try:
            import openvino
        except ImportError as error:
            raise RuntimeUnavailable(
                "the runtime 'openvino' is asked for, but OpenVINO is not installed. "
                "Run `pip install 'facedex[openvino]'`, or set FACEDEX_RUNTIME=onnxruntime.",
                runtime="openvino",
            ) from error
        core = openvino.Core()
        model = core.read_model(str(path))

        def open_session(threads: int) -> Session:
            properties = {
                "INFERENCE_NUM_THREADS": threads,
                # A request for each thread that runs the network at once, none of them waiting for another.
                "NUM_STREAMS": 1,
                # Pinned, two processes of one thread each land on the same core.
                "ENABLE_CPU_PINNING": False,
                # Not the half precision it would choose on some processors: embeddings are the same everywhere.
                "INFERENCE_PRECISION_HINT": "f32",
            }
            return cls(model, core.compile_model(model, "CPU", properties))

        return open_session

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        try:
            request = self._compiled.create_infer_request()
            request.infer(dict(feed))
            arrays = [np.array(request.get_output_tensor(i).data) for i in range(len(self.outputs))]
        except RuntimeError as error:
            if any(sign in str(error).lower() for sign in ("bad_alloc", "allocat", "out of memory")):
                raise MemoryError(str(error)) from error
            raise
        rows = {len(feed[port.name]) for port in self.inputs if port.shape[:1] == (None,)}
        if any(
            port.shape[:1] == (None,) and len(array) not in rows
            for port, array in zip(self.outputs, arrays, strict=True)
        ):
            # Seen where memory ran out: no error, and outputs of no rows.
            raise MemoryError(f"{rows} rows went in, {[len(array) for array in arrays]} came out")
        return arrays


def _port(port: Any) -> Port:
    shape = tuple(int(str(side)) if side.is_static else None for side in port.get_partial_shape())
    dtype = port.get_element_type().get_type_name()
    return Port(name=str(port.get_any_name()), shape=shape, dtype=DTYPES.get(_NAMES.get(dtype, ""), dtype))
