#!/bin/bash
# The rest of the world on the outside wire: the mail server of example.org and example.net, and everybody's DNS.
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/mta.sh"

serve_names() {
    local zone
    install -m 644 "$here"/zones/* /etc/nsd/
    {
        printf 'server:\n  ip-address: %s\n  ip-address: %s\n  ip-transparent: yes\n  hide-version: yes\n' "$dns" "$dns6"
        printf 'remote-control:\n  control-enable: no\n'
        for zone in "$here"/zones/*; do
            printf 'zone:\n  name: %s\n  zonefile: /etc/nsd/%s\n' "$(basename "$zone" .zone)" "$(basename "$zone")"
        done
    } >/etc/nsd/nsd.conf
    enable nsd.service
    systemctl restart nsd.service
}

introduce "$1"
install_packages internet
be_station "${@:2}"
serve_names
be_mta mail.example.org "example.org example.net"
