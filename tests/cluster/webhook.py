"""An admission webhook that adds a container to each pod of a namespace, as service meshes have one."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster.testbed.cluster import Cluster

ENDLESS = "trap 'exit 0' TERM; while :; do sleep 1; done"


@contextmanager
def injecting(cluster: Cluster, namespace: str, script: str) -> Iterator[None]:
    """Pods of the namespace get a container ``mesh-proxy`` that runs a shell script."""
    added = {
        "name": "mesh-proxy",
        "image": cluster.image.name,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", script],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    patch = json.dumps([{"op": "add", "path": "/spec/containers/-", "value": added}]).encode()

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
            answer = {
                "uid": asked["uid"],
                "allowed": True,
                "patchType": "JSONPatch",
                "patch": base64.b64encode(patch).decode(),
            }
            review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}
            body = json.dumps(review).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass  # the test's own output is enough

    address = cluster.place.host_address
    certificate = cluster.pki.directory / "webhook.crt"
    if not certificate.exists():
        cluster.pki.server("webhook", addresses=[address], names=[])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    server = http.server.ThreadingHTTPServer((address, 0), Hook)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    name = f"inject-{namespace}"
    hook = {
        "name": "inject.example.org",
        "clientConfig": {
            "url": f"https://{address}:{server.server_address[1]}/",
            "caBundle": base64.b64encode(cluster.pki.certificate.read_bytes()).decode(),
        },
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    }
    manifest = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [hook],
    }
    try:
        cluster.kubectl("create", "--filename=-", input=json.dumps(manifest))
        yield
    finally:
        cluster.kubectl("delete", "mutatingwebhookconfiguration", name)
        server.shutdown()
        thread.join()
        server.server_close()
