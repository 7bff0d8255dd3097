"""`explain`, which asks and changes nothing; and `demo`, which asks a lab."""

from __future__ import annotations

import argparse
import json
import os
from ipaddress import ip_address

from smtp_intercept.app import config as configuration
from smtp_intercept.app import inforce, naming
from smtp_intercept.app.config import Config
from smtp_intercept.app.exits import FailedError, UsageError
from smtp_intercept.app.explain import Mail
from smtp_intercept.app.explain import explain as explain_connection
from smtp_intercept.app.own import own_addresses
from smtp_intercept.app.rundir import RunDir
from smtp_intercept.app.served import protected_table
from smtp_intercept.app.streams import warn


def explain(arguments: argparse.Namespace) -> int:
    """Of the file as it is, which need not be what is in force; ``running``: of what is."""
    run_dir = RunDir(arguments.run_dir)
    config = _in_force(run_dir) if arguments.running else naming.load(arguments.config)
    drift = [] if arguments.running else inforce.of_run(run_dir, arguments.config)
    warn(f"{arguments.config}: {each} (explain --running; restart `tollbridge run`)" for each in drift)
    for name, text in (("--from", arguments.client), ("--to", arguments.server)):
        try:
            ip_address(text)
        except ValueError:
            raise UsageError(
                f"{name}: {text} is not an IP address; the pick-up is decided by addresses alone"
            ) from None
    port = naming.link_of(arguments.port, config) if arguments.port else config.bridge.ports[0]
    if port not in config.bridge.ports:
        raise UsageError(f"--port: {port} is not one of bridge.ports ({', '.join(config.bridge.ports)})")
    if arguments.vlan and arguments.vlan not in config.bridge.vlans:
        listed = ", ".join(map(str, config.bridge.vlans)) or "none"
        raise UsageError(f"--vlan: {arguments.vlan} is not one of bridge.vlans ({listed}): its mail is not inspected")
    table, serves = protected_table(config)
    own = own_addresses(config)
    try:
        explanation = explain_connection(
            configuration.policy(config, table, own),
            Mail(configuration.handling(config), configuration.routes(config), configuration.relay_rule(config)),
            config,
            client=arguments.client,
            server=arguments.server,
            port=port,
            vlan=arguments.vlan,
            served=serves.by(ip_address(arguments.server).packed),
            recipients=arguments.rcpt,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    told, text = explanation.as_json(), explanation.as_text()
    if config.rule and explanation.handler:
        from smtp_intercept.app.rules import to_connection  # which others need not wait for

        rules, lines = to_connection(config, explanation)
        told, text = {**told, "rules": rules}, "\n".join([text, *lines])
    told |= {"running": arguments.running, "drift": drift}
    print(json.dumps(told) if arguments.json else text)
    return 0


def _in_force(run_dir: RunDir) -> Config:
    if run_dir.path.exists() and not os.access(run_dir.path, os.X_OK):
        raise FailedError(f"--running: {run_dir.path} cannot be looked into: ask as root")
    if not run_dir.holder("run"):
        raise FailedError("--running: no daemon runs, so that nothing is in force (tollbridge run)")
    if (text := inforce.running(run_dir)) is None:
        raise FailedError(f"--running: {run_dir.running} cannot be read: ask as root")
    return naming.parse(text, run_dir.running)


def demo(arguments: argparse.Namespace) -> int:
    from smtp_intercept.app import demo as show  # scapy and the lab: nothing that the daemon should load

    return show.run(arguments)
