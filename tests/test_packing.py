"""Whole examples in rows: none is lost, none sees another, and the loss counts what it should."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config import IGNORE, ModelConfig
from errors import UserError
from layout import Layout
from model import GPT, part_rows
from packing import Example, Examples, PackedRows, lay, mismatched, pack, strangers
from shards import PADDING, Dataset, ShardWriter
from tokenizer import Tokenizer

SHAPE = ModelConfig(n_layer=2, n_head=2, n_embed=32, block_size=48, vocab_size=400)


@pytest.fixture(scope="module")
def layout(dataset_folder: Path) -> Layout:
    return Layout(Tokenizer.load(dataset_folder), "backward")


@pytest.fixture(scope="module")
def model() -> GPT:
    """A model whose blocks do something: at the start what leaves a branch is zero."""
    torch.manual_seed(0)
    model = GPT(SHAPE)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def make_examples(layout: Layout, lengths: list[tuple[int, int]], seed: int = 0) -> list[Example]:
    """Pairs of so many ids of response and instruction."""
    source = np.random.default_rng(seed)
    low = 300  # ids of pieces of text
    found = []
    for response, instruction in lengths:
        texts = [source.integers(low, 400, size=count).astype(np.uint16) for count in (response, instruction)]
        ids = layout.pair(*texts).astype(np.int64)
        found.append(Example(ids, len(layout.begin) + response + len(layout.between)))
    return found


def write_dataset(folder: Path, examples: list[Example], documents: int = 0, vocab_size: int = 400) -> Dataset:
    with ShardWriter(folder, "train_00000.bin") as writer:
        for example in examples:
            writer.append(example.ids.astype(np.uint16), 1, 1)
        [shard] = writer.finish()
    shard = dataclasses.replace(shard, documents=documents or shard.documents)
    return Dataset(folder, {"vocab_size": vocab_size, "shards": {"train": [dataclasses.asdict(shard)], "val": []}})


def sum_of_loss(model: GPT, rows: list[list[Example]]) -> float:
    packed = lay(rows, SHAPE.block_size, 0, "instruction")
    assert packed.examples is not None
    with torch.no_grad():
        loss: torch.Tensor = model(*(torch.from_numpy(array) for array in (packed.inputs, packed.targets, packed.examples)))
    return loss.item()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=300))
def test_packing_loses_nothing_and_keeps_within_bounds(lengths: list[int]) -> None:
    rows = pack(lengths, 50)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    loads = [sum(lengths[index] for index in row) for row in rows]
    assert max(loads) <= 50
    assert len(rows) < 2 or sum(sorted(loads)[:2]) > 50  # no two rows could have been one


def test_the_best_fit_is_taken() -> None:
    assert pack([6, 5, 4, 3], 10) == [[0, 2], [1, 3]]  # the 4 goes beside the 6, though the 5 has room for it too
    assert pack([13, 10, 8, 2], 20) == [[0], [1, 2, 3]]  # the first that has room would be the row of the 13
    assert pack([10, 10, 1], 10) == [[0], [1], [2]]
    with pytest.raises(AssertionError, match="does not fit"):
        pack([11], 10)


def test_an_example_has_the_same_loss_alone_and_packed(layout: Layout, model: GPT) -> None:
    examples = make_examples(layout, [(3, 5), (1, 2), (6, 1)])
    alone = [sum_of_loss(model, [[example]]) for example in examples]
    assert sum_of_loss(model, [examples]) == pytest.approx(sum(alone), rel=1e-5)
    assert sum_of_loss(model, [examples[::-1]]) == pytest.approx(sum(alone), rel=1e-5)
    assert sum_of_loss(model, [[examples[0]], examples[1:]]) == pytest.approx(sum(alone), rel=1e-5)


def test_no_example_sees_into_another(layout: Layout, model: GPT) -> None:
    examples = make_examples(layout, [(3, 5), (1, 2), (6, 1)])
    rows = lay([examples], SHAPE.block_size, 0, "all")
    changed = copy.deepcopy(rows)
    assert rows.examples is not None
    changed.inputs[rows.examples == 1] += 7
    first, second = (
        model(torch.from_numpy(part.inputs), examples=torch.from_numpy(rows.examples)).detach().numpy() for part in (rows, changed)
    )
    others = rows.examples != 1
    np.testing.assert_array_equal(first[others], second[others])
    assert np.abs(first[~others] - second[~others]).max() > 0.1


def test_the_gradients_are_those_of_the_examples_alone(layout: Layout, model: GPT) -> None:
    examples = make_examples(layout, [(3, 5), (1, 2), (6, 1)])

    def gradient(rows: list[list[Example]]) -> torch.Tensor:
        packed = lay(rows, SHAPE.block_size, 0, "all")
        assert packed.examples is not None
        model.zero_grad()
        model(*(torch.from_numpy(array) for array in (packed.inputs, packed.targets, packed.examples))).backward()
        grad = model.blocks[0].get_parameter("attention.query.weight").grad
        assert grad is not None
        return grad.clone()

    torch.testing.assert_close(gradient([examples]), sum((gradient([[example]]) for example in examples), torch.tensor(0.0)))


def test_positions_and_mask_of_a_row() -> None:
    positions, mask = part_rows(torch.tensor([[0, 0, 1, 1, 1, PADDING]]))
    assert positions.tolist() == [[0, 1, 0, 1, 2, 0]]
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_the_loss_is_on_the_instruction_and_its_end(layout: Layout) -> None:
    [example, other] = make_examples(layout, [(4, 3), (2, 2)])
    rows = lay([[example, other]], SHAPE.block_size, 0, "instruction", height=2)
    learnt = [ids.tolist() for ids in (example.ids[-4:], other.ids[-3:])]  # the instruction and the mark at its end
    assert rows.targets[0][rows.targets[0] != IGNORE].tolist() == learnt[0] + learnt[1]
    first = int(np.flatnonzero(rows.targets[0] != IGNORE)[0])
    assert rows.inputs[0, first] == layout.between[-1]  # the mark <|instruction|> foretells the first id
    assert (rows.targets[1] == IGNORE).all()  # a row that only fills the batch
    everything = lay([[example, other]], SHAPE.block_size, 0, "all")
    assert (everything.targets != IGNORE).sum() == example.length + other.length == everything.tokens == rows.tokens
    assert (everything.targets[0, example.length - 1], everything.inputs[0, example.length]) == (example.ids[-1], other.ids[0])


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 15)), min_size=1, max_size=40), st.integers(0, 3))
def test_an_epoch_has_every_example_once(
    layout: Layout, tmp_path_factory: pytest.TempPathFactory, lengths: list[tuple[int, int]], seed: int
) -> None:
    examples = make_examples(layout, lengths)
    read = Examples(write_dataset(tmp_path_factory.mktemp("data"), examples), "train", layout)
    with pytest.raises(UserError, match="damaged"):
        Examples(write_dataset(tmp_path_factory.mktemp("data"), examples, documents=len(examples) + 1), "train", layout)
    with pytest.raises(UserError, match="damaged"):
        Examples(write_dataset(tmp_path_factory.mktemp("data"), examples, vocab_size=300), "train", layout)
    assert [example.ids.tolist() for example in (read[index] for index in range(len(read)))] == [e.ids.tolist() for e in examples]
    assert [read[index].prompt for index in range(len(read))] == [example.prompt for example in examples]
    rows = PackedRows(read, SHAPE.block_size, 0, "all")
    for epoch in range(2):
        drawn = rows.draw(seed, epoch * len(rows), len(rows))
        assert drawn.examples is not None
        found = []
        for row in range(len(rows)):
            for number in range(drawn.examples[row].max() + 1):
                place = drawn.examples[row] == number
                found.append([*drawn.inputs[row][place].tolist(), int(drawn.targets[row][place][-1])])
        assert sorted(found) == sorted(example.ids.tolist() for example in examples)


def test_the_same_response_is_no_mismatch(layout: Layout) -> None:
    examples = make_examples(layout, [(2, 1)] * 9)
    for index, example in enumerate(examples):
        example.ids[len(layout.begin) : example.prompt - len(layout.between)] = 300 + max(0, index - 3)  # four share theirs
    others = mismatched(examples, strangers([example.ids[: example.prompt].tobytes() for example in examples], 0), len(layout.begin), 48)
    for example, other in zip(examples, others, strict=True):
        assert other.ids[: other.prompt].tolist() != example.ids[: example.prompt].tolist()
        assert other.ids[other.prompt :].tolist() == example.ids[example.prompt :].tolist()


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 15)), min_size=2, max_size=20))
def test_mismatched_pairs_have_every_instruction_and_nobodys_own_response(layout: Layout, lengths: list[tuple[int, int]]) -> None:
    examples = make_examples(layout, lengths)
    begin, last = len(layout.begin), len(layout.between) + 1
    for index, example in enumerate(examples):
        example.ids[example.prompt - last] = 300 + index  # the word nearest to the instruction tells the responses apart
    block_size = max(example.length for example in examples)
    others = mismatched(examples, strangers([example.ids[: example.prompt].tobytes() for example in examples], 1), begin, block_size)
    for example, other in zip(examples, others, strict=True):
        source = examples[other.ids[other.prompt - last] - 300]
        assert source is not example
        assert other.ids[other.prompt :].tolist() == example.ids[example.prompt :].tolist()
        assert other.length <= block_size
        assert other.ids[:begin].tolist() == layout.begin
        response = other.ids[begin : other.prompt].tolist()
        assert source.ids[begin : source.prompt].tolist()[-len(response) :] == response
    assert len({int(other.ids[other.prompt - last]) for other in others}) == len(examples)
