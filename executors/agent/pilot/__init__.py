"""Pilots: the embedded engine as one resident process on each node of a Flux instance, for tasks that need no Flux.

A pilot holds no cores. For each core that it may use, a *holder* job in Flux holds that core, so that cores go back to
Flux one at a time (`share` decides how many). The agent keeps the line of waiting tasks, and sends them to pilots by
Flux's own messages (`messages`); a pilot starts them and streams events back.

* In the agent: `engine` puts together `tasks` (each task's way), `crew` (the pilots), `sharing` (of cores with Flux)
  and `takeover`. `contact`, `journals` and `holder_jobs` talk to Flux.
* Beside each broker: `node` puts together `service` (requests), `duties` (operations), `telling` (the stream),
  `worker` (the embedded engine) and `holders`.
* In a holder job: `holder`.

What must not live here: requests, clients, results.
"""
