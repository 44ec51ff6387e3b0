"""The manifests of docker/ follow their schemas, and agree with each other and the program."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from tuner.experiment import load_experiment, parse_override

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
MANIFESTS = sorted(p for p in DOCKER.rglob("*") if p.is_file())
KUBERNETES = "1.35"  # the oldest that is still supported
HEALTH = re.compile(r"(RAY_health_check_\w+?)(?:=|: |, value: )\"?(\d+)")


def read(path: str) -> list[Any]:
    return list(yaml.safe_load_all((DOCKER / path).read_text()))


def pod_templates(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [t for x in value for t in pod_templates(x)]
    if not isinstance(value, dict):
        return []
    found = [value["template"]] if "template" in value else []
    return found + [t for x in value.values() for t in pod_templates(x)]


def test_compose_files_follow_the_compose_specification():
    done = subprocess.run(
        [
            sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec",
            DOCKER / "compose.yaml", DOCKER / "compose.gpu.yaml",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_kuberay_objects_follow_its_definitions_and_their_pods_kubernetes():
    schema = yaml.safe_load((Path(__file__).parent / "kuberay.schema.yaml").read_text())
    for thing in [*read("kuberay/cluster.yaml"), *read("kuberay/job.yaml")]:
        if not thing["apiVersion"].startswith("ray.io/"):
            kubernetes_validate.validate(thing, KUBERNETES, strict=True)
            continue
        Draft202012Validator(schema).validate(thing)
        for template in pod_templates(thing):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_ray_up_takes_its_file():
    from ray.autoscaler._private.util import prepare_config, validate_config

    [config] = read("ray-up.yaml")
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == len(config["provider"]["worker_ips"])


def test_a_lost_node_is_noticed_within_15_seconds_wherever_a_head_starts():
    found = [
        dict(HEALTH.findall((DOCKER / name).read_text()))
        for name in ("compose.yaml", "kuberay/cluster.yaml", "ray-up.yaml")
    ]
    assert found[0] == found[1] == found[2]
    seconds = {k.removeprefix("RAY_health_check_"): int(v) for k, v in found[0].items()}
    worst = seconds["failure_threshold"] * (seconds["period_ms"] + seconds["timeout_ms"]) / 1000
    assert set(seconds) == {"initial_delay_ms", "period_ms", "timeout_ms", "failure_threshold"}
    assert worst + seconds["initial_delay_ms"] / 1000 < 15


def test_every_cluster_wants_a_token():
    [compose] = read("compose.yaml")
    for name in ("head", "worker"):
        environment = compose["services"][name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "${RAY_AUTH_MODE:-token}"
        folder = str(Path(environment["RAY_AUTH_TOKEN_PATH"]).parent)
        assert folder in {v.split(":")[1] for v in compose["services"][name]["volumes"]}
    _, cluster = read("kuberay/cluster.yaml")
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    [ray_up] = read("ray-up.yaml")
    assert "--env RAY_AUTH_MODE=token" in ray_up["docker"]["run_options"]


def test_what_compose_publishes_is_seen_on_this_machine_alone():
    [compose] = read("compose.yaml")
    ports = [p for service in compose["services"].values() for p in service.get("ports", [])]
    assert len(ports) == 4
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", p) for p in ports)


def test_tensorboard_reads_every_file_of_a_trial_as_it_grows():
    [compose] = read("compose.yaml")
    assert "--reload_multifile=true" in compose["services"]["tensorboard"]["command"]


def test_files_that_compose_names_are_there():
    [compose] = read("compose.yaml")
    for service in compose["services"].values():
        if "build" in service:
            context = DOCKER / service["build"]["context"]
            assert (context / service["build"]["dockerfile"]).is_file()
        for volume in service["volumes"]:
            source = volume.rsplit(":", 2)[0] if volume.endswith(":ro") else volume.split(":")[0]
            if source.startswith("."):
                assert (DOCKER / source).exists(), source
            else:
                # DATA_DIR is the user's, or the volume of this name
                assert re.sub(r"\$\{\w+:-(\w+)\}", r"\1", source) in compose["volumes"], source


def test_prometheus_and_grafana_see_what_their_files_name():
    [compose] = read("compose.yaml")
    seen = {
        name: [v.split(":")[1] for v in compose["services"][name]["volumes"]]
        for name in ("prometheus", "grafana")
    }
    [prometheus] = read("prometheus.yaml")
    for job in prometheus["scrape_configs"]:
        for source in job["file_sd_configs"]:
            for file in source["files"]:
                assert any(Path(file).is_relative_to(folder) for folder in seen["prometheus"])
    [dashboards] = read("grafana/provisioning/dashboards/dashboards.yaml")
    for provider in dashboards["providers"]:
        folder = Path(provider["options"]["path"])
        assert any(folder.is_relative_to(f) for f in seen["grafana"]), folder
    [sources] = read("grafana/provisioning/datasources/prometheus.yaml")
    # localhost is right for both, and for Ray's defaults, since they share the head's network
    assert [s["url"] for s in sources["datasources"]] == ["http://localhost:9090"]
    for name in seen:
        assert compose["services"][name]["network_mode"] == "service:head"


def test_the_gpu_file_changes_services_and_arguments_that_are_there():
    [compose], [gpu] = read("compose.yaml"), read("compose.gpu.yaml")
    images = {n for n, s in compose["services"].items() if "build" in s}
    assert set(gpu["services"]) == images  # else one of them would run the image for CPUs
    dockerfile = (DOCKER / "Dockerfile").read_text()
    for service in gpu["services"].values():
        assert all(f"ARG {name}=" in dockerfile for name in service["build"]["args"])


def test_kuberay_goes_by_the_images_ray_and_user():
    _, cluster = read("kuberay/cluster.yaml")
    dockerfile = (DOCKER / "Dockerfile").read_text()
    assert f"ARG RAY={cluster['spec']['rayVersion']}\n" in dockerfile
    templates = pod_templates(cluster)
    assert len(templates) == 2
    for template in templates:
        user = template["spec"]["securityContext"]
        assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in dockerfile


def test_the_job_is_an_experiment_that_runs_on_the_cluster():
    [job] = read("kuberay/job.yaml")
    claim, cluster = read("kuberay/cluster.yaml")
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    program, command, source, *options = shlex.split(job["spec"]["entrypoint"])
    assert (program, command) == ("tuner", "run")
    assert set(options[::2]) == {"--set"}
    experiment = load_experiment(source, dict(map(parse_override, options[1::2])))

    [worker] = cluster["spec"]["workerGroupSpecs"]
    [container] = worker["template"]["spec"]["containers"]
    [bundle] = experiment.resources.bundles()
    limits = container["resources"]["limits"]
    assert bundle["GPU"] <= int(limits["nvidia.com/gpu"])
    assert bundle["CPU"] <= int(limits["cpu"])
    [mount] = [m for m in container["volumeMounts"] if m["mountPath"] == experiment.storage]
    [volume] = [v for v in worker["template"]["spec"]["volumes"] if v["name"] == mount["name"]]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: str(p.relative_to(DOCKER)))
def test_nothing_names_the_machine_it_was_written_on(path: Path):
    text = path.read_text()
    assert not re.findall(r"(?<![\w~.])/(?:(?:root|Users|work|srv)/|home/(?!tuner\b))\S*", text)
    assert str(ROOT) not in text
