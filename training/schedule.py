"""The learning rate of every step."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from config import LoopConfig
from training.time_plan import UNPLANNED

DEPENDS_ON = ("max_steps", "lr", "min_lr_share", "warmup_steps", "schedule", "cooldown_share")


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


def describe_longer_schedule(config: LoopConfig, was: Mapping[str, Any], step: int) -> str:
    """A line on what more steps than a run had (`was`, its recorded settings) mean for the learning rate; empty if there are no more."""
    before = dataclasses.replace(config, **{name: was[name] for name in DEPENDS_ON if name in was})
    if not before.max_steps < config.max_steps < UNPLANNED:
        return ""
    last, following = learning_rate(before, max(0, step - 1)), learning_rate(config, step)
    rate = f"rises again, from {last:.2e} to {following:.2e}" if following > last else f"goes on at {following:.2e}"
    return f"the schedule now ends at step {config.max_steps:,}, no longer at {before.max_steps:,}: the learning rate {rate}"
