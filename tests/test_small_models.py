"""The models that come with the repository, `assets/small`: their loss on texts of our own, what they weigh and what they do not tell."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from config import FinetuneConfig, TrainConfig
from evaluation.logprobs import document_logprobs
from formats.checkpoint import Checkpoint
from formats.named_model import load_named_model
from presets import BACKCHAT_SMALL, BACKGPT_SMALL, FINETUNE_PRESETS, PREPROCESS_PRESETS, TRAIN_PRESETS
from sampling.pair_scores import score_pairs
from sampling.scoring import Scorer
from tests.conftest import ROOT
from tokens.prompt_format import PromptFormat
from tokens.reversal import reorder

SMALL = ROOT / "assets" / "small"
# In float32.
GOLDEN_BITS_PER_BYTE = 1.426286
GOLDEN_NATS = 17.966752  # of an instruction, given its own response
GOLDEN_NATS_MISMATCHED = 38.334528  # given the next pair's response


def small_model(folder: str) -> Checkpoint:
    return load_named_model(str(ROOT / folder))


def rows_of(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (SMALL / name).read_text(encoding="utf-8").splitlines()]


def test_backgpt_predicts_our_texts_as_when_it_was_published() -> None:
    checkpoint = small_model(BACKGPT_SMALL)
    texts = [row["text"] for row in rows_of("texts.jsonl")]
    end = checkpoint.tokenizer.end_of_text
    documents = [[end, *checkpoint.tokenizer.encode(reorder(text, checkpoint.order)), end] for text in texts]
    scorer = Scorer(checkpoint.make_model(torch.device("cpu")).float(), 8)
    nats = -sum(logprobs.sum() for logprobs in document_logprobs(scorer, documents, 256))
    assert nats / math.log(2) / sum(len(text.encode()) for text in texts) == pytest.approx(GOLDEN_BITS_PER_BYTE, rel=1e-4)


def test_backchat_tells_the_response_of_an_instruction_from_another() -> None:
    checkpoint = small_model(BACKCHAT_SMALL)
    pairs = [{"instruction": row["instruction"], "response": row["output"]} for row in rows_of("pairs.jsonl")]
    mismatched = [{**pair, "response": other["response"]} for pair, other in zip(pairs, pairs[1:] + pairs[:1], strict=True)]
    scorer = Scorer(checkpoint.make_model(torch.device("cpu")).float(), 8)
    found = []
    for each in (pairs, mismatched):
        rows = list(score_pairs(scorer, PromptFormat(checkpoint.tokenizer, checkpoint.order), iter(each)))
        found.append(-sum(row["logprob"] for row in rows) / len(rows))
    assert found == pytest.approx([GOLDEN_NATS, GOLDEN_NATS_MISMATCHED], rel=1e-4)


@pytest.mark.parametrize(
    ("folder", "preset"),
    [(BACKGPT_SMALL, TRAIN_PRESETS["small"]), (BACKCHAT_SMALL, FINETUNE_PRESETS["small"])],
    ids=["BackGPT", "BackChat"],
)
def test_the_preset_has_the_recipe_that_they_were_made_by(folder: str, preset: TrainConfig | FinetuneConfig) -> None:
    made_by = small_model(folder).train_config
    wanted = json.loads(json.dumps(dataclasses.asdict(preset)))
    derived = {"max_steps"} if isinstance(preset, FinetuneConfig) else set()  # of the epochs
    names = set(made_by) & set(wanted) - {"model", "data_dir", "out_dir", "model_path"} - derived
    assert {"lr", "momentum", "batch_size", "eval_every"} <= names
    assert {name: made_by[name] for name in names} == {name: wanted[name] for name in names}
    shape = TRAIN_PRESETS["small"].model
    assert small_model(folder).model_config == dataclasses.replace(shape, vocab_size=PREPROCESS_PRESETS["small"].vocab_size)


def test_the_readme_and_the_card_have_the_figures_of_the_results() -> None:
    results = (ROOT / "RESULTS.md").read_text(encoding="utf-8").replace("%..", "..").replace("%)", ")")
    for page in (ROOT / "README.md", ROOT / BACKCHAT_SMALL / "README.md"):
        tables = "\n".join(line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|"))
        figures = re.findall(r"\d[\d.]* %? ?\(([\d.]+\.\.[\d.]+)\)", tables)
        assert len(figures) >= 8
        assert not [interval for interval in figures if f"({interval})" not in results], page


def test_both_fit_into_a_clone_and_name_no_machine() -> None:
    files = [path for path in SMALL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 35e6
    for path in files:
        if path.name in ("backgpt.json", "config.json", "tokenizer_config.json", "generation_config.json"):
            values = json.dumps(json.loads(path.read_text(encoding="utf-8")))
            assert not any(part in values for part in ("/", "\\", "python")), path
        assert not re.search(rb"/(?:home|root|work|tmp|Users)/", path.read_bytes()), path


@pytest.mark.parametrize("folder", [BACKGPT_SMALL, BACKCHAT_SMALL])
def test_their_folders_reverse_as_exported_ones_do(folder: str) -> None:
    assert (ROOT / folder / "reverse.py").read_bytes() == (ROOT / "exporting" / "reverse.py").read_bytes()


def test_a_fresh_clone_can_talk_to_backgpt(tmp_path: Path) -> None:
    ending = "The capital of Ecuador is Quito."
    text = say("sample_xcoax.py", "--prompt", ending, tmp_path)
    assert text.endswith(ending)
    assert len(text.split()) > 10


def test_a_fresh_clone_can_talk_to_backchat(tmp_path: Path) -> None:
    assert say("sample_xcoax_instruct.py", "--response", "The capital of Ecuador is Quito.", tmp_path) == "What is the capital of Ecuador?"


def say(script: str, flag: str, words: str, folder: Path) -> str:
    command = [sys.executable, script, "small", flag, words, "--temperature", "0", "--max-new-tokens", "30", "--dtype", "float32"]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, "XDG_STATE_HOME": str(folder)}, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()
