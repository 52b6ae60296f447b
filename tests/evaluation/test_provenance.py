"""What a report says of how it was made."""

import dataclasses
import json
import shlex
from pathlib import Path

from config import EvaluateConfig
from evaluation.evaluated_model import EvaluatedModel
from evaluation.provenance import describe_provenance
from formats.shards import open_dataset
from tests.conftest import make_pairs
from tests.evaluation.conftest import evaluate_pairs


def test_the_data_of_training_and_of_the_flags_is_known_by_hash(bigram_model: EvaluatedModel, dataset_folder: Path) -> None:
    def with_record(name: str, **must_match: object) -> EvaluatedModel:
        return bigram_model._replace(name=name, checkpoint=dataclasses.replace(bigram_model.checkpoint, must_match=must_match))

    tuned = with_record("tuned", **{"the pairs": "3 (abc)", "--loss-on": "all"})
    models = [tuned, with_record("base", **{"the data": "9 (def)"}), with_record("old")]
    config = EvaluateConfig(data_dir=(str(dataset_folder),))
    found = describe_provenance(config, models)["data"]
    assert found == {"tuned": "3 (abc)", "base": "9 (def)", str(dataset_folder): open_dataset(dataset_folder).fingerprint}
    assert describe_provenance(EvaluateConfig(), models[2:])["data"] == {}


def test_it_is_in_the_report(bigram_model: EvaluatedModel, tmp_path: Path) -> None:
    result = evaluate_pairs(bigram_model.checkpoint.path, tmp_path, make_pairs(12))
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "card" / "report.json").read_text(encoding="utf-8"))
    assert shlex.split(report["command"])[:3] == ["python", "evaluate_xcoax.py", "--model-path"]
    assert report["versions"]["torch"] and "commit" in report
    assert next(iter(report)) == "tuned, backward"  # the model stays the first fact: the model card looks for it there
