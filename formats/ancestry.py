"""What a training began with: the model that was tuned or trained on, if it is still where it was."""

from formats.checkpoint import Checkpoint
from formats.hub_models import is_on_hub
from formats.named_model import load_named_model
from system.errors import UserError

MOST_STAGES = 8  # trainings of a model, one after the other


def began_with(checkpoint: Checkpoint) -> Checkpoint | None:
    """The model that a training began with; None if it began with random weights. A UserError if it is gone or was replaced."""
    flag, recorded = ("model_path", "the pretrained checkpoint") if checkpoint.stage == "tuning" else ("init_from", "the first weights")
    name = checkpoint.train_config.get(flag)
    if not name:
        return None
    if not isinstance(name, str) or is_on_hub(name):
        raise UserError(f"{checkpoint.path} began with {name}, which is not looked up")
    earlier = load_named_model(name)
    was = checkpoint.must_match.get(recorded, earlier.fingerprint)  # an earlier version did not record it
    if earlier.fingerprint != was:
        raise UserError(f"{checkpoint.path} began with {name} at {was}; there is another model now, of {earlier.fingerprint}")
    return earlier


def stages_of(checkpoint: Checkpoint) -> list[Checkpoint]:
    """The checkpoint and the models before it, as far as they are there."""
    stages = [checkpoint]
    try:
        while len(stages) < MOST_STAGES and (earlier := began_with(stages[-1])):
            stages.append(earlier)
    except UserError:
        pass
    return stages
