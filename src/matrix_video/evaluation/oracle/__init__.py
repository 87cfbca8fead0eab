"""The oracle judge of tiny worlds: the ten answers of InterGenEval by geometry, no model asked."""

from matrix_video.evaluation.oracle.answers import (
    Answer,
    InteractionVerdict,
    Reply,
    Verdict,
    judge,
)
from matrix_video.evaluation.oracle.judge import OracleJudge

__all__ = ["Answer", "InteractionVerdict", "OracleJudge", "Reply", "Verdict", "judge"]
