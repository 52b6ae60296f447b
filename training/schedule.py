"""The learning rate of every step."""

import math

from config import LoopConfig


def learning_rate(config: LoopConfig, step: int) -> float:
    """The learning rate of a step, from 0 to max_steps - 1. It is above zero in each; the floor would be reached at max_steps.

    The warmup may be longer than the run: then the rate never reaches its peak.
    """
    left = max(0, config.max_steps - step)
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "wsd":
        cooldown = config.cooldown_share * config.max_steps
        share = min(1.0, left / cooldown) if cooldown else 1.0
    else:
        after_warmup = config.max_steps - config.warmup_steps
        share = 0.5 - 0.5 * math.cos(math.pi * min(1.0, left / after_warmup)) if after_warmup > 0 else 1.0
    return config.lr * min(warmup, config.min_lr_share + (1 - config.min_lr_share) * share)
