"""Durations as a clock shows them."""


def clock(seconds: float | None) -> str:
    """Seconds as m:ss, or as h:mm:ss from one hour on; "-" if the duration is unknown."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
