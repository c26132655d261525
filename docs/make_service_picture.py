"""Take docs/service.png: the page of a running service, in Chromium. Needs `augment_service serve` at the address.

python docs/make_service_picture.py http://127.0.0.1:8000
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

SIZE = {"width": 1060, "height": 1010}
SETTINGS = "#filter=whole-words&n_a=4&seed=3"

with sync_playwright() as playwright:
    arguments = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
    page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
    page.goto(f"{sys.argv[1]}/{SETTINGS}")
    page.click("#go")
    page.wait_for_selector(".samples li")
    page.locator("article").nth(0).locator("button.word").nth(1).click()
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=Path(__file__).with_name("service.png"))
    browser.close()
