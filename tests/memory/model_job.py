"""The kill test with a real model: all-MiniLM-L6-v2 (int8) on onnxruntime, batches of texts in threads.

    python model_job.py MODE CALLS TEXTS

MODE: none or learned; TEXTS: texts in a batch.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

import asyncguard as ag
from asyncguard.cli.demo.model import TOKENIZER, WEIGHTS, checked

TOKENS = 128
TEXT = "Twelve people stood in line at the counter while the clerk looked for the right form and found none. " * 9


class Model:
    """Whole batches in one run: its activations are what takes the memory."""

    def __init__(self) -> None:
        runtime: Any = importlib.import_module("onnxruntime")
        tokenizer: Any = importlib.import_module("tokenizers").Tokenizer.from_file(str(checked(TOKENIZER)))
        tokenizer.enable_truncation(TOKENS)
        tokenizer.enable_padding(length=TOKENS)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # an arena keeps the most it has ever had, for ever
        options.log_severity_level = 3
        self._session: Any = runtime.InferenceSession(str(checked(WEIGHTS)), options, ["CPUExecutionProvider"])
        self._tokenizer = tokenizer

    def embed(self, texts: list[str]) -> Any:
        ids = np.array([each.ids for each in self._tokenizer.encode_batch(texts)], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        return self._session.run(None, inputs)[0].mean(axis=1)


async def main(mode: str, calls: int, texts: int) -> None:
    model = Model()
    running = most = 0

    async def embed(batch: list[str]) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return len(await asyncio.to_thread(model.embed, batch))
        finally:
            running -= 1

    call: Callable[[list[str]], Awaitable[int]] = embed if mode == "none" else ag.memory_guard(max_wait=600.0)(embed)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    start = time.perf_counter()
    sizes = await asyncio.gather(*(call([TEXT] * texts) for _ in range(calls)))
    assert sizes == [texts] * calls
    seconds = round(time.perf_counter() - start, 3)
    sys.stdout.write(json.dumps({"done": calls, "seconds": seconds, "most": most}) + "\n")


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
