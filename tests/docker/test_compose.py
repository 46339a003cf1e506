"""docker-compose.yml: it parses, what it names exists, and it opens nothing to the network by itself."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.settings import ENVIRONMENT_PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"

Json = dict[str, Any]


@pytest.fixture(scope="module")
def compose() -> Json:
    loaded: Json = yaml.safe_load(COMPOSE.read_text())
    return loaded


def servers(compose: Json) -> dict[str, Json]:
    return {name: service for name, service in compose["services"].items() if name.startswith("server")}


def test_docker_compose_accepts_it() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode:
        pytest.skip("docker compose (the plugin, version 2) is not installed")
    for profile in ("gpu", "jetson"):
        command = [docker, "compose", "--profile", profile, "config", "--quiet"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def test_one_server_starts_by_default_and_the_others_have_profiles(compose: Json) -> None:
    assert {name: service.get("profiles") for name, service in compose["services"].items()} == {
        "server": None,
        "server-gpu": ["gpu"],
        "server-jetson": ["jetson"],
        "prometheus": None,
        "grafana": None,
    }


def test_what_it_builds_and_mounts_exists(compose: Json) -> None:
    for name, service in compose["services"].items():
        if build := service.get("build"):
            assert (ROOT / build["context"] / build["dockerfile"]).is_file(), name
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.partition(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
            elif not source.startswith("${"):
                assert source in compose["volumes"], source


def test_a_wrong_bundle_path_is_an_error_and_not_a_new_folder(compose: Json) -> None:
    for service in servers(compose).values():
        (bundle,) = [volume for volume in service["volumes"] if isinstance(volume, dict)]
        assert bundle["target"] == "/bundle"
        assert bundle["read_only"]
        assert not bundle["bind"]["create_host_path"]


def test_ports_are_published_on_this_machine_only(compose: Json) -> None:
    ports = [port for service in compose["services"].values() for port in service["ports"]]
    assert all(port.startswith("${MONOCOQUE_BIND:-127.0.0.1}:") for port in ports)
    assert {port.rpartition(":")[2] for port in ports} == {"8001", "8002", "9090", "3000"}


def test_services_have_no_rights_they_do_not_need(compose: Json) -> None:
    for name, service in compose["services"].items():
        assert service["restart"] == "unless-stopped", name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert "privileged" not in service, name
    assert all(service["read_only"] for service in servers(compose).values())


def test_settings_that_are_passed_on_exist(compose: Json) -> None:
    known = {ENVIRONMENT_PREFIX + name.upper() for name in Settings.model_fields} | {"NVIDIA_VISIBLE_DEVICES"}
    for service in servers(compose).values():
        assert set(service["environment"]) <= known
    for dockerfile in (ROOT / "docker").glob("*.Dockerfile"):
        assert set(re.findall(r"\bMONOCOQUE_[A-Z_]+", dockerfile.read_text())) <= known


def test_the_drain_fits_in_the_grace_period(compose: Json) -> None:
    drain = Settings.model_fields["drain_seconds"].default
    for service in servers(compose).values():
        assert float(service["stop_grace_period"].removesuffix("s")) >= drain + 5


def test_prometheus_scrapes_the_server_that_runs(compose: Json) -> None:
    config = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "monocoque"]
    host, _, port = job["static_configs"][0]["targets"][0].partition(":")
    assert port == str(Settings.model_fields["metrics_port"].default)
    for service in servers(compose).values():
        assert host in service["networks"]["default"]["aliases"]


def test_grafana_finds_what_is_mounted(compose: Json) -> None:
    grafana = compose["services"]["grafana"]
    mounts = dict(volume.split(":")[:2][::-1] for volume in grafana["volumes"])
    provider = yaml.safe_load((ROOT / "docker/grafana/provisioning/dashboards/monocoque.yml").read_text())["providers"][
        0
    ]
    dashboards = ROOT / mounts[provider["options"]["path"]]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (dashboards / home.name).is_file()
    assert str(home.parent) == provider["options"]["path"]
    source = yaml.safe_load((ROOT / "docker/grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ][0]
    assert source["url"] == "http://prometheus:9090"


def test_images_are_pinned_to_a_version(compose: Json) -> None:
    for name, service in compose["services"].items():
        _, _, tag = service["image"].partition(":")
        assert tag, name
        assert tag != "latest", name


def test_the_documentation_names_services_and_files_that_exist(compose: Json) -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    for names in re.findall(r"docker compose (?:up|build|logs)((?: --?[\w-]+| [a-z-]+)*)", text):
        named = {name for name in names.split() if not name.startswith("-")}
        assert named <= set(compose["services"]), names
    files = set(re.findall(r"`((?:docker|tests|docs)/[\w./-]+)`", text))
    assert files
    assert all((ROOT / file).exists() for file in files), files
