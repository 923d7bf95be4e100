"""The Flux Operator in Python: apply a MiniCluster, and it is there. The command ``flux-operator``.

    watch threads (`reflecting`) -> caches (`store`) -> keys (`work`) -> workers (`loop`):
        read the spec (`reading`), decide (`deciding`, with the status by `conditions`; pure), act (`acting`)

Level-triggered: what is decided follows from what is there now, never from which event came. One worker at a time has
a MiniCluster; a failure is tried again, later each time; nothing is listed or asked again for one MiniCluster.

`leading` lets one of several replicas work, and stands by while upstream's operator does. `crd` and `manifests` are
what is installed. What must not live here: what a MiniCluster consists of (`executors.render`), what the state of pods
means (`executors.provision.kubernetes.diagnosis`), and requests (`executors.kube`).
"""
