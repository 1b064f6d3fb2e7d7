"""The command line: usage and prices from files, invoices and findings to the terminal."""
