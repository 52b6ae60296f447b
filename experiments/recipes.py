"""The recipes that are compared: the published one, ours, each idea of ours alone, and ours without it."""

from presets import rate_at_width

CONTEXT = 256
EVALUATION_TOKENS = 1 << 16

PUBLISHED = {  # its shape of schedule; the rate suits a small model, and a step is 4,096 tokens
    "optimizer": "adamw",
    "lr": "1e-3",
    "schedule": "cosine",
    "min-lr-share": "0.1",
    "beta2": "0.95",
    "batch-size": "16",
}
MUON = {"optimizer": "muon", "lr": "5e-3"}
IDEAS = {  # what each changes; those after the first need Muon
    "muon": MUON,
    "rates": {"adamw-lr": "2e-2"},
    "momentum": {"momentum": "0.9"},
    "beta2": {"beta2": "0.99"},
    "schedule": {"schedule": "wsd", "min-lr-share": "0", "cooldown-share": "0.6"},
    "batch": {"batch-size": "8"},
}


def _with(ideas: list[str]) -> dict[str, str]:
    return {name: value for idea in ideas for name, value in IDEAS[idea].items()}


RECIPES = {
    "published": PUBLISHED,
    "published-3e-3": PUBLISHED | {"lr": "3e-3"},  # a fairer opponent: the best rate of its own
    "fast": PUBLISHED | _with(list(IDEAS)),
    "muon": PUBLISHED | MUON,
    **{f"muon+{idea}": PUBLISHED | MUON | change for idea, change in IDEAS.items() if idea != "muon"},
    "fast-muon": PUBLISHED | _with(["schedule", "batch", "beta2"]) | {"lr": "3e-3"},
    **{f"fast-{left_out}": PUBLISHED | _with([idea for idea in IDEAS if idea != left_out]) for left_out in IDEAS if left_out != "muon"},
}


def flags_of(recipe: str, width: int, tokens: int, evaluations: int) -> list[str]:
    """The flags of train_xcoax.py that train for so many tokens, with evaluations at equal distances.

    With Muon the rates fall with the root of the width, as those of the preset xcoax-fast do.
    """
    settings = RECIPES[recipe]
    if settings["optimizer"] == "muon":
        settings = settings | {name: str(rate_at_width(width, float(settings[name]))) for name in ("lr", "adamw-lr") if name in settings}
    steps = max(1, tokens // (CONTEXT * int(settings["batch-size"])))
    run = {
        "block-size": CONTEXT,
        "grad-accum": 1,
        "max-steps": steps,
        "warmup-steps": steps // 20,
        "eval-every": max(1, steps // evaluations),
        "eval-tokens": EVALUATION_TOKENS,
        "sample-tokens": 0,
    }
    return [part for name, value in (settings | run).items() for part in (f"--{name}", str(value))] + ["--no-compile"]
