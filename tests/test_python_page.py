"""docs/python.md: its lines run, one after the other, and give what the page says."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from config import SampleInstructConfig
from sampling.generation import generate_candidates, prompter_for
from sampling.loading import load_engine
from sampling.sampler import sampling_params
from tests.conftest import ROOT, call_script


def test_the_lines_load_a_checkpoint_and_return_texts_and_scores(checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    lines = [line for line in blocks[0].splitlines() if line and not line.startswith("from ")]
    assert len(lines) == 3
    found: dict[str, Any] = {}
    for block in blocks:
        exec(block.replace("out/demo-instruct/best_checkpoint.pt", str(checkpoints["tuning"])), found)
    candidates = found["candidates"]
    assert len(candidates) == 3
    assert len({text for text, _ in candidates}) == 3
    printed = capsys.readouterr().out
    for text, generated in candidates:
        assert f"{text} {generated.logprob_per_token} {generated.logprobs} {generated.finish_reason}\n" in printed
        assert len(generated.logprobs) == generated.tokens == len(generated.ids) + (generated.finish_reason == "stop")
        assert sum(generated.logprobs) == pytest.approx(generated.logprob)
        assert max(generated.logprobs) < 0
    [row] = found["rows"]
    assert row["logprob"] < 0 and "logprob_gain" in row


def test_the_candidates_are_those_of_the_script(checkpoints: dict[str, Path]) -> None:
    config = SampleInstructConfig(str(checkpoints["tuning"]), num_samples=2, max_new_tokens=6, seed=1)
    for stage, script in (("tuning", "sample_xcoax_instruct.py"), ("pretraining", "sample_xcoax.py")):
        checkpoint, engine = load_engine(dataclasses.replace(config, model_path=str(checkpoints[stage])))
        [candidates] = generate_candidates(engine, prompter_for(checkpoint), ["It rains."], sampling_params(config), 2)
        flags = ["--model-path", checkpoints[stage], "--num-samples", 2, "--max-new-tokens", 6, "--seed", 1, "--format", "jsonl"]
        rows = map(json.loads, call_script(script, *flags, stdin="It rains.").stdout.splitlines())
        assert {text for text, _ in candidates} == {row.get("generated_text", row.get("generated_instruction")) for row in rows}
