"""Exported folders: transformers computes what we compute, and the card's own lines answer."""

import contextlib
import errno
import importlib.util
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import exporting.hugging_face_export
import exporting.staging
from exporting.model_card import write_model_card
from exporting.staging import staged_folder
from formats.checkpoint import load_checkpoint
from formats.hugging_face_folder import read_hugging_face_folder
from sampling.engine import Engine
from sampling.generation import EndingPrompter, ResponsePrompter, generate_texts
from sampling.sampler import SamplingParams
from tests.conftest import ROOT, call_script, fails_with
from tests.exporting.conftest import SHAPES, export, save_random
from tests.preprocessing.in_process import contents
from tokens.prompt_format import PromptFormat
from tokens.tokenizer import Tokenizer

FILES = ["README.md", "backgpt.json", "config.json", "generation_config.json", "model.safetensors", "reverse.py"]
FILES += ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"]


def lines_of_card(folder: Path) -> str:
    """The code that the model card shows."""
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert found
    return found[1]


def run_lines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the lines of the card print, run as they stand in the folder."""
    monkeypatch.chdir(folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(lines_of_card(folder), "README.md", "exec"), {})
    return printed.getvalue()


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_computes_the_same_and_the_folder_comes_back(shape: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = save_random(tmp_path / "best_checkpoint.pt", tokenizer, train_config={"data_dir": "data/x", "lr": 0.5}, **SHAPES[shape])
    result = export(path, tmp_path / "hf", "--dtype", "float32")
    assert result.returncode == 0, result.stderr
    assert "texts have the same ids; in float32 logits differ by at most" in result.stdout
    ours, back = load_checkpoint(path), read_hugging_face_folder(tmp_path / "hf")
    assert back.train_config == {"lr": 0.5}  # without the places of this machine
    for name in ("model_config", "stage", "must_match", "order", "step", "tokens", "val_loss"):
        assert getattr(back, name) == getattr(ours, name), name
    assert back.tokenizer.model == ours.tokenizer.model
    ids = torch.randint(400, (2, 64))
    first, second = (each.make_model(torch.device("cpu")).eval()(ids) for each in (ours, back))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_rounded_and_padding_rows_are_cut(dtype: str, checkpoint: Path, tmp_path: Path) -> None:
    result = export(checkpoint, tmp_path / "hf", *(("--dtype", dtype) if dtype != "bfloat16" else ()))
    assert result.stdout.startswith(f"{tmp_path / 'hf'}: {dtype}, checked with transformers"), result.stderr
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == sorted(FILES)
    weights, back = load_checkpoint(checkpoint).weights, read_hugging_face_folder(tmp_path / "hf").weights
    rows = slice(0, 400)
    assert torch.equal(back["embedding.weight"][rows], weights["embedding.weight"][rows].to(getattr(torch, dtype)))
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["vocab_size"] == 400
    assert len({path.stat().st_mode for path in (tmp_path / "hf").iterdir()}) == 1  # one may read the weights who may read the rest


@pytest.mark.parametrize("order", ["backward", "forward"])
@pytest.mark.parametrize("stage", ["tuning", "pretraining"])
def test_the_lines_of_the_card_write_what_we_write(
    stage: Any, order: Any, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_random(tmp_path / "best_checkpoint.pt", tokenizer, stage, order)
    assert export(path, tmp_path / "hf", "--dtype", "float32").returncode == 0
    lines = lines_of_card(tmp_path / "hf").replace("max_new_tokens=32)", "max_new_tokens=32, do_sample=False)")  # the base model samples
    (tmp_path / "hf" / "README.md").write_text(f"```python\n{lines}```\n", encoding="utf-8")
    monkeypatch.setattr(EndingPrompter, "_first_token_mask", lambda self, given: None)  # which others do not have
    loaded = load_checkpoint(path)
    endings = {"backward": "Both were happy. The end.", "forward": "Once upon a time"}
    given = "The cat is sleeping." if stage == "tuning" else endings[order]
    prompter = ResponsePrompter(PromptFormat(tokenizer, order), 64) if stage == "tuning" else EndingPrompter(tokenizer, order, 64)
    engine = Engine(loaded.make_model(torch.device("cpu")))
    [(text, _)] = generate_texts(engine, prompter, [given], SamplingParams(32, temperature=0))
    assert run_lines(tmp_path / "hf", monkeypatch) == text + "\n"
    assert ("reverse" in lines) == (order == "backward") == (tmp_path / "hf" / "reverse.py").is_file()


def test_a_byte_that_is_no_text_spoils_nothing_beside_it(exported: Path, tokenizer: Tokenizer) -> None:
    import transformers

    theirs, chooser = transformers.AutoTokenizer.from_pretrained(exported), random.Random(0)
    first, ascii_end, end = (tokenizer.processor.piece_to_id(piece) for piece in ("<0x00>", "<0x80>", "<0xFF>"))
    for _ in range(300):
        ids = [chooser.choice([*range(first, ascii_end), *range(end + 1, 400)]) for _ in range(12)]
        ids[chooser.randrange(12)] = chooser.randrange(ascii_end, end + 1)
        assert theirs.decode(ids) == tokenizer.decode(ids)


def test_large_weights_are_several_files(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting.hugging_face_export, "MAX_SHARD_GB", 3e-5)
    result = export(checkpoint, tmp_path / "hf", "--dtype", "float32")
    assert "checked with transformers" in result.stdout, result.stderr
    assert len(list((tmp_path / "hf").glob("model-0*.safetensors"))) > 2
    assert not (tmp_path / "hf" / "model.safetensors").exists()
    ours, back = load_checkpoint(checkpoint).weights, read_hugging_face_folder(tmp_path / "hf").weights
    assert all(torch.equal(ours[name], back[name]) for name in ours if "embedding" not in name)


def test_the_stops_are_those_of_the_stage(tokenizer: Tokenizer, exported: Path, tmp_path: Path) -> None:
    end_of_turn, end_of_text = PromptFormat(tokenizer, "backward").after_instruction[0], tokenizer.end_of_text
    assert json.loads((exported / "generation_config.json").read_text())["eos_token_id"] == [end_of_turn, end_of_text]
    assert json.loads((exported / "tokenizer_config.json").read_text())["eos_token"] == "<|im_end|>"
    base = save_random(tmp_path / "best_checkpoint.pt", tokenizer, "pretraining")
    assert export(base, tmp_path / "hf", "--no-verify").returncode == 0
    assert json.loads((tmp_path / "hf" / "generation_config.json").read_text())["eos_token_id"] == [end_of_text]
    assert "chat_template" not in json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())


def test_the_card_has_results_of_this_checkpoint_only(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "best_checkpoint.pt"
    path.write_bytes(checkpoint.read_bytes())
    for tokens, shown in ((1234, True), (99, False)):
        facts = {"tuned, backward": f"best_checkpoint.pt, step 7, {tokens:,} tokens seen", "sections": []}
        (tmp_path / "report.json").write_text(json.dumps(facts))
        (tmp_path / "report.md").write_text("# The card\n\n- facts\n\n## Language\n\n| | loss |\n\n![x](report_ranking.png)\n")
        (tmp_path / "report_ranking.png").write_bytes(b"picture")
        assert export(path, tmp_path / "hf", "--force", "--no-verify", "--license", "mit").returncode == 0
        card = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
        assert card.startswith('---\nlicense: "mit"\n')
        assert ("### Language\n\n| | loss |" in card) == shown
        assert ("the report beside the checkpoint is of another one" in card) == (not shown)
        assert (tmp_path / "hf" / "report_ranking.png").is_file() == shown or not shown


def test_the_card_has_the_results_of_a_comparison(checkpoint: Path, tmp_path: Path) -> None:
    """They are in a folder of their own; those of another step are passed over."""
    path = tmp_path / "best_checkpoint.pt"
    path.write_bytes(checkpoint.read_bytes())
    for name, tokens in (("against_a", 99), ("against_b", 1234)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps({"tuned": f"best_checkpoint.pt, step 7, {tokens:,} tokens seen"}))
        (tmp_path / name / "report.md").write_text(f"# The card\n\n## Language {name}\n\n![x](report_positions.png)\n")
        (tmp_path / name / "report_positions.png").write_bytes(name.encode())
    assert export(path, tmp_path / "hf", "--no-verify").returncode == 0
    card = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
    assert "### Language against_b" in card and "against_a" not in card
    assert (tmp_path / "hf" / "report_positions.png").read_bytes() == b"against_b"


@pytest.mark.parametrize("report", ["[" * 100_000, '{"model": ' + "[" * 100_000, "5", "{", "\x00"])
def test_a_damaged_report_or_data_folder_keeps_no_card_from_being_written(report: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = save_random(tmp_path / "best_checkpoint.pt", tokenizer, train_config={"data_dir": str(tmp_path)})
    for name in ("report.json", "report.md", "meta.json"):
        (tmp_path / name).write_text(report)
    (tmp_path / "card").mkdir()
    write_model_card(load_checkpoint(path), tmp_path / "card", "")
    (tmp_path / "meta.json").write_text('{"settings": {"input": 1.5}}')
    write_model_card(load_checkpoint(path), tmp_path / "card", "")
    assert "Not measured" in (tmp_path / "card" / "README.md").read_text(encoding="utf-8")


def full_disk(path: Path, *_: object, **__: object) -> None:
    """Refuses files that lie in a folder of their own: `shutil.copytree` would tell neither why nor where."""
    if path.parent.name == "adapters":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_force_replaces_an_earlier_export_and_nothing_else(
    checkpoint: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(exported, tmp_path / "hf")
    (folder / "notes.txt").write_text("mine")
    (folder / "adapters").mkdir()
    (folder / "adapters" / "adapter.safetensors").write_bytes(b"mine")
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"of an earlier export")
    before = contents(folder)
    fails_with(export(checkpoint, folder, "--no-verify"), 2, "is not empty", "--force")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full_disk)
        fails_with(export(checkpoint, folder, "--no-verify", "--force"), 1, "No space left on device", str(tmp_path), "Free some space")
    assert contents(folder) == before
    for _ in range(2):
        assert export(checkpoint, folder, "--no-verify", "--force").returncode == 0
        assert sorted(contents(folder)) == sorted([*FILES, "notes.txt", "adapters/adapter.safetensors"])
        assert (folder / "notes.txt").read_text() == "mine"
        assert [path.name for path in tmp_path.iterdir()] == ["hf"]
        folder.rename(tmp_path / ".hf.earlier")  # as a kill leaves it, just before the new folder has its name


@pytest.mark.parametrize("moment", ["hugging_face_export.stop_ids", "staging.rename"])
def test_an_export_that_is_interrupted_leaves_the_earlier_one(
    moment: str, checkpoint: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(exported, tmp_path / "hf")
    before = contents(folder)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"exporting.{moment}", interrupt)
    assert export(checkpoint, folder, "--no-verify", "--force").returncode == 130
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_what_is_no_earlier_export_is_refused_even_with_force(checkpoint: Path, tmp_path: Path) -> None:
    run = shutil.copytree(checkpoint.parent, tmp_path / "run")
    fails_with(export(checkpoint, run, "--no-verify", "--force"), 2, "holds no earlier export", "Give another --out-dir")
    fails_with(export(checkpoint, run / checkpoint.name, "--no-verify"), 2, "not a folder that can be made")
    fails_with(export(checkpoint, Path("/"), "--no-verify"), 2, "not a folder that can be made")
    fails_with(export(checkpoint, "hf://owner/name", "--no-verify"), 2, "hf upload")
    here = tmp_path / "here"
    here.mkdir()
    assert call_script("export_xcoax.py", "--model-path", checkpoint, "--out-dir", ".", "--no-verify", cwd=here).returncode == 0
    assert sorted(contents(here)) == sorted(FILES)


def test_one_export_at_a_time_writes_a_folder(checkpoint: Path, tmp_path: Path) -> None:
    with staged_folder(tmp_path / "hf", force=False):
        fails_with(export(checkpoint, tmp_path / "hf", "--no-verify"), 1, "another process is writing")
    assert list((tmp_path / "hf").iterdir()) == []


def test_a_model_that_was_tuned_tells_what_it_began_with(tokenizer: Tokenizer, tmp_path: Path) -> None:
    base = save_random(tmp_path / "base" / "best_checkpoint.pt", tokenizer, "pretraining", train_config={"lr": 0.25})
    began = {"the pretrained checkpoint": load_checkpoint(base).fingerprint}
    settings = {"model_path": str(base), "lr": 0.5}
    path = save_random(tmp_path / "tuned" / "best_checkpoint.pt", tokenizer, train_config=settings, must_match=began)
    assert export(path, tmp_path / "hf", "--no-verify").returncode == 0
    card = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
    assert card.index("| `lr` | 0.5 |") < card.index("It began with this model") < card.index("| `lr` | 0.25 |")
    assert str(tmp_path) not in card + (tmp_path / "hf" / "backgpt.json").read_text(encoding="utf-8")
    save_random(base, tokenizer, "pretraining", scale=0.3)  # another model under the same name
    assert export(path, tmp_path / "other", "--no-verify").returncode == 0
    assert "It began with" not in (tmp_path / "other" / "README.md").read_text(encoding="utf-8")


def test_a_weight_too_large_for_the_dtype_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = save_random(tmp_path / "best_checkpoint.pt", tokenizer, scale=1e6)
    fails_with(export(path, tmp_path / "hf", "--dtype", "float16"), 2, "a weight is too large for float16", "--dtype float32")
    assert not (tmp_path / "hf").exists()


def test_a_full_disk_leaves_nothing_under_the_name(checkpoint: Path, tmp_path: Path) -> None:
    command = f"ulimit -f 60; exec {sys.executable} export_xcoax.py --model-path {checkpoint} --out-dir {tmp_path / 'hf'}"  # 60 KB a file
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    fails_with(result, 1, "cannot write the weights")
    assert list(tmp_path.iterdir()) == []


def test_without_transformers_it_says_that_nothing_was_checked(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in ("transformers", "gguf") else found(name, *rest))
    result = export(checkpoint, tmp_path / "hf")
    assert result.returncode == 0
    assert "not checked: transformers is not installed" in result.stdout
    fails_with(export(checkpoint, tmp_path / "gguf", "--format", "gguf"), 2, "pip install 'gguf")


def test_quantized_folders_and_unnamed_ones_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    fails_with(export(checkpoint, tmp_path / "hf", "--dtype", "q8_0"), 2, "--dtype q8_0: only with --format gguf")
    fails_with(call_script("export_xcoax.py", "--model-path", "hf://owner/name"), 2, "--out-dir: name the folder")
    fails_with(export(tmp_path / "none.pt", tmp_path / "hf"), 1, "no checkpoint at")
    assert not (tmp_path / "hf").exists()


def test_without_a_name_the_folder_is_beside_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "best_checkpoint.pt"
    path.write_bytes(checkpoint.read_bytes())
    assert call_script("export_xcoax.py", tmp_path, "--no-verify").returncode == 0
    assert (tmp_path / "hf" / "model.safetensors").is_file()
    again = call_script("export_xcoax.py", tmp_path / "hf", "--format", "gguf")  # from the exported folder
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "hf" / "gguf" / "model-float16.gguf").is_file()


def test_what_is_published_names_no_folder_of_this_machine(tokenizer: Tokenizer, tmp_path: Path) -> None:
    home = tmp_path / "home of Jane"
    data, base = home / "secret" / "stories", home / "secret" / "base" / "best_checkpoint.pt"
    data.mkdir(parents=True)
    (data / "meta.json").write_text(json.dumps({"settings": {"dataset": str(home / "hub copy"), "subset": ""}}))
    folders = dict.fromkeys(("out_dir", "like", "init_from", "hellaswag"), str(home)) | {"data_dir": str(data)}
    harmless = "see https://example.org/a/b, 5 tokens/s and out/mine/x.pt"
    for is_there in (True, False):
        if is_there:
            save_random(base, tokenizer, "pretraining", train_config={**folders, "lr": 0.25})
            began = {"the pretrained checkpoint": load_checkpoint(base).fingerprint}
        settings = {**folders, "lr": 0.5, "model_path": str(base)}
        path = save_random(home / "best_checkpoint.pt", tokenizer, train_config=settings, must_match=began)
        text = home / "more texts" / "b.txt"
        measured = {"data_dir": str(data), "text": [str(text)]}
        facts = {"tuned, backward": "x, step 7, 1,234 tokens seen", "settings": measured}
        (home / "report.json").write_text(json.dumps(facts))
        note = f"30 held-out documents of {data}, read for {base}. {text} and /mnt/disk/c.jsonl; {harmless}"
        (home / "report.md").write_text(f"# The card\n\n- model: {path}\n\n## Language\n\n{note}\n")
        assert export(path, tmp_path / "hf", "--force", "--no-verify").returncode == 0
        for file in (tmp_path / "hf").iterdir():
            assert not re.search(rb"Jane|secret|/mnt|/tmp", file.read_bytes()), file
        card = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
        assert f"30 held-out documents of stories, read for best_checkpoint.pt. b.txt and c.jsonl; {harmless}\n" in card
        assert "Tuned on hub copy: step 7" in card
        assert ("Trained on hub copy: step 7" in card) == is_there == ("was not there any more" not in card)
        back = read_hugging_face_folder(tmp_path / "hf")
        assert back.train_config == {"lr": 0.5}
        base.unlink(missing_ok=True)


def test_what_was_trained_on_data_that_is_gone_is_named_by_its_folder_alone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = save_random(tmp_path / "best_checkpoint.pt", tokenizer, train_config={"data_dir": str(tmp_path / "gone")})
    assert export(path, tmp_path / "hf", "--no-verify").returncode == 0
    assert "Tuned on `gone`: step 7" in (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
    again = export(tmp_path / "hf", tmp_path / "again", "--no-verify")  # which does not say what it was trained on
    assert again.returncode == 0, again.stderr
    assert "Tuned on data that this folder does not name: step 7" in (tmp_path / "again" / "README.md").read_text(encoding="utf-8")
