#!/bin/bash
# The box: the product from its package, bridging two cards. Nothing on its bridge has an address.
. "$(dirname "$0")/common.sh"

# tollbridge.deb beside this script; where none was brought, it is built here from the checkout, which needs the internet.
install_product() {
    local package=$here/tollbridge.deb
    if [ ! -f "$package" ]; then
        apt-get install -y -qq --no-install-recommends make
        make -C "/opt/tollbridge" deb
        package=$(find "/opt/tollbridge/dist" -name 'tollbridge_*.deb')
    fi
    # Not again what is there: starting Python a few times takes an emulated machine a minute.
    if ! sha256sum --quiet --check /root/installed.sum 2>/dev/null; then
        dpkg -i "$package"
        tollbridge setup --answers "$here/answers.toml" --yes
        systemctl reload-or-restart tollbridge-bridge.service
        systemctl restart --no-block tollbridge.service
        sha256sum "$package" "$here/answers.toml" >/root/installed.sum
    fi
}

# An emulated processor (one that KVM runs is "kvm") needs longer than systemd's 90 s when its computer has other work.
be_patient() {
    [ "$(systemd-detect-virt)" = qemu ] || return 0
    local unit
    for unit in tollbridge tollbridge-bridge; do
        mkdir -p "/etc/systemd/system/$unit.service.d"
        printf '[Service]\nTimeoutSec=600\n' >"/etc/systemd/system/$unit.service.d/lab.conf"
    done
}

# systemd tries again by itself when a start fails.
wait_active() {
    local deadline=$((SECONDS + 600))
    until systemctl is-active --quiet "$1"; do
        [ "$SECONDS" -lt "$deadline" ] || { journalctl --no-pager -n 30 -u "$1" >&2; return 1; }
        sleep 1
    done
}

introduce "$1"
install_packages gateway
for card in "${@:2}"; do
    IFS='=' read -r name mac _ <<<"$card"
    name_card "$name" "$mac"
done
be_patient
install_product
systemctl start --no-block tollbridge.service
wait_active tollbridge.service
