"""What stops an export, in our words."""

from __future__ import annotations

from server.errors import TwinlensError


class ExportRefused(TwinlensError):
    """The export cannot be done; nothing was written."""

    code = "export_refused"
