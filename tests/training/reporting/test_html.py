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
