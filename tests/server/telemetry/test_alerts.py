"""The dashboard, the alerts and the documents use metrics that a server has."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import parser
from support.deadlines import DEADLINE_S
from support.ports import free_port
from support.server_rig import run, serving

ROOT = Path(__file__).parents[3]
OPERATIONS = ROOT / "docs" / "operations.md"
DASHBOARD = ROOT / "deploy" / "grafana" / "earmark.json"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"

# The labels that Prometheus adds.
TARGET_LABELS = {"job", "instance"}


@pytest.fixture(scope="module")
def families(tiny_model_path: Path) -> list[Any]:
    found: list[Any] = []

    async def scenario() -> None:
        port = free_port()
        async with serving(tiny_model_path, metrics_port=port):

            def fetch() -> str:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S) as answer:
                    text: str = answer.read().decode()
                return text

            found.extend(parser.text_string_to_metric_families(await asyncio.to_thread(fetch)))

    run(scenario)
    return found


@pytest.fixture(scope="module")
def labels(families: list[Any]) -> dict[str, set[str]]:
    """The labels of each metric that can be queried."""
    found: dict[str, set[str]] = {"up": set(TARGET_LABELS)}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, set(TARGET_LABELS)).update(sample.labels)
    return found


def test_the_operations_page_explains_every_metric_and_no_other(families: list[Any]) -> None:
    given = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \|", OPERATIONS.read_text(), re.MULTILINE)
    explained = re.findall(r"`([a-z]+_[a-z_]+)`", " ".join(rows))
    assert len(explained) == len(set(explained))
    assert set(explained) == given


def dashboard_expressions() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    # With the variables that Grafana replaces.
    return [
        target["expr"].replace("$__rate_interval", "1m").replace("$job", "earmark").replace("$instance", ".*")
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def queried(expression: str) -> list[tuple[str, set[str]]]:
    """Return the metrics in an expression, each with the labels that it is matched or grouped by."""
    found: list[tuple[str, set[str]]] = []

    def visit(node: Any, grouped: set[str]) -> None:
        if isinstance(node, promql_parser.AggregateExpr):
            own = node.modifier.labels if node.modifier is not None else ()
            visit(node.expr, grouped | set(own))
        elif isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, grouped | {one.name for one in node.matchers.matchers}))
        else:
            for name in ("expr", "lhs", "rhs", "vector_selector"):
                if (child := getattr(node, name, None)) is not None:
                    visit(child, grouped)
            for child in getattr(node, "args", ()):
                visit(child, grouped)

    visit(promql_parser.parse(expression), set())
    assert found
    return found


@pytest.mark.parametrize("expression", [*dashboard_expressions(), *(rule["expr"] for rule in alerts())])
def test_every_metric_and_label_in_an_expression_exists(labels: dict[str, set[str]], expression: str) -> None:
    for name, wanted in queried(expression):
        assert name in labels
        assert wanted <= labels[name], f"{name} has no {wanted - labels[name]}"


def test_every_metric_of_the_server_is_on_the_dashboard(families: list[Any]) -> None:
    text = " ".join(dashboard_expressions())
    own = {family.name for family in families if family.name.startswith("earmark_")}
    assert {name for name in own if name not in text} == set()


def test_every_alert_has_a_summary_and_a_link_to_its_section_in_the_operations_page() -> None:
    headings = re.findall(r"^### (\w+)$", OPERATIONS.read_text(), re.MULTILINE)
    for rule in alerts():
        assert rule["alert"] in headings
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_dashboard_can_be_imported_into_any_grafana() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    names = {one["name"] for one in dashboard["templating"]["list"]}
    assert names == {"datasource", "job", "instance"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


def test_the_capacity_page_states_the_number_of_time_series() -> None:
    async def scenario() -> None:
        port = free_port()
        async with serving((), metrics_port=port):

            def fetch() -> list[str]:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S) as answer:
                    text: str = answer.read().decode()
                return text.splitlines()

            series = sum(not line.startswith("#") for line in await asyncio.to_thread(fetch))
        assert f"counted, {series} with the model" in (ROOT / "docs" / "capacity.md").read_text()
        assert series <= 500

    run(scenario)
