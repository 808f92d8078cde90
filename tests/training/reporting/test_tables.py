from __future__ import annotations

from earmark_training.reporting.tables import Table


def test_a_table_as_text_markdown_and_html():
    table = Table("Title", ("word", "count"), (("_unknown_", "1"), ("a<b", "20")), "a note")
    assert table.text() == "Title\n  word       count\n  _unknown_      1\n  a<b           20\n  (a note)"
    assert table.markdown() == (
        "**Title**\n\n| word | count |\n| --- | ---: |\n| \\_unknown\\_ | 1 |\n| a<b | 20 |\n\nA note."
    )
    assert "<td>a&lt;b</td><td>20</td>" in table.html()
