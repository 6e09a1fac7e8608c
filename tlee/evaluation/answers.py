"""Failure prediction: how well the value of an answer tells correct answers from wrong ones, beside confidence."""

import math

import pandas as pd
import torch

from tlee.evaluation.replay import Split
from tlee.evaluation.value_iteration import ValueIteration, collect, estimate
from tlee.metrics import auroc
from tlee.records import save_table


def answer_auroc(val: Split, test: Split, seed: int) -> pd.DataFrame:
    """Return the AUROC of both scores for correct against wrong answers on ``test``; values are fitted on ``val``.

    One row for each depth and one for ``all``, in the column ``exits``, with the columns ``value``, ``confidence`` and
    ``answers``, their number: those at all exits along random paths, see ``collect``. The AUROC is NaN where all
    answers are correct, or none.
    """
    values, paths, tables = ValueIteration(val, seed).answers, collect(test, seed), []
    for t, frame in enumerate(paths.evidence):
        for b, shown in enumerate(frame):
            columns = {"value": estimate(shown, values[t][b]), "confidence": shown[:, 1]}
            columns["correct"] = paths.correct[:, t, b]
            tables.append(
                pd.DataFrame({name: each.numpy() for name, each in columns.items()}).assign(exits=f"depth {b}")
            )
    answers = pd.concat(tables, ignore_index=True)
    by_depth = {str(depth): table for depth, table in answers.groupby("exits")}
    rows = [{"exits": exits, **_scores(table)} for exits, table in (by_depth | {"all": answers}).items()]
    return pd.DataFrame(rows)


def write_answers(table: pd.DataFrame) -> None:
    """Write the table of ``answer_auroc``."""
    save_table("evaluate", "answers", table)


def _scores(answers: pd.DataFrame) -> dict[str, float]:
    correct = torch.tensor(answers["correct"].to_numpy())
    scores = {name: torch.tensor(answers[name].to_numpy()).sigmoid() for name in ("value", "confidence")}
    both = correct.unique().numel() == 2
    return {name: auroc(each, correct) if both else math.nan for name, each in scores.items()} | {
        "answers": len(answers)
    }
