"""Over training: what the numbered checkpoints of a run score on the same texts, pairs and tasks."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from config import EvaluateConfig
from evaluation.bootstrap import Estimate
from evaluation.evaluated_model import EvaluatedModel
from evaluation.held_out import HeldOutPairs, HeldOutTexts
from evaluation.hellaswag import WAYS, HellaSwagTask, measure_hellaswag
from evaluation.language import measure_language
from evaluation.ranking import measure_ranking
from evaluation.recovery import GAIN, OTHER, OWN, Recovery, measure_instructions
from evaluation.report import Curve, Picture, Section
from formats.checkpoint import NUMBERED, numbered_checkpoints
from system.amounts import amount
from system.errors import UserError

BITS, SHARE = "bits per byte", "share"
PICTURES = {BITS: "report_training_bits.png", SHARE: "report_training_shares.png"}
TITLES = {BITS: "What a byte costs over training", SHARE: "How often the right one is chosen over training"}
TOKENS = "training tokens"
Figures = dict[tuple[str, str], Estimate]  # by kind and name


def require_checkpoints(folder: Path) -> None:
    """Refuse a folder without numbered checkpoints."""
    if not numbered_checkpoints(folder):
        raise UserError(f"--over-training: no checkpoint like {NUMBERED.format(500)} in {folder}. Training keeps them with --keep-every")


def measure_trajectory(
    models: Iterable[EvaluatedModel],
    texts: Sequence[HeldOutTexts],
    pairs: HeldOutPairs | None,
    tasks: Sequence[HellaSwagTask],
    config: EvaluateConfig,
) -> tuple[Section, list[Picture]]:
    """A row for each checkpoint, and a picture for each kind of figure."""
    section = Section("Over training")
    curves: dict[str, dict[str, Curve]] = defaultdict(lambda: defaultdict(list))
    for model in models:
        figures = _figures(model, texts, pairs, tasks, config)
        section.columns = (TOKENS, *(f"{name}, {kind}" for kind, name in figures))
        section.rows[f"step {model.checkpoint.step:,}"] = (f"{model.checkpoint.tokens:,}", *figures.values())
        # Plain text costs a model more while it is tuned on pairs, as it should: beside the pairs that would look like a failure.
        hidden = {each.name for each in texts} if model.checkpoint.stage == "tuning" and pairs else set()
        for (kind, name), estimate in figures.items():
            if name not in hidden:
                curves[kind][name].append((model.checkpoint.tokens, estimate))
        if hidden:
            section.notes = ["Tuning on pairs makes a model worse at plain text, which is in the table and not in the picture."]
    return section, [Picture(PICTURES[kind], TITLES[kind], TOKENS, kind, curves[kind], x_scale="linear") for kind in curves]


def _figures(
    model: EvaluatedModel,
    texts: Sequence[HeldOutTexts],
    pairs: HeldOutPairs | None,
    tasks: Sequence[HellaSwagTask],
    config: EvaluateConfig,
) -> Figures:
    """The main figures of each section."""
    found: Figures = {}
    for each in texts:
        section, _ = measure_language([model], each.texts, each.name, "", config.stride, config.seed)
        found[BITS, each.name] = _estimate(section, model.name, 2)
    if pairs:
        recovery = Recovery(model, pairs.evaluated, config.seed)
        section = measure_instructions(recovery)
        found |= {(BITS, f"instructions, given {name}"): _estimate(section, name) for name in (OWN, OTHER) if name in section.rows}
        others = min(config.candidates)
        section, _ = measure_ranking(recovery, pairs.pool, (others,), config.ranked_pairs)
        if section.rows:
            found[SHARE, f"first among {amount(others, 'other')}"] = _estimate(section, f"{amount(others, 'other')}: {GAIN}")
    if tasks:
        section = measure_hellaswag([model], tasks, config.seed)
        found[SHARE, "HellaSwag"] = _estimate(section, model.name, list(WAYS).index("second part, per byte"))
    return found


def _estimate(section: Section, row: str, column: int = 0) -> Estimate:
    cell = section.rows[row][column]
    assert isinstance(cell, Estimate)
    return cell
