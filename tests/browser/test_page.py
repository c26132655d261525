"""The web page in a real Chromium: mouse, keyboard, phone width, errors, the token, the link."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.models import save_random_model, save_random_vectors
from tests.support.service import TOKEN, Service

pytestmark = pytest.mark.browser

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SENTENCES = "the quick brown fox and the cinematography\na great movie with a good plot 🦊 ünï the cat"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("page")
    model = save_random_model("bert-uncased", folder / "model", num_heads=2)
    vectors = save_random_vectors(folder / "glove.txt")
    options = ["--mlm", str(model), "--glove", str(vectors), "--threads", "1", "--max-n-a", "50"]
    with Service(*options, log=folder / "log.txt", tokens=TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        message = "needs Chromium: apt-get install chromium"
        if os.environ.get("REQUIRE_REFERENCE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield one
        one.close()


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    """The page with a valid token. Fails the test on a script error or a request to another host."""
    context = browser.new_context(
        viewport={"width": 1100, "height": 800}, permissions=["clipboard-read", "clipboard-write"]
    )
    one = context.new_page()
    faults: list[str] = []
    one.on("pageerror", lambda error: faults.append(str(error)))
    one.on("request", lambda asked: None if asked.url.startswith((service.url, "data:")) else faults.append(asked.url))
    one.add_init_script(f"sessionStorage.setItem('token', {json.dumps(TOKEN)})")
    one.goto(service.url)
    expect(one.locator("#status")).to_have_text(re.compile(r"\d+ variants? in"))
    one.locator("summary").click()
    yield one
    context.close()
    assert faults == []


def augment(page: Page, text: str = SENTENCES) -> None:
    page.get_by_label("Sentences").fill(text)
    page.get_by_role("button", name="Augment", exact=True).click()
    expect(page.locator("#stale")).to_be_hidden()
    expect(page.locator("#status")).to_have_text(re.compile(r"\d+ variants? in"))


def test_words_are_coloured_and_samples_marked(page: Page) -> None:
    page.get_by_label("Variants per sentence").fill("4")
    augment(page)
    cards = page.locator("article")
    expect(cards).to_have_count(2)
    first = cards.nth(0)
    expect(first.locator(".words")).to_have_text(SENTENCES.split("\n")[0])
    expect(first.locator("button.mlm").first).to_have_text("quick")
    expect(first.locator("button.glove")).to_have_text("cinematography")
    expect(first.locator("span.kept").first).to_have_text("the")
    expect(first.locator("ol.samples > li")).to_have_count(4)
    for sample in first.locator("ol.samples > li").all():
        marks = sample.locator("mark")
        assert marks.count() >= 1
        assert "(was " in (marks.first.text_content() or "")
    assert "🦊" in (cards.nth(1).locator("ol.samples > li").first.text_content() or "")


def test_the_example_is_run_on_load_and_shows_what_words_do(browser: Browser, service: Service) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.add_init_script(f"sessionStorage.setItem('token', {json.dumps(TOKEN)})")
    page.goto(service.url)
    expect(page.locator("article")).to_have_count(2)
    expect(page.locator(".candidates").first).to_be_visible()
    box = page.locator(".candidates").first.bounding_box()
    assert box is not None
    assert box["y"] + 60 < 900
    assert "#" not in page.url
    expect(page.locator("#about")).to_contain_text("language model model (")
    expect(page.locator("#about")).to_contain_text("50 variants")
    context.close()


def test_candidates_are_pinned_beside_their_sentence_all_k_of_them(page: Page) -> None:
    page.get_by_label("Candidates per word").fill("40")
    augment(page)
    word = page.get_by_role("button", name=re.compile(r"^fox, language model, \d+ candidates"))
    count = int(re.findall(r"\d+", word.get_attribute("aria-label") or "")[0])
    assert count > 15
    word.click()
    panel = page.locator("article").first.locator(".candidates")
    expect(panel).to_be_visible()
    expect(panel.locator("li")).to_have_count(count)
    expect(word).to_have_attribute("aria-expanded", "true")
    page.mouse.move(0, 0)
    expect(panel).to_be_visible()
    shares = [float(text.strip("<%")) for text in panel.locator("li span:last-child").all_text_contents()]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=4)
    other = page.get_by_role("button", name=re.compile("^quick, language model"))
    other.focus()
    page.keyboard.press("Enter")
    expect(panel.locator("strong")).to_have_text("quick")
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(other).to_have_attribute("aria-expanded", "false")


def test_a_64_bit_seed_is_sent_digit_by_digit(page: Page) -> None:
    sent: list[str] = []
    page.on("request", lambda asked: sent.append(asked.post_data or "") if asked.url.endswith("/augment") else None)
    for seed in ("9007199254740993", "9223372036854775807"):
        page.get_by_label("Random seed").fill(seed)
        augment(page, 'the cat said "seed":9007199254740992 to the dog')
        assert json.loads(sent[-1])["seed"] == int(seed)
    page.get_by_label("Random seed").fill("9223372036854775808")
    page.get_by_role("button", name="Augment", exact=True).click()
    expect(page.locator("#seed-error")).to_have_text("Enter a whole number from 0 to 9223372036854775807.")


def test_changed_inputs_mark_the_results_as_stale(page: Page) -> None:
    augment(page)
    expect(page.locator("#stale")).to_be_hidden()
    page.get_by_label("Sentences").fill("a lazy dog")
    expect(page.locator("#stale")).to_be_visible()
    page.get_by_role("button", name="Update").click()
    expect(page.locator("#stale")).to_be_hidden()
    page.get_by_label("Context", exact=True).select_option("unmasked")
    expect(page.locator("#stale")).to_be_visible()
    expect(page.locator("#changed")).to_have_text("1 changed")
    page.get_by_role("button", name="Reset all settings").click()
    expect(page.locator("#stale")).to_be_hidden()


def test_long_work_can_be_stopped(page: Page) -> None:
    augment(page)
    page.route("**/v1/candidates", lambda route: None)
    page.get_by_label("Sentences").fill("never answered")
    page.get_by_role("button", name="Augment", exact=True).click()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.locator("#stale")).to_be_visible()
    expect(page.locator("#go")).not_to_have_attribute("aria-busy", "true")


def test_variants_are_downloaded_as_jsonl_and_csv(page: Page) -> None:
    page.get_by_label("Variants per sentence").fill("2")
    augment(page, 'the "quick", brown fox\ta great movie 🦊\nthe lazy dog')
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download JSONL").click()
    rows = [json.loads(line) for line in Path(waiting.value.path()).read_text(encoding="utf-8").splitlines()]
    assert waiting.value.suggested_filename == "variants.jsonl"
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download CSV").click()
    with Path(waiting.value.path()).open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(int(one["id"]), int(one["n"])) for one in table] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [one["text_a"] for one in table] == [one["text_a"] for one in rows]
    assert [one["text_b"] or None for one in table] == [one["text_b"] for one in rows]


def test_on_a_phone_results_come_into_view_and_targets_are_large(browser: Browser, service: Service) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.add_init_script(f"sessionStorage.setItem('token', {json.dumps(TOKEN)})")
    page.goto(service.url)
    expect(page.locator("article")).to_have_count(2)
    augment(page)
    page.wait_for_timeout(300)
    box = page.locator("article").first.bounding_box()
    assert box is not None
    assert box["y"] < 844 / 2
    page.locator("summary").click()
    for target in page.locator(
        "button:visible:not(.word), input:visible, select:visible, summary, nav a:visible"
    ).all():
        size = target.bounding_box()
        assert size is not None
        assert size["height"] >= 44, target.evaluate("one => one.outerHTML.slice(0, 90)")
    for word in page.locator("button.word").all():
        assert float(word.evaluate("one => parseFloat(getComputedStyle(one, '::after').height)")) >= 44
    context.close()


def test_the_page_works_by_keyboard(page: Page) -> None:
    page.get_by_label("Sentences").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("the quick brown fox")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_have_text(re.compile("variants in"))
    seen = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim().slice(0, 20)"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or page.evaluate("document.activeElement === document.body")
    assert {"go", "n_a", "k", "seed", "p_t", "filter", "pairs", "reset", "quick", "fox"} <= {
        *seen,
        page.evaluate("document.activeElement.id"),
    }


def test_copied_lines_contain_the_samples(page: Page) -> None:
    page.get_by_label("Variants per sentence").fill("3")
    augment(page)
    page.get_by_role("button", name="Copy as JSONL").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    lines = page.evaluate("navigator.clipboard.readText()").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert [(row["id"], row["n"]) for row in rows] == [(i, n) for i in (0, 1) for n in (1, 2, 3)]
    shown = page.locator("ol.samples > li").first.text_content() or ""
    assert re.sub(r" \(was \w+\)", "", shown) == rows[0]["text_a"]


def test_the_link_contains_the_settings(page: Page, service: Service) -> None:
    page.get_by_label("Variants per sentence").fill("2")
    page.get_by_label("Random seed").fill("77")
    page.get_by_label("Filter", exact=True).select_option("whole-words")
    augment(page)
    samples = page.locator("ol.samples").all_inner_texts()
    link = page.url
    assert "#" in link
    page.goto(f"{service.url}/docs")
    page.goto(link)
    expect(page.locator("#status")).to_have_text(re.compile("variants in"))
    page.locator("summary").click()
    expect(page.get_by_label("Random seed")).to_have_value("77")
    expect(page.get_by_label("Filter", exact=True)).to_have_value("whole-words")
    expect(page.get_by_label("Sentences")).to_have_value(SENTENCES)
    page.get_by_role("button", name="Augment", exact=True).click()
    expect(page.locator("ol.samples")).to_have_count(2)
    assert page.locator("ol.samples").all_inner_texts() == samples


def test_an_invalid_link_does_no_harm(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/#filter=%3Cscript%3E&k=banana&texts=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&p_t=9")
    page.reload()
    expect(page.locator("#k-error")).to_have_text("Enter the number of candidates.")
    expect(page.get_by_label("Filter", exact=True)).to_have_value("reference")
    page.get_by_label("Candidates per word").fill("5")
    page.get_by_role("button", name="Augment", exact=True).click()
    expect(page.locator("article")).to_have_count(1)
    assert page.locator("article img").count() == 0


def test_errors_are_shown_at_their_field(page: Page) -> None:
    page.get_by_label("Variants per sentence").fill("51")
    page.get_by_role("button", name="Augment", exact=True).click()
    expect(page.locator("#n_a-error")).to_have_text("Enter a whole number from 0 to 50.")
    expect(page.get_by_label("Variants per sentence")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Variants per sentence")).to_be_focused()
    page.get_by_label("Variants per sentence").fill("2")
    page.get_by_label("Sentences").fill("  ")
    page.get_by_role("button", name="Augment", exact=True).click()
    expect(page.locator("#texts-error")).to_have_text("Enter a sentence first.")
    page.get_by_label("Sentences").fill("the cat\n" + "x" * 10_001)
    page.get_by_role("button", name="Augment", exact=True).click()
    expect(page.locator("#texts-error")).to_contain_text("Sentence 2: longer than 10000 characters")
    augment(page)
    expect(page.locator("#texts-error")).to_be_hidden()


def test_all_wrong_fields_are_marked_at_once_and_the_first_is_focused(page: Page) -> None:
    page.get_by_label("Variants per sentence").fill("-3")
    page.get_by_label("Random seed").fill("abc")
    page.get_by_role("button", name="Augment", exact=True).click()
    expect(page.locator("#seed-error")).to_have_text("Enter a whole number from 0 to 9223372036854775807.")
    expect(page.get_by_label("Variants per sentence")).to_be_focused()


def test_a_sentence_without_an_open_list_says_how_to_open_one(page: Page) -> None:
    augment(page, SENTENCES)
    first, second = page.locator("article").all()
    expect(first.locator(".candidates")).to_be_visible()
    expect(first.locator(".hint")).to_be_hidden()
    expect(second.locator(".hint")).to_have_text("Select a coloured word to see what may replace it.")
    second.locator("button.word").first.click()
    expect(first.locator(".hint")).to_be_visible()


def test_the_page_requests_a_token_and_keeps_it_for_the_tab(browser: Browser, service: Service) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(service.url)
    expect(page.locator("#status")).to_have_text("Enter your access token to begin.")
    expect(page.get_by_role("link", name="Metrics")).to_be_hidden()
    page.get_by_role("button", name="Augment", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("This service requires a token.")
    expect(page.get_by_label("Access token")).to_be_focused()
    page.get_by_label("Access token").fill("wrong-token-wrong-token")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("The service does not accept this token.")
    page.get_by_label("Access token").fill(TOKEN)
    page.get_by_role("button", name="Use token").click()
    expect(page.locator("#status")).to_have_text(re.compile("variants in"))
    expect(page.get_by_label("Access token")).to_be_hidden()
    assert TOKEN not in page.url
    assert page.evaluate("localStorage.length") == 0
    context.close()


def test_a_pair_shows_both_texts(page: Page) -> None:
    augment(page, "the quick fox\ta great movie")
    expect(page.locator("article .words")).to_have_count(2)
    expect(page.locator("ol.samples .second").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_fits_and_has_enough_contrast(
    browser: Browser, service: Service, width: int, scheme: Any, tmp_path: Path
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.add_init_script(f"sessionStorage.setItem('token', {json.dumps(TOKEN)})")
    page.goto(service.url)
    augment(page)
    page.locator("summary").click()
    page.locator("button.mlm").last.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(".candidates:visible").first.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    for selector in ("h1", "header p", ".word", ".kept", "label", ".help", ".hint", "#go", ".candidates li"):
        for contrast in page.evaluate(CONTRAST, selector):
            assert contrast >= 4.5, (selector, contrast)
    page.screenshot(path=tmp_path / "page.png")
    context.close()


CONTRAST = """(selector) => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => 0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2]);
  const shown = [...document.querySelectorAll(selector)].filter((one) => one.offsetParent);
  return shown.map((one) => {
    let back = [0, 0, 0, 0];
    for (let at = one; at && back[3] === 0; at = at.parentElement) {
      const rgb = parse(getComputedStyle(at).backgroundColor);
      back = rgb.length === 3 ? [...rgb, 1] : rgb;
    }
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(back)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  });
}"""


def test_the_api_page_lists_every_route(browser: Browser, service: Service) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{service.url}/docs")
    for route in (
        "POST /v1/augment",
        "POST /v1/candidates",
        "POST /v1/augment/stream",
        "GET /healthz",
        "GET /readyz",
        "GET /info",
    ):
        expect(page.get_by_role("heading", name=route, exact=True)).to_be_visible()
    for schema in ("AugmentResponse", "Replacement", "CandidatesResponse", "WordCandidates", "RequestLimits"):
        expect(page.get_by_role("heading", name=schema, exact=True).first).to_be_visible()
    with service.client() as client:
        assert client.get("/favicon.ico").headers["content-type"] == "image/svg+xml"
    context.close()
