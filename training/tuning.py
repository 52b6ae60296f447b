"""Tuning on instruction pairs as a training task: the loss covers the instruction, given its response."""

import dataclasses
import math
from pathlib import Path

from config import FinetuneConfig
from formats.batches import SHUFFLE, Batch, BatchSeries, evenly_spaced
from formats.checkpoint import Checkpoint
from formats.packing import pack
from formats.shards import SPLITS, Dataset, open_dataset
from model import GPT
from sampling.engine import Engine
from sampling.generation import ResponsePrompter, generate_texts
from sampling.sampler import SamplingParams
from system.amounts import amount
from system.device import choose_dtype
from system.errors import BAD_FLAGS, UserError
from system.ranks import Ranks
from tokens.prompt_format import PromptFormat
from training.contrast import share_of_right_answers
from training.copying import copying_controls
from training.examples import Example, Examples, PackedExamples, collate
from training.questions import Questions
from training.shuffled_responses import assign_other_responses, with_other_responses
from training.task import Batches, TrainingTask

SHOWN_PAIRS = 3
SHOWN_CHARACTERS = 200  # of each text
SHOWN_TOKENS = 64  # of each instruction
HELD_OUT_QUESTIONS = 200  # in an evaluation


class Tuning:
    """The pairs of a data folder, made ready to tune the model of a checkpoint."""

    def __init__(self, config: FinetuneConfig, base: Checkpoint, dataset: Dataset) -> None:
        if config.dropout is not None:
            base = dataclasses.replace(base, model_config=dataclasses.replace(base.model_config, dropout=config.dropout))
        self.base = base
        self.dataset = dataset
        self.block_size = base.model_config.block_size
        self.prompt_format = PromptFormat(base.tokenizer, base.order)
        train, val = (Examples(dataset, split, self.prompt_format) for split in SPLITS)
        self.sequences = PackedExamples(train, self.block_size, base.tokenizer.end_of_text, config.loss_on)
        self.pairs = len(train)
        self.padding = 1 - train.lengths.sum() / (len(self.sequences) * self.block_size)
        self.questions, self.held_out_questions = (
            Questions(examples, self.prompt_format, self.block_size) if config.contrast else None for examples in (train, val)
        )
        if self.questions and not self.questions.are_possible:
            raise UserError(
                f"--contrast: the training pairs have no two different instructions of at most {self.questions.longest} tokens, an "
                "eighth of the context, with different responses. Leave --contrast out, or tune a model with a longer context",
                BAD_FLAGS,
            )
        self.held_out = [val[index] for index in evenly_spaced(len(val), config.eval_pairs).tolist()]
        max_steps = math.ceil(config.epochs * len(self.sequences) / config.sequences_per_step)
        warmup_steps = min(config.warmup_steps, max_steps // 10)
        self._given_warmup_steps = config.warmup_steps
        self.config = dataclasses.replace(config, model=base.model_config, max_steps=max_steps, warmup_steps=warmup_steps)

    def describe_data(self) -> str:
        """How many pairs there are and how often the run will see them."""
        config, count = self.config, len(self.sequences)
        by_epochs = f"{amount(config.epochs, 'epoch')}, {amount(config.max_steps, 'step')}"
        steps = f"{amount(config.hours, 'hour')} of steps" if config.hours else by_epochs
        text = (
            f"{amount(self.pairs, 'pair')} packed into {amount(count, 'sequence')} of {self.block_size} tokens, "
            f"{self.padding:.1%} padding; {steps} of {amount(config.sequences_per_step, 'sequence')}"
        )
        if self.questions:
            text += f"; questions about {len(self.questions):,} of the pairs, with instructions of at most {self.questions.longest} tokens"
        made_for = self.dataset.meta["settings"]["block_size"]
        if made_for < self.block_size:
            text += f"; the pairs were cut for a context of {made_for}, though this model has a larger one"
        if count < config.sequences_per_step:
            text += f"; fewer sequences than one step takes: try --batch-size {max(1, count // 8)} and more --epochs"
        return text

    def task(self) -> TrainingTask:
        """The task for the training loop."""
        prompts = [example.ids[: example.prompt_length].tobytes() for example in self.held_out]
        others = assign_other_responses(prompts, self.config.seed)
        shuffled = with_other_responses(self.held_out, others, len(self.prompt_format.before_response), self.block_size)
        controls = {"responses shuffled": self._batches_of(shuffled)} if len(set(prompts)) > 1 else {}
        return TrainingTask(
            stage="tuning",
            tokenizer=self.base.tokenizer,
            order=self.base.order,
            draw=self._draw,
            validation=self._batches_of(self.held_out),
            sample=self._sample,
            figures=self._answer_held_out_questions,
            question_weight=self.config.contrast,
            controls=controls | copying_controls(self.base.tokenizer, self.block_size, packed=True),
            must_match={
                **SHUFFLE,
                "the pretrained checkpoint": self.base.fingerprint,
                "--loss-on": self.config.loss_on,
            },
            data={"the pairs": f"{self.pairs:,} ({self.dataset.fingerprint})", "--eval-pairs": self.config.eval_pairs},
            data_fingerprint=self.dataset.fingerprint,
            given={"warmup_steps": self._given_warmup_steps},
        )

    def _draw(self, first: int, count: int) -> Batch:
        batch = self.sequences.draw(self.config.seed, first, count)
        return dataclasses.replace(batch, questions=self.questions.draw(self.config.seed, first, count)) if self.questions else batch

    def _answer_held_out_questions(self, model: GPT, step: int, batch_size: int, ranks: Ranks) -> dict[str, float]:
        questions = self.held_out_questions
        if not ranks.is_first or questions is None or not questions.are_possible:
            return {}
        dtype = choose_dtype(self.config.dtype, model.embedding.weight.device)
        count = min(HELD_OUT_QUESTIONS, self.config.eval_pairs)
        starts = range(0, count, batch_size)
        batches = [questions.draw(0, first, min(batch_size, count - first)) for first in starts]
        return {"true instruction first": share_of_right_answers(model, batches, dtype)}

    def _batches_of(self, examples: list[Example]) -> Batches:
        """The examples packed into sequences, always the same; the loss covers the instructions."""
        packed = pack([example.length for example in examples], self.block_size)
        sequences = [[examples[index] for index in sequence] for sequence in packed]
        filler = self.base.tokenizer.end_of_text

        def batches(batch_size: int) -> BatchSeries:
            parts = [sequences[start : start + batch_size] for start in range(0, len(sequences), batch_size)]
            # Every batch has one shape, so that a compiled model is compiled once.
            return BatchSeries(len(parts), lambda number: collate(parts[number], self.block_size, filler, "instruction", batch_size))

        return batches

    def _sample(self, model: GPT, step: int) -> str:
        """Held-out responses from short to long, each with the generated instruction and the true one."""
        lines = []
        distinct = {example.ids[: example.prompt_length].tobytes(): example for example in self.held_out}
        by_length = sorted(distinct.values(), key=lambda example: example.prompt_length)
        prompter = ResponsePrompter(self.prompt_format, self.block_size)
        for index in (evenly_spaced(len(by_length), SHOWN_PAIRS) + len(by_length) // (2 * SHOWN_PAIRS)).tolist():
            example = by_length[index]
            response = self.prompt_format.decode(example.ids[: example.prompt_length])
            true = self.prompt_format.decode(example.ids[example.prompt_length :])
            [(generated, _)] = generate_texts(Engine(model), prompter, [response], SamplingParams(SHOWN_TOKENS, temperature=0))
            for name, text in (("response", response), ("generated", generated), ("true", true)):
                shown = " ".join(text.split())
                lines.append(f"{name + ':':10} {shown[:SHOWN_CHARACTERS]}" + (" ..." if len(shown) > SHOWN_CHARACTERS else ""))
        return "\n".join(lines)


def open_tuning_data(config: FinetuneConfig, base: Checkpoint) -> Dataset:
    """The pairs to learn, made with the tokenizer and in the word order of the checkpoint, none too long for it."""
    dataset = open_dataset(Path(config.data_dir), "pairs", check_hashes=config.verify)
    context = base.model_config.block_size
    flags = f"--tokenizer {base.path} --order {base.order} --block-size {context}"
    way_out = (
        f"Name the model they were made for with --model-path, or make them again: python preprocess_instruct.py {flags} --data-dir ..."
    )
    if dataset.meta["tokenizer_sha256"] != base.tokenizer.sha256:
        raise UserError(
            f"the pairs in {config.data_dir} were made with tokenizer {dataset.meta['tokenizer_sha256'][:12]} ({dataset.vocab_size} ids), "
            f"{base.path} has tokenizer {base.tokenizer.sha256[:12]} ({base.tokenizer.vocab_size} ids). {way_out}",
            BAD_FLAGS,
        )
    if dataset.order != base.order:
        raise UserError(
            f"the pairs in {config.data_dir} are {dataset.order}, the model of {base.path} is {base.order}. {way_out}", BAD_FLAGS
        )
    made_for = dataset.meta["settings"]["block_size"]
    if made_for > context:
        raise UserError(
            f"the pairs in {config.data_dir} were made for a context of {made_for} tokens, {base.path} has {context}. {way_out}", BAD_FLAGS
        )
    return dataset
