r"""The lab: hosts, wires and a gateway between them, in network namespaces of one machine.

::

     client ──┐                                        ┌── server
              ├─ wire "outside" ── p0 ┐    ┌ p1 ── wire "inside" ─┤
     other  ──┘   (a switch, if two   │    │           └── other
                   hosts or more)    gateway
                                       │
                                       p2 ── wire "relay" ── relay

`network.Lab` builds and removes it, `host.Host` runs programs, `capture` records the wires, `gateway.Gateway` is the
box itself and `mail` sends and receives. Refuses to touch a process, link or namespace that is not its own.
"""
