"""docker-compose.yml and Dockerfile: the schema, the names in them, and what they start."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.pages import ROOT, why_wrong

from ftq_shared.settings import SETTINGS

FILE = ROOT / "docker-compose.yml"
TEXT = FILE.read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
# Images of Docker's and of the projects themselves.
OFFICIAL = {"python:3.11-slim", "valkey/valkey:8"}
WORKERS = ["gpu-worker", "cpu-worker"]


def _schema_says(file: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*command, str(file)], capture_output=True, text=True)


def test_it_is_valid_against_the_compose_specification(tmp_path: Path) -> None:
    done = _schema_says(FILE)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(TEXT.replace("stop_grace_period", "stop_grace"))
    assert _schema_says(broken).returncode == 1


def test_every_variable_is_a_setting_or_documented() -> None:
    for service in SERVICES.values():
        for variable in service.get("environment", {}):
            assert variable in SETTINGS or f"`{variable}`" in OPERATIONS, variable
    for variable in set(re.findall(r"\$\{(\w+)", TEXT)):
        assert variable in SETTINGS or f"`{variable}`" in OPERATIONS, variable


@pytest.mark.parametrize("service", WORKERS)
def test_a_worker_starts_with_a_real_command(service: str) -> None:
    entry = re.search(r'^ENTRYPOINT \["(\w+)"\]$', DOCKERFILE, re.MULTILINE)
    assert entry
    assert entry[1] == "ftq"
    assert not why_wrong(SERVICES[service]["command"])
    default = re.search(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert default
    assert not why_wrong(yaml.safe_load(default[1]))


@pytest.mark.parametrize("service", WORKERS)
def test_a_worker_has_key_broker_and_storage(service: str) -> None:
    worker = SERVICES[service]
    environment = worker["environment"]
    assert environment["FTQ_FLEET_KEY"] == f"/run/secrets/{worker['secrets'][0]}"
    host = re.search(r"@(\w+):6379/", environment["FTQ_REDIS_URL"])
    assert host
    assert host[1] in SERVICES
    mounts = [volume.split(":")[1] for volume in worker["volumes"]]
    assert environment["FTQ_STORAGE"] in mounts
    assert environment["HF_HOME"] in mounts
    assert worker["depends_on"]["broker"]["condition"] == "service_healthy"


def test_both_kinds_of_worker_are_profiles() -> None:
    assert [SERVICES[name]["profiles"] for name in WORKERS] == [["gpu"], ["cpu"]]
    devices = SERVICES["gpu-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices[0]["driver"] == "nvidia"
    assert "gpu" in devices[0]["capabilities"]


def test_what_is_used_is_declared_and_what_is_declared_is_used() -> None:
    used: dict[str, set[str]] = {"secrets": set(), "volumes": set(), "configs": set()}
    for service in SERVICES.values():
        used["secrets"] |= set(service.get("secrets", []))
        used["configs"] |= {config["source"] for config in service.get("configs", [])}
        used["volumes"] |= {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert set(service.get("depends_on", {})) <= set(SERVICES)
    assert {kind: set(COMPOSE[kind]) for kind in used} == used


def test_no_secret_has_a_value_here() -> None:
    assert "FTQ_CLIENT_PASSWORD:?" in TEXT
    assert "FTQ_WORKER_PASSWORD:?" in TEXT
    assert not re.search(r"(?i)(password|token|key):\s*[\"']?[A-Za-z0-9]{8,}\b", TEXT)
    assert all("HF_TOKEN" not in s.get("environment", {}) for s in SERVICES.values())


def test_the_broker_keeps_its_data() -> None:
    broker = SERVICES["broker"]
    config = COMPOSE["configs"]["broker"]["content"]
    folder = next(v.split(":")[1] for v in broker["volumes"])
    assert f"dir {folder}" in config
    for line in ("appendonly yes", "maxmemory-policy noeviction", "user default off"):
        assert line in config
    assert "ping" in " ".join(broker["healthcheck"]["test"])
    # Without TLS the port is for this machine only.
    assert all(port.startswith("127.0.0.1:") for port in broker["ports"])


def test_images_are_official() -> None:
    images = {service["image"] for service in SERVICES.values() if "image" in service}
    images |= set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    assert images == OFFICIAL


def test_build_arguments_are_declared() -> None:
    declared = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    for service in WORKERS:
        assert set(SERVICES[service]["build"]["args"]) <= declared


def test_the_image_installs_extras_and_copies_files_that_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    installed = re.findall(r"^RUN pip install .*$", DOCKERFILE, re.MULTILINE)
    used = [extra for line in installed for extra in re.findall(r"\.\[([\w,]+)\]", line)]
    assert used
    assert all(name in extras for extra in used for name in extra.split(","))
    for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE):
        *sources, _ = shlex.split(line)
        assert all((ROOT / source).exists() for source in sources), line


def test_the_image_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)
    assert users[-1] not in ("root", "0")
    assert (
        f'useradd --uid "${{UID}}" --home-dir /var/lib/ftq --create-home {users[-1]}' in DOCKERFILE
    )


def test_folders_of_the_image_are_those_of_the_volumes() -> None:
    block = re.search(r"^ENV (.*?)(?<!\\)\n", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert block
    image = dict(re.findall(r"(\w+)=(\S+)", block[1]))
    for service in WORKERS:
        for variable in ("FTQ_STORAGE", "HF_HOME"):
            assert image[variable] == SERVICES[service]["environment"][variable]
    assert all(name in SETTINGS for name in image if name.startswith(("FTQ", "HF")))
