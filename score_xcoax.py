"""Score with BackChat: how likely is an instruction, given a response? For pairs, or to sort several answers to one instruction.

    python score_xcoax.py --pairs pairs.jsonl --output scored.jsonl
    python score_xcoax.py --rerank answers.jsonl --output best.jsonl

--pairs writes each pair with log P(instruction | response).

--rerank reads rows with an `instruction` and its `answers`, and writes them best first. The score of an answer is log P(instruction |
answer), divided by the tokens of the instruction with its end. Where the row has `logprobs`, the log-probabilities of whole answers under
the model that wrote them, each is divided by the tokens of its answer in our tokenizer and added. So neither part grows with length.

You can stop the work at any time; run the same command again to resume.
"""

from system.startup import run_script

from presets import SCORE_PRESETS
from sampling.file_jobs import run_file_job
from sampling.loading import load_model, require_tuned
from sampling.pair_scores import pair_scores_job
from sampling.reranking import reranking_job
from sampling.scoring import Scorer
from system.command_line import read_flags
from system.device import explain_out_of_memory
from tokens.prompt_format import PromptFormat


def main() -> None:
    config = read_flags(SCORE_PRESETS, __doc__)
    checkpoint, model = load_model(config, "tuning")
    require_tuned(checkpoint)
    make_job = pair_scores_job if config.pairs else reranking_job
    job = make_job(config.pairs or config.rerank, Scorer(model, config.batch_size), PromptFormat(checkpoint.tokenizer, checkpoint.order))
    with explain_out_of_memory(f"Try a --batch-size below {config.batch_size}, or --device cpu"):
        run_file_job(job._replace(encoding=config.encoding), checkpoint, model, config.output)


if __name__ == "__main__":
    run_script(main)
