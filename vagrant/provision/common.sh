# shellcheck shell=bash
# Sourced by every machine's script, which is called with its name and its cards: NAME=MAC[=ADDRESS,ADDRESS...]
# Every step may be repeated; nothing is fetched that is there already.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dns=192.0.2.40
dns6=2001:db8::40

# The packages of a role, from packages.txt.
install_packages() {
    local package missing=()
    while read -r package; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done < <(awk -F': *' -v role="$1" '$1 == "all" || $1 == role {print $2}' "$here/packages.txt" | tr ' ' '\n')
    [ ${#missing[@]} = 0 ] && return
    echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# A unit at every boot, or at none. Asking first: systemd takes seconds of an emulated machine to change its mind.
enable() { systemctl is-enabled --quiet "$1" || systemctl enable --quiet "$1"; }
disable() { ! systemctl is-enabled --quiet "$1" || systemctl disable --quiet --now "$1"; }

# The machine's name; root comes in by the key that vagrant has.
introduce() {
    hostname "$1"
    echo "$1" >/etc/hostname
    grep -q "[[:space:]]$1\$" /etc/hosts || echo "127.0.1.1 $1" >>/etc/hosts
    install -d -m 700 /root/.ssh
    if [ -f /home/vagrant/.ssh/authorized_keys ]; then
        install -m 600 /home/vagrant/.ssh/authorized_keys /root/.ssh/authorized_keys
    fi
}

# A card is known by its MAC, whatever the hypervisor and the kernel call it. It keeps name and settings at a reboot.
name_card() { # CARD MAC
    local present
    # Frames as long as a real wire's: no card here cuts up, puts together or sums up for the kernel.
    cat >"/etc/systemd/network/05-$1.link" <<LINK
[Match]
PermanentMACAddress=$2
Type=ether

[Link]
Name=$1
TCPSegmentationOffload=no
TCP6SegmentationOffload=no
TransmitChecksumOffload=no
LINK
    if [ ! -e "/sys/class/net/$1" ]; then
        present=$(ip -o link show | awk -F': ' -v mac="$2" '$0 ~ "link/ether " mac {print $2; exit}')
        ip link set "$present" down
        ip link set "$present" name "$1"
    fi
    ethtool -K "$1" tso off tx off >/dev/null
}

# A station's card: its addresses, and no word unasked, so that a capture holds what a test caused.
address_card() { # CARD ADDRESS,ADDRESS...
    cat >"/etc/systemd/network/20-$1.network" <<NETWORK
[Match]
Name=$1

[Network]
LinkLocalAddressing=ipv6
IPv6AcceptRA=no
IPv6DuplicateAddressDetection=0
ConfigureWithoutCarrier=yes
IgnoreCarrierLoss=yes
LLMNR=no
$(tr , '\n' <<<"$2" | sed 's/^/Address=/')
NETWORK
    sed -i '/^\[Link\]/a GenericSegmentationOffload=no\nGenericReceiveOffload=no' "/etc/systemd/network/05-$1.link"
    ethtool -K "$1" gso off gro off
}

be_station() { # CARD=MAC=ADDRESSES...
    local card name mac addresses
    for card in "$@"; do
        IFS='=' read -r name mac addresses <<<"$card"
        name_card "$name" "$mac"
        address_card "$name" "$addresses"
    done
    echo 'net.ipv4.ip_local_port_range = 10000 65000' >/etc/sysctl.d/90-station.conf
    sysctl -q -p /etc/sysctl.d/90-station.conf
    enable systemd-networkd.service
    systemctl restart systemd-networkd.service
    ask_the_lab
    install_programs
}

# Names are asked of the lab's own server, from now on: whatever had to come from elsewhere has come.
ask_the_lab() {
    if [ -d /etc/dhcp/dhclient-enter-hooks.d ]; then
        echo 'make_resolv_conf() { :; }' >/etc/dhcp/dhclient-enter-hooks.d/lab
    fi
    rm -f /etc/resolv.conf
    printf 'nameserver %s\nnameserver %s\noptions timeout:2\n' "$dns" "$dns6" >/etc/resolv.conf
}

# The lab's programs are in the package; a station has its files, and none of its services.
install_programs() {
    if [ -f "$here/tollbridge.deb" ] && [ "$here/tollbridge.deb" -nt /usr/lib/tollbridge/pyvenv.cfg ]; then
        dpkg-deb --fsys-tarfile "$here/tollbridge.deb" | tar -x -C / ./usr/lib/tollbridge
        touch /usr/lib/tollbridge/pyvenv.cfg
    fi
}
