"""The built-in MTA: accepts mail in the server's place, keeps it safe and delivers it.

`receive` takes messages, `spool` keeps them, `runner` decides when, `routing` and `mx` where, `delivery` and `courier`
carry them there, `dsn` tells senders what became of them. Nothing here runs while both handlers are "proxy".
"""
