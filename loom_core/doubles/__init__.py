"""Test doubles: a server that answers by rule, and the toy model it runs."""
