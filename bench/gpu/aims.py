"""What was aimed at on an H100, beside what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SHARE_OF_TORCH = 0.8
FORWARD = 12_151
"""Pictures a second: published for CLIP ViT-B/32 in fp16 on an RTX 4090."""
OVER_HTTP = 2_500
"""Pictures a second: published for a pipeline on an A100."""


def aims(report: Mapping[str, Any], *, on_gpu: bool) -> list[dict[str, Any]]:
    """Each aim, what was found, and `met`, `missed` or `not measured`."""
    ours = _best([row for row in report.get("forward") or [] if row["precision"] == "fp16"])
    torch, http = _best(report.get("yardstick")), _best(report.get("http"))
    share = ours / torch if ours and torch else None

    def aim(about: str, least: float, found: float | None) -> dict[str, Any]:
        if not on_gpu or found is None:
            return {"about": about, "aim": least, "found": None, "verdict": "not measured"}
        verdict = "met" if found >= least else "missed"
        return {"about": about, "aim": least, "found": round(found, 3), "verdict": verdict}

    return [
        aim("forward in fp16, as a share of torch.compile's", SHARE_OF_TORCH, share),
        aim("forward in fp16, pictures/s", FORWARD, ours),
        aim("over HTTP, pictures/s", OVER_HTTP, http),
    ]


def _best(rows: Sequence[Mapping[str, Any]] | None) -> float | None:
    return max((row["picturesPerSecond"] for row in rows), default=None) if rows else None
