"""Drivers: one protocol, one file a vendor, each through the vendor's own client."""
