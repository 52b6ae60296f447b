"""Checking an exported folder: transformers must compute what we compute."""

import random
import warnings
from pathlib import Path
from typing import Any

import torch

from exporting.fast_tokenizer import stop_ids
from exporting.hugging_face_export import exported_weights
from formats.checkpoint import Checkpoint
from model import GPT
from sampling.engine import Engine, Request
from sampling.sampler import SamplingParams
from system.errors import UserError
from tokens.prompt_format import PromptFormat
from tokens.tokenizer import SPECIAL_TOKENS, Tokenizer

TOLERANCE = 1e-4  # of a logit, both in float32
RANDOM_TEXTS = 500
MAX_LENGTH = 2048  # tokens of a sequence whose logits are compared
ODD_TEXTS = (
    "",
    " ",
    "  two  spaces ",
    "\n\n\ta\tb\r\nc",
    "e\u0301 é ß İ ﬁ",
    "日本語 中文한국어",
    "العربية עברית हिन्दी ไทย",
    "😀👨\u200d👩\u200d👧 \ufe0f",
    "▁ ▁▁a",
    "\x00\x01\x7f\x85\xa0\u2028\u2029\ufeff\ufffd",
    "1234567890 3.14 1,000",
    "a" * 300,
    "=" * 81,
    "    " * 20 + "indented",
    "<pad><unk><0x0A>",
    "a<|im_end|>b <|im_start|> <|endoftext|",
    *SPECIAL_TOKENS,
)
GIVEN = ("The cat is sleeping.", "Both were happy. The end.", "Telegram", "There are eight nuts.", "1 2 3", "café 日本\nline two")


def check_with_transformers(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype) -> str:
    """Compare ids, logits and greedy texts; what was compared, as a sentence. A UserError if something differs."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings(action="ignore"):
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        their_model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        count = _compare_ids(checkpoint, theirs)
        model = _rounded_model(checkpoint, dtype)
        prompts = _prompts(checkpoint, theirs)
        difference = _compare_logits(checkpoint, model, their_model, prompts)
        _compare_greedy_texts(checkpoint, model, their_model, prompts)
    return (
        f"checked with transformers {transformers.__version__}: {count:,} texts have the same ids; in float32 logits differ by at most "
        f"{difference:.1e}, and {len(prompts)} greedy texts are equal"
    )


def _compare_ids(checkpoint: Checkpoint, theirs: Any) -> int:
    """How many texts were compared; none of them may give a special token."""
    tokenizer = checkpoint.tokenizer
    texts = [*ODD_TEXTS, *_random_texts(tokenizer)]
    for text in texts:
        ours, ids = tokenizer.encode(text), theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if ours != ids:
            raise _differs(f"the ids of {text!r} are {ids}, ours {ours}")
        if theirs.decode(ids) != tokenizer.decode(ours):
            raise _differs(f"the ids of {text!r} are decoded to {theirs.decode(ids)!r}")
    return len(texts)


def _random_texts(tokenizer: Tokenizer) -> list[str]:
    """Texts of pieces of the vocabulary in any order, repeated, next to characters that it lacks."""
    chooser = random.Random(0)
    pieces = [tokenizer.decode([id]) for id in range(tokenizer.vocab_size)]
    others = " \n\té中😀aaee.,<>|_0"
    return [
        "".join(chooser.choice(pieces) if chooser.random() < 0.8 else chooser.choice(others) * chooser.randint(1, 9) for _ in range(count))
        for count in (chooser.randint(1, 12) for _ in range(RANDOM_TEXTS))
    ]


def _prompts(checkpoint: Checkpoint, theirs: Any) -> list[list[int]]:
    """Prompts as another program makes them, each of which must be ours."""
    prompt_format = PromptFormat(checkpoint.tokenizer, checkpoint.order)
    prompts = []
    for text in GIVEN:
        ids = prompt_format.encode(text)
        given = prompt_format.tokenizer.decode(ids)  # in the model's order
        if checkpoint.stage == "tuning":
            ours = prompt_format.prompt(ids)
            made = theirs.apply_chat_template([{"role": "user", "content": given}], return_dict=True)["input_ids"]
        else:
            ours, made = [checkpoint.tokenizer.end_of_text, *ids], theirs(given)["input_ids"]
        if ours != made:
            raise _differs(f"the prompt for {text!r} is {made}, ours {ours}")
        prompts.append(ours)
    return [prompt for prompt in prompts if len(prompt) < checkpoint.model_config.block_size // 2] or [[checkpoint.tokenizer.end_of_text]]


def _rounded_model(checkpoint: Checkpoint, dtype: torch.dtype) -> GPT:
    """Our model with the weights that were exported, in float32."""
    model = checkpoint.make_model(torch.device("cpu")).float().eval()
    state = model.state_dict()
    for name, tensor in exported_weights(checkpoint, dtype).items():
        state[name][: len(tensor)] = tensor
    return model


@torch.inference_mode()
def _compare_logits(checkpoint: Checkpoint, model: GPT, theirs: Any, prompts: list[list[int]]) -> float:
    """The largest difference between logits, over prompts and over random ids that fill the context, up to a limit."""
    generator, config = torch.Generator().manual_seed(0), checkpoint.model_config
    filled = torch.randint(config.vocab_size, (1, min(config.block_size, MAX_LENGTH)), generator=generator)
    worst = 0.0
    for ids in [torch.tensor([prompt]) for prompt in prompts] + [filled]:
        worst = max(worst, float((model(ids) - theirs(ids).logits).abs().max()))
    if not worst <= TOLERANCE:  # NaN too
        raise _differs(f"logits differ by {worst:.2g}, more than {TOLERANCE:g}")
    return worst


@torch.inference_mode()
def _compare_greedy_texts(checkpoint: Checkpoint, model: GPT, theirs: Any, prompts: list[list[int]]) -> None:
    stops = stop_ids(checkpoint.tokenizer, checkpoint.stage)
    count = min(48, checkpoint.model_config.block_size // 2)
    ours: list[list[int]] = [[] for _ in prompts]
    requests = (Request(prompt, 1) for prompt in prompts)
    for event in Engine(model, len(prompts)).run(requests, SamplingParams(count, temperature=0), frozenset(stops)):
        ours[event.request] += [] if event.id is None else [event.id]
    for prompt, written in zip(prompts, ours, strict=True):
        output = theirs.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False)[0, len(prompt) :].tolist()
        kept = output[: next((place for place, id in enumerate(output) if id in stops), len(output))]
        if kept != written and not _is_tie(model, prompt, written, kept):
            raise _differs(f"after {prompt} the greedy ids are {kept}, ours {written}")


def _is_tie(model: GPT, prompt: list[int], written: list[int], others: list[int]) -> bool:
    """Whether two greedy texts part where two tokens are equally likely, as far as float32 can tell."""
    shared = next((place for place, (a, b) in enumerate(zip(written, others, strict=False)) if a != b), min(len(written), len(others)))
    best = model(torch.tensor([[*prompt, *written[:shared]]]))[0, -1].topk(2).values
    return bool(best[0] - best[1] < 2 * TOLERANCE)


def _differs(what: str) -> UserError:
    return UserError(
        f"the export was not kept: transformers computes something else with it. This is an error of ours, please report it; --no-verify "
        f"keeps the folder: {what}"
    )
