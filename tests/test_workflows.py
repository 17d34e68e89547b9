"""The workflows are valid, pinned and call what exists; their scripts are run for real."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((GITHUB / "workflows").glob("*.yml"))}
ACTIONS = {path.parent.name: yaml.safe_load(path.read_text()) for path in sorted(GITHUB.glob("actions/*/action.yml"))}
MAKEFILE = (ROOT / "Makefile").read_text()
ON = True  # YAML 1.1 reads the key "on" as a boolean
TOOLS = Path(sys.executable).parent
PINNED = re.compile(r"^ +(?:- )?uses: (?P<action>[\w./-]+)@(?P<commit>[0-9a-f]{40})  # v\d+\.\d+\.\d+$")


def jobs(workflow: str) -> dict[str, Any]:
    found: dict[str, Any] = WORKFLOWS[workflow]["jobs"]
    return found


def steps() -> Iterator[dict[str, Any]]:
    for workflow in WORKFLOWS.values():
        for job in workflow["jobs"].values():
            yield from job.get("steps", [])
    for action in ACTIONS.values():
        yield from action["runs"]["steps"]


def scripts() -> str:
    return "\n".join(step["run"] for step in steps() if "run" in step)


def make_targets() -> list[str]:
    return sorted(set(re.findall(r"(?:^|&& |; )make ([\w./-]+)", scripts(), re.MULTILINE)))


def run_step(workflow: str, job: str, containing: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one step as GitHub does: bash -e on its script, in the checkout."""
    (script,) = [step["run"] for step in jobs(workflow)[job]["steps"] if containing in step.get("run", "")]
    assert "${{" not in script, "values reach scripts through the environment only"
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script], cwd=folder, env=os.environ | env, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("github-workflows", "workflows/*.yml"),
        ("github-actions", "actions/*/action.yml"),
        ("dependabot", "dependabot.yml"),
    ],
)
def test_githubs_schemas_accept_the_files(schema: str, pattern: str) -> None:
    paths = sorted(GITHUB.glob(pattern))
    assert paths
    check = subprocess.run(
        [TOOLS / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *paths], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_zizmor_finds_nothing_unsafe() -> None:
    check = subprocess.run([TOOLS / "zizmor", "--offline", "--no-progress", GITHUB], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout + check.stderr


def test_every_foreign_action_is_pinned_to_a_commit_and_each_to_one_only() -> None:
    pins: dict[str, set[str]] = {}
    for path in [*GITHUB.glob("workflows/*.yml"), *GITHUB.glob("actions/*/action.yml")]:
        for line in path.read_text().splitlines():
            if "uses:" not in line or "uses: ./" in line:
                continue
            found = PINNED.match(line)
            assert found, f"{path.name}: {line.strip()} is not pinned to a commit with its version beside it"
            pins.setdefault(found["action"], set()).add(found["commit"])
    assert "actions/checkout" in pins
    assert all(len(commits) == 1 for commits in pins.values()), pins


def test_own_actions_and_workflows_exist_and_get_inputs_that_they_have() -> None:
    own = [step for step in steps() if step.get("uses", "").startswith("./")]
    assert own
    for step in own:
        action = yaml.safe_load((ROOT / step["uses"] / "action.yml").read_text())
        assert set(step.get("with", {})) <= set(action["inputs"])
    assert (ROOT / jobs("release")["ci"]["uses"]).is_file()


@pytest.mark.parametrize("target", make_targets())
def test_every_make_target_that_is_called_exists(target: str) -> None:
    rule = target.replace(".venv", "$(VENV)")
    assert re.search(rf"^{re.escape(rule)}:", MAKEFILE, re.MULTILINE), f"the Makefile has no {target}"


def test_every_file_of_the_repository_that_a_script_names_exists() -> None:
    paths = re.findall(r"(?<![\w$./-])(?:\.ci/\w+|[\w-]+/[\w./-]+\.(?:txt|sh|py|toml))", scripts())
    assert "requirements/image.txt" in paths
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_permissions_are_none_until_a_job_asks_and_only_the_release_writes() -> None:
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {}, f"{name} gives every job permissions"
        for job, definition in workflow["jobs"].items():
            assert "permissions" in definition, f"{name}: {job}"
            writes = {scope for scope, access in definition["permissions"].items() if access != "read"}
            assert not writes or name == "release", f"{name}: {job} may write {writes}"
    assert {job for job, d in jobs("release").items() if d["permissions"].get("contents") == "write"} == {"publish"}


def test_every_job_has_a_deadline_and_no_checkout_leaves_its_token_behind() -> None:
    for workflow in WORKFLOWS.values():
        for job in workflow["jobs"].values():
            assert "uses" in job or 0 < job["timeout-minutes"] <= 60
    checkouts = [step for step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_ci_runs_on_pushes_to_main_and_on_every_pull_request() -> None:
    triggers = WORKFLOWS["ci"][ON]
    assert triggers["push"] == {"branches": ["main"]}
    assert triggers["pull_request"] is None, "no path filter: a check that never starts never passes"
    assert WORKFLOWS["ci"]["concurrency"]["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"


def test_the_check_that_stands_for_all_waits_for_every_other_job() -> None:
    definitions = jobs("ci")
    assert set(definitions["passed"]["needs"]) == set(definitions) - {"passed"}
    assert definitions["passed"]["if"] == "always()", "skipped would count as passed"
    names = "Lint and types, Tests on Python ${{ matrix.python }}, Image, Manifests, All checks passed"
    assert [job["name"] for job in definitions.values()] == names.split(", "), "branch rules and docs name these"


@pytest.mark.parametrize(
    ("results", "passes"),
    [("success success", True), ("success failure", False), ("skipped success", False), ("cancelled", False)],
)
def test_one_job_that_did_not_succeed_fails_that_check(tmp_path: Path, results: str, passes: bool) -> None:
    assert (run_step("ci", "passed", "RESULTS", tmp_path, RESULTS=results).returncode == 0) is passes


@pytest.mark.parametrize(("found", "warns"), [(0, False), (1, True)])
def test_the_nightly_audit_warns_and_stops_no_deploy(tmp_path: Path, found: int, warns: bool) -> None:
    """An advisory that is published overnight must not stand in the way of a fix."""
    audits = [job for workflow in ("ci", "release") for job in jobs(workflow) if "audit" in job]
    assert audits == []
    (tmp_path / "pipx").write_text(f"#!/bin/sh\nexit {found}\n")
    (tmp_path / "pipx").chmod(0o755)
    done = run_step("nightly", "audit", "pip-audit", tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 0
    assert ("::warning::" in done.stdout) is warns


def test_the_image_with_the_default_model_is_built_every_night() -> None:
    assert WORKFLOWS["nightly"][ON]["schedule"]
    (built,) = [step for step in jobs("nightly")["with-model"]["steps"] if "make image" in step.get("run", "")]
    assert "TARGET=with-model" in built["run"]
    assert " MODEL=" not in built["run"]


def test_the_tests_run_on_every_python_that_the_project_allows() -> None:
    pythons = jobs("ci")["test"]["strategy"]["matrix"]["python"]
    assert all(isinstance(version, str) for version in pythons), "3.10 without quotes is 3.1"
    assert pythons == ["3.10", "3.11", "3.12", "3.13"]
    assert 'requires-python = ">=3.10"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(("tag", "fits"), [("v{}", True), ("v9.9.9", False), ("{}x", False)])
def test_a_release_stops_where_the_tag_is_not_the_version(tmp_path: Path, tag: str, fits: bool) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    step = run_step("release", "version", "GITHUB_REF_NAME", tmp_path, GITHUB_REF_NAME=tag.format(version))
    assert (step.returncode == 0) is fits


def test_the_images_name_is_in_small_letters(tmp_path: Path) -> None:
    output = tmp_path / "output"
    env = {"GITHUB_REPOSITORY": "Acme/Clip_App", "GITHUB_REF_NAME": "v1.2.3", "GITHUB_OUTPUT": str(output)}
    assert run_step("release", "image", "GITHUB_OUTPUT", tmp_path, **env).returncode == 0
    assert output.read_text() == "image=ghcr.io/acme/clip_app\nversion=1.2.3\n"


def test_a_release_publishes_only_what_every_check_has_passed() -> None:
    definitions = jobs("release")
    assert definitions["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert definitions["ci"]["needs"] == "version", "a wrong tag pushes nothing"
    assert definitions["wheel"]["needs"] == definitions["image"]["needs"] == "ci"
    assert set(definitions["publish"]["needs"]) == {"wheel", "image"}


def test_an_image_is_attested_and_gets_its_tag_after_it_has_answered() -> None:
    steps = jobs("release")["image"]["steps"]
    named = [step.get("id") or step.get("name") or step["uses"] for step in steps]
    push = next(step for step in steps if step.get("id") == "push")
    assert "push-by-digest=true" in push["with"]["outputs"]
    assert "tags" not in push["with"]
    answers, attested, tag = (
        next(i for i, name in enumerate(named) if word in name) for word in ("answers", "actions/attest@", "its tag")
    )
    assert named.index("push") < answers < attested < tag == len(named) - 1


@pytest.mark.parametrize("image", ["registry.example.com/clip-app:0.1.0", "@sha256:0", ""])
def test_a_deploy_takes_a_digest_alone(image: str) -> None:
    done = subprocess.run([ROOT / ".ci" / "deploy", "k8s/overlays/production", image], capture_output=True, text=True)
    assert done.returncode == 2
    assert "NAME@sha256:DIGEST" in done.stderr


@pytest.mark.parametrize("becomes_ready", [True, False])
def test_a_deploy_that_does_not_become_ready_is_undone(tmp_path: Path, becomes_ready: bool) -> None:
    """With a kubectl that writes down what it is asked; a real API server was asked by hand."""
    asked = tmp_path / "asked"
    image = f"registry.acme.org/clip-app@sha256:{'a' * 64}"
    (tmp_path / "kubectl").write_text(
        f'#!/bin/sh\necho "$*" >>{asked}\n[ "$1" = apply ] && cat "$3/kustomization.yaml" >>{asked}\n'
        f'[ "$1" = kustomize ] && echo "image: {image}"\n'
        f'case "$*" in *"rollout status"*) exit {0 if becomes_ready else 1} ;; esac\n'
    )
    (tmp_path / "kubectl").chmod(0o755)
    done = subprocess.run(
        [ROOT / ".ci" / "deploy", ROOT / "k8s" / "overlays" / "production", image],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    said = asked.read_text()
    assert done.returncode == (0 if becomes_ready else 1), done.stderr
    assert f'newName: "registry.acme.org/clip-app", digest: "sha256:{"a" * 64}"' in said
    assert ("rollout undo deployment/clip-app" in said) is not becomes_ready


def test_a_deploy_refuses_an_overlay_that_would_go_on_with_its_own_image(tmp_path: Path) -> None:
    (tmp_path / "kubectl").write_text('#!/bin/sh\n[ "$1" = kustomize ] && echo "image: another:0.1.0"\n')
    (tmp_path / "kubectl").chmod(0o755)
    done = subprocess.run(
        [ROOT / ".ci" / "deploy", tmp_path, f"registry.acme.org/clip-app@sha256:{'a' * 64}"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "names no image" in done.stderr


def test_a_release_builds_targets_that_the_dockerfile_has() -> None:
    targets = {entry["target"] for entry in jobs("release")["image"]["strategy"]["matrix"]["include"]}
    stages = set(re.findall(r"^FROM .+ AS ([\w-]+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert targets == {"runtime", "with-model"}
    assert targets <= stages


def test_torchs_version_stands_in_one_file_and_no_repository_must_set_a_variable() -> None:
    texts = "\n".join(path.read_text() for path in (ROOT / "Dockerfile", ROOT / "render.yaml", *GITHUB.rglob("*.yml")))
    assert "torch==" not in texts
    assert "vars." not in texts
    assert texts.count("requirements/torch.txt") >= 3
    assert "ARG TORCH_BACKEND=cpu" in texts


def test_dependabot_looks_after_everything_that_is_pinned() -> None:
    updates = {
        entry["package-ecosystem"]: entry
        for entry in yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]
    }
    assert set(updates) == {"pip", "docker", "github-actions"}
    for entry in updates.values():
        assert entry["schedule"]["interval"] == "weekly"
        assert [group["patterns"] for group in entry["groups"].values()] == [["*"]], "one pull request a week"
    assert set(updates["pip"]["directories"]) == {"/", "/requirements"}
    assert set(updates["github-actions"]["directories"]) == {"/", *(f"/.github/actions/{name}" for name in ACTIONS)}
