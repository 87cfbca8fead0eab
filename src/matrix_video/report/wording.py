"""Numbers as the page writes them: true minus signs, fixed places, intervals in brackets."""

from __future__ import annotations

from matrix_video.evaluation.estimates import Estimate
from matrix_video.evaluation.scores import ScoredAnswer


def number(value: float, places: int = 3) -> str:
    """Fixed places; never "-0.000"."""
    return f"{value:z.{places}f}".replace("-", "−")


def signed(value: float, places: int = 3) -> str:
    """As `number`, with a plus sign above zero."""
    text = number(value, places)
    return text if text.startswith("−") or float(text) == 0 else f"+{text}"


def interval(estimate: Estimate, *, sign: bool = False) -> str:
    """ "[0.331, 0.490]"; empty for an estimate of too few videos for one."""
    if estimate.low is None or estimate.high is None:
        return ""
    write = signed if sign else number
    return f"[{write(estimate.low)}, {write(estimate.high)}]"


def evidence(answer: ScoredAnswer) -> str:
    """The grounds of an answer in one line: its reason, its measurements, the judge's words."""
    parts = [answer.reason] if answer.reason else []
    for name, value in answer.evidence.items():
        text = value if isinstance(value, str) else f"{value:.3g}".replace("-", "−")
        parts.append(f"{name.replace('_', ' ')} {text}")
    if answer.raw:
        parts.append(f"“{answer.raw}”")
    return ", ".join(parts)


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
