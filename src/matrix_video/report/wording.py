"""Numbers as the page writes them: true minus signs, fixed places, intervals in brackets."""

from __future__ import annotations

from matrix_video.evaluation.estimates import FOR_VERDICT
from matrix_video.report.content import Difference, Estimate

PLACES = 3


def number(value: float, places: int = PLACES) -> str:
    """Fixed places; never "-0.000"."""
    text = f"{value:.{places}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def signed(value: float, places: int = PLACES) -> str:
    """As `number`, with a plus sign above zero."""
    text = number(value, places)
    return text if text.startswith("−") or float(text) == 0 else f"+{text}"


def interval(estimate: Estimate, *, sign: bool = False) -> str:
    """ "[0.331, 0.490]"; nothing for an estimate that has none."""
    if estimate.low is None or estimate.high is None:
        return ""
    write = signed if sign else number
    return f"[{write(estimate.low)}, {write(estimate.high)}]"


def verdict(difference: Difference) -> str:
    """What a paired difference says, by the rules of `evaluation.estimates`."""
    if difference.estimate.n < FOR_VERDICT:
        return f"no verdict below {FOR_VERDICT} videos"
    if not difference.resolved:
        return "not resolved"
    side = difference.left if difference.estimate.mean > 0 else difference.right
    return f"{side} is higher"


def duration(seconds: float | None) -> str:
    """ "4.2 s", "3 min 07 s", "2 h 05 min"; a dash where it was not recorded."""
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def tick_label(value: float, step: float) -> str:
    """A tick with just the places that its step needs."""
    places = 0
    while places < 9 and abs(round(step, places) - step) > abs(step) * 1e-6:
        places += 1
    return number(value, places)
