#!/bin/bash
# The mail server behind the box: example.com is its own.
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/mta.sh"
introduce "$1"
install_packages server
be_station "${@:2}"
be_mta mx.example.com example.com
