"""config.json: what a run records of itself; --like, another run like it."""

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from formats.checkpoint import load_checkpoint
from formats.shards import open_dataset
from presets import TRAIN_PRESETS
from tests.conftest import call_script, fails_with
from tests.training.counting import make_trainer
from tests.training.runs import Run, assert_same_weights, resumed_step
from training.metrics import read_metrics
from training.run_record import end_sitting, likeness, write_record


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return record


def write_like(run: Run, folder: Path, **changes: object) -> Path:
    """The record of a run in a folder of its own, with changes; None removes a key."""
    folder.mkdir()
    record = {name: value for name, value in {**record_of(run.folder), **changes}.items() if value is not None or name not in changes}
    (folder / "config.json").write_text(json.dumps(record))
    return folder


def train_like(folder: Path, *flags: object):  # type: ignore[no-untyped-def]
    return call_script("train_xcoax.py", "--like", folder, *flags)


def test_the_record_holds_all_that_the_result_depends_on(pretrained: Run, tuned: Run, dataset_folder: Path, pairs: Path) -> None:
    for run, script, data in ((pretrained, "train_xcoax.py", dataset_folder), (tuned, "finetune_xcoax.py", pairs)):
        record = record_of(run.folder)
        words = shlex.split(record["command"])
        assert words[:2] == ["python", script]
        assert words[words.index("--out-dir") + 1] == str(run.folder)
        assert record["data"] == open_dataset(data, None).fingerprint
        assert record["versions"]["torch"]
        assert len(record["commit"].removesuffix("-dirty")) in (0, 40)
        [sitting] = record["sittings"]
        last = load_checkpoint(run.folder / "last_checkpoint.pt").step
        assert sitting == {"from_step": 0, "to_step": last, "command": record["command"], "commit": record["commit"], "changed": {}}


def test_a_run_like_another_ends_with_the_same_bits(pretrained: Run, tuned: Run, tmp_path: Path) -> None:
    for run, script in ((pretrained, "train_xcoax.py"), (tuned, "finetune_xcoax.py")):
        result = call_script(script, "--like", run.folder, "--out-dir", tmp_path / script)
        assert result.returncode == 0, result.stderr
        assert f"  like {run.folder}\n" in result.stdout.replace("\n    ", " ")
        assert not [line for line in result.stdout.splitlines() if "config.json" in line]  # the record lacks nothing
        assert_same_weights(tmp_path / script, run.folder)
        ours, theirs = record_of(tmp_path / script), record_of(run.folder)
        assert {name for name in ours if ours[name] != theirs[name]} == {"command", "out_dir", "like", "sittings"}
        assert "sittings with different settings" not in result.stdout


def test_flags_change_what_is_taken(pretrained: Run, tmp_path: Path) -> None:
    result = train_like(pretrained.folder, "--out-dir", tmp_path, "--seed", 1, "--max-steps", 2, "--n-embed", 16)
    assert result.returncode == 0, result.stderr
    assert f"  like {pretrained.folder}, except: n_embed was 32, now 16; max_steps was 40, now 2; seed was 0, now 1\n" in result.stdout
    last = load_checkpoint(tmp_path / "last_checkpoint.pt")
    assert (last.step, last.model_config.n_embed, last.train_config["optimizer"]) == (2, 16, "muon")


def test_a_dry_run_like_another_needs_no_folder(pretrained: Run) -> None:
    result = train_like(pretrained.folder, "--dry-run", "--max-steps", 50)
    assert result.stdout.startswith("layers 1, heads 2, width 32, context 64, ids 400"), result.stderr
    assert "; 50 steps" in result.stdout


def test_its_own_folder_resumes_a_run(pretrained: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(pretrained.folder, folder)
    record = {**record_of(folder), "lr": 0.002, "versions": {**record_of(folder)["versions"], "torch": "1.0"}}
    (folder / "config.json").write_text(json.dumps(record))
    result = train_like(folder, "--out-dir", folder, "--max-steps", 42, "--lr", 0.003)
    assert resumed_step(result) == 40
    assert "; max_steps was 40, now 42\n" in result.stdout
    assert "like was" not in result.stdout and "sittings with" not in result.stdout
    [_, sitting] = record_of(folder)["sittings"]
    assert (sitting["from_step"], sitting["to_step"]) == (40, 42)
    assert sitting["changed"] == {"max_steps": [40, 42], "lr": [0.002, 0.003], "torch": ["1.0", record_of(folder)["versions"]["torch"]]}
    told = "the schedule now ends at step 42, no longer at 40: the learning rate rises again"
    risen = re.search(rf"^{told}, from (\S+) to (\S+)$", result.stdout, flags=re.MULTILINE)
    rates = [row["lr"] for row in read_metrics(folder) if row["step"] in (40, 41) and "lr" in row]
    assert risen and list(risen.groups()) == [f"{rate:.2e}" for rate in rates]
    fails_with(
        train_like(folder, "--max-steps", 44), 2, f"--like {folder}: name the folder of the new run with --out-dir, or {folder} itself"
    )

    result = train_like(folder, "--out-dir", tmp_path / "new", "--max-steps", 1)
    changes = "from step 40 max_steps was 40, now 42, lr was 0.002, now 0.003"
    assert f"{folder} had 2 sittings with different settings, the last ones are taken: {changes}\n" in result.stdout
    assert record_of(tmp_path / "new")["lr"] == 0.003


def test_a_record_of_an_earlier_version_or_a_damaged_one_keeps_no_run_from_resuming(dataset_folder: Path, tmp_path: Path) -> None:
    """A record that a kill, another version or an editor left is completed as far as it can be read."""
    config, task = dataclasses.replace(TRAIN_PRESETS["demo"], out_dir=str(tmp_path)), make_trainer(dataset_folder, tmp_path).task
    path = tmp_path / "config.json"
    for content, steps in (
        ("{", [(8, None)]),
        ('{"lr": 1, "command": "python train_xcoax.py", "sittings": null, "versions": 3, "model": []}', [(None, 8), (8, None)]),
        ('{"sittings": [{"from_step": 0, "to_step": null, "changed": 7}, 3]}', [(0, 8), (8, None)]),
    ):
        path.write_text(content)
        write_record(config, task, 8)
        assert [(each["from_step"], each["to_step"]) for each in record_of(tmp_path)["sittings"]] == steps
        likeness(dataclasses.replace(config, like=str(tmp_path), out_dir=""))
    write_record(config, task, 0)  # nothing of the earlier run was left to resume
    assert [each["from_step"] for each in record_of(tmp_path)["sittings"]] == [0]
    end_sitting(config, 4)
    assert record_of(tmp_path)["sittings"][0]["to_step"] == 4


def test_a_longer_tuning_run_has_the_warmup_that_was_given(tuned: Run, tmp_path: Path) -> None:
    """A short run takes a tenth of its steps; that must not limit a longer one like it."""
    assert record_of(tuned.folder)["warmup_steps"] < 100 == record_of(tuned.folder)["given"]["warmup_steps"]
    flags = ("--out-dir", tmp_path / "out", "--epochs", 8, "--batch-size", 1, "--grad-accum", 1, "--log-every", 100)
    result = call_script("finetune_xcoax.py", "--like", tuned.folder, *flags, "--hours", 0.0001)
    assert result.returncode == 0, result.stderr
    longer = record_of(tmp_path / "out")
    assert longer["warmup_steps"] == min(100, longer["max_steps"] // 10) > record_of(tuned.folder)["warmup_steps"]


def test_what_an_earlier_or_later_version_recorded_is_told_in_one_line(pretrained: Run, tmp_path: Path) -> None:
    model = {**record_of(pretrained.folder)["model"], "gates": 3}
    del model["mlp_size"]
    without = dict.fromkeys(("momentum", "resolved", "given", "command", "sittings"))
    folder = write_like(pretrained, tmp_path / "other", **without, colour="red", model=model)
    result = train_like(folder, "--out-dir", tmp_path / "x", "--max-steps", 1)
    assert result.returncode == 0, result.stderr
    missing, unknown = "has no momentum, mlp_size: used as the preset has it", "has colour, gates, which this version does not know"
    line = f"{folder / 'config.json'} {missing}; it {unknown}\n"
    assert line in result.stdout
    assert record_of(tmp_path / "x")["momentum"] == 0.95


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"max_steps": "many"}, "max_steps is 'many'"),
        ({"compile": 1}, "compile is 1"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'"),
        ({"lr": True}, "lr is True"),
        ({"lr": None, "hours": [1]}, "hours is [1]"),
        ({"model": {"n_layer": 1.5}}, "n_layer is 1.5"),
        ({"max_steps": 0}, "--max-steps 0: a number above 0"),
        ({"model": 3}, "is not of a run of this script"),
    ],
)
def test_a_damaged_record_is_refused_in_one_line(changes: dict[str, Any], what: str, pretrained: Run, tmp_path: Path) -> None:
    folder = write_like(pretrained, tmp_path / "damaged", **changes)
    fails_with(train_like(folder, "--out-dir", tmp_path / "x"), 2, what)
    assert not (tmp_path / "x").exists()


def test_a_foreign_record_is_refused_in_one_line(pretrained: Run, tuned: Run, tmp_path: Path) -> None:
    to = ("--out-dir", tmp_path / "x")
    fails_with(train_like(tuned.folder, *to), 2, f"{tuned.folder / 'config.json'} is not of a run of this script")
    fails_with(call_script("finetune_xcoax.py", "--like", pretrained.folder, *to), 2, "is not of a run of this script")
    fails_with(train_like(tmp_path / "none", *to), 2, "there is no config.json")
    for content in ("{", "[]", "\udcff", '{"architectures": ["LlamaForCausalLM"], "vocab_size": 32000}'):
        (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        fails_with(train_like(tmp_path, *to), 2, "config.json is ", "with --like")
    assert not (tmp_path / "x").exists()
