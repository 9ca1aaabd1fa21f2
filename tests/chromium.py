"""The browser that opens pages in tests, where there is one."""

from __future__ import annotations

import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
NO_BROWSER = "no browser: apt install chromium, or set CHROMIUM to its path"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)
