# shellcheck shell=bash
# Sourced: Postfix for one domain, whose every recipient has the mailbox /var/mail/lab/ (Maildir); with STARTTLS.
be_mta() { # HOSTNAME DOMAIN
    local certificate=/etc/ssl/lab.pem
    [ -f "$certificate" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
        -subj "/CN=$1" -addext "subjectAltName=DNS:$1" -keyout "$certificate" -out "$certificate.crt" 2>/dev/null
    chmod 600 "$certificate"
    install -d -o mail -g mail -m 700 /var/mail/lab
    cat >/etc/postfix/main.cf <<MAIN
compatibility_level = 3.6
myhostname = $1
mydestination =
mynetworks = 127.0.0.0/8 [::1]/128
inet_interfaces = all
inet_protocols = all
alias_maps =
alias_database =
biff = no
virtual_mailbox_domains = $2
virtual_mailbox_base = /var/mail
virtual_mailbox_maps = static:lab/
virtual_minimum_uid = 1
virtual_uid_maps = static:$(id -u mail)
virtual_gid_maps = static:$(id -g mail)
smtpd_tls_cert_file = $certificate.crt
smtpd_tls_key_file = $certificate
smtpd_tls_security_level = may
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
maillog_file = /var/log/mail.log
MAIN
    [ -f /etc/postfix/master.cf ] || cp /usr/share/postfix/master.cf.dist /etc/postfix/master.cf
    enable postfix.service
    systemctl restart postfix.service
}
