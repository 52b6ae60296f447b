"""The model card: the README.md of an exported folder, which says first that the text is backwards."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from config import PATHS, EvaluateConfig, ModelConfig
from formats.ancestry import stages_of
from formats.checkpoint import Checkpoint
from formats.hugging_face import ARCHITECTURES
from model import GPT
from system.files import write_bytes, write_text

LOADING = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

path = "."  # this folder, or the name of this model on the hub
tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
"""
REVERSE = 'reverse_words = lambda text: "\\n".join(" ".join(line.split(" ")[::-1]) for line in text.split("\\n")[::-1])\n'
WHAT_IT_DOES = {
    (
        "tuning",
        "backward",
    ): "It reads a response in reverse and writes the instruction that could have led to it, also in reverse.",
    ("pretraining", "backward"): "It reads an ending in reverse and writes what led there, from the last word to the first.",
    ("tuning", "forward"): "It reads a response and writes the instruction that could have led to it.",
    ("pretraining", "forward"): "It continues a text. It is the twin of a model that writes backwards, to compare with.",
}
FACTS = "library_name: transformers\npipeline_tag: text-generation\ntags:\n- backgpt\n"
RECIPE = (
    "optimizer",
    "lr",
    "adamw_lr",
    "schedule",
    "batch_size",
    "grad_accum",
    "max_steps",
    "epochs",
    "hours",
    "loss_on",
    "contrast",
    "seed",
)
SHOWN_FILES = 3
PLACES = (*PATHS, "pairs_dir", "text", "pairs", "against")
HELLASWAG = EvaluateConfig.hellaswag  # a data set on the hub
ANY_PATH = r"(?:/[^/\s|`\"'<>]+){2,}"  # of an absolute path two names or more
LIMITS = """\
- A small model: fluent is not the same as true. Nothing it writes is a fact, and it was not trained to be safe or polite.
- It knows only what its training text taught it; it writes best in the language and the style of that text.
"""
MARKERS = """\
`<|endoftext|>`, `<|im_start|>`, `<|im_end|>` and the others are special tokens, which no text could contain in training. transformers,
vLLM and llama.cpp read them in any text unless told otherwise; in transformers, `split_special_tokens=True` keeps them text.
"""
BY_HAND = "`to_prompt_ids` in `reverse.py` makes a prompt in which whatever a response spells stays text.\n"
CITATION = """\
@misc{backgpt2024,
  author    = {Isaac Clarke and Theo Papatheodorou},
  title     = {BackChat: When AI Learns Language in Reverse},
  note      = {13th Conference on Computation, Communication, Aesthetics \\& X (xCoAx 2025), Dundee, Scotland},
  publisher = {xcoax},
  year      = {2025}
}
"""


def write_model_card(checkpoint: Checkpoint, folder: Path, license: str) -> None:
    """Write README.md, and copy the pictures that it shows."""
    stages = stages_of(checkpoint)
    is_backward = checkpoint.order == "backward"
    name = "BackChat" if checkpoint.stage == "tuning" else "BackGPT"
    kind = "the text is backwards" if is_backward else "the forward twin"
    warning = "**This model reads and writes text backwards.** " if is_backward else ""
    how = (
        "The last five lines reverse what goes in and what comes out; `reverse.py` has them for any engine:"
        if is_backward
        else "To use it:"
    )
    parts = [
        f"---\nlicense: {json.dumps(license or 'unknown', ensure_ascii=False)}\n{FACTS}---\n",
        f"# {name}: {kind}\n",
        f"{warning}{WHAT_IT_DOES[checkpoint.stage, checkpoint.order]} {how}\n",
        _code(LOADING + "\n" + _five_lines(checkpoint)),
        "## Model\n",
        _describe_model(checkpoint),
        "## Data and recipe\n",
        *_describe_training(stages),
        "## Measured results\n",
        _results(stages, folder),
        "## Limits\n",
        LIMITS,
        "## Special tokens\n",
        MARKERS + (BY_HAND if is_backward and checkpoint.stage == "tuning" else ""),
        "## License and citation\n",
        f"License: {license or 'not stated by whoever exported this model'}. Please cite the published project, whose idea this is:\n",
        _code(CITATION, "bibtex"),
    ]
    write_text(folder / "README.md", "\n".join(parts))


def _code(lines: str, language: str = "python") -> str:
    return f"```{language}\n{lines}```\n"


def _five_lines(checkpoint: Checkpoint) -> str:
    """The lines that go from a text to a text; a test runs them as they stand."""
    is_backward = checkpoint.order == "backward"
    tokens = min(100, checkpoint.model_config.block_size // 2)
    first, turn = (REVERSE, "reverse_words({})".format) if is_backward else ("", "{}".format)
    if checkpoint.stage == "tuning":
        given = turn('"The cat is sleeping."')
        return (
            f'{first}messages = [{{"role": "user", "content": {given}}}]\n'
            'prompt = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)\n'
            f"output = model.generate(**prompt, max_new_tokens={tokens}, do_sample=False)[0, prompt.input_ids.shape[1] :]\n"
            f"print({turn('tokenizer.decode(output, skip_special_tokens=True)')})\n"
        )
    given = turn('"Both were happy. The end."' if is_backward else '"Once upon a time"')
    return (
        f'{first}prompt = tokenizer({given}, return_tensors="pt")\n'
        f"output = model.generate(**prompt, max_new_tokens={tokens})[0]\n"
        "text = tokenizer.decode(output, skip_special_tokens=True)\n"
        f"print({turn('text')})\n"
    )


def _describe_model(checkpoint: Checkpoint) -> str:
    config: ModelConfig = checkpoint.model_config
    architecture, _ = ARCHITECTURES[config.qk_norm]
    with torch.device("meta"):  # without memory
        parameters = GPT(config).count_parameters()
    return (
        f"{architecture}, {parameters / 1e6:,.1f} M parameters: {config.n_layer} layers, {config.n_head} heads, {config.n_embed} wide, "
        f"context {config.block_size:,} tokens, vocabulary {config.vocab_size:,} (SentencePiece BPE with byte fallback).\n"
    )


def _describe_training(stages: Sequence[Checkpoint]) -> Iterator[str]:
    """A paragraph for each stage that is known, the last one first."""
    for stage in stages:
        what = "Tuned" if stage.stage == "tuning" else "Trained"
        loss = f"{stage.val_loss:.4f} nats per token" if math.isfinite(stage.val_loss) else "unknown"
        settings = stage.train_config
        yield f"{what} on {_describe_data(settings)}: step {stage.step:,}, {stage.tokens:,} tokens, validation loss {loss}.\n"
        unused = {"epochs": settings.get("hours"), "contrast": not settings.get("contrast")}  # of --epochs and --hours the time decides
        rows = [f"| `{name}` | {settings[name]} |" for name in RECIPE if settings.get(name) is not None and not unused.get(name)]
        if rows:
            yield "\n".join(["| setting | value |", "|---|---|", *rows]) + "\n"
        if stage is not stages[-1]:
            yield "It began with this model:\n"
        elif stage.stage == "tuning":
            yield f"The pretrained model ({stage.must_match.get('the pretrained checkpoint', 'unknown')}) was not there any more.\n"


def _describe_data(settings: dict[str, Any]) -> str:
    """The source as the meta.json of the data folder names it; or the name of that folder, if it is no longer there."""
    if not isinstance(settings.get("data_dir"), str):
        return "data that this folder does not name"
    folder = Path(settings["data_dir"])
    made_from = _read_object(folder / "meta.json").get("settings")
    if not isinstance(made_from, dict):
        return f"`{folder.name}`"
    files = made_from.get("input")
    if names := [str(name).partition(" (")[0] for name in files] if isinstance(files, list) else []:
        return ", ".join(names[:SHOWN_FILES]) + (f" and {len(names) - SHOWN_FILES} more files" if len(names) > SHOWN_FILES else "")
    dataset = str(made_from.get("dataset", folder.name))
    return f"{without_folders(dataset, [dataset] if dataset.startswith('/') else [])} {made_from.get('subset', '')}".strip()


def _read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is none, since a card says what it can."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def without_folders(text: str, known: Iterable[str] = ()) -> str:
    """The text with the last name of each absolute path instead of the path, which only this machine has. A known path may have spaces."""
    paths = [re.escape(path) for path in sorted(known, key=len, reverse=True)]
    return re.sub(rf"(?<![\w.:/<~-])(?:{'|'.join([*paths, ANY_PATH])})", lambda found: Path(found[0]).name, text)


def _results(stages: Sequence[Checkpoint], folder: Path) -> str:
    """The tables and pictures of a report card beside the checkpoint, or of a comparison there, if it is of this very checkpoint."""
    checkpoint = stages[0]
    missing = "Not measured: `evaluate_xcoax.py` had not been run when this model was exported.\n"
    for source in (checkpoint.folder, *sorted(path.parent for path in checkpoint.folder.glob("*/report.json"))):
        facts, path = _read_object(source / "report.json"), source / "report.md"
        if not facts or not path.is_file():
            continue
        report = path.read_text(encoding="utf-8", errors="replace")
        if f"step {checkpoint.step:,}, {checkpoint.tokens:,} tokens seen" not in str(next(iter(facts.values()), "")):
            missing = "Not measured: the report beside the checkpoint is of another one.\n"
            continue
        for picture in re.findall(r"\]\((report_\w+\.png)\)", report):
            if (source / picture).is_file():
                write_bytes(folder / picture, (source / picture).read_bytes())
        _, heading, sections = report.partition("\n## ")
        return without_folders(heading + sections, _known_paths(facts, stages)).replace("\n## ", "\n### ").lstrip()
    return missing


def _known_paths(facts: dict[str, Any], stages: Sequence[Checkpoint]) -> list[str]:
    """What settings name as a place of this machine."""
    settings = [each for each in (facts.get("settings"), *(stage.train_config for stage in stages)) if isinstance(each, dict)]
    values = [each[name] for each in settings for name in PLACES if name in each]
    named = [name for value in values for name in (value if isinstance(value, list | tuple) else [value]) if isinstance(name, str)]
    return [name for name in named if "/" in name and "://" not in name and name != HELLASWAG]
