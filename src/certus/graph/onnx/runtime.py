"""The original of an imported network: onnxruntime on the very file, or the graph itself without it."""

import io
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certus.core import ArgumentError, ModelError
from certus.core.errors import require
from certus.graph.graph import Graph
from certus.graph.op import Shape


@dataclass(eq=False)
class OnnxModel:
    """An ONNX network that onnxruntime evaluates: [B, *shape] -> [B, *output], in the file's dtype.

    parts are the network's inputs as (name, ONNX shape at batch 1), read from one flat input where
    there are several. batched says that the network takes any number of inputs at once; else they run
    one by one. Results are on the CPU or moved to the device of the input; there are no gradients.
    """

    body: bytes = field(repr=False)
    parts: tuple[tuple[str, Shape], ...]
    output: str
    shape: Shape
    dtype: torch.dtype
    batched: bool = False
    _session: Any = field(default=None, repr=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate on x [B, *input shape]."""
        if x.dtype != self.dtype:
            raise ArgumentError(f"inputs are {x.dtype}, the ONNX network takes {self.dtype}")
        values = x.detach().cpu().reshape(len(x), -1).numpy()
        rows = [values] if self.batched else np.split(values, len(values))
        found = np.concatenate([self._run(row) for row in rows])
        return torch.from_numpy(found).to(x.device)

    def __getstate__(self) -> dict[str, Any]:
        """Without the session, which cannot leave its process and is made anew."""
        return {**self.__dict__, "_session": None}

    def _run(self, rows: np.ndarray) -> np.ndarray:
        """[B, numbers of all inputs] -> [B, *output]."""
        if self._session is None:
            self._session = _open(self.body)
        feed, start = {}, 0
        for name, shape in self.parts:
            size = int(np.prod(shape, dtype=np.int64))
            own = rows[:, start : start + size]
            start += size
            batch = (len(rows), *shape[1:]) if self.batched else shape
            feed[name] = np.ascontiguousarray(own).reshape(batch)
        try:
            (found,) = self._session.run([self.output], feed)
        except Exception as error:
            line = str(error).strip().splitlines()[0][:200]
            raise ModelError(f"onnxruntime cannot evaluate the network: {line}") from error
        return np.asarray(found).astype(rows.dtype).reshape(len(rows), *self.shape)


def _open(body: bytes) -> Any:
    runtime: Any = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    # as the file says: by default weights of 8 bits make it round activations to 8 bits, too
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        with redirect_stdout(io.StringIO()):  # it prints about a failure, then raises it too
            return runtime.InferenceSession(body, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        line = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"onnxruntime refuses the network: {line}") from error


@dataclass(eq=False)
class Unchecked:
    """Stands for the original where onnxruntime is not installed: the imported graph itself."""

    graph: Graph

    def __call__(self, x: Tensor) -> Tensor:
        """The graph's value."""
        return self.graph(x)

    def __repr__(self) -> str:
        """Say what is missing."""
        return (
            "Unchecked(onnxruntime is not installed, so the imported graph was not compared with "
            "the file, and counterexamples are replayed on the graph itself; pip install onnxruntime)"
        )
