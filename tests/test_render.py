"""render.yaml is a Blueprint as Render takes it, and fits what the app needs."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from render_blueprint import PLANS, problems

from clip_app.server import GRACE_SECONDS
from clip_app.settings import PREFIX, load_settings

ROOT = Path(__file__).parent.parent
BLUEPRINT = yaml.safe_load((ROOT / "render.yaml").read_text())
(SERVICE,) = BLUEPRINT["services"]
BUILD_ARGUMENTS: set[str] = set()


def test_render_would_take_it() -> None:
    assert problems(BLUEPRINT, BUILD_ARGUMENTS, GRACE_SECONDS) == []


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    blueprint: dict[str, Any] = copy.deepcopy(BLUEPRINT)
    change(blueprint["services"][0])
    return blueprint


def variable(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda service: service["envVars"].append({"key": name, "value": value})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.update(type="kubernetes"), "type cannot be kubernetes"),
        (lambda s: s.update(plan="premium"), "plan cannot be premium"),
        (lambda s: s.update(plan="starter"), "starter has too little memory"),
        (lambda s: s["previews"].update(plan="free"), "free has too little memory"),
        (lambda s: s.update(autoDeploy=True), "service has no key autoDeploy"),
        (lambda s: s.update(buildTarget="runtime"), "service has no key buildTarget"),
        (lambda s: s.update(autoDeployTrigger="push"), "autoDeployTrigger cannot be push"),
        (lambda s: s.pop("healthCheckPath"), "healthCheckPath is missing"),
        (lambda s: s.update(disk={"name": "cache", "mountPath": "/cache", "sizeGB": 5}), "a disk excludes scaling"),
        (lambda s: s.update(numInstances=2), "scaling decides over numInstances: give one"),
        (lambda s: s["scaling"].update(minInstances=4), "minInstances is more than maxInstances"),
        (lambda s: s["scaling"].update(targetMemoryPercent=80), "a resident model never scales down by memory"),
        (lambda s: s.update(maxShutdownDelaySeconds=GRACE_SECONDS), "Render kills the app before it has finished"),
        (lambda s: s.update(maxShutdownDelaySeconds=301), "maxShutdownDelaySeconds cannot be 301"),
        (variable("CLIP_APP_TLS_VERIFY", "false"), "CLIP_APP_TLS_VERIFY turns verification off"),
        (variable("PYTHONHTTPSVERIFY", "0"), "PYTHONHTTPSVERIFY turns verification off"),
        (variable("CLIP_APP_THREAD", "1"), "CLIP_APP_THREAD is neither a setting nor a build argument"),
        (variable("CLIP_APP_QUEUE_SIZE", 64), "CLIP_APP_QUEUE_SIZE is not a string"),
        (variable("CLIP_APP_AUTH", "me:secret"), "CLIP_APP_AUTH is a secret: sync: false"),
        (variable("PORT", "10000"), "Render gives PORT"),
    ],
)
def test_a_wrong_blueprint_is_found_out(change: Callable[[dict[str, Any]], object], says: str) -> None:
    assert f"clip-app: {says}" in problems(changed(change), BUILD_ARGUMENTS, GRACE_SECONDS)


def test_the_app_starts_with_these_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "10000")
    for variable in SERVICE["envVars"]:
        if "value" in variable:
            monkeypatch.setenv(variable["key"], variable["value"])
    settings = load_settings()
    assert (settings.host, settings.port, settings.fallback) == ("0.0.0.0", 10000, "none")
    assert settings.tls_verify
    assert settings.threads == PLANS[SERVICE["plan"]][0], "as many threads as the plan has CPUs"


def test_the_health_check_answers_within_renders_five_seconds(server: str) -> None:
    assert httpx.get(server + SERVICE["healthCheckPath"], timeout=5).status_code == 200


def test_one_service_has_one_to_three_instances() -> None:
    assert SERVICE["scaling"] == {"minInstances": 1, "maxInstances": 3, "targetCPUPercent": 80}


def test_a_deploy_waits_for_the_checks_and_a_preview_is_asked_for_and_ends() -> None:
    assert SERVICE["autoDeployTrigger"] == "checksPass"
    assert BLUEPRINT["previews"] == {"generation": "manual", "expireAfterDays": 3}, "no copy is public unasked"


def test_the_last_stage_is_the_one_that_carries_the_model() -> None:
    dockerfile = (ROOT / SERVICE["dockerfilePath"]).read_text()
    stages = re.findall(r"^FROM .+ AS ([\w-]+)$", dockerfile, re.MULTILINE)
    assert stages[-1] == "with-model", "Render builds the last stage, and has no volume for a model"


def test_build_arguments_are_those_of_the_dockerfile() -> None:
    given = {v["key"] for s in BLUEPRINT["services"] for v in s["envVars"] if not v["key"].startswith(PREFIX)}
    declared = set(re.findall(r"^ARG (\w+)", (ROOT / SERVICE["dockerfilePath"]).read_text(), re.MULTILINE))
    assert given == BUILD_ARGUMENTS
    assert given <= declared
