"""The command line: a preset, flags over it, and near misses that are answered with the nearest name."""

import dataclasses
from collections.abc import Set
from pathlib import Path

import pytest

from config import TrainConfig
from presets import PREPROCESS_PRESETS, SAMPLE_PRESETS, TRAIN_PRESETS
from system.command_line import read_flags
from system.errors import UserError
from tests.conftest import call_script


def train_flags(*arguments: str) -> TrainConfig:
    return read_flags(TRAIN_PRESETS, "Train.", list(arguments))


def test_flags_change_the_preset_named_first_or_else_the_first_preset() -> None:
    assert train_flags() == TRAIN_PRESETS["xcoax"]
    config = train_flags("tinystories", "--max-steps", "7", "--n-layer", "3")
    assert (config.max_steps, config.model.n_layer) == (7, 3)
    assert config.model.n_embed == TRAIN_PRESETS["tinystories"].model.n_embed


def test_the_arguments_of_the_process_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train_xcoax.py", "demo", "--max-steps", "7"])
    assert read_flags(TRAIN_PRESETS, "Train.").max_steps == 7


def test_an_unknown_preset_gives_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no preset 'tinystory'. Did you mean: python \S+ tinystories\? Presets: xcoax") as caught:
        train_flags("tinystory")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--dataset", "tiny", "--prompt", "x"], "sample_xcoax.py tinystories?"),
        (["--dataset", "fineweb"], "sample_xcoax.py fineweb?"),
        (["prepare-dataset", "--dataset", "fineweb"], "sample_xcoax.py fineweb?"),
        (["prepare-dataset", "--dataset", "tinystories"], "sample_xcoax.py tinystories?"),
    ],
)
def test_commands_of_earlier_versions_get_the_command_of_today(arguments: list[str], command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["sample_xcoax.py", *arguments])
    with pytest.raises(UserError) as caught:
        read_flags(SAMPLE_PRESETS, "Sample.")
    assert f"Did you mean: python {command}" in str(caught.value)


def test_a_named_data_set_replaces_the_files_of_the_preset() -> None:
    config = read_flags(PREPROCESS_PRESETS, "Preprocess.", ["demo", "--dataset", "a/b"])
    assert (config.dataset, config.subset, config.input) == ("a/b", "", ())
    assert read_flags(PREPROCESS_PRESETS, "Preprocess.", ["demo", "--dataset=a/b"]) == config
    config = read_flags(PREPROCESS_PRESETS, "Preprocess.", ["--dataset", "a/b", "--subset", "c"])
    assert (config.dataset, config.subset) == ("a/b", "c")
    default = PREPROCESS_PRESETS["xcoax"]
    config = read_flags(PREPROCESS_PRESETS, "Preprocess.", ["--dataset", default.dataset])
    assert config == default
    with pytest.raises(UserError, match="--input and --dataset: use only one"):
        read_flags(PREPROCESS_PRESETS, "Preprocess.", ["--dataset", "a/b", "--input", "x"])


def test_what_belongs_behind_a_flag_gets_its_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["script.py"])
    with pytest.raises(UserError, match=r"Did you mean: python script.py --prompt 'The end.'\?"):
        read_flags(SAMPLE_PRESETS, "Sample.", ["The end."])
    with pytest.raises(UserError, match=rf"Did you mean: python script.py --input {tmp_path}\?"):
        read_flags(PREPROCESS_PRESETS, "Preprocess.", [str(tmp_path)])
    with pytest.raises(UserError, match=r"no preset 'my_corpus'. Presets: xcoax"):
        train_flags("my_corpus")


def test_the_first_word_may_be_a_checkpoint(tmp_path: Path) -> None:
    assert read_flags(SAMPLE_PRESETS, "Sample.", ["out/x.pt", "--seed", "3"]).model_path == "out/x.pt"
    assert read_flags(SAMPLE_PRESETS, "Sample.", [str(tmp_path)]).model_path == str(tmp_path)
    with pytest.raises(UserError, match="no preset"):
        train_flags(str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--n-layers 4", "Unrecognized options: --n-layers, 4. Perhaps you meant: --n-layer INT. --help lists all flags"),
        ("--lr 0,8", "--lr 0,8: a number, such as 0.8"),
        ("--lr=fast", "--lr fast: a number"),
        ("--seed 1,5", "--seed 1,5: a whole number"),
        (f"--lr {'x' * 300}", f"--lr {'x' * 300}: a number"),
        ("--max-steps", "Missing value for argument '--max-steps'. Expected 1 values. --help lists all flags"),
        ("--schedule x", "invalid choice 'x' for argument '--schedule'. Expected one of"),
    ],
)
def test_what_the_library_refuses_is_one_line(arguments: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError) as caught:
        train_flags(*arguments.split())
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert capfd.readouterr() == ("", "")


def test_values_are_checked() -> None:
    with pytest.raises(UserError, match="--max-steps 0: a number above 0"):
        train_flags("--max-steps", "0")


def test_input_without_a_file_is_refused() -> None:
    with pytest.raises(UserError, match="--input: no file named") as caught:
        read_flags(PREPROCESS_PRESETS, "Preprocess.", ["--input"])
    assert caught.value.exit_code == 2


def test_help_names_the_presets_and_the_one_whose_defaults_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        train_flags("demo", "--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"Presets, named first: {', '.join(TRAIN_PRESETS)}. The defaults below are those of 'demo'." in text
    assert "(default: 400)" in text  # its --max-steps


def test_like_answers_with_the_preset_that_the_script_makes_of_it_and_flags_win() -> None:
    seen = []

    def imitate(preset: TrainConfig, folder: Path, given: Set[str]) -> TrainConfig:
        seen.append((preset.out_dir, str(folder), sorted(given)))
        return dataclasses.replace(preset, max_steps=77, lr=0.5)

    for arguments in (["--like", "a b", "--lr", "0.25"], ["demo", "--like=a b", "--lr=0.25"], ["--lr", "0.25"]):
        config = read_flags(TRAIN_PRESETS, "", arguments, imitate)
        assert config.lr == 0.25
        assert (config.max_steps, config.like) == ((77, "a b") if len(arguments) > 2 else (20_000, ""))
    assert seen == [("out/xcoax", "a b", ["like", "lr"]), ("out/demo", "a b", ["like", "lr"])]


def test_help_asks_no_other_run(capsys: pytest.CaptureFixture[str]) -> None:
    def imitate(preset: TrainConfig, folder: Path, given: Set[str]) -> TrainConfig:
        raise UserError("there is no such run")

    with pytest.raises(SystemExit) as caught:
        read_flags(TRAIN_PRESETS, "", ["--like", "x", "--help"], imitate)
    assert caught.value.code == 0
    assert "--like" in capsys.readouterr().out


def test_a_folder_to_write_must_have_a_name() -> None:
    with pytest.raises(UserError, match="name the folder to write with --out-dir"):
        train_flags("--out-dir", "")
    with pytest.raises(UserError, match="name the folder to write with --data-dir"):
        read_flags(PREPROCESS_PRESETS, "", ["--data-dir", ""])


@pytest.mark.parametrize("arguments", [["xcoax", "evil\x1b]0;x\x07.pt"], ["--optimizer", "\x9b2J"], ["--lr", "\x1b[2J"], ["--no\x1b[2J"]])
def test_an_error_repeats_no_argument_that_drives_the_terminal(arguments: list[str]) -> None:
    result = call_script("train_xcoax.py", *arguments)
    assert result.returncode == 2
    assert "2J" in result.stderr or "evil" in result.stderr
    assert not set(result.stderr + result.stdout) & set("\x1b\x07\x9b")


def test_an_argument_with_a_control_character_arrives_as_it_is() -> None:
    assert train_flags("--sample-prompt", "a\x1b[1mb").sample_prompt == "a\x1b[1mb"
