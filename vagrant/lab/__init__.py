"""Brings the lab's machines up, runs the tests of the marker `vm` against them, and takes the machines away again.

Knows machines, cables and SSH; what is tested, and how, is the tests' own business. They learn where the machines are
from one file, `machines.json`::

    {
      "suite": "bookworm",                                    the machines' Debian
      "runner": "qemu",                                       or "vagrant"
      "machines": {
        "gateway": {
          "ssh": ["ip", …, "ssh", …, "gateway"],              root's; add the command as one shell word
          "copy": ["ip", …, "rsync", "-a", "-e", "ssh …"],    add sources and "gateway:/path", or the reverse
          "ports": {"p0": "00:00:5e:00:53:f0", …},            the lab's cards by the name that they have on the machine
          "addresses": {"p0": [], …},                         of each card, with prefix length
          "power_off": […], "power_on": […],                  commands: the power cut, and power again
          "serial": "/path"                                   what the machine has said on its console
        }, …
      },
      "links": {"client-gateway": {"down": […], "up": […]}, …}   commands that pull a cable, and put it back
    }

`power_on` returns when the machine has power: wait for SSH. The links are `client-gateway` (the cable in the gateway's
p0; client and internet keep theirs, as behind a switch), `gateway-server` (p1 and the server's card, one cable), and
`client`, `server`, `internet` (that station's own). On every machine /usr/lib/tollbridge/bin/python3 has the product's
libraries, and the lab's programs (`-m smtp_intercept.app.lab.…`).
"""
