"""The Kubernetes manifest says what this tool understands: its command, its versions, one image and folder for all."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli import _parser
from orchestrator.config.study_file import load_study

ROOT = Path(__file__).resolve().parents[1]
IMAGE_ROOT = "/opt/orchestrator"


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "deploy" / "rayjob.yaml").read_text())


@pytest.fixture(scope="module")
def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_its_command_is_one_of_ours(job: dict[str, Any]) -> None:
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "orchestrator"]
    options = _parser().parse_args(words[3:])
    assert options.command == "run" and options.address == "auto"
    assert load_study(ROOT / options.study.relative_to(IMAGE_ROOT), []).name == "qwen3-4b"


def test_its_study_finds_the_teachers_key(job: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    options = _parser().parse_args(shlex.split(job["spec"]["entrypoint"])[3:])
    key = load_study(ROOT / options.study.relative_to(IMAGE_ROOT), []).rollouts.key
    for pod in pods:
        assert key in {variable["name"] for variable in pod["containers"][0]["env"]}


def test_what_a_run_leaves_outlives_the_pods(job: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    out = _parser().parse_args(shlex.split(job["spec"]["entrypoint"])[3:]).out
    for pod in pods:
        claims = {volume["name"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume}
        mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if mount["name"] in claims}
        assert any(out.is_relative_to(mount) for mount in mounts)


def test_every_pod_has_one_image_and_the_pinned_ray(job: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    assert len({pod["containers"][0]["image"] for pod in pods}) == 1
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints" / "gpu.txt").read_text(), re.MULTILINE))
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pins["ray"]
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_image_holds_what_the_command_needs() -> None:
    lines = (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
    assert f"WORKDIR {IMAGE_ROOT}" in lines
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    assert copied >= {
        "orchestrator",
        "methods",
        "analysis",
        "report",
        "evals",
        "models",
        "execution",
        "results",
        "configs",
        "pyproject.toml",
        "constraints",
    }
    assert all((ROOT / name).exists() for name in copied)
