"""docs/monitoring.md says what the code and the rules say."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from real_prometheus import MONITORING

from clip_app import observation, telemetry  # noqa: F401  the values of labels are declared in these
from clip_app.hub import fetch  # noqa: F401  and here

DOCS = Path(__file__).parent.parent / "docs" / "monitoring.md"
TABLE = re.compile(r"<!-- table -->\n(.*)<!-- end -->", re.S)
ALERTS = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]


def metrics_table() -> str:
    metrics = [metric for metric in vars(telemetry).values() if isinstance(metric, MetricWrapperBase)]
    return "\n".join(["| name | type | labels | what |", "|---|---|---|---|", *map(row, metrics)]) + "\n"


def row(metric: MetricWrapperBase) -> str:
    (family,) = metric.collect()
    name = f"{family.name}_total" if family.type == "counter" else family.name
    text = family.documentation
    if family.type == "histogram":
        bounds = sorted({s.labels["le"] for s in family.samples if "le" in s.labels} - {"+Inf"}, key=float)
        text += f" Buckets from {float(bounds[0]):g} to {float(bounds[-1]):g}."
    labels = ", ".join(filled(metric, label) for label in metric._labelnames)
    return f"| `{name}` | {family.type} | {labels} | {text} |"


def filled(metric: MetricWrapperBase, label: str) -> str:
    """A label with the values it can have, where they are known from the start."""
    if metric is telemetry.MODEL_INFO:
        return f"`{label}`"
    at = metric._labelnames.index(label)
    return f"`{label}`: " + " ".join(dict.fromkeys(values[at] for values in metric._metrics))


def test_the_table_of_metrics_is_the_codes() -> None:
    text = DOCS.read_text(encoding="utf-8")
    if os.environ.get("CLIP_TESTS_WRITE_DOCS"):
        text = TABLE.sub(lambda _: f"<!-- table -->\n{metrics_table()}<!-- end -->", text)
        DOCS.write_text(text, encoding="utf-8")
    found = TABLE.search(text)
    assert found
    assert found[1] == metrics_table(), "make docs writes it anew"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_says_where_what_to_do_is_written(alert: dict[str, dict[str, str]]) -> None:
    assert f"\n### {alert['alert']}\n" in DOCS.read_text(encoding="utf-8")
    assert alert["annotations"]["runbook"] == f"docs/monitoring.md#{str(alert['alert']).lower()}"


def test_no_alert_is_written_about_that_is_not_there() -> None:
    written = re.findall(r"^### (\w+)$", DOCS.read_text(encoding="utf-8"), re.M)
    assert sorted(written) == sorted(alert["alert"] for alert in ALERTS)
