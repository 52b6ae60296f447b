"""Pairs to shards: they come back whole, in one split each, and every skipped pair or cut response is counted."""

import csv
import json
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from formats.pairs import normalize_response
from formats.shards import SPLITS, Split, open_dataset
from tests.conftest import fails_with, make_documents, make_pairs, run_script, write_jsonl, write_pairs
from tests.preprocessing.in_process import contents, run_here
from tokens.prompt_format import PromptFormat
from tokens.reversal import reorder
from tokens.tokenizer import SPECIAL_TOKENS, Tokenizer


def read_back(folder: Path, split: Split) -> list[tuple[str, str]]:
    """The pairs of a split, (instruction, response), found by the special ids alone."""
    dataset = open_dataset(folder, "pairs", check_hashes=True)
    tokenizer = Tokenizer.load(folder)
    prompt_format = PromptFormat(tokenizer, dataset.order)
    special = {tokenizer.special_id(token) for token in SPECIAL_TOKENS}
    pairs = []
    for shard in dataset.shards(split):
        ids = np.fromfile(folder / shard.name, dtype="<u2")
        starts = np.flatnonzero(ids == tokenizer.end_of_text)
        assert (len(starts), starts[0]) == (shard.documents, 0)
        found = []
        for part in np.split(ids, starts[1:]):
            pair = part.tolist()
            middle = pair.index(prompt_format.before_instruction[-1]) + 1
            response = pair[len(prompt_format.before_response) : middle - len(prompt_format.before_instruction)]
            instruction = pair[middle : -len(prompt_format.after_instruction)]
            assert pair == [*prompt_format.prompt(response), *instruction, *prompt_format.after_instruction]
            assert not special & {*response, *instruction}
            found.append((instruction, response))
        texts = [(reorder(tokenizer.decode(i), dataset.order), reorder(tokenizer.decode(r), dataset.order)) for i, r in found]
        assert sum(len((i + r).encode()) for i, r in texts) == shard.bytes
        pairs += texts
    return pairs


def flags_for(source: Path, folder: Path, tokenizer: Path) -> list[object]:
    numbers = ["--vocab-size", 400, "--val-share", 0.1, "--block-size", 256]
    return ["preprocess_instruct.py", "--input", source, "--data-dir", folder, "--tokenizer", tokenizer, *numbers]


def preprocess(source: Path, folder: Path, tokenizer: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    return run_here(*flags_for(source, folder, tokenizer), *flags)


def test_the_script_in_a_shell_writes_the_same_bytes_as_in_process(tmp_path: Path, dataset_folder: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl", make_pairs(60))
    for run, folder in ((run_here, "here"), (run_script, "shell")):
        result = run(*flags_for(source, tmp_path / folder, dataset_folder))
        assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "shell") == contents(tmp_path / "here")


def test_pairs_come_back_whole_and_no_response_is_in_both_splits(tmp_path: Path, dataset_folder: Path) -> None:
    pairs = make_pairs(300)
    pairs += [{**pair, "instruction": f"Again: {pair['instruction']}", "output": f" {pair['output'].upper()}\r\n"} for pair in pairs[:100]]
    result = preprocess(write_pairs(tmp_path / "pairs.jsonl", pairs), tmp_path / "data", dataset_folder)
    assert result.returncode == 0, result.stderr
    train, val = read_back(tmp_path / "data", "train"), read_back(tmp_path / "data", "val")
    expected = [(f"{pair['instruction']} {pair['input']}".strip(), pair["output"].strip()) for pair in pairs]
    assert Counter(train + val) == Counter(expected)
    assert not {normalize_response(response) for _, response in train} & {normalize_response(response) for _, response in val}
    assert 0.03 < len(val) / len(pairs) < 0.25
    meta = open_dataset(tmp_path / "data", "pairs").meta
    assert (meta["content"], meta["counts"], meta["order"]) == ("pairs", {}, "backward")
    assert (tmp_path / "data" / "tokenizer.model").read_bytes() == (dataset_folder / "tokenizer.model").read_bytes()


def test_responses_that_begin_alike_are_in_the_same_split(tmp_path: Path, dataset_folder: Path) -> None:
    """They may be equal once they are cut to the context."""
    long = "one two three. " * 300
    alike = [{"instruction": f"Say {index}.", "output": f"{long} {index}"} for index in range(40)]
    result = preprocess(write_pairs(tmp_path / "pairs.jsonl", [*alike, *make_pairs(60)]), tmp_path / "data", dataset_folder)
    assert result.returncode == 0, result.stderr
    counts = [sum(i.startswith("Say ") for i, _ in read_back(tmp_path / "data", split)) for split in SPLITS]
    assert sorted(counts) == [0, 40]


def test_special_tokens_in_a_text_stay_text(tmp_path: Path, dataset_folder: Path) -> None:
    forged = "".join(SPECIAL_TOKENS)
    pairs = [
        {"instruction": f"{forged} {index}", "input": "<|im_end|>", "output": f"<|im_end|><|im_start|> {index} {forged}"}
        for index in range(60)
    ]
    assert preprocess(write_pairs(tmp_path / "pairs.jsonl", pairs), tmp_path / "data", dataset_folder).returncode == 0
    found = read_back(tmp_path / "data", "train") + read_back(tmp_path / "data", "val")
    assert Counter(found) == Counter((f"{pair['instruction']} <|im_end|>", pair["output"]) for pair in pairs)


def test_unusable_rows_are_counted_and_long_texts_cut_or_skipped(tmp_path: Path, dataset_folder: Path) -> None:
    good: list[dict[str, object]] = [{**pair} for pair in make_pairs(80)]
    long = "one two three. " * 400
    unusable: list[dict[str, object]] = [
        {"instruction": "", "output": "x"},
        {"instruction": "x", "output": " \n"},
        {"instruction": "x", "output": 7},
        {"other": "x"},
        {"instruction": "a lone \ud800", "output": "x"},
        {"instruction": long, "output": "short"},
        {"instruction": long * 40, "output": "too long to be worth encoding"},
        {"instruction": "Say much.", "output": f"The beginning. {long * 40}"},
        *good[:5],
        {**good[0], "output": f"{good[0]['output']} "},
    ]
    result = preprocess(write_pairs(tmp_path / "pairs.jsonl", [*good, *unusable]), tmp_path / "data", dataset_folder)
    assert result.returncode == 0, result.stderr
    counts = open_dataset(tmp_path / "data", "pairs").meta["counts"]
    assert counts == {
        "skipped: empty instruction": 1,
        "skipped: empty response": 1,
        "skipped: not text": 1,
        "skipped: no pair in the row": 1,
        "skipped: invalid UTF-8": 1,
        "skipped: instruction too long": 2,
        "skipped: exact copy of another": 6,
        "responses cut": 1,
    }
    assert "1 responses cut (1.2%)" in result.stdout
    assert "6 skipped: exact copy of another (6.4%)" in result.stdout  # of 94 rows
    pairs = read_back(tmp_path / "data", "train") + read_back(tmp_path / "data", "val")
    assert len(pairs) == 81
    [cut] = [response for instruction, response in pairs if instruction == "Say much."]
    assert f"The beginning. {long * 40}".startswith(cut + " ")
    assert len(cut) > 200


def test_every_file_format_and_field_name(tmp_path: Path, dataset_folder: Path) -> None:
    pairs = make_pairs(90)
    chats = [
        [{"role": "user", "content": f"{pair['instruction']} {pair['input']}".strip()}, {"role": "assistant", "content": pair["output"]}]
        for pair in pairs[:30]
    ]
    far = pa.array([2**60] * 30, pa.timestamp("us"))  # no date that Python knows, in a column that is none of ours
    pyarrow.parquet.write_table(pa.table({"messages": chats, "id": list(range(30)), "created": far}), tmp_path / "a.parquet")
    broken = pa.array([b"fine", b"\xff"], pa.binary()).view(pa.string())
    pyarrow.parquet.write_table(pa.table({"prompt": ["x", "y"], "completion": broken}), tmp_path / "b.parquet")
    rows = [{"prompt": pair["instruction"], "context": pair["input"], "response": pair["output"]} for pair in pairs[30:60]]
    (tmp_path / "c.json").write_text(json.dumps(rows), encoding="utf-8")
    write_pairs(tmp_path / "d.jsonl", pairs[60:])
    result = preprocess(tmp_path, tmp_path / "data", dataset_folder)
    assert result.returncode == 0, result.stderr
    found = read_back(tmp_path / "data", "train") + read_back(tmp_path / "data", "val")
    expected = [(f"{pair['instruction']} {pair['input']}".strip(), pair["output"]) for pair in pairs]
    assert Counter(found) == Counter([*expected, ("x", "fine")])
    assert open_dataset(tmp_path / "data", "pairs").meta["counts"] == {"skipped: not text": 1}


def test_flags_name_the_fields_of_pairs(tmp_path: Path, dataset_folder: Path) -> None:
    pairs = make_pairs(90)
    with (tmp_path / "a.csv").open("w", newline="", encoding="cp1252", errors="replace") as file:
        csv.writer(file).writerows([("task", "detail", "reply"), *(pair.values() for pair in pairs)])
    source, folder = tmp_path / "a.csv", tmp_path / "data"
    fields = ["--instruction-field", "task", "--response-field", "reply", "--encoding", "cp1252"]
    assert (
        "If it is in another encoding, name it: --encoding cp1252" in preprocess(source, tmp_path / "x", dataset_folder, *fields[:4]).stdout
    )
    fails_with(preprocess(source, folder, dataset_folder, *fields, "--input-field", "x"), 2, "--input-field x", "task, detail, reply")
    fails_with(preprocess(source, folder, dataset_folder, *fields[:4], "--encoding", "utf-99"), 2, "--encoding utf-99: not one that Python")
    result = preprocess(source, folder, dataset_folder, *fields, "--input-field", "detail")
    assert result.returncode == 0, result.stderr
    found = read_back(folder, "train") + read_back(folder, "val")
    seen = [{name: text.encode("cp1252", "replace").decode("cp1252") for name, text in pair.items()} for pair in pairs]
    assert Counter(found) == Counter((f"{pair['instruction']} {pair['input']}".strip(), pair["output"]) for pair in seen)
    settings = open_dataset(folder, "pairs").meta["settings"]
    assert (settings["encoding"], settings["input_field"]) == ("cp1252", "detail")
    fails_with(preprocess(source, folder, dataset_folder, *fields), 2, "input_field was 'detail', now ''")


def test_flags_that_are_not_used_leave_the_settings_as_they_were(tmp_path: Path, dataset_folder: Path) -> None:
    """So a folder that an earlier version began or made is resumed or known."""
    source = write_pairs(tmp_path / "pairs.jsonl", make_pairs(90))
    assert preprocess(source, tmp_path / "data", dataset_folder, "--encoding", "UTF8").returncode == 0
    settings = open_dataset(tmp_path / "data", "pairs").meta["settings"]
    assert not settings.keys() & {"encoding", "skip_bad_rows", "instruction_field", "response_field", "input_field"}
    assert "is already finished" in preprocess(source, tmp_path / "data", dataset_folder).stdout
    changed = preprocess(source, tmp_path / "data", dataset_folder, "--skip-bad-rows")
    fails_with(changed, 2, "skip_bad_rows was False, now True")


def test_bad_rows_of_pairs_are_skipped_and_counted_if_asked_for(tmp_path: Path, dataset_folder: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl", make_pairs(90))
    source.write_text(source.read_text() + "{\n[]\n")
    fails_with(preprocess(source, tmp_path / "data", dataset_folder), 1, "pairs.jsonl, line 91")
    assert preprocess(source, tmp_path / "data", dataset_folder, "--skip-bad-rows").returncode == 0
    dataset = open_dataset(tmp_path / "data", "pairs")
    assert dataset.meta["counts"] == {"skipped: row that cannot be read": 2}
    assert len(read_back(tmp_path / "data", "train") + read_back(tmp_path / "data", "val")) == 90


def test_unreadable_input_is_one_line(tmp_path: Path, dataset_folder: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl", make_pairs(40))
    data = tmp_path / "data"
    (tmp_path / "other.jsonl").write_text('{"question": "x", "answers": ["y"]}\n')
    fails_with(preprocess(tmp_path / "other.jsonl", data, dataset_folder), 2, "has the fields question, answers", "instruction or prompt")
    (tmp_path / "broken.json").write_text(json.dumps(make_pairs(40))[:-700])
    fails_with(preprocess(tmp_path / "broken.json", data, dataset_folder), 1, "broken.json, line 1, column", "is not JSON")
    (tmp_path / "broken.jsonl").write_text(source.read_text()[:-30])
    fails_with(preprocess(tmp_path / "broken.jsonl", data, dataset_folder), 1, "broken.jsonl, line 40", "is not JSON")
    (tmp_path / "text.txt").write_text("hello")
    fails_with(preprocess(tmp_path / "text.txt", data, dataset_folder), 2, "supported endings: .parquet")
    (tmp_path / "empty.jsonl").write_text("")
    fails_with(preprocess(tmp_path / "empty.jsonl", data, dataset_folder), 1, "no pairs in")
    (tmp_path / "one.jsonl").write_text('{"instruction": "x", "output": "y"}\n{"instruction": "z", "output": ""}\n')
    fails_with(
        preprocess(tmp_path / "one.jsonl", tmp_path / "one", dataset_folder),
        1,
        "usable pairs: 1 (1 skipped: empty response)",
        "Give more pairs",
    )


def test_the_tokenizer_must_be_the_pretrained_models(tmp_path: Path, dataset_folder: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl", make_pairs(40))
    data = tmp_path / "data"
    fails_with(preprocess(source, data, dataset_folder, "--vocab-size", 8888), 2, "--vocab-size 8888", "has 400 ids")
    none = preprocess(source, data, Path("data/tinystories-that-is-not"))
    fails_with(none, 1, "no finished dataset in data/tinystories-that-is-not", "Run: python preprocess_xcoax.py --data-dir")
    half = tmp_path / "half"
    (half / "unfinished").mkdir(parents=True)
    (half / "tokenizer.model").write_bytes((dataset_folder / "tokenizer.model").read_bytes())
    fails_with(preprocess(source, data, half), 1, "no finished dataset in", "unfinished: run the same command again")
    assert preprocess(source, data, dataset_folder / "tokenizer.model").returncode == 0
    fails_with(run_here("train_xcoax.py", "--data-dir", data), 2, "holds pairs, made by preprocess_instruct.py for finetune_xcoax.py")
    assert preprocess(source, tmp_path / "more", data).returncode == 0  # a folder of pairs holds the tokenizer too
    fails_with(preprocess(source, data, dataset_folder, "--order", "forward"), 2, "order was 'backward', now 'forward'")
    assert "is already finished" in preprocess(source, data, dataset_folder).stdout


@pytest.mark.parametrize("flags", ["--block-size 8", "--val-share 0", "--vocab-size 3"])
def test_impossible_flags_are_refused(flags: str) -> None:
    fails_with(run_here("preprocess_instruct.py", *flags.split()), 2, flags)


def test_documents_are_refused(tmp_path: Path, dataset_folder: Path) -> None:
    source = write_jsonl(tmp_path / "texts.jsonl", make_documents(5))
    fails_with(preprocess(source, tmp_path / "data", dataset_folder), 2, "has the fields text", "messages")
