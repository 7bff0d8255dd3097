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
    dpkg -i "$package"
}

introduce "$1"
install_packages gateway
for card in "${@:2}"; do
    IFS='=' read -r name mac _ <<<"$card"
    name_card "$name" "$mac"
done
install_product
tollbridge setup --answers "$here/answers.toml" --yes
systemctl restart tollbridge-bridge.service tollbridge.service
