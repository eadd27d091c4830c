"""A headless Chromium for the tests of pages; missing, it fails the test: a page that nobody looked at is not tested."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHONE, DESK = 390, 1280


@contextlib.contextmanager
def opened(address: str, width: int = DESK, scheme: str = "light", height: int = 900) -> Iterator[Any]:
    """A page in a window of that width, in light or dark; at the end its console must be empty."""
    from selenium import webdriver

    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    assert None not in (binary, driver), (
        f"no {' or '.join(BROWSERS)} with chromedriver: apt-get install chromium chromium-driver"
    )
    options = webdriver.ChromeOptions()
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(flag)
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        window.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        window.get(address)
        yield window
        problems = [entry for entry in window.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        assert not problems, problems
    finally:
        window.quit()
