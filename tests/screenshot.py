"""The picture of the README: the report of the quick start as a browser shows it. `make screenshot` takes it anew."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

_DOCS = Path(__file__).parents[1] / "docs"
REPORT = _DOCS / "evidence" / "quickstart" / "report.html"
PICTURE = _DOCS / "images" / "report.png"
WIDTH, _HEIGHT = 1280, 1000
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # it runs as root in containers
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Any]:
    """Start Chromium without a window, in a fresh profile.

    Raises:
        FileNotFoundError: it is not installed.
    """
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        raise FileNotFoundError("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = Chrome(options=options, service=ChromeService(driver))
    try:
        yield found
    finally:
        found.quit()


def screenshot(found: Any, page: str, *, width: int, height: int | None, is_dark: bool = False) -> Image.Image:
    """Return what a browser shows of a page, down to its end where no height is given."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
    found.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": width, "height": height or _HEIGHT, "deviceScaleFactor": 1, "mobile": width < WIDTH // 2}
    found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    found.get(page)
    shot = found.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": height is None, "format": "png"})
    return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


def main() -> None:
    """Write the picture, with the sum of the page that it is of."""
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as found:
        shot = screenshot(found, REPORT.as_uri(), width=WIDTH, height=_HEIGHT)
    facts = PngInfo()
    facts.add_text("Source", hashlib.sha256(REPORT.read_bytes()).hexdigest())
    PICTURE.parent.mkdir(exist_ok=True)
    shot.quantize(128, dither=Image.Dither.NONE).save(PICTURE, optimize=True, pnginfo=facts)
    sys.stdout.write(f"{PICTURE}: {PICTURE.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
