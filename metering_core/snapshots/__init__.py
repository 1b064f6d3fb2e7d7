"""Logs as documents that can be kept: written, and restored whole or refused."""
