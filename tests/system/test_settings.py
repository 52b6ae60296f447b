"""Settings as text."""

from presets import TRAIN_PRESETS
from system.settings import changed_settings, describe_settings


def test_changed_settings_are_named_with_both_values() -> None:
    assert changed_settings({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": "x"}) == ["b was 2, now 3", "c was None, now 'x'"]


def test_all_settings_are_shown_on_lines_that_fit_a_terminal() -> None:
    text = describe_settings(TRAIN_PRESETS["xcoax"], "a fact", unused=("seed",))
    assert text.startswith("TrainConfig:\n")
    assert "n_layer=12" in text.split()  # nested settings too
    assert "lr=0.0003" in text.split()
    assert "seed=" not in text
    assert text.endswith("\n  a fact")
    assert max(map(len, text.splitlines())) <= 120
