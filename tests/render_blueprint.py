"""What Render takes in a Blueprint, from its published guides, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clip_app.settings import PREFIX, Settings, insecure_variables

TYPES = {"web", "pserv", "worker", "cron", "keyvalue"}
PLANS = {  # CPUs, memory in GB
    "free": (0.1, 0.5),
    "starter": (0.5, 0.5),
    "standard": (1, 2),
    "pro": (2, 4),
    "pro plus": (4, 8),
    "pro max": (4, 16),
    "pro ultra": (8, 32),
}
ALLOWED: dict[str, set[Any]] = {
    "type": TYPES,
    "plan": set(PLANS),
    "runtime": {"docker"},
    "generation": {"off", "manual", "automatic"},
    "autoDeployTrigger": {"commit", "checksPass", "off"},
    "maxShutdownDelaySeconds": set(range(1, 301)),
    "expireAfterDays": set(range(1, 366)),
    "targetCPUPercent": set(range(1, 101)),
    "targetMemoryPercent": set(range(1, 101)),
    "minInstances": set(range(1, 101)),
    "maxInstances": set(range(1, 101)),
    "numInstances": set(range(1, 101)),
}
KEYS = {
    "": {"services", "previews"},
    "previews": {"generation", "expireAfterDays"},
    "service": {
        *("type", "name", "runtime", "plan", "region", "branch", "dockerfilePath", "dockerContext", "dockerCommand"),
        *("healthCheckPath", "autoDeployTrigger", "maxShutdownDelaySeconds", "numInstances", "scaling", "disk"),
        *("previews", "envVars"),
    },
    "service.previews": {"plan", "numInstances"},
    "scaling": {"minInstances", "maxInstances", "targetCPUPercent", "targetMemoryPercent"},
    "disk": {"name", "mountPath", "sizeGB"},
    "envVar": {"key", "value", "sync", "generateValue"},
}
NEEDED = {"type", "name", "runtime", "plan", "dockerfilePath", "healthCheckPath", "autoDeployTrigger"}
PEAK_GB = 1.0  # measured: 0.6 GB resident, under 1 GB while the model loads
INSECURE = {"HF_HUB_DISABLE_SSL_VERIFICATION", "PYTHONHTTPSVERIFY", f"{PREFIX}TLS_VERIFY"}


def problems(blueprint: dict[str, Any], build_arguments: set[str], grace_seconds: float) -> list[str]:
    """Return what Render would refuse, or what would not run there, one line each."""
    found = [*_level("", blueprint), *_level("previews", blueprint.get("previews", {}))]
    for service in blueprint["services"]:
        found += [f"{service.get('name')}: {line}" for line in _service(service, build_arguments, grace_seconds)]
    return found


def _level(level: str, given: dict[str, Any]) -> Iterator[str]:
    yield from (f"{level or 'Blueprint'} has no key {key}" for key in sorted(given.keys() - KEYS[level]))
    for key, value in given.items():
        if key in ALLOWED and value not in ALLOWED[key]:
            yield f"{key} cannot be {value}"


def _service(service: dict[str, Any], build_arguments: set[str], grace_seconds: float) -> Iterator[str]:
    yield from _level("service", service)
    yield from (f"{key} is missing" for key in sorted(NEEDED - service.keys()))
    scaling, previews = service.get("scaling", {}), service.get("previews", {})
    yield from _level("scaling", scaling)
    yield from _level("disk", service.get("disk", {}))
    yield from _level("service.previews", previews)
    if scaling and "disk" in service:
        yield "a disk excludes scaling"
    if scaling and "numInstances" in service:
        yield "scaling decides over numInstances: give one"
    if scaling and not scaling.get("minInstances", 0) <= scaling.get("maxInstances", 0):
        yield "minInstances is more than maxInstances"
    if "targetMemoryPercent" in scaling:
        yield "a resident model never scales down by memory"
    for plan in (service.get("plan"), previews.get("plan", service.get("plan"))):
        if plan in PLANS and PLANS[plan][1] < 1.5 * PEAK_GB:
            yield f"{plan} has too little memory"
    if service.get("maxShutdownDelaySeconds", 30) <= grace_seconds:
        yield "Render kills the app before it has finished"
    for variable in service.get("envVars", []):
        yield from _variable(variable, build_arguments)


def _variable(variable: dict[str, Any], build_arguments: set[str]) -> Iterator[str]:
    yield from _level("envVar", variable)
    name, value = variable["key"], variable.get("value")
    if name == "PORT":
        yield "Render gives PORT"
    if value is not None and not isinstance(value, str):
        yield f"{name} is not a string"
    if name in INSECURE or insecure_variables({name: str(value)}):
        yield f"{name} turns verification off"
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    if name not in known and name not in build_arguments:
        yield f"{name} is neither a setting nor a build argument"
    secret = name in {f"{PREFIX}AUTH", "HF_TOKEN"}
    if secret and variable.get("sync") is not False:
        yield f"{name} is a secret: sync: false"
