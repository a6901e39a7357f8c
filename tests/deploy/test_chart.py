"""The Helm chart: rendered by helm, held against Kubernetes' schemas and against what the server reads and answers."""

from __future__ import annotations

import json
import warnings
from dataclasses import fields
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import twinlens
from server.http.rules import RULES
from server.settings import Settings, file_of
from tests import ROOT
from tests.support.chart import CHART, LEAST, helm, merged, needs_helm, of_kind, rendered

pytestmark = needs_helm

# The oldest and the newest version of Kubernetes that are looked at.
VERSIONS = ("1.27", "1.37")

VALUES: dict[str, dict[str, Any]] = {
    "the least": {},
    "everything": {
        "image": {"digest": f"sha256:{'a' * 64}", "pullSecrets": [{"name": "registry"}]},
        "secret": {"settings": {"OWNER_DATABASE_URL": "owner", "READ_DATABASE_URL": "read"}},
        "settings": {"DEADLINE": "12.5s", "CORS_ORIGINS": "https://shop.example", "DEMO": False},
        "env": [{"name": "AWS_REGION", "value": "eu-central-1"}],
        "envFrom": [{"secretRef": {"name": "store"}}],
        "model": {"volume": {"persistentVolumeClaim": {"claimName": "models"}}, "path": "clip-vit-b32"},
        "ingress": {"enabled": True, "className": "nginx", "host": "search.shop.example", "tlsSecret": "tls"},
        "autoscaling": {"enabled": True},
        "networkPolicy": {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "credentials": {"name": "admin"}},
        "podAnnotations": {"a/b": "c"},
        "podLabels": {"team": "search"},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "search", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "high",
        "runtimeClassName": "nvidia",
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "worker": {"enabled": True, "replicas": 3, "resources": {"limits": {"nvidia.com/gpu": 1}}},
    },
    "keda, pictures in a claim": {
        "settings": {"MEDIA_URL": None},
        "media": {"existingClaim": "pictures"},
        "autoscaling": {"enabled": True, "kind": "keda"},
        "serviceAccount": {"create": False},
        "topologySpreadConstraints": [],
    },
    "nothing that can be left out": {
        "toolbox": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "disruptionBudget": {"enabled": False},
        "drain": {"seconds": 0},
    },
}


@pytest.fixture(scope="module", params=VALUES.values(), ids=list(VALUES))
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return rendered(request.param)


@pytest.fixture(scope="module")
def standard() -> list[dict[str, Any]]:
    return rendered({})


@pytest.mark.parametrize("version", VERSIONS)
def test_each_object_is_what_kubernetes_knows_and_nothing_more(objects: list[dict[str, Any]], version: str) -> None:
    own = [one for one in objects if one["apiVersion"] not in ("keda.sh/v1alpha1", "monitoring.coreos.com/v1")]
    assert own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the library that reads the schemas
        for one in own:
            kubernetes_validate.validate(one, version, strict=True)


def test_a_service_monitor_and_a_scaled_object_are_what_their_operators_know() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names of fields of their models, which pydantic finds odd
        from cloudcoil.models.keda import v1alpha1 as keda
        from cloudcoil.models.prometheus_operator import v1 as prometheus
    monitor = of_kind(rendered(VALUES["everything"]), "ServiceMonitor")
    scaled = of_kind(rendered(VALUES["keda, pictures in a claim"]), "ScaledObject")
    for found, model in ((monitor, prometheus.ServiceMonitor), (scaled, keda.ScaledObject)):
        known = model.model_validate(found).model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert known == found, "a field that is not known would be dropped"


def test_helm_finds_nothing_to_complain_of() -> None:
    done = helm("lint", "--strict", str(CHART), values=LEAST)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"secret": {"name": ""}}, "secret.name must name a Secret"),
        ({"secret": {"settings": {"DATABASE_URL": None}}}, "the embedded database would vanish with its pod"),
        ({"settings": {"MEDIA_URL": None}}, "pictures need a place that outlives a pod"),
        ({"settings": {"READ_DATABASE_URL": "x"}}, "would show a password"),
        ({"settings": {"PORT": "9000"}}, "settings.PORT is the chart's own"),
        ({"secret": {"settings": {"MEDIA_URL": "media"}}}, "MEDIA_URL is given in settings and in secret.settings"),
        ({"model": {"volume": {"emptyDir": {}}}}, "model.path must name the artifact's folder"),
        ({"ingress": {"enabled": True}}, "ingress.host must be given"),
        ({"settings": {"DEDALINE": "3"}}, "DEDALINE"),
        ({"autoscaling": {"kind": "hap"}}, "/autoscaling/kind"),
        ({"replica": 3}, "replica"),
        ({"worker": {"enable": True}}, "enable"),
        ({"worker": {"replicas": -1}}, "/worker/replicas"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_would_lose_data_or_is_misspelt_is_refused(values: dict[str, Any], sentence: str) -> None:
    done = helm("template", "shop", str(CHART), values=merged(LEAST, values))
    assert done.returncode != 0
    assert sentence in done.stderr


def test_the_chart_knows_every_setting_and_which_may_be_secret() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    secret = {one.name for one in fields(Settings) if one.metadata["secret"]}
    plain = {one.name for one in fields(Settings)} - {file_of(name) for name in secret}
    assert {name.lower() for name in schema["settings"]["propertyNames"]["enum"]} == plain
    secrets = schema["secret"]["properties"]["settings"]["propertyNames"]["enum"]
    assert {name.lower() for name in secrets} == secret
    assert yaml.safe_load((CHART / "values.yaml").read_text()).keys() == schema.keys() - {"global"}


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == twinlens.__version__


@pytest.mark.parametrize("component", ["server", "toolbox", "worker"])
def test_the_server_reads_the_settings_that_a_pod_is_given(component: str, tmp_path: Path) -> None:
    (container,) = of_kind(rendered(VALUES["everything"]), "Deployment", component)["spec"]["template"]["spec"][
        "containers"
    ]
    given = {one["name"]: one["value"] for one in container["env"]}
    for name in ("DATABASE_URL", "OWNER_DATABASE_URL", "READ_DATABASE_URL"):
        mounted = Path(given[f"TWINLENS_{name}_FILE"])
        (mount,) = [one for one in container["volumeMounts"] if one["mountPath"] == str(mounted.parent)]
        assert mount["readOnly"]
        given[f"TWINLENS_{name}_FILE"] = str(tmp_path / mounted.name)
        (tmp_path / mounted.name).write_text(f"postgresql://a:b@{name.lower()}/c\n")
    settings = Settings.read(given)
    assert (settings.deadline, settings.demo, settings.threads, settings.batch) == (12.5, False, 2, 8)
    assert (settings.data, settings.model) == (Path("/data"), Path("/models/clip-vit-b32"))
    assert (settings.media_url, settings.cors_origins) == ("s3://shop/pictures", ("https://shop.example",))
    assert settings.owners_url == "postgresql://a:b@owner_database_url/c"


def test_probes_ask_what_needs_no_key_and_wait_longer_than_the_answer_takes(standard: list[dict[str, Any]]) -> None:
    (container,) = of_kind(standard, "Deployment")["spec"]["template"]["spec"]["containers"]
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
    for probe in probes.values():
        assert RULES[("GET", probe["httpGet"]["path"])].open
        assert probe["timeoutSeconds"] > 2  # which /health/ready may take
    assert probes["readiness"]["httpGet"]["path"] == "/health/ready"
    assert probes["liveness"]["httpGet"]["path"] == "/health/live", "a database that is away is no reason to restart"


@pytest.mark.parametrize(("deadline", "least"), [("30", 40), ("12.5s", 23), (300, 310)])
def test_a_pod_has_the_time_that_its_drain_and_its_requests_need(deadline: str | int, least: int) -> None:
    pod = of_kind(rendered({"settings": {"DEADLINE": deadline}}), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "10"]
    assert pod["terminationGracePeriodSeconds"] >= 10 + least


@pytest.mark.parametrize("component", ["server", "toolbox", "worker"])
def test_a_pod_keeps_the_restricted_pod_security_standard(objects: list[dict[str, Any]], component: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and a read-only root file system."""
    if component != "server" and not any(component in one["metadata"]["name"] for one in objects):
        return
    pod = of_kind(objects, "Deployment", component)["spec"]["template"]["spec"]
    whole = pod["securityContext"]
    assert whole["runAsNonRoot"]
    assert whole["runAsUser"] > 0
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    assert not pod["automountServiceAccountToken"]
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"/tmp", "/data"} <= {one["mountPath"] for one in container["volumeMounts"]}


def test_what_selects_pods_selects_those_of_the_server_alone(objects: list[dict[str, Any]]) -> None:
    pods = {one["metadata"]["name"]: one["spec"]["template"] for one in objects if one["kind"] == "Deployment"}
    for template in pods.values():
        assert template["metadata"]["labels"]["app.kubernetes.io/name"] == "twinlens"
    selectors = [of_kind(objects, "Service")["spec"]["selector"]]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in objects if one["kind"] == "PodDisruptionBudget"]
    for selector in selectors:
        chosen = [name for name, template in pods.items() if selector.items() <= template["metadata"]["labels"].items()]
        assert chosen == ["shop-twinlens"]


def test_a_network_policy_lets_in_callers_of_the_port_and_out_what_is_needed(standard: list[dict[str, Any]]) -> None:
    server = of_kind(standard, "NetworkPolicy")["spec"]
    assert [rule["ports"] for rule in server["ingress"]] == [[{"port": "http", "protocol": "TCP"}]]
    out = {port["port"] for rule in server["egress"] for port in rule["ports"]}
    assert out == {53, 5432, 443}
    assert of_kind(standard, "NetworkPolicy", "toolbox")["spec"]["ingress"] == []
    claim = rendered(VALUES["keda, pictures in a claim"])
    out = {port["port"] for rule in of_kind(claim, "NetworkPolicy")["spec"]["egress"] for port in rule["ports"]}
    assert out == {53, 5432}, "without a remote store nothing else is called"


def test_a_worker_runs_where_it_is_asked_for_and_nobody_calls_it(standard: list[dict[str, Any]]) -> None:
    assert not [one for one in standard if one["metadata"]["labels"]["app.kubernetes.io/component"] == "worker"]
    objects = rendered({"worker": {"enabled": True, "replicas": 2}})
    worker = of_kind(objects, "Deployment", "worker")["spec"]
    (container,) = worker["template"]["spec"]["containers"]
    assert (worker["replicas"], container["command"]) == (2, ["python", "-m", "server", "worker"])
    (server,) = of_kind(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {name: container[name] for name in ("image", "env", "volumeMounts")} == {
        name: server[name] for name in ("image", "env", "volumeMounts")
    }
    policy = of_kind(objects, "NetworkPolicy", "worker")["spec"]
    assert policy["ingress"] == []
    assert policy["egress"] == of_kind(objects, "NetworkPolicy")["spec"]["egress"]


@pytest.mark.parametrize("component", ["server", "toolbox"])
def test_a_network_policy_lets_pictures_be_fetched_from_the_internet_and_not_from_the_cluster(
    standard: list[dict[str, Any]], component: str
) -> None:
    objects = rendered({"settings": {"FETCH_HOSTS": "cdn.shop.example"}})
    before, after = (of_kind(one, "NetworkPolicy", component)["spec"]["egress"] for one in (standard, objects))
    (rule,) = (one for one in after if one not in before)
    assert [port["port"] for port in rule["ports"]] == [443, 80]
    for block in (one["ipBlock"] for one in rule["to"]):
        within = ip_network(block["cidr"])
        assert all(ip_network(one).network_address in within for one in block.get("except", []))
    inside = ("10.1.2.3", "100.64.1.1", "127.0.0.1", "169.254.169.254", "172.20.0.1", "192.168.1.1", "fd00::1", "::1")
    assert [one for one in inside if _reached(rule, one)] == []
    assert all(_reached(rule, one) for one in ("93.184.215.14", "2606:4700:4700::1111"))


def _reached(rule: dict[str, Any], text: str) -> bool:
    """Whether an egress rule of `ipBlock`s lets an address be called."""
    address = ip_address(text)
    return any(
        address in ip_network(block["cidr"]) and not any(address in ip_network(one) for one in block.get("except", []))
        for block in (one["ipBlock"] for one in rule["to"])
    )


def test_autoscaling_goes_by_the_age_of_the_queue() -> None:
    scaler = of_kind(rendered(VALUES["everything"]), "HorizontalPodAutoscaler")["spec"]
    (metric,) = scaler["metrics"]
    assert metric["pods"]["metric"]["name"] == "twinlens_search_queue_age_seconds"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "100m"}
    assert scaler["scaleTargetRef"]["name"] == "shop-twinlens"
    assert "replicas" not in of_kind(rendered(VALUES["everything"]), "Deployment")["spec"], "the scaler sets them"
    (trigger,) = of_kind(rendered(VALUES["keda, pictures in a claim"]), "ScaledObject")["spec"]["triggers"]
    assert 'twinlens_queue_age_seconds{lane="interactive",namespace="search"' in trigger["metadata"]["query"]
    # A name that the dashboard has, too, is one that a server gives: tests/deploy/test_prometheus.py sees to that.
    assert "twinlens_queue_age_seconds{" in (ROOT / "deploy" / "grafana" / "twinlens.json").read_text("utf-8")
