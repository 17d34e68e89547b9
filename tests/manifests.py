"""The overlays as kustomize builds them, and what the tests ask of the objects."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parent.parent / "k8s"
# Each overlay, and with the components that it does not have.
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "single-node": ("single-node", ()),
    "production": ("production", ()),
    "single-node, auth, private-ca": ("single-node", ("auth", "private-ca")),
    "production, keda, private-ca, sticky": ("production", ("keda", "private-ca", "sticky")),
    "production, no-operator, mirror": ("production", ("no-operator", "mirror")),
}
# Without a volume and a job; the image carries the model.
CARRIED: dict[str, tuple[str, tuple[str, ...]]] = {
    "single-node, with-model, auth": ("single-node", ("with-model", "auth")),
    "production, with-model, no-operator": ("production", ("with-model", "no-operator")),
}
UNITS = {"m": 1e-3, "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

Object = dict[str, Any]


def build(folder: Path) -> str:
    run = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert not run.stderr, f"kustomize warns: {run.stderr}"
    return run.stdout


@functools.cache
def rendered(variant: str) -> str:
    overlay, components = (VARIANTS | CARRIED)[variant]
    return composed(overlay, *components) if components else build(K8S / "overlays" / overlay)


def composed(overlay: str, *components: str, **more: Any) -> str:
    """Build a kustomization as users write one: an overlay, components after it, and what is theirs."""
    folder = K8S / "overlays" / overlay
    with tempfile.TemporaryDirectory() as above:
        own = Path(above).resolve()
        content = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(folder, own)],
            "components": [os.path.relpath(K8S / "components" / name, own) for name in components],
            **more,
        }
        (own / "kustomization.yaml").write_text(yaml.safe_dump(content))
        return build(own)


def quantity(text: str) -> float:
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text)
    assert match is not None, text
    number, unit = match.groups()
    return float(number) * UNITS[unit]


@dataclass(frozen=True)
class Manifests:
    """The objects of one variant."""

    objects: list[Object]

    @classmethod
    def of(cls, variant: str) -> Manifests:
        return cls(list(yaml.safe_load_all(rendered(variant))))

    def all(self, kind: str) -> list[Object]:
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Object:
        (found,) = [o for o in self.all(kind) if name is None or o["metadata"]["name"] == name]
        return found

    @property
    def job(self) -> Object:
        template: Object = self.one("Job")["spec"]["template"]
        return template

    @property
    def pod(self) -> Object:
        template: Object = self.one("Deployment")["spec"]["template"]
        return template

    @property
    def server(self) -> Object:
        container: Object
        (container,) = self.pod["spec"]["containers"]
        return container

    @property
    def waiter(self) -> Object:
        container: Object
        (container,) = self.pod["spec"]["initContainers"]
        return container

    @property
    def writer(self) -> Object:
        container: Object
        (container,) = self.job["spec"]["containers"]
        return container

    @property
    def containers(self) -> list[Object]:
        return [self.writer, self.waiter, self.server]

    def environment(self, container: Object) -> dict[str, str]:
        """What a container finds in its environment; a secret that is not there is not set."""
        (source,) = container["envFrom"]
        found = dict(self.one("ConfigMap", source["configMapRef"]["name"])["data"])
        for variable in container["env"]:
            if "value" in variable:
                found[variable["name"]] = variable["value"]
            elif field := variable["valueFrom"].get("resourceFieldRef"):
                where, name = field["resource"].split(".")
                value = quantity(container["resources"][where][name]) / quantity(field["divisor"])
                found[variable["name"]] = str(int(-(-value // 1)))
        return found
