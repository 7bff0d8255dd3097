"""The Debian package, the manual pages and the completion: made from the same words as the command line.

A tool beside the product, which is neither installed nor imported. Not debhelper: what is packed is a virtual
environment of locked wheels, whose making, trimming and copyright file would be steps of our own there too; what
debhelper would do besides is to lay out a dozen files and call `dpkg-deb`. So it needs no root, no debian/ directory
and nothing but Python and dpkg. lintian and `make deb-test` hold it to the policy.
"""
