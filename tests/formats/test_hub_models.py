"""Models on a stand-in for the hub: downloaded once, read from the cache where the hub cannot be reached; every error in one line."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from exporting.hugging_face_export import write_hugging_face_folder
from formats.checkpoint import load_checkpoint
from formats.hub_models import download_model
from formats.named_model import load_named_model
from system.errors import UserError
from tests.preprocessing.hub_process import HubProcess, run_with_hub
from tests.preprocessing.hub_stand_in import HubStandIn, Trouble

NAME, WEIGHTS, REVISION = "hf://owner/name", "model.safetensors", "revision/main"

WRONG = [
    "hf://owner",
    "hf://o/n/../x",
    "hf:///x",
    "hf://",
    "hf://-a/b",
    "hf://a--b/c",
    "hf://o/n.git",
    "hf://o/n//etc/x.pt",
    "hf://o/n/*.pt",
]


@pytest.fixture(scope="module")
def server(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubStandIn]:
    folder = tmp_path_factory.mktemp("repository")
    write_hugging_face_folder(load_checkpoint(checkpoints["tuning"]), folder, torch.float32, "")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files |= dict.fromkeys(("best_checkpoint.pt", "run/best_checkpoint.pt"), checkpoints["pretraining"].read_bytes())
    with HubStandIn("owner/name", files, "models") as server:
        yield server


@pytest.fixture
def hub(server: HubStandIn) -> HubStandIn:
    server.heal()
    return server


@pytest.fixture(scope="module")
def process(server: HubStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(server.url, tmp_path_factory.mktemp("cache")) as process:
        yield process


def load_elsewhere(folder: str, name: str) -> list[str]:
    """The same in another current folder."""
    with contextlib.chdir(folder):
        return load(name)


def load(*names: str) -> list[str]:
    """What loading each model says: the stage of the model, after what was printed; or the error. The cache is empty at first."""
    outcomes = []
    for name in names:
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            try:
                outcome: str = load_named_model(name).stage
            except UserError as error:
                outcome = str(error)
        outcomes.append(printed.getvalue() + outcome)
    return outcomes


def downloads(hub: HubStandIn, name: str) -> int:
    return sum(request.method == "GET" and request.path.endswith(name) for request in hub.log)


def test_a_model_is_downloaded_once(hub: HubStandIn, process: HubProcess) -> None:
    assert process.call(load, NAME, NAME) == ["tuning", "tuning"]
    assert downloads(hub, WEIGHTS) == 1
    assert not any(request.path.endswith(("README.md", "reverse.py", ".pt")) for request in hub.log)  # of no use here


def test_the_copy_is_used_where_the_hub_cannot_be_reached(hub: HubStandIn, process: HubProcess) -> None:
    hub.troubles = [Trouble(REVISION, let_through=1, times=9)]
    first, second = process.call(load, NAME, NAME)
    assert first == "tuning"
    assert "cannot be reached" in second and second.endswith("using the copy that was downloaded earlier\ntuning")


def test_a_download_that_breaks_is_told_and_half_a_model_is_not_used(hub: HubStandIn, process: HubProcess) -> None:
    hub.troubles = [Trouble(WEIGHTS, after_bytes=1000, times=50, let_through=1)]  # the first is a HEAD
    [outcome] = process.call(load, NAME)
    assert (
        outcome.startswith("hf://owner/name cannot be downloaded (")
        and "no copy of it. Check the name, and run the same command again" in outcome
    )
    hub.heal()
    hub.troubles = [Trouble(WEIGHTS, after_bytes=1000, times=2, let_through=1)]
    assert process.call(load, NAME) == ["tuning"]  # the library resumes


def test_a_model_in_the_current_folder_is_not_taken_for_that_of_the_hub(
    hub: HubStandIn, process: HubProcess, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    write_hugging_face_folder(load_checkpoint(checkpoints["tuning"]), tmp_path, torch.float32, "")
    hub.gone = True
    assert process.call(load_elsewhere, str(tmp_path), NAME)[0].startswith("hf://owner/name cannot be downloaded (")


def test_a_checkpoint_in_a_repository_is_named_by_its_path(hub: HubStandIn, process: HubProcess) -> None:
    named = [f"{NAME}@main/run/best_checkpoint.pt", f"{NAME}/run/best_checkpoint.pt", f"{NAME}/best_checkpoint.pt", NAME]
    assert process.call(load, *named) == [*["pretraining"] * 3, "tuning"]  # what else is in the cache does not matter
    assert (downloads(hub, WEIGHTS), downloads(hub, ".pt")) == (1, 2)


def test_names_that_are_wrong_say_what_to_do(hub: HubStandIn, process: HubProcess) -> None:
    other, file, folder = process.call(load, "hf://owner/other", f"{NAME}/other.pt", f"{NAME}/docs/")
    assert "no such model on the hub" in other and "hf auth login" in other
    assert file == f"{NAME}/other.pt has no other.pt. Check the path"
    assert folder.endswith("give its path: hf://owner/name/docs/best_checkpoint.pt")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [(404, "RevisionNotFound", "there is no revision v9"), (403, "GatedRepo", "its owner decides who may read it")],
)
def test_refusals_of_the_hub_say_what_to_do(hub: HubStandIn, process: HubProcess, status: int, code: str, expected: str) -> None:
    hub.troubles = [Trouble("v9", status=status, headers={"X-Error-Code": code}, times=9)]
    assert expected in process.call(load, f"{NAME}@v9")[0]


def test_a_script_samples_from_a_model_of_the_hub(hub: HubStandIn, tmp_path: Path) -> None:
    flags = ["--response", "The cat", "--temperature", "0", "--max-new-tokens", "8"]
    result = run_with_hub(["sample_xcoax_instruct.py", NAME, *flags], hub.url, tmp_path)
    assert (result.returncode, result.stderr) == (0, "") and len(result.stdout) > 8


@pytest.mark.parametrize(
    "name",
    ["hf://owner", "hf://o/n/../x", "hf:///x", "hf://", "hf://-a/b", "hf://a--b/c", "hf://o/n.git", "hf://o/n//etc/x.pt", "hf://o/n/*.pt"],
)
def test_what_is_no_name_is_refused_without_a_request(name: str) -> None:
    with pytest.raises(UserError, match="a model on the hub is named hf://owner/name"):
        download_model(name)
