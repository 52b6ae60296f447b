"""Measure how fast a model generates on this machine, beside the limit of the machine. The weights are random.

    python benchmark_xcoax.py
    python benchmark_xcoax.py demo

The bound is the speed of the matrix-vector products of a token alone. All ratios are from the same run.
"""

from system.startup import run_script

import torch

from model import GPT
from presets import BENCHMARK_PRESETS
from sampling.benchmark import batch_rate, full_pass_seconds, random_model, single_speed
from sampling.inference_weights import prepare_for_inference
from system.command_line import read_flags
from system.device import choose_device, choose_dtype, device_name


def main() -> None:
    config = read_flags(BENCHMARK_PRESETS, __doc__)
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    torch.manual_seed(0)
    model = random_model(config.model, device)
    prompt = list(range(1, config.prompt_tokens + 1))
    print(f"{model.count_parameters() / 1e6:.1f} M parameters, {device_name(device)}, {torch.get_num_threads()} threads, {dtype}")
    print(f"prompt of {len(prompt)} tokens, {config.tokens} tokens generated; medians of {config.repeats} runs")
    uncached = full_pass_seconds(model, prompt, config.repeats)
    print(f"without a KV cache, a full pass for each token, {model.embedding.weight.dtype}: {1 / uncached:.1f} tokens/s")
    first_rate = 0.0
    for name, int8 in (("", False), ("int8, ", True)) if device.type == "cpu" else (("", False),):
        inference_model = prepare_for_inference(GPT(config.model), dtype, int8).to(device)
        single = single_speed(inference_model, prompt, config.tokens, config.repeats)
        first_rate = first_rate or single.rate
        print(
            f"one text, {name}{dtype}: {single.rate:.1f} tokens/s; {single.share:.0%} of the bound of {single.bound:.1f}; "
            f"{single.rate / first_rate:.2f} times the first, {single.rate * uncached:.1f} times the full pass"
        )
        if single.warning:
            print(single.warning)
        if not int8:
            batch = batch_rate(inference_model, prompt, config.tokens, config.rows, config.repeats)
            print(f"{config.rows} texts at once, {dtype}: {batch:.1f} tokens/s, {batch / single.rate:.1f} times one text")


if __name__ == "__main__":
    run_script(main)
