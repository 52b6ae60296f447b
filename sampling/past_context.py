"""Generating on when the context is full: the model reads again only the nearest half of what stands."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from sampling.engine import Engine, Request, TokenEvent
from sampling.sampler import SamplingParams


def generate_past_context(
    engine: Engine, request: Request, params: SamplingParams, stop_ids: frozenset[int], crop: Callable[[list[int]], list[int]]
) -> Iterator[TokenEvent]:
    """The events of a request, whose texts end at a stop token or after max_new_tokens, however long the context is.

    `crop` gives the prompt to go on with, for the ids of a prompt and what was generated from it; an empty one if the text ends there.
    """
    prompts = {sample: list(request.prompt) for sample in range(request.samples)}
    requests, samples, round_number = [request], list(range(request.samples)), 0
    while samples:
        generated = dict.fromkeys(samples, 0)
        full = []
        for event in engine.run(requests, params, stop_ids):
            sample = event.sample if not round_number else samples[event.request]
            if event.id is not None:
                prompts[sample].append(event.id)
                generated[sample] += 1
            reason = event.finish_reason
            if reason == "context" and generated[sample] and (cropped := crop(prompts[sample])):
                prompts[sample] = cropped
                full.append(sample)
                reason = None
            if event.id is not None or reason:
                yield event._replace(request=0, sample=sample, finish_reason=reason)
        # All of them began with prompts of one length, so they are full after the same number of tokens.
        samples, round_number = full, round_number + 1
        if samples:
            params = replace(params, max_new_tokens=params.max_new_tokens - generated[samples[0]])
        # Another round draws other random numbers.
        requests = [Request(prompts[sample], seed_key=round_number * len(prompts) + sample) for sample in samples]
