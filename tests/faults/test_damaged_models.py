"""Damaged models: a checkpoint is read with the very weights it was saved with, or refused; so are tokenizers and Hugging Face folders."""

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from exporting.hugging_face_export import write_hugging_face_folder
from formats.checkpoint import BEST, LAST, Checkpoint, load_checkpoint
from formats.hub_models import download_model
from formats.hugging_face import INDEX, OURS
from formats.named_model import load_named_model
from tests.faults.in_children import LONG, Start, counts, refused, try_each
from tests.faults.json_mutants import json_mutants
from tests.faults.mutants import Mutant, byte_mutants, ends, protobuf_places, safetensors_places, text_places, zip_places
from tests.faults.trials import Outcome
from tests.training.counting import make_trainer
from tokens.encoders import choose_encoder
from tokens.tokenizer import Tokenizer
from training.run import checkpoint_to_resume, is_finished

QUICK = 20
IDS = torch.arange(300, 308)[None]  # below the vocabulary
TEXT = "the cat, 日本\n é"
TENSORS: tuple[Callable[[torch.Tensor], Any], ...] = (
    *(torch.Tensor.long, torch.Tensor.half, torch.Tensor.bool, torch.flatten, torch.clone, torch.Tensor.to_sparse),
    *(
        lambda tensor: tensor.flatten()[:1],
        lambda tensor: tensor[..., None],
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: None,
    ),
    *(lambda tensor: torch.empty(0), lambda tensor: torch.zeros(()).expand(tensor.shape), lambda tensor: torch.tensor(1.0)),
)


def use(path: Path) -> None:
    """Load a model and compute with it."""
    checkpoint = load_named_model(str(path))
    assert checkpoint.fingerprint
    ids = IDS[:, : checkpoint.model_config.block_size]
    assert checkpoint.make_model(torch.device("cpu")).eval()(ids).shape[:2] == ids.shape


def are_same(found: Checkpoint, sound: Checkpoint) -> bool:
    """Whether two models are the same to the bit, and say the same about themselves."""
    names = ("model_config", "train_config", "stage", "must_match", "order", "step", "tokens", "val_loss", "resume_state")
    return (
        found.weights.keys() == sound.weights.keys()
        and all(torch.equal(value, sound.weights[name]) for name, value in found.weights.items())
        and all(repr(getattr(found, name)) == repr(getattr(sound, name)) for name in names)
        and found.tokenizer.model == sound.tokenizer.model
    )


@counts(QUICK)
def test_damaged_checkpoints(trials: Start, checkpoints: dict[str, Path], tmp_path: Path, count: int) -> None:
    """torch.load reads most of them as if nothing had happened."""
    sound = load_checkpoint(checkpoints["tuning"], mapped=False)
    path = tmp_path / "best_checkpoint.pt"

    def read(damaged: bytes) -> bool:
        path.write_bytes(damaged)
        if refused(lambda: load_checkpoint(path).make_model(torch.device("cpu")), path):
            return True
        found = load_checkpoint(path)  # the damage was in bytes that mean nothing, such as padding
        assert are_same(found, sound)
        return False

    content = checkpoints["tuning"].read_bytes()
    try_each(trials("damaged bytes in a checkpoint"), byte_mutants(content, zip_places(checkpoints["tuning"]), count), read)


def mutated_contents(content: dict[str, Any], count: int) -> Iterator[Mutant]:
    """The contents of a checkpoint with other values, names and tensors, as JSON in which names stand for tensors and bytes."""
    kept: list[Any] = []

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(name): named(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [named(inner) for inner in value]
        if isinstance(value, torch.Tensor | bytes):
            kept.append(value)
            return f"kept {len(kept) - 1} {len(TENSORS)}"
        return value

    yield from json_mutants(named(content), count)


def restored(text: bytes, content: dict[str, Any]) -> Any:
    """The value that a text of `mutated_contents` describes."""
    kept: list[Any] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict | list | tuple):
            for inner in value.values() if isinstance(value, dict) else value:
                collect(inner)
        elif isinstance(value, torch.Tensor | bytes):
            kept.append(value)

    def restore(value: Any) -> Any:
        if isinstance(value, dict):
            return {int(name) if name.isdecimal() else name: restore(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [restore(inner) for inner in value]
        if isinstance(value, str) and value.startswith("kept "):
            found = kept[int(value.split()[1])]
            return change(found) if found is changed else found
        return value

    collect(content)
    tensors = [value for value in kept if isinstance(value, torch.Tensor)]
    chosen = len(text) % (2 * len(tensors))
    changed: Any = tensors[chosen] if chosen < len(tensors) else restore  # which is none of them
    change = TENSORS[len(text) % len(TENSORS)]
    return restore(json.loads(text))


@pytest.mark.faults
def test_checkpoints_with_other_contents(trials: Start, dataset_folder: Path, tmp_path: Path) -> None:
    """Whole files, with right checksums, whose contents are wrong."""
    make_trainer(dataset_folder, tmp_path / "run", max_steps=2, eval_every=2).run()
    content = torch.load(tmp_path / "run" / LAST, weights_only=True)
    content["train_config"] |= {"hours": 1.0, "max_steps": 100}  # as of a run that was given hours
    content["plan"] = {"seconds": 1.0, "seconds_per_step": 0.1, "seconds_per_evaluation": 0.1}
    path = tmp_path / "mutant" / LAST
    path.parent.mkdir()
    torch.save(content, path)
    sound = load_checkpoint(path, mapped=False)

    def resume() -> None:
        trainer = make_trainer(dataset_folder, path.parent, hours=1.0)
        if (last := checkpoint_to_resume(trainer.config, trainer.task)) and not is_finished(trainer.config, last):
            trainer.resume(last)
            trainer.take_step(trainer.draw(0))
            trainer.read_steps()

    def read(text: bytes) -> Outcome:
        try:
            damaged = restored(text, content)
        except (ValueError, RecursionError):  # no Python value, so no checkpoint has it
            return Outcome.REFUSED
        torch.save(damaged, path)
        (path.parent / BEST).unlink(missing_ok=True)
        if refused(lambda: use(path)) | refused(resume):
            return Outcome.REFUSED
        return Outcome.RIGHT if are_same(load_checkpoint(path), sound) else Outcome.CHANGED

    # Fewer, since each is resumed; and longer, since torch reads a list of a million in seconds.
    try_each(trials("wrong contents in a checkpoint"), mutated_contents(content, LONG // 10), read, seconds=60)


def pieces(tokenizer: Tokenizer) -> list[object]:
    """All that a tokenizer knows of its ids, and what it makes of a text."""
    processor, ids = tokenizer.processor, range(tokenizer.vocab_size)
    facts = (processor.id_to_piece, processor.get_score, processor.is_control, processor.is_byte, processor.is_unknown)
    return [tokenizer.encode(TEXT), *([fact(id) for id in ids] for fact in facts)]


@counts(QUICK)
def test_damaged_tokenizers(trials: Start, dataset_folder: Path, count: int) -> None:
    content = (dataset_folder / "tokenizer.model").read_bytes()
    sound = pieces(Tokenizer(content))

    def read(damaged: bytes) -> int:
        def use_it() -> None:
            tokenizer = Tokenizer(damaged)
            assert len(tokenizer.bytes_per_id) == len(tokenizer.begins_word) == len(tokenizer.begins_word_or_punctuation)
            ids = tokenizer.encode(TEXT)
            assert all(0 <= id < tokenizer.vocab_size for id in ids)
            assert isinstance(tokenizer.decode(ids), str)
            choose_encoder(tokenizer, [TEXT, ""])

        if refused(use_it):
            return Outcome.REFUSED
        return Outcome.RIGHT if pieces(Tokenizer(damaged)) == sound else Outcome.CHANGED

    try_each(trials("damage in a tokenizer"), byte_mutants(content, {**ends(content), **protobuf_places(content)}, count), read)


@pytest.fixture(scope="module")
def exported(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder whose weights have an index."""
    folder = tmp_path_factory.mktemp("exported")
    write_hugging_face_folder(load_checkpoint(checkpoints["tuning"]), folder, torch.float32, "")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    tensors = load_file(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(tensors, "model-00001-of-00001.safetensors")}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("name", ["config.json", OURS, INDEX, "tokenizer.model", "model-00001-of-00001.safetensors"])
@counts(QUICK)
def test_damaged_hugging_face_folders(trials: Start, exported: Path, tmp_path: Path, name: str, count: int) -> None:
    folder = shutil.copytree(exported, tmp_path / "hf")
    content = (folder / name).read_bytes()
    sound = load_named_model(str(folder))

    def read(damaged: bytes) -> int:
        (folder / name).write_bytes(damaged)
        if refused(lambda: use(folder), folder):
            return Outcome.REFUSED
        return Outcome.RIGHT if are_same(load_named_model(str(folder)), sound) else Outcome.CHANGED

    assert read(content) == Outcome.RIGHT
    kind = trials("damage in a Hugging Face folder")
    if name.endswith(".json"):
        values = json_mutants(json.loads(content), count // 4, indent=1)  # each mutant takes 30 ms
        try_each(kind, chain(byte_mutants(content, text_places(content), count // 4), values), read)
    elif name.endswith(".model"):
        try_each(kind, byte_mutants(content, protobuf_places(content), count), read)
    else:
        try_each(kind, byte_mutants(content, safetensors_places(content), count), read)


@counts(QUICK)
def test_damaged_refs_of_the_hub_cache(trials: Start, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The file that says which commit a name stands for, where the hub cannot be reached."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef" * 2 + "01234567"
    repository = tmp_path / "models--owner--name"
    shutil.copytree(exported, repository / "snapshots" / commit)
    reference = repository / "refs" / "main"
    reference.parent.mkdir()

    def read(damaged: bytes) -> bool:
        reference.write_bytes(damaged)
        return refused(lambda: use(download_model("hf://owner/name")))

    assert not read(commit.encode())
    try_each(trials("damage in the cache of the hub"), byte_mutants(commit.encode(), ends(commit.encode()), count), read)
