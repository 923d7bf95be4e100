"""The engine over a Flux instance: the only place that may import Flux's bindings, and few of its modules do.

What must not live here: requests, clients, results. Modules that decide or write text do not import `flux`, so that
they are tested where there is none.
"""
