"""Elastic networks of the ofa package: loaded whole, run at any subnet, cut to a subnet."""
