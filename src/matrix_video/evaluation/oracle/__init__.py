"""The oracle judge of tiny worlds: the ten answers of InterGenEval by geometry, no model asked."""

from matrix_video.evaluation.oracle.judge import OracleJudge

__all__ = ["OracleJudge"]
