"""Runs real QEMU processes against migrx: guests, machines, networks, an independent stream decoder."""
