"""Examples packed into sequences: none is lost, none attends to another, and the loss covers what it should."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config import IGNORE_INDEX, ModelConfig
from formats.batches import Batch
from formats.shards import Dataset, ShardWriter
from model import GPT
from tests.training.conftest import make_examples
from tokens.prompt_format import PromptFormat
from training.device_batch import batch_to_device
from training.examples import Example, Examples, PackedExamples, collate

SHAPE = ModelConfig(n_layer=2, n_head=2, n_embed=32, block_size=48, vocab_size=400)
LENGTHS = [(3, 5), (1, 2), (6, 1)]


@pytest.fixture(scope="module")
def model() -> GPT:
    """A model with random weights: initially the output of every block is zero."""
    torch.manual_seed(0)
    model = GPT(SHAPE)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def write_dataset(folder: Path, examples: list[Example]) -> Dataset:
    with ShardWriter(folder, "train_00000.bin") as writer:
        for example in examples:
            writer.append(example.ids.astype(np.uint16), 1, 1)
        [shard] = writer.finish()
    return Dataset(folder, {"vocab_size": 400, "shards": {"train": [dataclasses.asdict(shard)], "val": []}})


def loss_of(model: GPT, batch: Batch) -> torch.Tensor:
    loss: torch.Tensor = model(*batch_to_device(batch, torch.device("cpu")))
    return loss


def test_an_example_has_the_same_loss_alone_and_packed(prompt_format: PromptFormat, model: GPT) -> None:
    examples = make_examples(prompt_format, LENGTHS)

    def loss(sequences: list[list[Example]]) -> float:
        return loss_of(model, collate(sequences, SHAPE.block_size, 0, "instruction")).item()

    alone = sum(loss([[example]]) for example in examples)
    assert loss([examples]) == pytest.approx(alone, rel=1e-5)
    assert loss([examples[::-1]]) == pytest.approx(alone, rel=1e-5)
    assert loss([[examples[0]], examples[1:]]) == pytest.approx(alone, rel=1e-5)


def test_packed_examples_give_the_gradients_of_the_examples_alone(prompt_format: PromptFormat, model: GPT) -> None:
    examples = make_examples(prompt_format, LENGTHS)

    def gradient(sequences: list[list[Example]]) -> torch.Tensor:
        model.zero_grad()
        loss_of(model, collate(sequences, SHAPE.block_size, 0, "all")).backward()  # type: ignore[no-untyped-call]  # torch's gap
        grad = model.blocks[0].get_parameter("attention.query.weight").grad
        assert grad is not None
        return grad.clone()

    torch.testing.assert_close(gradient([examples]), sum((gradient([[example]]) for example in examples), torch.tensor(0.0)))


def test_no_example_attends_to_another(prompt_format: PromptFormat, model: GPT) -> None:
    batch = collate([make_examples(prompt_format, LENGTHS)], SHAPE.block_size, 0, "all")
    assert batch.segment_ids is not None
    segment_ids = torch.from_numpy(batch.segment_ids)
    changed = copy.deepcopy(batch)
    changed.inputs[batch.segment_ids == 1] += 7
    before, after = (model(torch.from_numpy(part.inputs), segment_ids=segment_ids).detach().numpy() for part in (batch, changed))
    unchanged = batch.segment_ids != 1
    np.testing.assert_array_equal(before[unchanged], after[unchanged])
    assert np.abs(before[~unchanged] - after[~unchanged]).max() > 0.1


def test_the_loss_covers_the_instruction_and_its_end(prompt_format: PromptFormat) -> None:
    [first, second] = make_examples(prompt_format, [(4, 3), (2, 2)])
    batch = collate([[first, second]], SHAPE.block_size, 0, "instruction", height=2)
    counted = batch.targets[0] != IGNORE_INDEX
    assert batch.targets[0][counted].tolist() == [*first.ids[-4:], *second.ids[-3:]]  # instruction and <|im_end|> of each
    assert batch.inputs[0, np.flatnonzero(counted)[0]] == prompt_format.before_instruction[-1]  # <|instruction|> predicts the first id
    assert (batch.targets[1] == IGNORE_INDEX).all()  # a sequence that only pads the batch


def test_with_loss_on_all_every_token_of_an_example_is_a_target(prompt_format: PromptFormat) -> None:
    [first, second] = make_examples(prompt_format, [(4, 3), (2, 2)])
    batch = collate([[first, second]], SHAPE.block_size, 0, "all")
    assert (batch.targets != IGNORE_INDEX).sum() == first.length + second.length == batch.tokens
    assert batch.tokens == collate([[first, second]], SHAPE.block_size, 0, "instruction", height=2).tokens
    # The last id of an example is a target and no input; the first id of the next is an input and no target.
    assert (batch.targets[0, first.length - 1], batch.inputs[0, first.length]) == (first.ids[-1], second.ids[0])


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 15)), min_size=1, max_size=40), st.integers(0, 3))
def test_an_epoch_has_every_example_once(
    prompt_format: PromptFormat, tmp_path_factory: pytest.TempPathFactory, lengths: list[tuple[int, int]], seed: int
) -> None:
    written = make_examples(prompt_format, lengths)
    examples = Examples(write_dataset(tmp_path_factory.mktemp("data"), written), "train", prompt_format)
    read = [examples[index] for index in range(len(examples))]
    assert [example.ids.tolist() for example in read] == [example.ids.tolist() for example in written]
    assert [example.prompt_length for example in read] == [example.prompt_length for example in written]
    assert examples.lengths.tolist() == [example.length for example in written]
    packed = PackedExamples(examples, SHAPE.block_size, 0, "all")
    for epoch in range(2):
        batch = packed.draw(seed, epoch * len(packed), len(packed))
        assert batch.segment_ids is not None
        found = []
        for inputs, targets, segment_ids in zip(batch.inputs, batch.targets, batch.segment_ids, strict=True):
            for number in range(segment_ids.max() + 1):
                place = segment_ids == number
                found.append([*inputs[place].tolist(), int(targets[place][-1])])
        assert sorted(found) == sorted(example.ids.tolist() for example in written)
