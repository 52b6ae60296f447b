"""Token generation: ids in, ids out; and the same for a person, text in, text out."""

from collections.abc import Iterator

import torch
from torch import Tensor

from model import GPT
from text import Order, arrange
from tokenizer import Tokenizer


@torch.no_grad()
def generate(
    model: GPT,
    prompt: list[int],
    max_new_tokens: int,
    stop: frozenset[int],
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int = 0,
    first: Tensor | None = None,
) -> Iterator[int]:
    """Ids that follow the prompt, one at a time, up to one in `stop`, the number asked for, or the end of the context.

    Temperature 0 takes the likeliest id; top_k 0 leaves every id in play; `first` (V) says which ids may come first.
    """
    device = model.embedding.weight.device
    ids = torch.tensor([prompt], device=device)  # (1, T)
    for step in range(min(max_new_tokens, model.config.block_size - len(prompt))):
        logits = model.forward(ids)[0, -1].cpu()  # (V); forward itself, not the call: compiled, it would compile for every length
        if step == 0 and first is not None:
            logits = logits.masked_fill(~first, -torch.inf)
        id = choose(logits, temperature, top_k, generator)
        if id in stop:
            return
        yield id
        ids = torch.cat((ids, torch.tensor([[id]], device=device)), dim=1)


def choose(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    """Draw one id from a row of logits (V) on the CPU, so that a seed means the same on every device."""
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.float() / temperature
    if 0 < top_k < len(logits):
        logits = torch.where(logits < logits.topk(top_k).values[-1], -torch.inf, logits)
    return int(torch.multinomial(logits.softmax(dim=0), 1, generator=generator))


def write(
    model: GPT, tokenizer: Tokenizer, order: Order, given: str, max_new_tokens: int, generator: torch.Generator, temperature: float
) -> str:
    """What the model makes of a given ending (of a beginning, if it writes forwards), with it, in the order a person reads."""
    prompt = [tokenizer.end_of_text, *tokenizer.encode(arrange(given, order))][-model.config.block_size // 2 :]  # room to write in
    # The given words are whole: what comes first must not grow on to the outermost of them.
    first = torch.from_numpy(tokenizer.begins_word) if given else None
    stop = frozenset([tokenizer.end_of_text])
    model.eval()
    ids = list(generate(model, prompt, max_new_tokens, stop, generator, temperature, first=first))
    return arrange(tokenizer.decode(prompt + ids), order)
