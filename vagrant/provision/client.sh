#!/bin/bash
# A station on the outside wire: swaks, smtp-source and what else says SMTP. It serves nothing.
. "$(dirname "$0")/common.sh"
introduce "$1"
install_packages client
disable postfix.service
be_station "${@:2}"
