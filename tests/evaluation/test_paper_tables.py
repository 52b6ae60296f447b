"""The tables for a paper: each figure once in the CSV, and LaTeX that is escaped and balanced."""

import csv
import io
import re

from hypothesis import given
from hypothesis import strategies as st

from evaluation.bootstrap import Estimate
from evaluation.paper_tables import as_csv, as_latex, in_latex
from evaluation.report import Section

LANGUAGE = Section(
    "Language: code & prose", ["loss", "bits"],
    {"backward": (Estimate(4.5, 4.25, 4.75), Estimate(float("nan"))), "gap": (Estimate(-0.0125, -0.025, 0.0, format_spec="+.2%"), "")},
    remarks={"backward": "tuned"}, corpus="code, prose", models_in_rows=True,
)  # fmt: skip
CONTROL = Section(
    "HellaSwag, a control", ["in total"], {"backward": (Estimate(0.25, 0.2, 0.3),)}, corpus="tasks.jsonl", models_in_rows=True
)
RANKING = Section("Ranking: of others", ["recall@1"], {"chance": (Estimate(0.5),)}, corpus="pairs", model="tuned")


def test_the_csv_has_a_line_for_each_figure() -> None:
    assert as_csv([LANGUAGE, CONTROL, RANKING, Section("Empty")]).splitlines() == [
        "model,corpus,measure,value,low,high",
        'backward,"code, prose",Language: loss,4.5,4.25,4.75',
        'backward,"code, prose",Language: bits,,,',
        'gap,"code, prose",Language: loss,-0.0125,-0.025,0.0',
        'backward,tasks.jsonl,"HellaSwag, a control: in total",0.25,0.2,0.3',
        "tuned,pairs,Ranking: chance: recall@1,0.5,,",
    ]


def test_the_latex_by_hand() -> None:
    first, empty, *lines = as_latex([LANGUAGE, Section("Empty")]).splitlines()
    assert "booktabs" in first and first.startswith("%") and not empty
    assert lines == [
        r"\begin{table}",
        r"\centering",
        r"\caption{Language: code \& prose. Brackets hold 95 \% bootstrap intervals.}",
        r"\label{tab:language-code-prose}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & loss & bits \\",
        r"\midrule",
        r"backward (tuned) & 4.500 & nan \\",
        r" & {\footnotesize (4.250..4.750)} &  \\",
        r"gap & $-$1.25\% &  \\",
        r" & {\footnotesize ($-$2.50\%..+0.00\%)} &  \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    assert in_latex("a_b $5 50% #1 {x} ~^ \\ P(a|b) <c>") == (
        r"a\_b \$5 50\% \#1 \{x\} \textasciitilde{}\textasciicircum{} \textbackslash{} P(a\textbar{}b) \textless{}c\textgreater{}"
    )


texts = st.text(st.sampled_from("ab \\{}&%$#_~^|<>[]\n\t\r\x1b\u2028é日"), max_size=12)


@given(texts, st.lists(texts, min_size=1, max_size=4, unique=True), st.lists(texts, min_size=1, max_size=4, unique=True))
def test_any_text_is_escaped_and_everything_balances(title: str, columns: list[str], rows: list[str]) -> None:
    section = Section(title, columns, dict.fromkeys(rows, columns))
    _, _, *lines = as_latex([section, section]).splitlines()
    one, other = lines[: len(lines) // 2], lines[len(lines) // 2 + 1 :]
    assert (one[3] != other[3]) and [*one[:3], *one[4:]] == [*other[:3], *other[4:]]  # a label of its own
    assert re.fullmatch(r"\\label{tab:[a-z0-9-]+}", one[3])
    assert (one[0], one[4], one[-2:]) == (
        r"\begin{table}", rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", [r"\end{tabular}", r"\end{table}"]
    )  # fmt: skip
    body = [line for line in one[5:-2] if line not in (r"\toprule", r"\midrule", r"\bottomrule")]
    assert len(body) == 1 + len(rows)
    for line in (*body, one[2].removeprefix(r"\caption{").removesuffix("}")):
        is_row = line.endswith(r" \\")
        bare = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]|\{\[\}", "", line.removesuffix(r" \\"))  # without what is escaped
        assert not line.startswith("[") and not re.search(r"[\\{}%$#_~^<>|\[]", bare)
        assert bare.count("&") == len(columns) * is_row


@given(st.lists(texts, min_size=1, max_size=4, unique=True))
def test_any_name_is_one_field_of_the_csv(rows: list[str]) -> None:
    section = Section("T", ["c"], {row: (Estimate(1.5),) for row in rows}, corpus=rows[0], models_in_rows=True)
    _, *lines = csv.reader(io.StringIO(as_csv([section])))
    assert [line[3:] for line in lines] == [["1.5", "", ""]] * len(rows)
