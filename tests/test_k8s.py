"""The manifests of k8s/, built by kustomize: valid, safe, and about the app as it is."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml
from conftest import need
from manifests import CARRIED, K8S, VARIANTS, Manifests, Object, composed, quantity, rendered

from clip_app import telemetry
from clip_app.errors import EXIT_CODES, USAGE, Reason
from clip_app.server import GRACE_SECONDS
from clip_app.settings import PREFIX, Settings, load_settings, unknown_variables

pytestmark = need("kubectl")

MONITORING = K8S.parent / "monitoring"
RULES = K8S / "components" / "monitoring" / "prometheus-rule.yaml"
CHECKOV = K8S.parent / "build" / "checkov" / "bin" / "checkov"
OPERATORS = {"PodMonitor", "PrometheusRule", "ScaledObject"}  # their kinds are no part of Kubernetes
NAMESPACED = {"namespace": "clip-app"}
REGISTRY = "registry.example.com/clip-app"


@pytest.fixture(params=VARIANTS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return Manifests.of(request.param)


@pytest.fixture
def production() -> Manifests:
    return Manifests.of("production")


# Tools.


@pytest.mark.parametrize("version", ["1.31.0", "1.34.0", kubernetes_validate.latest_version()])
def test_every_object_is_what_kubernetes_takes(manifests: Manifests, version: str) -> None:
    validated = set()
    for found in manifests.objects:
        if found["kind"] not in OPERATORS:
            kubernetes_validate.validate(found, version, strict=True)
            validated.add(found["kind"])
    assert {"Deployment", "Job", "PersistentVolumeClaim", "NetworkPolicy", "PodDisruptionBudget"} <= validated


def test_the_validation_finds_a_field_that_does_not_exist(production: Manifests) -> None:
    deployment = production.one("Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.skipif(not CHECKOV.exists(), reason="checkov is not installed; make k8s-test does that")
def test_checkov_finds_nothing_and_each_skip_has_its_reason(tmp_path: Path) -> None:
    for number, variant in enumerate(VARIANTS | CARRIED):
        (tmp_path / f"{number}.yaml").write_text(rendered(variant))
    options = ["--framework", "kubernetes", "--skip-download", "--output", "json"]
    run = subprocess.run([CHECKOV, "--directory", tmp_path, *options], capture_output=True, text=True)
    report = json.loads(run.stdout)
    failed = {(check["check_id"], check["resource"]) for check in report["results"]["failed_checks"]}
    assert failed == set()
    assert run.returncode == 0, run.stderr
    assert report["summary"]["passed"] > 100
    assert report["summary"]["parsing_errors"] == 0
    assert all(len(check["check_result"]["suppress_comment"]) > 30 for check in report["results"]["skipped_checks"])


# With a cluster at hand, it is asked; without one there is no such test, and make k8s-test says so.
CLUSTERS = [os.environ["KUBECONFIG"]] if os.environ.get("KUBECONFIG") else []
if CLUSTERS:

    @pytest.fixture
    def namespace() -> Iterator[str]:
        """A namespace of the tests' own, as restricted as ours."""
        name = f"clip-app-test-{uuid.uuid4().hex[:8]}"
        kubectl("apply", given=[production_namespace(name)])
        yield name
        kubectl("delete", "namespace", name, "--wait=false")

    def kubectl(*command: str, given: list[Object] | None = None) -> str:
        arguments = ["kubectl", *command, *(["-f", "-"] if given else [])]
        run = subprocess.run(arguments, input=yaml.safe_dump_all(given or []), capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return str(run.stdout + run.stderr)

    def production_namespace(name: str) -> Object:
        found = Manifests.of("production").one("Namespace")
        return found | {"metadata": found["metadata"] | {"name": name}}

    def inside(namespace: str, objects: list[Object]) -> list[Object]:
        """Return what lies in a namespace, there, without what this cluster does not know."""
        known = kubectl("api-resources", "--output=name")
        kinds = {kind for kind in OPERATORS if f"{kind.lower()}s." in known}
        wanted = [o for o in objects if o["kind"] != "Namespace" and (o["kind"] not in OPERATORS or o["kind"] in kinds)]
        return [o | {"metadata": o["metadata"] | {"namespace": namespace}} for o in wanted]

    @pytest.mark.parametrize("variant", [*VARIANTS, *CARRIED])
    def test_the_api_server_takes_it(namespace: str, variant: str) -> None:
        said = kubectl("apply", "--dry-run=server", given=inside(namespace, Manifests.of(variant).objects))
        assert "would violate PodSecurity" not in said

    def test_the_api_server_takes_settings_images_and_components_that_change(namespace: str) -> None:
        """The job is the only object that cannot be changed; suspended, it starts nothing."""
        for objects in changes().values():
            job = next(o for o in objects if o["kind"] == "Job")
            kubectl("apply", given=inside(namespace, [job | {"spec": job["spec"] | {"suspend": True}}]))


# The files.


def test_every_file_is_one_object_that_some_kustomization_names() -> None:
    for folder in {path.parent for path in K8S.rglob("*.yaml")}:
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
        named = {str(name) for name in kustomization.get("resources", ())}
        named |= {patch["path"] for patch in kustomization.get("patches", ())} | {"kustomization.yaml"}
        named |= set(kustomization.get("configurations", ()))
        files = {path.name for path in folder.glob("*.yaml")}
        assert files == {name for name in named if "/" not in name}
        for name in files:
            assert len(list(yaml.safe_load_all((folder / name).read_text()))) == 1


def test_everything_lies_in_the_one_namespace_which_is_restricted(manifests: Manifests) -> None:
    namespace = manifests.one("Namespace")
    assert {o["metadata"].get("namespace") for o in manifests.objects if o is not namespace} == {"clip-app"}
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_secrets_are_only_referred_to(manifests: Manifests, request: pytest.FixtureRequest) -> None:
    closed = "auth" in VARIANTS[request.node.callspec.params["manifests"]][1]
    assert manifests.all("Secret") == []
    for container in manifests.containers:
        for variable in container["env"]:
            if variable["name"] in ("CLIP_APP_AUTH", "HF_TOKEN"):
                required = variable["name"] == "CLIP_APP_AUTH" and closed
                assert variable["valueFrom"]["secretKeyRef"]["optional"] is not required
    assert not {"CLIP_APP_AUTH", "HF_TOKEN"} & set(manifests.environment(manifests.server))


# What the app is.


def test_every_setting_exists_and_has_a_value_that_is_allowed(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for container in manifests.containers:
        names = {variable["name"] for variable in container["env"]} | set(manifests.environment(container))
        assert {name for name in names if name.startswith(PREFIX)} <= known
        with monkeypatch.context() as patch:
            for name, value in manifests.environment(container).items():
                patch.setenv(name, value)
            assert load_settings().fallback == "none"
            assert unknown_variables(manifests.environment(container)) == {}


def test_the_service_injects_no_settings_into_the_pods(manifests: Manifests) -> None:
    for template in (manifests.pod, manifests.job):
        assert template["spec"]["enableServiceLinks"] is False


def test_the_probes_ask_routes_of_the_app_at_the_port_it_listens_on(manifests: Manifests, server: str) -> None:
    container = manifests.server
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}
    assert {path: httpx.get(server + path).status_code for path in paths.values()} == {"/readyz": 200, "/healthz": 200}
    (port,) = (port for port in container["ports"] if port["name"] == "http")
    assert str(port["containerPort"]) == manifests.environment(container)["CLIP_APP_PORT"]
    assert manifests.environment(container)["CLIP_APP_HOST"] == "0.0.0.0"
    for kind in paths:
        assert container[f"{kind}Probe"]["httpGet"]["port"] == "http"
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600


def test_one_name_leads_from_the_ingress_to_the_port(production: Manifests, server: str) -> None:
    service = production.one("Service")
    (port,) = service["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == ("http", "http")
    for ingress in production.all("Ingress"):
        (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
        assert path["backend"]["service"] == {"name": service["metadata"]["name"], "port": {"name": "http"}}
    (endpoint,) = production.one("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
    assert "clip_app_model_ready 1.0" in httpx.get(server + endpoint["path"]).text


def test_selectors_find_the_serving_pods_and_never_the_jobs(production: Manifests) -> None:
    serving, fetching = (template["metadata"]["labels"] for template in (production.pod, production.job))
    pod_spec = production.pod["spec"]
    selectors = [
        production.one("Service")["spec"]["selector"],
        production.one("Deployment")["spec"]["selector"]["matchLabels"],
        production.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        production.one("PodMonitor")["spec"]["selector"]["matchLabels"],
        production.one("NetworkPolicy", "clip-app-serve")["spec"]["podSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in pod_spec["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector.items() <= serving.items()
        assert not selector.items() <= fetching.items()
    only_job = production.one("NetworkPolicy", "clip-app-prefetch")["spec"]["podSelector"]["matchLabels"]
    assert only_job.items() <= fetching.items()


# The cache.


@pytest.mark.parametrize(("variant", "mode"), [("single-node", "ReadWriteOnce"), ("production", "ReadWriteMany")])
def test_the_volume_can_be_mounted_where_the_overlay_says(variant: str, mode: str) -> None:
    assert Manifests.of(variant).one("PersistentVolumeClaim")["spec"]["accessModes"] == [mode]


def test_the_job_alone_writes_the_cache(manifests: Manifests) -> None:
    claim = manifests.one("PersistentVolumeClaim")["metadata"]["name"]
    for template in (manifests.pod, manifests.job):
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        assert volumes["cache"]["persistentVolumeClaim"]["claimName"] == claim
    for container in manifests.containers:
        (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "cache"]
        assert mount["mountPath"] == manifests.environment(container)["HF_HOME"]
        assert mount.get("readOnly", False) is (container is not manifests.writer)


def test_who_only_reads_is_offline_and_the_writer_is_not(manifests: Manifests) -> None:
    assert manifests.environment(manifests.server)["HF_HUB_OFFLINE"] == "1"
    assert manifests.environment(manifests.waiter)["HF_HUB_OFFLINE"] == "1"
    assert not {name for name in manifests.environment(manifests.writer) if "OFFLINE" in name}


def changes() -> dict[str, list[Object]]:
    """Return what users change, one thing at a time, as objects."""

    def merged(**settings: str) -> dict[str, Any]:
        literals = [f"{name}={value}" for name, value in settings.items()]
        return {"configMapGenerator": [{"name": "clip-app", **NAMESPACED, "behavior": "merge", "literals": literals}]}

    digest = f"sha256:{'0' * 64}"
    built = {
        "nothing": composed("single-node"),
        "a setting": composed("single-node", **merged(CLIP_APP_QUEUE_SIZE="32")),
        "the tag": composed("single-node", images=[{"name": "clip-app", "newTag": "0.2.0"}]),
        "the digest": composed("single-node", images=[{"name": "clip-app", "digest": digest}]),
        "a component": composed("single-node", "private-ca"),
        "the overlay": composed("production", images=[{"name": REGISTRY, "newName": "clip-app"}]),
        "the job": composed("single-node", **merged(PREFETCH="2")),
    }
    return {name: list(yaml.safe_load_all(text)) for name, text in built.items()}


def test_what_changes_a_job_makes_another_one() -> None:
    """Nobody may change the template of a job that is there."""
    names = {}
    for change, objects in changes().items():
        manifests = Manifests(objects)
        (name,) = [job["metadata"]["name"] for job in manifests.all("Job")]
        assert name == manifests.writer["envFrom"][0]["configMapRef"]["name"], "it is called after its settings"
        names[change] = name
    assert len(set(names.values())) == len(names)


def test_variants_whose_jobs_have_one_name_have_one_job() -> None:
    jobs: dict[str, Object] = {}
    for variant in VARIANTS:
        job = Manifests.of(variant).one("Job")
        assert jobs.setdefault(job["metadata"]["name"], job) == job, variant
    assert len(jobs) > 3


def test_a_job_that_failed_says_why_in_its_status_and_stays_to_be_seen(manifests: Manifests) -> None:
    job = manifests.one("Job")["spec"]
    assert "ttlSecondsAfterFinished" not in job, "what is gone is made anew by whoever compares with a repository"
    for container in (manifests.writer, manifests.waiter):
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    pauses = [min(10 * 2**number, 360) for number in range(job["backoffLimit"])]
    assert sum(pauses) > 2 * 3600, "a network that is down for two hours"


@pytest.mark.parametrize("variant", CARRIED)
def test_with_its_model_in_the_image_it_needs_neither_volume_nor_job_nor_hub(variant: str) -> None:
    manifests = Manifests.of(variant)
    assert not manifests.all("Job") + manifests.all("PersistentVolumeClaim")
    assert [policy["metadata"]["name"] for policy in manifests.all("NetworkPolicy")] == ["clip-app-serve"]
    assert not manifests.pod["spec"]["initContainers"]
    assert {mount["mountPath"] for mount in manifests.server["volumeMounts"]} == {"/tmp"}
    assert {volume["name"] for volume in manifests.pod["spec"]["volumes"]} == {"tmp"}
    settings = manifests.environment(manifests.server)
    assert (settings["HF_HUB_OFFLINE"], settings["HF_HOME"], settings["CLIP_APP_FALLBACK"]) == ("1", "/cache", "none")
    for found in manifests.objects:
        if found["kind"] not in OPERATORS:
            kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)


def test_a_mirror_is_the_only_place_that_the_job_may_reach() -> None:
    own = [{"name": "clip-app", **NAMESPACED, "behavior": "merge", "literals": ["HF_ENDPOINT=https://hub.acme.org"]}]
    manifests = Manifests(list(yaml.safe_load_all(composed("production", "mirror", configMapGenerator=own))))
    assert manifests.environment(manifests.writer)["HF_ENDPOINT"] == "https://hub.acme.org"
    _, out = manifests.one("NetworkPolicy", "clip-app-prefetch")["spec"]["egress"]
    assert all(ip_network(to["ipBlock"]["cidr"]).is_private for to in out["to"])


def test_without_the_operator_nothing_is_left_that_its_cluster_does_not_know() -> None:
    manifests = Manifests.of("production, no-operator, mirror")
    assert not {found["kind"] for found in manifests.objects} & OPERATORS


def test_all_containers_ask_for_the_same_model(manifests: Manifests) -> None:
    sources = {container["envFrom"][0]["configMapRef"]["name"] for container in manifests.containers}
    assert len(sources) == 1
    assert len({container["image"] for container in manifests.containers}) == 1


def test_the_job_tries_again_only_where_that_can_help(manifests: Manifests) -> None:
    rules = manifests.one("Job")["spec"]["podFailurePolicy"]["rules"]
    (hopeless,) = [rule["onExitCodes"] for rule in rules if "onExitCodes" in rule]
    reasons: tuple[Reason, ...] = ("tls", "integrity", "permissions", "not_found")
    assert set(hopeless["values"]) == {USAGE} | {EXIT_CODES[reason] for reason in reasons}
    assert hopeless["containerName"] == manifests.writer["name"]
    assert manifests.job["spec"]["restartPolicy"] == "Never", "a failure policy needs it"


def test_the_private_authority_reaches_the_writer_as_a_file() -> None:
    manifests = Manifests.of("production, keda, private-ca, sticky")
    path = manifests.environment(manifests.writer)["CLIP_APP_CA_BUNDLE"]
    (mount,) = [mount for mount in manifests.writer["volumeMounts"] if mount["name"] == "ca"]
    assert Path(path).parent == Path(mount["mountPath"])
    assert "CLIP_APP_CA_BUNDLE" not in manifests.environment(manifests.server)


def test_nothing_turns_verification_off() -> None:
    for variant in VARIANTS:
        for switch in ("TLS_VERIFY", "DISABLE_SSL", "PYTHONHTTPSVERIFY", "insecure"):
            assert switch.lower() not in rendered(variant).lower()


# Scaling, stopping, moving.


def test_the_autoscaler_goes_from_1_to_3_at_80_percent_and_alone_counts_replicas(production: Manifests) -> None:
    spec = production.one("HorizontalPodAutoscaler")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 3)
    (metric,) = spec["metrics"]
    assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
    assert spec["scaleTargetRef"]["name"] == production.one("Deployment")["metadata"]["name"]
    assert "replicas" not in production.one("Deployment")["spec"]


def test_keda_takes_the_autoscalers_place_and_asks_for_a_metric_that_exists() -> None:
    manifests = Manifests.of("production, keda, private-ca, sticky")
    assert manifests.all("HorizontalPodAutoscaler") == []
    spec = manifests.one("ScaledObject")["spec"]
    assert spec["scaleTargetRef"]["name"] == manifests.one("Deployment")["metadata"]["name"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 3)
    (trigger,) = spec["triggers"]
    (family,) = telemetry.QUEUE_DEPTH.collect()
    assert f"{family.name}{{" in trigger["metadata"]["query"]
    assert int(trigger["metadata"]["threshold"]) == Settings.model_fields["max_batch_size"].default


def test_every_container_says_what_it_needs(manifests: Manifests) -> None:
    for container in manifests.containers:
        for what in ("cpu", "memory", "ephemeral-storage"):
            request, limit = (quantity(container["resources"][kind][what]) for kind in ("requests", "limits"))
            assert 0 < request <= limit
    memory = manifests.writer["resources"]
    assert quantity(memory["requests"]["memory"]) > 1.15 * 2**30, "what converting takes"
    assert quantity(memory["limits"]["memory"]) >= 2 * 2**30


# What is left of a node: cores and bytes beside coredns, a metrics server, and what the kubelet keeps.
SMALL_NODES = {"2 cores, 4 GiB": (1.93 - 0.3, 3.6 * 2**30 - 400 * 2**20), "4 cores, 4 GiB": (3.9 - 0.3, 3.4 * 2**30)}


@pytest.mark.parametrize("node", SMALL_NODES)
def test_a_first_deploy_and_an_update_fit_on_one_small_node(node: str) -> None:
    """As the scheduler counts: a pod asks for the most of its init container and of the others together."""
    variant = Manifests.of("single-node")
    surge = variant.one("Deployment")["spec"]["strategy"]["rollingUpdate"]
    at_once = 1 + surge["maxSurge"]
    assert surge == {"maxSurge": 0, "maxUnavailable": 1}
    for what, room in zip(("cpu", "memory"), SMALL_NODES[node], strict=True):
        serving = max(quantity(one["resources"]["requests"][what]) for one in (variant.waiter, variant.server))
        assert at_once * serving + quantity(variant.writer["resources"]["requests"][what]) <= room, what


def test_threads_decoders_and_quota_are_the_same_whole_cores(manifests: Manifests) -> None:
    resources = manifests.server["resources"]
    cores = quantity(resources["requests"]["cpu"])
    assert cores == int(cores) == quantity(resources["limits"]["cpu"])
    assert manifests.environment(manifests.server)["CLIP_APP_THREADS"] == str(int(cores))
    (threads,) = [v for v in manifests.server["env"] if v["name"] == "CLIP_APP_THREADS"]
    assert threads["valueFrom"]["resourceFieldRef"] == {"resource": "requests.cpu", "divisor": "1"}


def test_a_stopping_pod_has_time_for_what_it_accepted(manifests: Manifests) -> None:
    before = manifests.server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert before >= 5
    assert manifests.pod["spec"]["terminationGracePeriodSeconds"] > before + GRACE_SECONDS


def test_a_drain_takes_one_pod_at_a_time_and_is_never_blocked(manifests: Manifests) -> None:
    spec = manifests.one("PodDisruptionBudget")["spec"]
    assert (spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert "minAvailable" not in spec


def test_replicas_spread_over_nodes_and_zones(manifests: Manifests) -> None:
    keys = {spread["topologyKey"] for spread in manifests.pod["spec"]["topologySpreadConstraints"]}
    assert keys == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}


STICKY = "traefik.ingress.kubernetes.io/service.sticky.cookie"


def test_any_pod_may_answer_any_request(production: Manifests) -> None:
    service = production.one("Service")
    assert "sessionAffinity" not in service["spec"]
    assert STICKY not in service["metadata"].get("annotations", {})


def test_a_client_stays_with_one_pod_where_that_is_asked_for() -> None:
    service = Manifests.of("production, keda, private-ca, sticky").one("Service")
    assert service["spec"]["sessionAffinity"] == "ClientIP"
    annotations = service["metadata"]["annotations"]
    assert annotations[STICKY] == annotations[f"{STICKY}.secure"] == annotations[f"{STICKY}.httponly"] == "true"


# What it may do.


def test_the_pods_fulfil_the_restricted_standard(manifests: Manifests) -> None:
    for template in (manifests.pod, manifests.job):
        spec = template["spec"]
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == security["runAsGroup"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all({"configMap", "emptyDir", "persistentVolumeClaim"} & set(volume) for volume in spec["volumes"])
    for container in manifests.containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert manifests.one("ServiceAccount")["automountServiceAccountToken"] is False


def ports(rules: list[dict[str, Any]]) -> set[int | str]:
    return {port["port"] for rule in rules for port in rule["ports"]}


def test_the_network_is_open_for_pictures_scrapes_names_and_the_job_alone_for_the_hub(
    manifests: Manifests, request: pytest.FixtureRequest
) -> None:
    serve, fetch = (manifests.one("NetworkPolicy", f"clip-app-{who}")["spec"] for who in ("serve", "prefetch"))
    assert serve["policyTypes"] == fetch["policyTypes"] == ["Ingress", "Egress"]
    assert ports(serve["ingress"]) == {"http", "metrics"}
    assert ports(serve["egress"]) == {53}
    assert "ingress" not in fetch
    mirror = "mirror" in VARIANTS[request.node.callspec.params["manifests"]][1]
    assert ports(fetch["egress"]) == ({53, 443, 8443} if mirror else {53, 443})
    for rule in (*serve["egress"], *fetch["egress"]):
        assert ports([rule]) == {443} or rule["to"], "names are asked for in the cluster only"


def test_in_production_only_the_ingress_gets_to_the_page_and_only_prometheus_to_the_metrics(
    production: Manifests,
) -> None:
    allowed = {}
    for rule in production.one("NetworkPolicy", "clip-app-serve")["spec"]["ingress"]:
        (source,) = rule["from"]
        (expression,) = source["namespaceSelector"]["matchExpressions"]
        allowed[tuple(expression["values"])] = ports([rule])
    assert allowed == {("traefik",): {"http"}, ("monitoring",): {"metrics"}}


def test_nothing_that_leads_visitors_to_the_app_leads_to_its_metrics(production: Manifests) -> None:
    by_name = {port["name"]: str(port["containerPort"]) for port in production.server["ports"]}
    settings = production.environment(production.server)
    assert (by_name["http"], by_name["metrics"]) == (settings["CLIP_APP_PORT"], settings["CLIP_APP_METRICS_PORT"])
    assert [port["targetPort"] for port in production.one("Service")["spec"]["ports"]] == ["http"]
    (monitor,) = production.one("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert monitor["port"] == "metrics"
    assert production.one("Ingress")["spec"]["rules"], "there is one, and no other"


def test_with_the_component_no_pod_starts_without_its_password() -> None:
    for variant, required in (("single-node", False), ("single-node, auth, private-ca", True)):
        env = Manifests.of(variant).server["env"]
        (secret,) = (one["valueFrom"]["secretKeyRef"] for one in env if one["name"] == "CLIP_APP_AUTH")
        assert secret == {"name": "clip-app-auth", "key": "auth", "optional": not required}


# Monitoring.


def prometheus_rule() -> str:
    groups = [
        g
        for name in ("recording", "alerts")
        for g in yaml.safe_load((MONITORING / f"{name}.yml").read_text())["groups"]
    ]
    found = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "clip-app", **NAMESPACED, "labels": {"release": "kube-prometheus-stack"}},
        "spec": {"groups": groups},
    }
    head = "# Written by make docs out of monitoring/recording.yml and alerts.yml: change those.\n"
    return head + str(yaml.safe_dump(found, sort_keys=False, width=110))


def test_the_rules_are_those_of_monitoring() -> None:
    if os.environ.get("CLIP_TESTS_WRITE_DOCS"):
        RULES.write_text(prometheus_rule(), encoding="utf-8")
    assert RULES.read_text(encoding="utf-8") == prometheus_rule(), "make docs writes it anew"


def test_the_dashboard_is_that_of_monitoring(production: Manifests) -> None:
    dashboard = production.one("ConfigMap", "clip-app-dashboard")
    assert dashboard["data"]["dashboard.json"] == (MONITORING / "dashboard.json").read_text(encoding="utf-8")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_pods_are_scraped_under_the_job_name_of_the_rules(production: Manifests) -> None:
    (endpoint,) = production.one("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert {"targetLabel": "job", "replacement": "clip_app"} in endpoint["relabelings"]
    assert 'job="clip_app"' in RULES.read_text(encoding="utf-8")
