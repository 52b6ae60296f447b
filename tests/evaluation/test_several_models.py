"""The report card of several models and corpora: seeds and their gaps, pictures, what is said of each model, the folder."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from config import EvaluateConfig
from evaluation.evaluated_model import load_models
from evaluation.report_card import default_folder
from tests.conftest import call_script
from tests.evaluation.conftest import Card, rows_of_report
from tests.evaluation.test_hellaswag import ROW, write_rows


@pytest.fixture(scope="module")
def comparison(checkpoints: dict[str, Path], dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Card:
    """Two models, each against another one, on two data folders; the report goes where it goes by default."""
    folder = tmp_path_factory.mktemp("comparison")
    for name in ("a0", "a1", "b0", "b1"):
        (folder / name).mkdir()
        shutil.copy(checkpoints["pretraining"], folder / name / "best_checkpoint.pt")
    shutil.copytree(dataset_folder, folder / "data" / "prose")
    shutil.copytree(dataset_folder, folder / "data" / "code")
    tasks = write_rows(folder / "tasks.jsonl", [{**ROW, "label": str(number % 4)} for number in range(8)])
    flags = [folder / "a0", folder / "a1", "--against", folder / "b0", folder / "b1", "--hellaswag", tasks]
    flags += ["--data-dir", folder / "data" / "prose", folder / "data" / "code", "--documents", 6]
    result = call_script("evaluate_xcoax.py", *flags)
    assert result.returncode == 0, result.stderr
    return Card(folder / "a0" / "with_a1_against_b0+b1", result.stdout, flags)


def test_several_models_and_corpora_are_in_one_card(comparison: Card) -> None:
    rows = rows_of_report(comparison.folder)
    corpora = ["held-out documents of prose", "held-out documents of code"]
    assert list(rows)[:3] == [*(f"Language: {corpus}" for corpus in corpora), "Gaps by corpus"]
    names = [f"backward {run}" for run in ("a0", "a1", "b0", "b1")]
    kinds = [f"{kind}: {what} of 2" for kind in ("backward", "against: backward") for what in ("mean", "spread")]
    assert list(rows[f"Language: {corpora[0]}"]) == [*names, *kinds, "gap 1", "gap 2", "mean gap", "spread of gaps"]
    assert "Caution: these intervals rest on only 6 texts." in comparison.printed
    assert list(rows["Gaps by corpus"]) == ["prose", "code"]
    assert rows["Gaps by corpus"]["code"]["bits per byte"] == rows[f"Language: {corpora[1]}"]["mean gap"]["bits per byte"]
    right = rows["HellaSwag, a control"]
    assert list(right) == [*names, *kinds, "difference 1", "difference 2", "mean difference", "spread of differences"]
    assert right["mean difference"]["whole text, in total"]["value"] == 0  # the same weights


def test_each_corpus_has_its_picture(comparison: Card) -> None:
    pictures = json.loads((comparison.folder / "report.json").read_text(encoding="utf-8"))["pictures"]
    assert [(picture["name"], picture["title"]) for picture in pictures] == [
        ("report_positions.png", "Loss by position in the text: held-out documents of prose, 6 texts"),
        ("report_positions1.png", "Loss by position in the text: held-out documents of code, 6 texts"),
    ]
    for name in ("report_positions.svg", "report_positions1.svg"):
        assert "<svg" in (comparison.folder / name).read_text(encoding="utf-8")
    assert "Loss by position" in (comparison.folder / "report.md").read_text(encoding="utf-8")


def test_each_model_is_described(comparison: Card) -> None:
    described = json.loads((comparison.folder / "report.json").read_text(encoding="utf-8"))["models"]
    assert list(described) == ["backward a0", "backward a1", "backward b0", "backward b1"]
    facts = described["backward a1"]
    assert (facts["folder"], facts["word order"]) == (str(comparison.flags[1]), "backward")
    assert facts["checkpoint"].startswith("step ") and facts["tokens seen"] > 0 and {"seed", "learning rate", "data"} < set(facts)
    [first, *lines] = csv.DictReader((comparison.folder / "report_models.csv").read_text(encoding="utf-8").splitlines())
    assert (first["model"], first["checkpoint"], len(lines)) == ("backward a0", facts["checkpoint"], 3)
    assert f"| backward b1 | {comparison.flags[4]} | backward |" in (comparison.folder / "report.md").read_text(encoding="utf-8")


def test_the_folder_of_a_report_names_the_other_models(checkpoints: dict[str, Path]) -> None:
    def folder(models: list[Path], against: list[Path]) -> Path:
        config = EvaluateConfig(model_path=tuple(map(str, models)), against=tuple(map(str, against)))
        return default_folder(load_models(config, torch.device("cpu")))

    tuned, pretrained = checkpoints["tuning"], checkpoints["pretraining"]
    numbered = pretrained.with_name("checkpoint_000001.pt")
    shutil.copy(pretrained, numbered)
    assert folder([tuned], []) == tuned.parent
    assert folder([tuned], [pretrained]) == tuned.parent / "against_pretraining"
    assert folder([tuned], [numbered]) == tuned.parent / "against_pretraining-checkpoint_000001"
    assert folder([tuned, pretrained], []) == tuned.parent / "with_pretraining"
    numbered.unlink()
