#!/bin/bash
# Inside the new Debian: its packages, its users, and what an emulated processor had better not start.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

install_packages() {
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
    apt-get update -qq
    # shellcheck disable=SC2153,SC2086 # a list of words, from build.sh
    apt-get install -y -qq $PACKAGES
    systemctl disable postfix.service nsd.service  # provisioning starts them where they belong
    apt-get clean
    rm -rf /var/lib/apt/lists/* /usr/sbin/policy-rc.d
}

add_users() {
    useradd --create-home --shell /bin/bash vagrant
    install -d -m 700 -o vagrant -g vagrant /home/vagrant/.ssh
    install -m 600 -o vagrant -g vagrant /key.pub /home/vagrant/.ssh/authorized_keys
    install -d -m 700 /root/.ssh
    install -m 600 /key.pub /root/.ssh/authorized_keys
    # RSA: 2 signatures a second under emulation
    rm -f /etc/ssh/ssh_host_rsa_key*
}

# Each would cost every emulated boot a process or more. /run/nologin is lifted by systemd-user-sessions: that one stays.
NEVER="apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer logrotate.timer
    systemd-tmpfiles-clean.timer systemd-networkd-wait-online.service systemd-timesyncd.service systemd-firstboot.service
    systemd-pcrphase.service getty-static.service getty@tty1.service serial-getty@ttyS0.service dev-hugepages.mount
    dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount
    proc-sys-fs-binfmt_misc.automount modprobe@.service kmod-static-nodes.service systemd-random-seed.service
    systemd-networkd-persistent-storage.service systemd-update-utmp.service systemd-journal-flush.service
    systemd-udev-load-credentials.service systemd-network-generator.service systemd-ask-password-console.path
    systemd-ask-password-wall.path"
GENERATORS="bless-boot cryptsetup debug gpt-auto hibernate-resume integritysetup ssh tpm2 veritysetup"

quicken() {
    # shellcheck disable=SC2086 # a list of words
    systemctl mask $NEVER
    mkdir -p /etc/systemd/system-generators
    for name in $GENERATORS; do
        ln -s /dev/null "/etc/systemd/system-generators/systemd-$name-generator"
    done
    touch /etc/.updated /var/.updated
}

forget_this_machine() {
    rm -f /etc/machine-id /var/lib/dbus/machine-id /etc/resolv.conf
    : >/etc/machine-id
}

install_packages
add_users
systemctl enable ssh.service systemd-networkd.service
quicken
forget_this_machine
