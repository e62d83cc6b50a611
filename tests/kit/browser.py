"""A headless Chromium, by Debian's driver: nothing is downloaded, and nothing of the user's profile is read."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

_CHROMIUM: Final = shutil.which("chromium")
_DRIVER: Final = shutil.which("chromedriver")

needs_chromium = pytest.mark.skipif(
    _CHROMIUM is None or _DRIVER is None,
    reason="chromium or its driver is not installed (Debian: chromium, chromium-driver)",
)


class Browser:
    """A browser with one page."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver: Final = driver

    def open(self, path: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> int:
        """Show the report at *path*; the milliseconds until it was drawn."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        self.driver.get(path.as_uri())
        self.wait_for("document.documentElement.dataset.drawn")
        return int(self.value("document.documentElement.dataset.drawn"))

    def value(self, expression: str) -> Any:
        """What JavaScript's *expression* is on the page."""
        return self.driver.execute_script(f"return {expression}")

    def wait_for(self, expression: str) -> None:
        """Wait until *expression* is true."""
        WebDriverWait(self.driver, 40, 0.05).until(lambda _: self.value(expression))

    def complaints(self) -> list[dict[str, Any]]:
        """What the console has said since the last call."""
        said: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return said

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser whose profile is in *profile*."""
    assert _CHROMIUM is not None
    options = webdriver.ChromeOptions()
    options.binary_location = _CHROMIUM
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # A user who runs tests may have no home, where Chromium would keep its reports of crashes.
    service = Service(_DRIVER, env={**os.environ, "HOME": str(profile)})
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
