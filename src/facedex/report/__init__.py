"""Search results as people would rather see them: a picture and a self-contained page."""

from facedex.report.page import write_page
from facedex.report.picture import write_picture
from facedex.report.result import ProbeResult

__all__ = ["ProbeResult", "write_page", "write_picture"]
