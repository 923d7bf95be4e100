"""flux-resize.sh SIZE: of the MiniCluster around this, as its pods' ServiceAccount, which needs to patch its scale."""

import json
import os
import socket
import ssl
import sys
import urllib.error
import urllib.request
from typing import List

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/"


def main(arguments: List[str]) -> None:
    if len(arguments) != 1 or not arguments[0].isdigit():
        sys.exit("flux-resize: give one number, the size")
    try:
        with open(ACCOUNT + "token") as token_file, open(ACCOUNT + "namespace") as namespace_file:
            token, namespace = token_file.read().strip(), namespace_file.read().strip()
    except OSError as err:
        sys.exit("flux-resize: %s: set pod.serviceAccountName and pod.automountServiceAccountToken: true" % err)
    server = os.environ["KUBERNETES_SERVICE_HOST"]
    url = "https://%s:%s/apis/flux-framework.org/v1alpha2/namespaces/%s/miniclusters/%s/scale" % (
        "[%s]" % server if ":" in server else server,
        os.environ["KUBERNETES_SERVICE_PORT"],
        namespace,
        socket.gethostname().rpartition("-")[0],
    )
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/merge-patch+json"}
    body = json.dumps({"spec": {"replicas": int(arguments[0])}}).encode()
    request = urllib.request.Request(url, body, headers, method="PATCH")
    trusted = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ACCOUNT + "ca.crt"))
    try:
        urllib.request.build_opener(trusted, urllib.request.ProxyHandler({})).open(request, timeout=30).close()
    except urllib.error.HTTPError as err:
        sys.exit("flux-resize: %s" % json.loads(err.read()).get("message", err))
    except OSError as err:
        sys.exit("flux-resize: %s: %s" % (url, err))


if __name__ == "__main__":
    main(sys.argv[1:])
