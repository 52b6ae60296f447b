"""Commands at the prompt: they say what is allowed, and a bad value changes nothing."""

import dataclasses

import pytest

from config import SampleConfig
from sampling.prompt_settings import HELP, PromptSettings, is_leaving, settings_line

DEFAULTS = "temp=0.8  top_k=200  top_p=1.0  min_p=0.0  tokens=500  samples=1  seed=off  pace=0.0  raw is off"  # the published ones


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("temp=-1", "temp=-1.0: from 0 to 10; nothing changed"),
        ("temp=nan", "temp=nan: from 0 to 10; nothing changed"),
        ("temp=5000", "temp=5000.0: from 0 to 10; nothing changed"),
        ("temp=0.5 top_k=-3", "top_k=-3: from 0 (off) to 65,536; nothing changed"),
        ("temp=hot", "temp=hot: expected a number; nothing changed"),
        ("top_k=-3", "top_k=-3: from 0 (off) to 65,536; nothing changed"),
        ("top_k=1.5", "top_k=1.5: expected a whole number; nothing changed"),
        ("top_p=0", "top_p=0.0: above 0, up to 1 (off); nothing changed"),
        ("min_p=2", "min_p=2.0: from 0 (off) to 1; nothing changed"),
        ("tokens=-1", "tokens=-1: from 0 to 131,072; nothing changed"),
        ("samples=0", "samples=0: from 1 to 1000; nothing changed"),
        ("samples=1" + "0" * 400, f"samples=1{'0' * 400}: from 1 to 1000; nothing changed"),
        ("seed=x", "seed=x: expected a whole number; nothing changed"),
    ],
)
def test_a_bad_value_changes_nothing(line: str, answer: str) -> None:
    settings = PromptSettings(SampleConfig())
    assert settings.run_command(line) == answer
    assert settings.describe() == DEFAULTS


@pytest.mark.parametrize("is_raw", [False, True])
def test_the_line_of_a_transcript_brings_all_its_settings_back(is_raw: bool) -> None:
    config = SampleConfig(temperature=0.5, top_k=7, max_new_tokens=9, num_samples=2, seed=3, raw=is_raw)
    settings = PromptSettings(SampleConfig(raw=not is_raw))
    settings.run_command(settings_line(config))
    assert settings.config == config


def test_commands_change_the_settings() -> None:
    settings = PromptSettings(SampleConfig())
    assert settings.run_command("settings") == DEFAULTS
    for line in ("temp 0", "TOP_K = 0", "top_k=9999", "top_p=0.9", "min_p=0.1", "tokens=5", "samples=2", "seed 3", "raw=off", "raw"):
        assert "expected" not in (settings.run_command(line) or "expected"), line
    assert settings.describe() == "temp=0.0  top_k=9999  top_p=0.9  min_p=0.1  tokens=5  samples=2  seed=3  pace=0.0  raw is on"
    assert settings.run_command("seed=off") == "seed=off"
    assert settings.config.seed is None
    assert settings.run_command("help") == settings.run_command("?") == HELP


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("temp=0.8 top_k=20", {"temperature": 0.8, "top_k": 20}),
        ("temp=0.7, top_k=5", {"temperature": 0.7, "top_k": 5}),
        ("temp=1,top_k=7", {"temperature": 1.0, "top_k": 7}),
        ("seed=7, temp=0,25", {"seed": 7, "temperature": 0.25}),
        ("temperature=0.5 max_tokens=77", {"temperature": 0.5, "max_new_tokens": 77}),
        ("max-new-tokens=9", {"max_new_tokens": 9}),
        ("top-k = 5", {"top_k": 5}),
        ("temp: 0.9", {"temperature": 0.9}),
        ("temp=0,8", {"temperature": 0.8}),
        ("pace=5", {"pace": 5.0}),
        ("/temp=0.9", {"temperature": 0.9}),
    ],
)
def test_settings_are_understood_as_people_type_them(line: str, changes: dict[str, float]) -> None:
    settings = PromptSettings(SampleConfig())
    assert "nothing changed" not in (settings.run_command(line) or "nothing changed")
    assert settings.config == dataclasses.replace(SampleConfig(), **changes)  # type: ignore[arg-type]  # by name
    assert settings.run_command("/reset") == DEFAULTS
    assert settings.config == SampleConfig()


def test_commands_have_the_names_that_people_bring_along() -> None:
    settings = PromptSettings(SampleConfig())
    assert settings.run_command("/help") == HELP
    assert settings.run_command("/settings") == DEFAULTS
    assert all(is_leaving(line) for line in ("quit", "/quit", "/bye", "bye", ":q", "exit", "QUIT "))
    assert not any(is_leaving(line) for line in ("quite", " quit", "good bye", "the exit"))


@pytest.mark.parametrize("line", ["the cat sleeps", " help", " temp=1", "colour=red", "temp is high", "", "if temp=1 then x=3", "a=1 b=2"])
def test_a_text_is_no_command(line: str) -> None:
    settings = PromptSettings(SampleConfig())
    assert settings.run_command(line) is None
    assert settings.suggest(line) is None


@pytest.mark.parametrize(
    ("line", "suggestion"),
    [
        ("tmp=1", "no setting tmp; did you mean temp?"),
        ("temprature=1", "no setting temprature; did you mean temp?"),
        ("temp=0.8 foo=2", "no setting foo; `help` shows all settings"),
        ("/foo", "no command /foo; `help` shows all"),
        ("setings", "did you mean settings? To use it as a text, start the line with a space"),
    ],
)
def test_a_near_command_gets_a_suggestion(line: str, suggestion: str) -> None:
    assert PromptSettings(SampleConfig()).run_command(line) is None
    assert suggestion in (PromptSettings.suggest(line) or "")
    assert PromptSettings.suggest(f"{line}\nand more") is None


def test_what_the_context_cannot_hold_is_refused_with_the_limit() -> None:
    settings = PromptSettings(SampleConfig(), most_tokens=120)
    assert settings.run_command("tokens=121") == "tokens=121: the context of this model holds at most 120; nothing changed"
    assert settings.run_command("tokens=120") == "tokens=120"
    assert PromptSettings(SampleConfig()).run_command("tokens=9999") == "tokens=9999"


@pytest.mark.parametrize(("line", "meant"), [("/agian", "/again"), ("/mroe", "/more"), ("/pik 2", "/pick")])
def test_a_mistyped_command_with_a_slash_gets_a_suggestion(line: str, meant: str) -> None:
    assert f"did you mean {meant}?" in (PromptSettings(SampleConfig()).suggest(line) or "")
