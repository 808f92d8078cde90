from __future__ import annotations

import re

from earmark_training.reporting import html
from matplotlib.figure import Figure


def test_a_page_is_self_contained_and_escapes_its_title():
    figure = Figure()
    figure.subplots().plot([1, 2])
    page = html.page("a < b", [html.table(("word",), [("<yes>",)]), html.svg(figure)])
    assert "<h1>a &lt; b</h1>" in page
    assert "<td>&lt;yes&gt;</td>" in page
    assert page.count("<svg") == page.count("</svg>") == 1
    assert not re.search(r"https?:|src=|@import|<link|url\((?!#)", page)


def test_a_long_page_has_contents_and_a_dark_mode():
    page = html.page("report", [f"<h2>Part {n} &amp; more</h2><p>text</p>" for n in range(5)])
    targets = re.findall(r"<a href='#(\w+)'>Part \d &amp; more</a>", page)
    assert len(targets) == 5
    assert all(page.count(f"<h2 id={target}>") == 1 for target in targets)
    assert "prefers-color-scheme: dark" in page
    assert "<nav>" not in html.page("short", ["<h2>Only</h2>"])
