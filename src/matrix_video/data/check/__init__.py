"""``matrix check``: read data sets and say all that is wrong with them, file by file."""

from matrix_video.data.check.folder import check_datasets
from matrix_video.data.check.report import Report

__all__ = ["Report", "check_datasets"]
