"""Token generation: ids in, ids out."""

from collections.abc import Iterator

import torch
from torch import Tensor

from model import GPT


@torch.no_grad()
def generate(
    model: GPT,
    prompt: list[int],
    max_new_tokens: int,
    stop: frozenset[int],
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int = 0,
) -> Iterator[int]:
    """Ids that follow the prompt, one at a time, up to one in `stop`, the number asked for, or the end of the context.

    Temperature 0 takes the likeliest id; top_k 0 leaves every id in play.
    """
    device = model.embedding.weight.device
    ids = torch.tensor([prompt], device=device)  # (1, T)
    for _ in range(min(max_new_tokens, model.config.block_size - len(prompt))):
        logits = model.forward(ids)[0, -1]  # (V); forward itself, not the call: a compiled model would compile for every length
        id = choose(logits, temperature, top_k, generator)
        if id in stop:
            return
        yield id
        ids = torch.cat((ids, torch.tensor([[id]], device=device)), dim=1)


def choose(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    """Draw one id from a row of logits (V)."""
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.float().cpu() / temperature  # drawn on the CPU, so that a seed means the same on every device
    if 0 < top_k < len(logits):
        logits = torch.where(logits < logits.topk(top_k).values[-1], -torch.inf, logits)
    return int(torch.multinomial(logits.softmax(dim=0), 1, generator=generator))
