"""The Debian package, the manual pages and the completion: made from the same words as the command line."""
