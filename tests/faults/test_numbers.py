"""Numbers that break runs: losses and weights that are not finite, settings at their limits, data of one of everything."""

import json
import math
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from config import SampleConfig
from formats.checkpoint import BEST, LAST, load_checkpoint
from sampling.prompt_settings import SETTINGS, PromptSettings
from sampling.sampler import SamplingParams, choose_tokens
from system.errors import UserError
from tests.conftest import call_script, make_documents, make_pairs, write_jsonl, write_pairs
from tests.faults.trials import Trials
from tests.preprocessing.in_process import run_here
from tests.training.counting import make_trainer

COUNTS = pytest.mark.parametrize("is_long", [False, pytest.param(True, marks=pytest.mark.faults)])
NOT_FINITE = (torch.nan, torch.inf, -torch.inf)
EVERY = 2  # steps, between evaluations


def refused(result: subprocess.CompletedProcess[str]) -> bool:
    """Whether a script refused in one line that says what to try; if not, it must have succeeded, with finite figures."""
    assert "Traceback" not in result.stderr, result.stderr
    if result.returncode:
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
        assert re.search(r"--\w|Try|Use|Give|Delete|skip|give a text|field `error` says why", result.stderr), result.stderr
    else:
        lines = [line for line in result.stdout.splitlines() if "loss" in line or "per byte" in line]
        assert not any(re.search(r"\b(nan|inf)\b", line) for line in lines), lines
    return result.returncode != 0


def train(data: Path, out: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    """A small run; flags come last, so they win."""
    shape = ["--n-layer", 1, "--n-head", 1, "--n-embed", 8, "--block-size", 32, "--device", "cpu", "--no-compile"]
    run = ["--batch-size", 2, "--grad-accum", 1, "--max-steps", 6, "--eval-every", 3, "--eval-tokens", 64, "--sample-tokens", 4]
    return call_script("train_xcoax.py", "--data-dir", data, "--out-dir", out, *shape, *run, "--log-every", 1, *flags)


def require_intact(folder: Path) -> None:
    """Every checkpoint that a run left can be read, and so has finite weights."""
    for path in folder.glob("*.pt"):
        load_checkpoint(path)


def run_to_its_end(trainer: Any, last: Path) -> tuple[str, list[bytes]]:
    """What a run says if it ends early, and the last checkpoint after each time that it was saved."""
    saved: list[bytes] = []
    write = trainer._write

    def noted(name: str, *rest: Any) -> None:
        write(name, *rest)
        if name == LAST:
            saved.append(last.read_bytes())

    trainer._write = noted
    try:
        trainer.run()
    except UserError as error:
        return str(error), saved
    return "", saved


def require_last_good(last: Path, told: str, saved: list[bytes], at: int) -> None:
    """The message of a run that diverged in the step after `at` names the last checkpoint, which is the one of the evaluation before."""
    if at < EVERY:
        assert "nothing was saved yet" in told and not last.exists(), told
    else:
        step = at // EVERY * EVERY
        assert f"{last} of step {step} is intact" in told, told
        assert last.read_bytes() == saved[-1] and load_checkpoint(last).step == step
    assert "Try a lower --lr than" in told and "\n" not in told, told


@COUNTS
def test_gradients_that_are_not_finite(trials: Callable[..., Trials], is_long: bool, dataset_folder: Path, tmp_path: Path) -> None:
    lost = trials("gradients that are not finite, or a spike, in the middle of a run")
    names = ["embedding.weight", "norm.weight", "blocks.0.mlp.up.weight"] if is_long else ["norm.weight"]
    damages = (*NOT_FINITE, 1e30, 1e6) if is_long else (torch.nan, 1e6)
    for index, (name, damage, at) in enumerate(
        (name, damage, at) for name in names for damage in damages for at in (range(1, 10, 4) if is_long else (5,))
    ):
        folder = tmp_path / str(index)

        def hook(trainer: Any, damage: float = damage, at: int = at) -> Callable[[torch.Tensor], torch.Tensor | None]:
            return lambda gradient: gradient * damage if trainer.step == at else None

        with lost.one(f"{name} × {damage} at step {at}") as trial:
            trainer = make_trainer(dataset_folder, folder, max_steps=10, eval_every=EVERY, log_every=3, grad_clip=0.0, lr=1e-3)
            trainer.model.get_parameter(name).register_hook(hook(trainer))  # type: ignore[no-untyped-call]  # torch's gap
            told, saved = run_to_its_end(trainer, folder / LAST)
            trial.refused = bool(told)
            require_intact(folder)
            if trial.refused:
                require_last_good(folder / LAST, told, saved, at)
            again = make_trainer(dataset_folder, folder, max_steps=10, eval_every=EVERY, lr=1e-3)
            if (folder / LAST).is_file():
                again.resume(load_checkpoint(folder / LAST, mapped=False))
            again.run()
            assert math.isfinite(load_checkpoint(folder / BEST).val_loss)


@COUNTS
def test_checkpoints_with_numbers_that_are_not_finite(
    trials: Callable[..., Trials], is_long: bool, checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path
) -> None:
    damaged = trials("weights that are not finite in a checkpoint")
    content = torch.load(checkpoints["tuning"], weights_only=True)
    pairs = write_pairs(tmp_path / "pairs.jsonl", make_pairs(3))
    path = tmp_path / "damaged" / BEST
    path.parent.mkdir()
    commands: list[tuple[object, ...]] = [
        ("sample_xcoax.py", "--model-path", path, "--prompt", "x"),
        ("sample_xcoax_instruct.py", "--model-path", path, "--response", "x"),
        ("finetune_xcoax.py", "--model-path", path, "--data-dir", dataset_folder, "--out-dir", tmp_path / "tuned"),
        ("train_xcoax.py", "--init-from", path, "--data-dir", dataset_folder, "--out-dir", tmp_path / "more"),
        ("score_xcoax.py", "--model-path", path, "--pairs", pairs, "--output", tmp_path / "scored.jsonl"),
        ("evaluate_xcoax.py", "--model-path", path, "--pairs", pairs, "--hellaswag", ""),
        ("export_xcoax.py", "--model-path", path, "--no-verify"),
    ]
    for name in content["model"] if is_long else ["norm.weight"]:
        for damage in NOT_FINITE if is_long else NOT_FINITE[:1]:
            weights = {key: value.clone() for key, value in content["model"].items()}
            weights[name].view(-1)[-1] = damage
            torch.save({**content, "model": weights}, path)
            for command in commands if is_long or damage is torch.nan else commands[:2]:
                with damaged.one(f"{name} {damage}: {command[0]}") as trial:
                    trial.refused = refused(call_script(*command))
                    assert trial.refused
                    assert {file.name for file in path.parent.iterdir()} == {BEST}


@COUNTS
def test_a_last_checkpoint_with_broken_numbers(trials: Callable[..., Trials], is_long: bool, dataset_folder: Path, tmp_path: Path) -> None:
    damaged = trials("weights that are not finite in a checkpoint")
    assert train(dataset_folder, tmp_path).returncode == 0
    intact, whole = (tmp_path / BEST).read_bytes(), (tmp_path / LAST).read_bytes()
    places = ("model", "optimizer") if is_long else ("model",)
    for place in places:
        for damage in NOT_FINITE:
            (tmp_path / LAST).write_bytes(whole)
            content = torch.load(tmp_path / LAST, weights_only=True)
            moments = content["optimizer"]["adamw"]["state"][0]
            tensor = content["model"]["norm.weight"] if place == "model" else moments["exp_avg"]
            tensor.view(-1)[0] = damage
            torch.save(content, tmp_path / LAST)
            with damaged.one(f"{place} {damage}") as trial:
                result = train(dataset_folder, tmp_path, "--max-steps", 12)
                trial.refused = refused(result)
                assert trial.refused
                assert str(tmp_path / LAST) in result.stderr
                assert (tmp_path / BEST).read_bytes() == intact


SETTINGS_OF_RUNS: list[tuple[object, ...]] = [
    ("--lr", 1e6, "--weight-decay", 0),
    ("--lr", 1e30, "--weight-decay", 0),
    ("--lr", 1e-30),
    ("--weight-decay", 1e9),
    ("--weight-decay", 3333),
    ("--beta1", 0.9999999999, "--beta2", 0),
    ("--beta1", 0, "--beta2", 0.9999999999),
    ("--optimizer", "muon", "--momentum", 0.9999999999),
    ("--optimizer", "muon", "--momentum", 0),
    ("--optimizer", "muon", "--lr", 1e20, "--weight-decay", 0),
    ("--warmup-steps", 10**6),
    ("--schedule", "wsd", "--cooldown-share", 1),
    ("--schedule", "wsd", "--cooldown-share", 0, "--min-lr-share", 0),
    ("--schedule", "wsd", "--cooldown-share", 1, "--warmup-steps", 100),
    ("--dropout", 0.999999),
    ("--dropout", 1),
    ("--eval-tokens", 10**12),
    ("--eval-tokens", 1),
    ("--batch-size", 500),
    ("--grad-accum", 500),
    ("--block-size", 4096),
    ("--block-size", 2),
    ("--grad-clip", 1e-30),
    ("--grad-clip", 0),
    ("--rope-theta", 1e-30),
    ("--rope-theta", 1e300),
    ("--seed", 2**63 - 1),
    ("--seed", 2**63),
    ("--seed", -1),
    ("--hours", 1e-9),
    ("--dtype", "float16"),
    ("--dtype", "float16", "--lr", 100, "--weight-decay", 0),
    ("--dtype", "bfloat16", "--lr", 1e10, "--weight-decay", 0),
]


@COUNTS
def test_settings_at_their_limits(trials: Callable[..., Trials], is_long: bool, dataset_folder: Path, tmp_path: Path) -> None:
    extremes = trials("settings of a run at their limits")
    for number, flags in enumerate(SETTINGS_OF_RUNS if is_long else SETTINGS_OF_RUNS[:2]):
        with extremes.one(" ".join(map(str, flags))) as trial:
            result = train(dataset_folder, tmp_path / str(number), *flags)
            trial.refused = refused(result)
            require_intact(tmp_path / str(number))
            if trial.refused and "--lr" in flags:
                assert "Try a lower --lr" in result.stderr, result.stderr


@pytest.mark.faults
def test_data_of_one_of_everything(trials: Callable[..., Trials], checkpoints: dict[str, Path], tmp_path: Path) -> None:
    tiny = trials("data of one document, pair or token")
    one = make_documents(1)[0]
    texts: dict[str, list[str]] = {
        "one document": [one],
        "one word": ["a"],
        "no text": [""],
        "two words": ["a", "b"],
        "equal documents": [one] * 200,
        "one long document": ["word " * 4000],
        "one short for validation": [*make_documents(30), "x"],
        "unused ids": ["aa ab"] * 50 + ["ba bb"] * 50,
    }
    for name, documents in texts.items():
        for flags in ((), ("--vocab-size", 8888), ("--val-share", 0.999), ("--val-share", 1e-12)):
            folder = tmp_path / f"{name} {flags}"
            with tiny.one(f"{name} {flags}") as trial:
                source = write_jsonl(tmp_path / "documents.jsonl", documents)
                made = run_here("preprocess_xcoax.py", "--input", source, "--data-dir", folder, "--workers", 1, "--vocab-size", 300, *flags)
                trial.refused = refused(made) or refused(train(folder, folder / "run"))
                require_intact(folder / "run")
    for name, pairs in {"one pair": make_pairs(1), "two pairs": make_pairs(2), "equal pairs": make_pairs(1) * 50}.items():
        with tiny.one(name) as trial:
            source, folder = write_pairs(tmp_path / "pairs.jsonl", pairs), tmp_path / name
            common = ["--data-dir", folder, "--tokenizer", checkpoints["pretraining"], "--block-size", 512]
            made = run_here("preprocess_instruct.py", "--input", source, "--workers", 1, *common)
            tuning = ["--model-path", checkpoints["pretraining"], "--data-dir", folder, "--out-dir", folder / "run", "--no-compile"]
            trial.refused = refused(made) or refused(call_script("finetune_xcoax.py", *tuning, "--device", "cpu"))
            require_intact(folder / "run")


@COUNTS
def test_sampling_at_its_limits(trials: Callable[..., Trials], is_long: bool) -> None:
    limits = trials("sampling at its limits")
    logits = [torch.randn(4, 50), torch.zeros(4, 50), torch.full((4, 50), -1e30), torch.randn(4, 50) * 1e30]
    logits[1][:, 3:] = -torch.inf  # ids that may not come
    for temperature in (0, 1e-320, 1e-9, 1, 10):
        for top_k, top_p, min_p in ((0, 1, 0), (1, 1, 0), (10**4, 1e-300, 0), (7, 0.5, 1), (0, 1, 1e-300)):
            for uniform in (0.0, 1 - 2**-24):
                for number, values in enumerate(logits if is_long else logits[:2]):
                    with limits.one((temperature, top_k, top_p, min_p, uniform, number)):
                        params = SamplingParams(1, temperature, top_k, top_p, min_p)
                        chosen = choose_tokens(values, params, torch.full((4,), uniform))
                        assert values.gather(1, chosen[:, None]).isfinite().all()
    words = ("-1", "0", "1e-9", "1e9", "nan", "inf", "-inf", "1e400", "9223372036854775808", "word", "", "1e308", "--1", "0x10", "１")
    for name in SETTINGS:
        for word in words:
            with limits.one(f"{name}={word}") as trial:
                settings = PromptSettings(SampleConfig(), 100)
                answer = settings.run_command(f"{name}={word}")
                assert answer is None or "\n" not in answer
                trial.refused = answer is None or "nothing changed" in answer
                settings.config.check()
                assert math.isfinite(getattr(settings.config, SETTINGS[name]) or 0)


@pytest.mark.faults
def test_scores_and_reports_of_little(trials: Callable[..., Trials], checkpoints: dict[str, Path], tmp_path: Path) -> None:
    little = trials("scores and reports of one text, of none, and of a model without a loss")
    content = torch.load(checkpoints["tuning"], weights_only=True)
    model = tmp_path / "model" / "checkpoint_000001.pt"
    model.parent.mkdir()
    torch.save({**content, "val_loss": math.nan}, model)
    huge = {name: value * 1e12 if value.dim() == 2 else value for name, value in content["model"].items()}
    torch.save({**content, "model": huge}, tmp_path / "model" / "huge.pt")
    rows: list[dict[str, object]] = [
        {"instruction": "", "output": "x"},
        {"instruction": "x", "output": ""},
        {"instruction": " ", "output": " "},
        {"instruction": "x", "output": "y"},
        {"instruction": "x " * 5000, "output": "y"},
        {"instruction": "x", "answers": ["y"]},
        {"instruction": "x", "answers": []},
        {"instruction": "x", "answers": [""]},
        {"instruction": "x", "answers": ["y", "z"], "logprobs": [1e308, -1e308]},
        {"instruction": "x", "answers": ["y"], "logprobs": [math.nan]},
    ]
    for path in (model, model.with_name("huge.pt")):
        for number, row in enumerate(rows):
            for dtype in ("float32", "bfloat16", "float16"):
                with little.one(f"{path.name} {row} {dtype}"[:100]) as trial:
                    source, out = write_pairs(tmp_path / "rows.jsonl", [row]), tmp_path / f"{path.stem}-{number}-{dtype}.jsonl"
                    job = "--rerank" if "answers" in row else "--pairs"
                    flags = ["--model-path", path, job, source, "--output", out, "--dtype", dtype]
                    trial.refused = refused(call_script("score_xcoax.py", *flags))
                    for line in out.read_text().splitlines() if out.is_file() else ():
                        json.loads(line, parse_constant=pytest.fail)
        for count, candidates in ((1, 1), (2, 1), (5, 1), (5, 4), (5, 100)):
            with little.one(f"{path.name}: a report of {count} pairs, {candidates} candidates") as trial:
                pairs = write_pairs(tmp_path / "pairs.jsonl", make_pairs(count))
                flags = ["--pairs", pairs, "--candidates", candidates, "--hellaswag", "", "--out-dir", tmp_path / "card"]
                trial.refused = refused(
                    call_script("evaluate_xcoax.py", "--model-path", path, *flags, "--max-new-tokens", 4, "--device", "cpu")
                )
                if (tmp_path / "card" / "report.json").is_file():
                    json.loads((tmp_path / "card" / "report.json").read_text(), parse_constant=pytest.fail)
        for command in (("sample_xcoax_instruct.py", "--response", "x"), ("export_xcoax.py", "--no-verify", "--force")):
            with little.one(f"{path.name}: {command[0]}") as trial:
                trial.refused = refused(call_script(*command, "--model-path", path))
