"""The model card: which settings of a run it names."""

import dataclasses
from pathlib import Path

import pytest

from exporting.model_card import write_model_card
from formats.checkpoint import load_checkpoint


@pytest.mark.parametrize(
    ("settings", "named", "unnamed"),
    [
        ({"hours": 0.5, "epochs": 3.0, "contrast": 0.1}, ["| `hours` | 0.5 |", "| `contrast` | 0.1 |"], ["epochs"]),
        ({"hours": None, "epochs": 3.0, "contrast": 0.0}, ["| `epochs` | 3.0 |"], ["hours", "contrast"]),
    ],
)
def test_it_names_what_decided_the_run(
    checkpoint: Path, tmp_path: Path, settings: dict[str, float | None], named: list[str], unnamed: list[str]
) -> None:
    model = load_checkpoint(checkpoint)
    write_model_card(dataclasses.replace(model, train_config={**model.train_config, **settings}), tmp_path, "")
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert all(row in card for row in named)
    assert not any(f"| `{name}` |" in card for name in unnamed)
