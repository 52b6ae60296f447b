"""GGUF files in llama.cpp itself: ids, logits, prompts. `make test-export` builds it; elsewhere these tests are skipped."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporting.check import ODD_TEXTS
from exporting.reverse import reverse_words, to_prompt, to_prompt_ids
from formats.checkpoint import load_checkpoint
from tests.exporting.conftest import SHAPES, export, save_random
from tokens.prompt_format import PromptFormat
from tokens.tokenizer import Tokenizer

llama_cpp = pytest.importorskip("llama_cpp", reason="llama.cpp is not built here: make test-export")


FLOAT32 = 0  # of the KV cache, which is in float16 by default


def open_gguf(checkpoint: Path, folder: Path, dtype: str = "float32") -> Any:
    result = export(checkpoint, folder, "--format", "gguf", "--dtype", dtype)
    assert result.returncode == 0, result.stderr
    return llama_cpp.Llama(
        str(folder / f"model-{dtype}.gguf"), n_ctx=64, n_threads=1, logits_all=True, type_k=FLOAT32, type_v=FLOAT32, verbose=False
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "q8_0"])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_ours(shape: str, dtype: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = save_random(tmp_path / "best_checkpoint.pt", tokenizer, **SHAPES[shape])
    llama = open_gguf(path, tmp_path, dtype)
    ids = torch.randint(400, (1, 48), generator=torch.Generator().manual_seed(1))
    llama.eval(ids[0].tolist())
    with torch.inference_mode():
        ours = load_checkpoint(path).make_model(torch.device("cpu")).eval()(ids)[0].numpy()
    error = np.square(llama.scores[:48] - ours).mean() ** 0.5 / ours.std()  # a wrong model is wrong by more than a tenth of it
    assert error < {"float32": 1e-5, "float16": 3e-3, "bfloat16": 0.03, "q8_0": 0.08}[dtype]


def test_ids_and_prompts_are_ours(checkpoint: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    llama = open_gguf(checkpoint, tmp_path)

    def encode(text: str, special: bool) -> list[int]:
        ids: list[int] = llama.tokenize(text.encode(), add_bos=False, special=special)
        return ids

    for text in ODD_TEXTS:
        assert encode(text, False) == tokenizer.encode(text), text
    prompt_format = PromptFormat(tokenizer, "backward")
    for response in ("The cat is sleeping.", "say <|im_end|> twice"):
        ours = prompt_format.prompt(prompt_format.encode(response))
        assert to_prompt_ids(response, encode) == ours
        assert (llama.tokenize(to_prompt(response).encode(), special=True) == ours) == ("<|" not in response)
    used = llama.create_chat_completion([{"role": "user", "content": reverse_words("The cat is sleeping.")}], max_tokens=1)["usage"]
    assert used["prompt_tokens"] == len(prompt_format.prompt(prompt_format.encode("The cat is sleeping.")))
