"""The scripts on a GPU, with everything on that is on by default: compiled training and tuning, then texts and a report card."""

from pathlib import Path

from tests.conftest import call_script, make_pairs, write_pairs
from training.metrics import read_metrics

SHAPE = ("--n-layer", 2, "--n-head", 2, "--n-embed", 64, "--block-size", 128)
LOOP = (
    "--batch-size",
    16,
    "--grad-accum",
    1,
    "--lr",
    3e-3,
    "--optimizer",
    "muon",
    "--eval-every",
    20,
    "--log-every",
    1,
    "--device",
    "cuda",
)


def run(*command: object) -> str:
    result = call_script(*command)
    assert result.returncode == 0, result.stderr
    return result.stdout


def losses(folder: Path) -> list[float]:
    return [row["val_loss"] for row in read_metrics(folder) if "val_loss" in row]


def test_every_stage_runs(dataset_folder: Path, tmp_path: Path) -> None:
    base, tuned, pairs = tmp_path / "base", tmp_path / "tuned", tmp_path / "pairs"
    shared = ("--data-dir", dataset_folder, "--out-dir", base, *SHAPE, *LOOP, "--warmup-steps", 5, "--eval-tokens", 2048)
    printed = run("train_xcoax.py", *shared, "--max-steps", 40)
    assert "continuing without it" not in printed  # torch.compile works
    assert losses(base)[-1] < losses(base)[0] - 0.5
    assert "resuming from" in run("train_xcoax.py", *shared, "--max-steps", 45)
    source = write_pairs(tmp_path / "pairs.jsonl", make_pairs(300))
    flags = ("--tokenizer", base / "best_checkpoint.pt", "--vocab-size", 400, "--block-size", 128, "--val-share", 0.2, "--workers", 1)
    run("preprocess_instruct.py", "--input", source, "--data-dir", pairs, *flags)
    run("finetune_xcoax.py", "--model-path", base / "best_checkpoint.pt", "--data-dir", pairs, "--out-dir", tuned, *LOOP, "--epochs", 8)
    assert losses(tuned)[-1] < losses(tuned)[0] - 0.5
    model = ("--model-path", tuned / "best_checkpoint.pt", "--max-new-tokens", 20, "--seed", 3, "--device", "cuda")
    texts = [run("sample_xcoax_instruct.py", *model, "--response", "the cat 7", "--num-samples", 5) for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == 5
    output = tmp_path / "scored.jsonl"
    few = write_pairs(tmp_path / "few.jsonl", make_pairs(60))
    scoring = ("--model-path", tuned / "best_checkpoint.pt", "--device", "cuda", "--output", output)
    assert "60 rows" in run("score_xcoax.py", *scoring, "--pairs", few)
