"""Questions: which pairs they ask about, with which other instructions, and what each token sees."""

import dataclasses
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config import IGNORE_INDEX, FinetuneConfig, ModelConfig
from formats.batches import PADDING, Batch
from formats.shards import open_dataset
from model import GPT
from tests.conftest import call_script, fails_with, make_pairs, write_pairs
from tests.preprocessing.in_process import run_here
from tests.training.conftest import make_examples
from tests.training.runs import Run, assert_same_weights, resumed_step, start, tune, tuning_command, wait_for_step
from tests.training.test_examples import write_dataset
from tokens.prompt_format import PromptFormat
from training.contrast import answer_questions, share_of_right_answers
from training.device_batch import batch_to_device
from training.examples import Examples, PackedExamples
from training.metrics import read_metrics
from training.questions import BRANCHES, LONGEST, Questions, positions_and_mask
from training.step import Stepper

CONTEXT = 128
CONTRASTED = ("--contrast", 1, "--epochs", 6, "--eval-every", 10)


@pytest.fixture(scope="module")
def examples(pairs: Path, prompt_format: PromptFormat) -> Examples:
    return Examples(open_dataset(pairs, "pairs"), "train", prompt_format)


@pytest.fixture(scope="module")
def questions(examples: Examples, prompt_format: PromptFormat) -> Questions:
    return Questions(examples, prompt_format, CONTEXT)


def parts_of(batch: Batch, row: int) -> dict[int, tuple[list[int], list[int]]]:
    """The ids and the targets of a row by segment, without padding."""
    assert batch.segment_ids is not None
    segments = batch.segment_ids[row]
    return {
        segment: (batch.inputs[row][segments == segment].tolist(), batch.targets[row][segments == segment].tolist())
        for segment in dict.fromkeys(segments[segments != PADDING].tolist())
    }


def texts_of(batch: Batch, row: int) -> tuple[list[int], list[list[int]]]:
    """The response's prompt and the instructions."""
    parts = parts_of(batch, row)
    return parts[0][0], [targets for segment, (_, targets) in parts.items() if 0 < segment < BRANCHES]


def random_model(seed: int = 0, vocab_size: int = 400) -> GPT:
    torch.manual_seed(seed)
    model = GPT(ModelConfig(n_layer=2, n_head=2, n_embed=32, block_size=CONTEXT, vocab_size=vocab_size))
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def test_a_question_is_a_response_with_its_own_instruction_and_those_of_others(examples: Examples, questions: Questions) -> None:
    owners = {}
    for index in range(len(examples)):
        example = examples[index]
        owners[tuple(example.ids[example.prompt_length :].tolist())] = example.ids[: example.prompt_length - 1].tolist()
    batch = questions.draw(0, 0, 40)
    sizes = set()
    for row in range(40):
        response, instructions = texts_of(batch, row)
        assert owners[tuple(instructions[0])] == response
        assert all(owners[tuple(other)] != response for other in instructions[1:])
        assert len({tuple(instruction) for instruction in instructions}) == len(instructions) >= 2
        assert max(map(len, instructions)) <= CONTEXT // LONGEST
        sizes.add(len(instructions))
    assert max(sizes) > 2


def test_both_prompts_are_followed_by_the_same_instructions(questions: Questions, prompt_format: PromptFormat) -> None:
    batch = questions.draw(3, 5, 8)
    for row in range(8):
        parts = parts_of(batch, row)
        assert parts[BRANCHES][0] == prompt_format.prompt([])[:-1]
        assert set(parts[0][1]) == set(parts[BRANCHES][1]) == {IGNORE_INDEX}
        branches = [segment for segment in parts if 0 < segment < BRANCHES]
        for branch in branches:
            assert parts[branch] == parts[BRANCHES + branch]
            ids, targets = parts[branch]
            assert ids[0] == prompt_format.before_instruction[-1] and ids[1:] == targets[:-1]
            assert targets[-1] == prompt_format.after_instruction[-1]


@given(st.integers(0, 2**40), st.integers(0, 300), st.integers(1, 5))
def test_a_question_depends_on_the_seed_and_its_number_alone(questions: Questions, seed: int, first: int, count: int) -> None:
    whole, part = questions.draw(seed, first, count + 2), questions.draw(seed, first + 2, count)
    for name in ("inputs", "targets", "segment_ids"):
        np.testing.assert_array_equal(getattr(whole, name)[2:], getattr(part, name))


def test_every_pair_with_a_short_instruction_is_asked_about_once_in_an_epoch(examples: Examples, questions: Questions) -> None:
    assert examples.prompt_lengths.tolist() == [examples[index].prompt_length for index in range(len(examples))]
    lengths = examples.lengths + 1 - examples.prompt_lengths
    usable = int((lengths <= CONTEXT // LONGEST).sum())
    assert 2 < usable < len(examples)  # both kinds are there
    batch = questions.draw(1, 2 * usable, usable)  # the third epoch
    asked = Counter(tuple(texts_of(batch, row)[0]) for row in range(usable))
    assert sum(asked.values()) == len(asked) == usable


def test_a_long_response_loses_the_end_farthest_from_the_instruction(prompt_format: PromptFormat, tmp_path: Path) -> None:
    """And two of the longest instructions still fit beside it."""
    context = 64
    longest = context // LONGEST - len(prompt_format.after_instruction)
    made = make_examples(prompt_format, [(length, longest) for length in range(1, 60, 3)])
    examples = Examples(write_dataset(tmp_path, made), "train", prompt_format)
    batch = Questions(examples, prompt_format, context).draw(0, 0, len(made))
    whole = [example.ids[: example.prompt_length - 1].tolist() for example in made]
    begin = len(prompt_format.before_response)
    cut = 0
    for row in range(len(made)):
        response, instructions = texts_of(batch, row)
        assert len(instructions) >= 2
        if response not in whole:
            cut += 1
            assert response[:begin] == prompt_format.before_response
            assert any(ids[-len(response) + begin :] == response[begin:] for ids in whole)
    assert 0 < cut < len(made)


def test_answers_are_those_of_each_instruction_alone(questions: Questions) -> None:
    """Log P of each instruction after the response and after none, as a model gives it that reads nothing else."""
    model, batch = random_model(), questions.draw(0, 0, 6)
    with torch.no_grad():
        answers = answer_questions(model, *batch_to_device(batch, torch.device("cpu")))
    for row in range(6):
        parts = parts_of(batch, row)

        def nats(segment: int, parts: dict[int, tuple[list[int], list[int]]] = parts) -> float:
            prompt, (ids, targets) = parts[segment - segment % BRANCHES][0], parts[segment]
            with torch.no_grad():
                logits = model(torch.tensor([prompt + ids]))[0, len(prompt) :]
            return torch.nn.functional.cross_entropy(logits, torch.tensor(targets), reduction="sum").item()

        branches = [segment for segment in parts if 0 < segment < BRANCHES]
        scores = torch.tensor([nats(BRANCHES + branch) - nats(branch) for branch in branches])
        assert answers.nats[row].item() == pytest.approx(-scores.log_softmax(0)[0].item(), rel=1e-3, abs=1e-3)
        assert answers.nats_without_response[row].item() == pytest.approx(nats(BRANCHES + 1), rel=1e-4)
        assert answers.lead[row].item() == pytest.approx((scores[0] - scores[1:].max()).item(), rel=1e-3, abs=1e-3)


def test_a_token_sees_its_prompt_and_its_own_instruction_only() -> None:
    segment_ids = torch.tensor([[0, 0, 1, 1, 2, BRANCHES, BRANCHES + 1, BRANCHES + 2, BRANCHES + 2, PADDING]])
    positions, mask = positions_and_mask(segment_ids)
    assert positions[0, :9].tolist() == [0, 1, 2, 3, 2, 0, 1, 1, 2]
    sees = [set(mask[0, 0, token].nonzero().flatten().tolist()) for token in range(9)]
    assert sees == [{0}, {0, 1}, {0, 1, 2}, {0, 1, 2, 3}, {0, 1, 4}, {5}, {5, 6}, {5, 7}, {5, 7, 8}]
    assert mask[0, 0, 9].any()  # softmax over nothing would be NaN


def test_the_share_of_right_answers_does_not_depend_on_the_batches(questions: Questions) -> None:
    model = random_model(1)
    shares = [
        share_of_right_answers(model, [questions.draw(0, first, min(size, 30 - first)) for first in range(0, 30, size)], torch.float32)
        for size in (1, 7, 30)
    ]
    assert shares[0] == shares[1] == shares[2] and 0 < shares[0] < 1


@pytest.fixture(scope="module")
def contrasted(base: Path, short_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "contrasted"
    result = tune(base, short_pairs, out, *CONTRASTED)
    assert result.returncode == 0, result.stderr
    return Run(out, result.stdout)


def test_tuning_with_contrast_finds_more_instructions(base: Path, short_pairs: Path, contrasted: Run, tmp_path: Path) -> None:
    rows = [row for row in read_metrics(contrasted.folder) if "val_loss" in row]
    assert "true instruction first " in contrasted.printed and "; questions about " in contrasted.printed
    assert rows[-1]["true_instruction_first"] > rows[0]["true_instruction_first"]
    plain = tune(base, short_pairs, tmp_path / "plain", "--epochs", 6, "--eval-every", 10)
    assert plain.returncode == 0 and "true instruction first" not in plain.stdout
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]


@pytest.mark.long
def test_it_resumes_with_the_same_weights(base: Path, short_pairs: Path, contrasted: Run, tmp_path: Path) -> None:
    command = tuning_command(base, short_pairs, tmp_path, *CONTRASTED)
    process = start(command)
    wait_for_step(process, 5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert resumed_step(call_script(*command)) >= 5
    assert_same_weights(tmp_path, contrasted.folder)


def test_a_step_adds_the_gradients_of_the_questions(examples: Examples, questions: Questions, prompt_format: PromptFormat) -> None:
    """In however many micro-batches, and none without weight."""
    sequences = PackedExamples(examples, CONTEXT, prompt_format.tokenizer.end_of_text, "instruction")
    batch = dataclasses.replace(sequences.draw(0, 0, 4), questions=questions.draw(0, 0, 4))
    assert batch.questions is not None
    targets = int((batch.targets != IGNORE_INDEX).sum())
    config, cpu = FinetuneConfig(batch_size=4), torch.device("cpu")
    found = []
    for weight in (0.0, 3.0):
        model = random_model().train()
        answers = answer_questions(model, *batch_to_device(batch.questions, cpu))
        alone = model(*batch_to_device(dataclasses.replace(batch, questions=None), cpu))
        ((alone + answers.nats_without_response.sum()) / targets + weight * answers.nats.mean()).backward()
        wanted = [parameter.grad for parameter in model.parameters()]
        for micro_batch in (4, 2, 1, 3):
            stepper = Stepper(config, random_model(), cpu, torch.float32, print, question_weight=weight)
            stepper.micro_batch = micro_batch
            loss = stepper.accumulate_gradients(batch, targets)
            assert loss.item() == pytest.approx(alone.item() / targets, rel=1e-5)  # the printed loss is that of the instructions
            for parameter, gradient in zip(stepper.model.parameters(), wanted, strict=True):
                torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)
        found.append(wanted[0])
    assert found[0] is not None and found[1] is not None and not torch.allclose(found[0], found[1], rtol=0.01)


def test_the_logits_of_all_sequences_never_exist_at_once(questions: Questions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.contrast.CHUNK_ROWS_CPU", 2 * CONTEXT)
    sizes = []
    logits = GPT.logits

    def counted(self: GPT, states: torch.Tensor) -> torch.Tensor:
        sizes.append(len(states))
        return logits(self, states)

    monkeypatch.setattr(GPT, "logits", counted)
    answer_questions(random_model(), *batch_to_device(questions.draw(0, 0, 5), torch.device("cpu"))).nats.sum().backward()  # type: ignore[no-untyped-call]  # torch's gap
    assert set(sizes) == {1, 2}


def test_a_question_with_one_instruction_does_not_count(questions: Questions) -> None:
    batch = questions.draw(0, 0, 2)
    assert batch.segment_ids is not None
    others = (batch.segment_ids[0] % BRANCHES > 1) & (batch.segment_ids[0] != PADDING)
    batch.segment_ids[0][others], batch.targets[0][others] = PADDING, IGNORE_INDEX
    leads = answer_questions(random_model(), *batch_to_device(batch, torch.device("cpu"))).lead
    assert leads[0] == torch.inf and leads[1].isfinite()
    assert share_of_right_answers(random_model(), [batch], torch.float32) == float(leads[1] > 0)


def test_one_instruction_for_all_pairs_is_refused(base: Path, tmp_path: Path) -> None:
    rows = [{"instruction": "Say it", "output": row["output"]} for row in make_pairs(60)]
    flags = ["--tokenizer", base, "--vocab-size", 400, "--block-size", 64, "--val-share", 0.2]
    made = run_here("preprocess_instruct.py", "--input", write_pairs(tmp_path / "one.jsonl", rows), "--data-dir", tmp_path / "data", *flags)
    assert made.returncode == 0, made.stderr
    fails_with(tune(base, tmp_path / "data", tmp_path / "out", "--contrast", 1), 2, "--contrast: the training pairs have no two different")


def test_flags_that_cannot_be(base: Path, pairs: Path, tmp_path: Path) -> None:
    fails_with(tune(base, pairs, tmp_path, "--contrast", -1), 2, "--contrast -1.0: from 0 to 100")
    fails_with(tune(base, pairs, tmp_path, "--contrast", 1, "--shard"), 2, "--contrast and --shard: use only one")
